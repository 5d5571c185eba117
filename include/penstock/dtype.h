#pragma once

#include <cstdint>
#include <string_view>

namespace penstock {

/// What one element of a column is in slot memory (or, for kBytes, at the input of a transform).
enum class DType : uint8_t {
  kBool,  ///< One byte per element, 0 or 1.
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUInt8,
  kUInt16,
  kUInt32,
  kUInt64,
  kFloat16,  ///< IEEE binary16, kept as its bits.
  kFloat32,
  kFloat64,
  kDecimal128,  ///< 16 bytes, little endian two's complement, as Arrow has it. Only in format "arrow".
  kBytes,       ///< BytesView: strings and binary on their way to a number. Never in a slot.
};

/// A string or binary value that somebody else owns. Has the memory layout of parquet::ByteArray.
struct BytesView {
  uint32_t size = 0;
  const uint8_t* data = nullptr;

  std::string_view view() const { return {reinterpret_cast<const char*>(data), size}; }
};

/// Bytes per element; 16 for kBytes (the view itself).
constexpr int64_t ByteWidth(DType type) {
  switch (type) {
    case DType::kBool:
    case DType::kInt8:
    case DType::kUInt8:
      return 1;
    case DType::kInt16:
    case DType::kUInt16:
    case DType::kFloat16:
      return 2;
    case DType::kInt32:
    case DType::kUInt32:
    case DType::kFloat32:
      return 4;
    case DType::kInt64:
    case DType::kUInt64:
    case DType::kFloat64:
      return 8;
    case DType::kDecimal128:
    case DType::kBytes:
      return 16;
  }
  return 0;
}

/// The name that users see: "int32", "bool", ... ("bytes" and "decimal128" for the last two).
std::string_view DTypeName(DType type);

}  // namespace penstock

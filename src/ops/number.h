#pragma once

#include <arrow/util/float16.h>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "penstock/dtype.h"

namespace penstock {

/// C++ types of slot elements that have no C++ type of their own. Each has the size and alignment of its bits.
struct Bool {
  uint8_t byte;
};
struct Half {
  uint16_t bits;
};
struct Decimal {
  uint64_t low;
  int64_t high;
};
static_assert(sizeof(Bool) == 1 && sizeof(Half) == 2 && sizeof(Decimal) == 16);

/// Calls `visit(T{})` with the C++ type of a number or bool; `otherwise()` for kDecimal128 and kBytes.
template <typename Visit, typename Otherwise>
decltype(auto) VisitNumber(DType type, Visit&& visit, Otherwise&& otherwise) {
  switch (type) {
    case DType::kBool:
      return visit(Bool{});
    case DType::kInt8:
      return visit(int8_t{});
    case DType::kInt16:
      return visit(int16_t{});
    case DType::kInt32:
      return visit(int32_t{});
    case DType::kInt64:
      return visit(int64_t{});
    case DType::kUInt8:
      return visit(uint8_t{});
    case DType::kUInt16:
      return visit(uint16_t{});
    case DType::kUInt32:
      return visit(uint32_t{});
    case DType::kUInt64:
      return visit(uint64_t{});
    case DType::kFloat16:
      return visit(Half{});
    case DType::kFloat32:
      return visit(float{});
    case DType::kFloat64:
      return visit(double{});
    case DType::kDecimal128:
    case DType::kBytes:
      break;
  }
  return otherwise();
}

/// The DType of a C++ element type.
template <typename T>
constexpr DType DTypeOf() {
  if constexpr (std::is_same_v<T, Bool>) return DType::kBool;
  if constexpr (std::is_same_v<T, Half>) return DType::kFloat16;
  if constexpr (std::is_same_v<T, Decimal>) return DType::kDecimal128;
  if constexpr (std::is_same_v<T, BytesView>) return DType::kBytes;
  if constexpr (std::is_same_v<T, float>) return DType::kFloat32;
  if constexpr (std::is_same_v<T, double>) return DType::kFloat64;
  if constexpr (std::is_same_v<T, int8_t>) return DType::kInt8;
  if constexpr (std::is_same_v<T, int16_t>) return DType::kInt16;
  if constexpr (std::is_same_v<T, int32_t>) return DType::kInt32;
  if constexpr (std::is_same_v<T, int64_t>) return DType::kInt64;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::kUInt8;
  if constexpr (std::is_same_v<T, uint16_t>) return DType::kUInt16;
  if constexpr (std::is_same_v<T, uint32_t>) return DType::kUInt32;
  if constexpr (std::is_same_v<T, uint64_t>) return DType::kUInt64;
}

/// The value as something to calculate with: bool as uint8_t, half as float, the rest as they are.
template <typename T>
auto Arithmetic(T value) {
  if constexpr (std::is_same_v<T, Bool>) {
    return value.byte;
  } else if constexpr (std::is_same_v<T, Half>) {
    return arrow::util::Float16::FromBits(value.bits).ToFloat();
  } else {
    return value;
  }
}

template <std::floating_point From, std::integral To>
bool FloatToInteger(From value, To* out) {
  // Both bounds are powers of two (or zero): exact in every float type. NaN fails every comparison.
  constexpr From kLow = static_cast<From>(std::numeric_limits<To>::min());
  constexpr From kEnd = static_cast<From>(std::numeric_limits<To>::max() / 2 + 1) * From{2};
  const bool is_fit = value >= kLow && value < kEnd && std::trunc(value) == value;
  *out = static_cast<To>(is_fit ? value : From{0});
  return is_fit;
}

/// `value` as a To. False where it does not fit: overflow, a fraction or NaN into an integer, other than 0 and 1 into
/// bool. Rounding to a float type is no misfit, becoming infinite is.
template <typename To, typename From>
bool CastNumber(From from, To* out) {
  const auto value = Arithmetic(from);
  using Value = std::remove_const_t<decltype(value)>;
  if constexpr (std::is_same_v<To, Bool>) {
    out->byte = value == Value{1};
    return value == Value{0} || value == Value{1};
  } else if constexpr (std::is_same_v<To, Half>) {
    const auto half = arrow::util::Float16::FromDouble(static_cast<double>(value));
    out->bits = half.bits();
    return !half.is_infinity() || std::isinf(static_cast<double>(value));
  } else if constexpr (std::is_floating_point_v<To>) {
    *out = static_cast<To>(value);
    if constexpr (sizeof(To) >= sizeof(Value) || std::is_integral_v<Value>) return true;
    return !std::isinf(*out) || std::isinf(static_cast<double>(value));
  } else if constexpr (std::is_floating_point_v<Value>) {
    return FloatToInteger(value, out);
  } else {
    *out = static_cast<To>(value);
    return std::in_range<To>(value);
  }
}

constexpr bool IsFloat(DType type) {
  return type == DType::kFloat16 || type == DType::kFloat32 || type == DType::kFloat64;
}

}  // namespace penstock

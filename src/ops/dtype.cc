#include "penstock/dtype.h"

namespace penstock {

std::string_view DTypeName(DType type) {
  switch (type) {
    case DType::kBool:
      return "bool";
    case DType::kInt8:
      return "int8";
    case DType::kInt16:
      return "int16";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kUInt8:
      return "uint8";
    case DType::kUInt16:
      return "uint16";
    case DType::kUInt32:
      return "uint32";
    case DType::kUInt64:
      return "uint64";
    case DType::kFloat16:
      return "float16";
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kDecimal128:
      return "decimal128";
    case DType::kBytes:
      return "bytes";
  }
  return "unknown";
}

}  // namespace penstock

#include "ops/type_rule.h"

#include <arrow/extension/fixed_shape_tensor.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/checked_cast.h>

#include <algorithm>

namespace penstock {
namespace {

using arrow::internal::checked_cast;
using TensorType = arrow::extension::FixedShapeTensorType;

const TensorType* AsTensor(const arrow::DataType& type) {
  if (type.id() != arrow::Type::EXTENSION) return nullptr;
  return dynamic_cast<const TensorType*>(&type);
}

bool IsRowMajor(const TensorType& tensor) { return std::ranges::is_sorted(tensor.permutation()); }

arrow::Status NoRule(const arrow::DataType& type) {
  using arrow::Type;
  switch (type.id()) {
    case Type::LIST:
    case Type::LARGE_LIST:
    case Type::LIST_VIEW:
    case Type::LARGE_LIST_VIEW:
      return arrow::Status::TypeError(type.ToString(),
                                      ": ops of single values take no rows of varying length; with "
                                      "ps.ops.pad_list(length) or ps.ops.pack(length) in the chain they run on the "
                                      "items, and without ops lists come as values and offsets");
    case Type::MAP:
      return arrow::Status::TypeError(type.ToString(),
                                      ": no op takes maps; without ops format=\"arrow\" and \"pandas\" carry them");
    case Type::STRUCT:
      return arrow::Status::TypeError(
          type.ToString(), ": no op takes structs; name one of their fields as the input (\"struct.field\")");
    case Type::NA:
      return arrow::Status::TypeError("type null holds no values and no op takes it; leave the column out (columns=)");
    default:
      return arrow::Status::TypeError(type.ToString(),
                                      " has no tensor form and no op takes it; leave the column out "
                                      "(columns=)");
  }
}

// Lists, tensors, extension types and the dictionary off; what remains is rule->leaf.
arrow::Status TakeApart(std::shared_ptr<arrow::DataType> type, TypeRule* rule) {
  for (;;) {
    if (const TensorType* tensor = AsTensor(*type)) {
      if (!IsRowMajor(*tensor)) return arrow::Status::TypeError(type->ToString(), ": permuted tensors have no rule");
      const auto storage = tensor->storage_type();
      const auto& list = checked_cast<const arrow::FixedSizeListType&>(*storage);
      rule->list_sizes.push_back(list.list_size());
      rule->shape.insert(rule->shape.end(), tensor->shape().begin(), tensor->shape().end());
      rule->is_nullable |= list.value_field()->nullable();
      type = list.value_type();
    } else if (type->id() == arrow::Type::EXTENSION) {
      type = checked_cast<const arrow::ExtensionType&>(*type).storage_type();
    } else if (type->id() == arrow::Type::FIXED_SIZE_LIST) {
      const auto& list = checked_cast<const arrow::FixedSizeListType&>(*type);
      rule->list_sizes.push_back(list.list_size());
      rule->shape.push_back(list.list_size());
      rule->is_nullable |= list.value_field()->nullable();
      type = list.value_type();
    } else {
      break;
    }
  }
  rule->is_dictionary = type->id() == arrow::Type::DICTIONARY;
  if (rule->is_dictionary) type = StorageType(checked_cast<const arrow::DictionaryType&>(*type).value_type());
  rule->leaf = std::move(type);
  return arrow::Status::OK();
}

void Accept(TypeRule* rule, DType span, std::shared_ptr<const Kernel> kernel = nullptr) {
  rule->decoders[static_cast<size_t>(span)] = {true, std::move(kernel)};
}

arrow::Status SetDecimal(TypeRule* rule, bool keeps_form) {
  const auto& type = checked_cast<const arrow::DecimalType&>(*rule->leaf);
  const bool is_wide = type.id() == arrow::Type::DECIMAL256;
  if (keeps_form && is_wide) {
    return arrow::Status::TypeError(type.ToString(), " cannot be carried as it is; use ps.ops.cast(\"float64\")");
  }
  rule->natural = keeps_form ? DType::kDecimal128 : DType::kFloat64;
  for (const DType span : {DType::kInt32, DType::kInt64, DType::kBytes}) {
    Accept(rule, span, keeps_form ? MakeDecimalWiden(span) : MakeDecimalToDouble(span, type.scale()));
  }
  Accept(rule, DType::kDecimal128, keeps_form ? nullptr : MakeDecimalToDouble(DType::kDecimal128, type.scale()));
  return arrow::Status::OK();
}

void SetDate64(TypeRule* rule, bool keeps_form) {
  rule->natural = keeps_form ? DType::kInt64 : DType::kInt32;
  // Parquet stores a date64 as days.
  Accept(rule, DType::kInt32, keeps_form ? MakeDaysToMillis() : nullptr);
  Accept(rule, DType::kInt64, keeps_form ? nullptr : MakeMillisToDays());
}

// Numbers that are what they are; Parquet has no integers narrower than 32 bits and no unsigned ones.
arrow::Status SetNumber(TypeRule* rule, DType type) {
  rule->natural = type;
  Accept(rule, type);
  if (type == DType::kUInt32) Accept(rule, DType::kInt32);
  if (type == DType::kUInt64) Accept(rule, DType::kInt64);
  const bool is_narrow_integer = ByteWidth(type) < 4 && type != DType::kBool && type != DType::kFloat16;
  if (is_narrow_integer) {
    ARROW_ASSIGN_OR_RAISE(auto narrow, MakeCast(DType::kInt32, type));
    Accept(rule, DType::kInt32, std::move(narrow));
  }
  return arrow::Status::OK();
}

}  // namespace

std::optional<DType> PhysicalType(const arrow::DataType& type) {
  using arrow::Type;
  switch (type.id()) {
    case Type::BOOL:
      return DType::kBool;
    case Type::INT8:
      return DType::kInt8;
    case Type::INT16:
      return DType::kInt16;
    case Type::INT32:
    case Type::DATE32:
    case Type::TIME32:
    case Type::DECIMAL32:
      return DType::kInt32;
    case Type::INT64:
    case Type::DATE64:
    case Type::TIME64:
    case Type::TIMESTAMP:
    case Type::DURATION:
    case Type::DECIMAL64:
      return DType::kInt64;
    case Type::UINT8:
      return DType::kUInt8;
    case Type::UINT16:
      return DType::kUInt16;
    case Type::UINT32:
      return DType::kUInt32;
    case Type::UINT64:
      return DType::kUInt64;
    case Type::HALF_FLOAT:
      return DType::kFloat16;
    case Type::FLOAT:
      return DType::kFloat32;
    case Type::DOUBLE:
      return DType::kFloat64;
    case Type::DECIMAL128:
      return DType::kDecimal128;
    case Type::DECIMAL256:
    case Type::STRING:
    case Type::LARGE_STRING:
    case Type::STRING_VIEW:
    case Type::BINARY:
    case Type::LARGE_BINARY:
    case Type::BINARY_VIEW:
    case Type::FIXED_SIZE_BINARY:
      return DType::kBytes;
    default:
      return std::nullopt;
  }
}

std::shared_ptr<arrow::DataType> StorageType(std::shared_ptr<arrow::DataType> type) {
  while (type->id() == arrow::Type::EXTENSION) {
    type = checked_cast<const arrow::ExtensionType&>(*type).storage_type();
  }
  return type;
}

arrow::Result<TypeRule> MakeTypeRule(const arrow::Field& input, bool keeps_form) {
  TypeRule rule;
  rule.is_nullable = input.nullable();
  ARROW_RETURN_NOT_OK(TakeApart(input.type(), &rule));
  const std::optional<DType> physical = PhysicalType(*rule.leaf);
  if (!physical) return NoRule(*rule.leaf);
  if (arrow::is_decimal(rule.leaf->id())) {
    ARROW_RETURN_NOT_OK(SetDecimal(&rule, keeps_form));
  } else if (rule.leaf->id() == arrow::Type::DATE64) {
    SetDate64(&rule, keeps_form);
  } else {
    ARROW_RETURN_NOT_OK(SetNumber(&rule, *physical));
  }
  return rule;
}

std::shared_ptr<arrow::DataType> PlainType(DType type) {
  switch (type) {
    case DType::kBool:
      return arrow::boolean();
    case DType::kInt8:
      return arrow::int8();
    case DType::kInt16:
      return arrow::int16();
    case DType::kInt32:
      return arrow::int32();
    case DType::kInt64:
      return arrow::int64();
    case DType::kUInt8:
      return arrow::uint8();
    case DType::kUInt16:
      return arrow::uint16();
    case DType::kUInt32:
      return arrow::uint32();
    case DType::kUInt64:
      return arrow::uint64();
    case DType::kFloat16:
      return arrow::float16();
    case DType::kFloat32:
      return arrow::float32();
    case DType::kFloat64:
      return arrow::float64();
    case DType::kDecimal128:
      return arrow::decimal128(38, 0);
    case DType::kBytes:
      return arrow::binary();
  }
  return arrow::null();
}

std::shared_ptr<arrow::DataType> WithLeaf(const std::shared_ptr<arrow::DataType>& source,
                                          std::shared_ptr<arrow::DataType> leaf) {
  if (const TensorType* tensor = AsTensor(*source)) {
    auto type = WithLeaf(tensor->value_type(), std::move(leaf));
    for (auto extent = tensor->shape().rbegin(); extent != tensor->shape().rend(); ++extent) {
      type = arrow::fixed_size_list(std::move(type), static_cast<int32_t>(*extent));
    }
    return type;
  }
  const auto storage = StorageType(source);
  if (storage->id() != arrow::Type::FIXED_SIZE_LIST) return leaf;
  const auto& list = checked_cast<const arrow::FixedSizeListType&>(*storage);
  auto inner = WithLeaf(list.value_type(), std::move(leaf));
  return arrow::fixed_size_list(list.value_field()->WithType(std::move(inner)), list.list_size());
}

}  // namespace penstock

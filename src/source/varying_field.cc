#include "source/varying_field.h"

#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/checked_cast.h>

#include <utility>

#include "batch/varying_column.h"
#include "ops/type_rule.h"

namespace penstock {
namespace {

using arrow::Type;

bool IsBytes(const arrow::DataType& type) {
  return arrow::is_base_binary_like(type.id()) || arrow::is_binary_view_like(type.id()) ||
         type.id() == Type::FIXED_SIZE_BINARY;
}

bool IsAnyList(const arrow::DataType& type) {
  return type.id() != Type::MAP && (arrow::is_var_length_list_like(type.id()) || type.id() == Type::FIXED_SIZE_LIST);
}

/// Strings and binary, and lists of them.
bool HoldsBytes(const arrow::DataType& type) {
  auto at = StorageType(type.GetSharedPtr());
  for (;;) {
    if (at->id() == Type::DICTIONARY) {
      at = StorageType(arrow::internal::checked_cast<const arrow::DictionaryType&>(*at).value_type());
    } else if (IsAnyList(*at)) {
      at = StorageType(at->field(0)->type());
    } else {
      return IsBytes(*at);
    }
  }
}

/// Whether a Converter carries all of it in a record batch.
bool IsConvertible(const arrow::Field& field) {
  const arrow::DataType& type = *field.type();
  if (type.id() == Type::FIXED_SIZE_LIST) {
    const arrow::Field& item = *type.field(0);
    return !field.nullable() && item.type()->id() != Type::DICTIONARY && IsConvertible(item);
  }
  const auto physical = PhysicalType(type);
  return physical && *physical != DType::kBytes;
}

arrow::Status NoTensorForm(const arrow::DataType& type) {
  return arrow::Status::TypeError(type.ToString(),
                                  " has no form as a tensor and no op takes it; use format=\"arrow\" or \"pandas\", "
                                  "which carry it, or leave the column out (columns=)");
}

}  // namespace

bool IsVarying(const arrow::Field& field) {
  const auto type = StorageType(field.type());
  if (type->id() == Type::DICTIONARY) return false;
  if (type->id() == Type::FIXED_SIZE_LIST) return IsVarying(*type->field(0));
  return !PhysicalType(*type) || IsBytes(*type);
}

bool NeedsArray(const arrow::Field& field) {
  if (field.type()->id() == Type::DICTIONARY) return false;
  return !IsConvertible(field);
}

arrow::Result<Field> VaryingField(const std::string& name, const Preparation& preparation, Layout layout,
                                  const NullPolicy& nulls) {
  const arrow::Field& input = *preparation.field();
  const bool holds_bytes = HoldsBytes(*input.type());
  const bool is_tensor = layout == Layout::kTensor;
  VaryingColumn::Options options;
  options.has_masks = !is_tensor || nulls.otherwise == NullPolicy::Kind::kMask;
  options.as_tensors = is_tensor && !holds_bytes;
  auto made = VaryingColumn::Make(input, options);
  if (!made.ok()) return made.status();
  const auto form = options.as_tensors ? (*made)->ragged() : std::nullopt;
  if (options.as_tensors && !form) return NoTensorForm(*input.type());
  Field field;
  field.name = name;
  field.form = form ? Form::kRagged : Form::kArrow;
  field.varying = *made;
  field.arrow_type = field.varying->type();
  field.has_mask = options.has_masks && input.nullable();
  if (!form) return field;
  field.dtype = form->dtype;
  field.shape = form->shape;
  field.tensor_ndim = preparation.tensor_ndim();
  for (const RaggedForm::Level& level : form->levels) field.level_masks.push_back(level.mask >= 0);
  field.level_masks.push_back(form->mask >= 0);
  return field;
}

}  // namespace penstock

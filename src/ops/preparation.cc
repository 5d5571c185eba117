#include "ops/preparation.h"

#include <arrow/array/array_base.h>
#include <arrow/array/array_nested.h>
#include <arrow/array/util.h>
#include <arrow/compute/api_vector.h>
#include <arrow/compute/cast.h>
#include <arrow/compute/initialize.h>
#include <arrow/datum.h>
#include <arrow/extension/variable_shape_tensor.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/checked_cast.h>
#include <arrow/util/key_value_metadata.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "ops/preparation_steps.h"
#include "ops/type_rule.h"

namespace penstock {
namespace {

using arrow::Type;
using arrow::internal::checked_cast;
using ArrayPtr = std::shared_ptr<arrow::Array>;
using FieldPtr = std::shared_ptr<arrow::Field>;

bool IsList(const arrow::DataType& type) { return arrow::is_var_length_list_like(type.id()) && type.id() != Type::MAP; }

/// Run ends and dictionaries to values; arrays of nothing to missing float32.
class DecodeStep final : public Preparation::Step {
 public:
  arrow::Result<ArrayPtr> Run(const ArrayPtr& array, arrow::MemoryPool* pool) const override {
    if (array->type_id() == Type::NA) return arrow::MakeArrayOfNull(arrow::float32(), array->length(), pool);
    arrow::compute::ExecContext context(pool);
    if (array->type_id() == Type::DICTIONARY) {
      const auto& type = checked_cast<const arrow::DictionaryType&>(*array->type()).value_type();
      return arrow::compute::Cast(*array, type, arrow::compute::CastOptions::Safe(), &context);
    }
    ARROW_ASSIGN_OR_RAISE(const arrow::Datum decoded, arrow::compute::RunEndDecode(arrow::Datum(array), &context));
    return decoded.make_array();
  }
};

class TakeFieldStep final : public Preparation::Step {
 public:
  explicit TakeFieldStep(std::vector<std::string> path) : path_(std::move(path)) {}

  arrow::Result<ArrayPtr> Run(const ArrayPtr& array, arrow::MemoryPool* pool) const override {
    return Take(array, 0, pool);
  }

 private:
  arrow::Result<ArrayPtr> Take(const ArrayPtr& array, size_t depth, arrow::MemoryPool* pool) const {
    if (depth == path_.size()) return array;
    if (IsList(*array->type())) {
      auto data = array->data()->Copy();
      ARROW_ASSIGN_OR_RAISE(const auto items, Take(arrow::MakeArray(data->child_data[0]), depth, pool));
      const auto item = data->type->field(0)->WithType(items->type())->WithNullable(true);
      data->child_data[0] = items->data();
      switch (data->type->id()) {
        case Type::LIST:
          data->type = arrow::list(item);
          break;
        case Type::LARGE_LIST:
          data->type = arrow::large_list(item);
          break;
        case Type::LIST_VIEW:
          data->type = arrow::list_view(item);
          break;
        default:
          data->type = arrow::large_list_view(item);
      }
      return arrow::MakeArray(std::move(data));
    }
    if (array->type_id() != Type::STRUCT) {
      return arrow::Status::TypeError("an array of ", array->type()->ToString(), " came where a struct was promised");
    }
    const auto& structs = checked_cast<const arrow::StructArray&>(*array);
    const int field = structs.struct_type()->GetFieldIndex(path_[depth]);
    if (field < 0) return arrow::Status::KeyError("the struct has no field '", path_[depth], "' here");
    ARROW_ASSIGN_OR_RAISE(const ArrayPtr child, structs.GetFlattenedField(field, pool));
    return Take(child, depth + 1, pool);
  }

  const std::vector<std::string> path_;
};

arrow::Result<FieldPtr> FieldAt(const FieldPtr& field, const std::vector<std::string>& path, size_t depth) {
  if (depth == path.size()) return field;
  const arrow::DataType& type = *field->type();
  if (IsList(type)) {
    ARROW_ASSIGN_OR_RAISE(FieldPtr item, FieldAt(type.field(0), path, depth));
    item = item->WithName(type.field(0)->name())->WithNullable(true);
    switch (type.id()) {
      case Type::LIST:
        return field->WithType(arrow::list(item));
      case Type::LARGE_LIST:
        return field->WithType(arrow::large_list(item));
      case Type::LIST_VIEW:
        return field->WithType(arrow::list_view(item));
      default:
        return field->WithType(arrow::large_list_view(item));
    }
  }
  if (type.id() != Type::STRUCT) return arrow::Status::KeyError(type.ToString(), " has no fields");
  const FieldPtr child = checked_cast<const arrow::StructType&>(type).GetFieldByName(path[depth]);
  if (child == nullptr) return arrow::Status::KeyError(type.ToString(), " has no field '", path[depth], "'");
  ARROW_ASSIGN_OR_RAISE(const FieldPtr found, FieldAt(child, path, depth + 1));
  return found->WithNullable(found->nullable() || field->nullable());
}

/// The numbers of the first innermost list in a JSON text: "[3, 4]", "[[3, 4], \"int32\"]"; null is -1.
std::optional<std::vector<int64_t>> ParseExtents(const std::string& json) {
  const size_t begin = json.find_last_of('[');
  const size_t end = json.find(']');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return std::nullopt;
  std::vector<int64_t> extents;
  for (size_t at = begin + 1; at < end;) {
    const size_t comma = std::min(json.find(',', at), end);
    const size_t word = json.find_first_not_of(" \t", at);
    int64_t extent = -1;
    if (json.compare(word, 4, "null") != 0) {
      const auto [rest, error] = std::from_chars(json.data() + word, json.data() + comma, extent);
      if (error != std::errc() || extent < 0 || rest == json.data() + word) return std::nullopt;
    }
    extents.push_back(extent);
    at = comma + 1;
  }
  if (extents.empty()) return std::nullopt;
  return extents;
}

/// Name and metadata of an extension type, known to this process or not.
std::pair<std::string, std::string> ExtensionOf(const arrow::Field& field) {
  if (field.type()->id() == Type::EXTENSION) {
    const auto& type = checked_cast<const arrow::ExtensionType&>(*field.type());
    return {type.extension_name(), type.Serialize()};
  }
  if (field.metadata() == nullptr) return {};
  return {field.metadata()->Get("ARROW:extension:name").ValueOr(""),
          field.metadata()->Get("ARROW:extension:metadata").ValueOr("")};
}

bool IsHuggingFaceArray(const std::string& name) {
  return name.starts_with("datasets.features.") && name.ends_with("DExtensionType");
}

}  // namespace

arrow::Status Preparation::TakeField(const std::vector<std::string>& path) {
  if (path.empty()) return arrow::Status::OK();
  ARROW_ASSIGN_OR_RAISE(FieldPtr field, FieldAt(field_, path, 0));
  Add(std::make_shared<TakeFieldStep>(path), std::move(field));
  return arrow::Status::OK();
}

arrow::Status Preparation::DecodeDictionary() {
  if (field_->type()->id() != Type::DICTIONARY) return arrow::Status::OK();
  ARROW_RETURN_NOT_OK(arrow::compute::Initialize());
  const auto& values = checked_cast<const arrow::DictionaryType&>(*field_->type()).value_type();
  Add(std::make_shared<DecodeStep>(), field_->WithType(values));
  return arrow::Status::OK();
}

arrow::Status Preparation::MakeFixedTensor(const std::string& metadata, bool is_flat) {
  const auto extents = ParseExtents(metadata);
  if (!extents) return arrow::Status::OK();  // Written by something else: lists they are.
  auto type = StorageType(field_->type());
  FieldPtr item;
  for (size_t level = 0; level < (is_flat ? 1 : extents->size()); ++level) {
    if (!IsList(*type)) return arrow::Status::OK();
    item = type->field(0);
    type = item->type();
  }
  for (size_t level = extents->size(); level-- > 0;) {
    const int64_t extent = (*extents)[level];
    const FieldPtr child = level + 1 == extents->size() ? item : arrow::field("item", type);
    type = extent < 0 ? arrow::large_list(child) : arrow::fixed_size_list(child, static_cast<int32_t>(extent));
  }
  Add(ListsToFixed(*extents, is_flat), field_->WithType(type));
  return arrow::Status::OK();
}

arrow::Status Preparation::MakeVariableTensor(int ndim) {
  const auto storage = StorageType(field_->type());
  const bool is_pair = storage->id() == Type::STRUCT && storage->num_fields() == 2 &&
                       IsList(*storage->field(0)->type()) && storage->field(0)->name() == "data";
  if (!is_pair || ndim < 1) return arrow::Status::TypeError(storage->ToString(), " is no storage of tensors");
  const FieldPtr item = storage->field(0)->type()->field(0);
  const auto shape = arrow::fixed_size_list(arrow::field("item", arrow::int64(), false), ndim);
  Add(CheckTensors(ndim), field_->WithType(arrow::struct_({arrow::field("data", arrow::large_list(item), false),
                                                           arrow::field("shape", shape, false)})));
  tensor_ndim_ = ndim;
  return arrow::Status::OK();
}

arrow::Status Preparation::MakeTensors() {
  const auto [name, metadata] = ExtensionOf(*field_);
  if (name == "ray.data.arrow_tensor" || name == "ray.data.arrow_tensor_v2") return MakeFixedTensor(metadata, true);
  if (IsHuggingFaceArray(name)) return MakeFixedTensor(metadata, false);
  if (name == "ray.data.arrow_variable_shaped_tensor") {
    int ndim = 0;
    std::from_chars(metadata.data(), metadata.data() + metadata.size(), ndim);
    return MakeVariableTensor(ndim);
  }
  if (const auto* tensor = dynamic_cast<const arrow::extension::VariableShapeTensorType*>(field_->type().get())) {
    if (!std::ranges::is_sorted(tensor->permutation())) {
      return arrow::Status::TypeError(field_->type()->ToString(),
                                      ": permuted tensors have no rule; use format=\"arrow\"");
    }
    return MakeVariableTensor(static_cast<int>(tensor->ndim()));
  }
  const auto storage = StorageType(field_->type());
  if (name == "arrow.variable_shape_tensor" && storage->id() == Type::STRUCT && storage->num_fields() == 2 &&
      storage->field(1)->type()->id() == Type::FIXED_SIZE_LIST) {
    return MakeVariableTensor(checked_cast<const arrow::FixedSizeListType&>(*storage->field(1)->type()).list_size());
  }
  if (storage->id() == Type::NA) {
    Add(std::make_shared<DecodeStep>(), field_->WithType(arrow::float32())->WithNullable(true));
  }
  if (storage->id() == Type::RUN_END_ENCODED) {
    ARROW_RETURN_NOT_OK(arrow::compute::Initialize());
    const auto& values = checked_cast<const arrow::RunEndEncodedType&>(*storage).value_type();
    Add(std::make_shared<DecodeStep>(), field_->WithType(values));
  }
  return arrow::Status::OK();
}

arrow::Result<ArrayPtr> Preparation::Run(ArrayPtr array, arrow::MemoryPool* pool) const {
  for (const auto& step : steps_) {
    ARROW_ASSIGN_OR_RAISE(array, step->Run(array, pool));
  }
  return array;
}

}  // namespace penstock

// What is put where something is missing.
#include <arrow/array/array_base.h>
#include <arrow/array/array_nested.h>
#include <arrow/array/util.h>
#include <arrow/compute/api_scalar.h>
#include <arrow/compute/cast.h>
#include <arrow/compute/exec.h>
#include <arrow/compute/initialize.h>
#include <arrow/datum.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>

#include <array>
#include <utility>

#include "ops/flatten.h"
#include "ops/kernels.h"
#include "ops/list_reader.h"
#include "ops/message.h"
#include "ops/preparation.h"
#include "ops/type_rule.h"

namespace penstock {
namespace {

using arrow::Type;
using ArrayPtr = std::shared_ptr<arrow::Array>;

bool IsText(const arrow::DataType& type) {
  return arrow::is_base_binary_like(type.id()) || arrow::is_binary_view_like(type.id());
}

class FillStep final : public Preparation::Step {
 public:
  explicit FillStep(std::shared_ptr<arrow::Scalar> value) : value_(std::move(value)) {}

  arrow::Result<ArrayPtr> Run(const ArrayPtr& array, arrow::MemoryPool* pool) const override {
    if (array->null_count() == 0) return array;
    arrow::compute::ExecContext context(pool);
    // Views are not taken by the function below.
    const auto& type = value_->type;
    ARROW_ASSIGN_OR_RAISE(const ArrayPtr plain,
                          arrow::compute::Cast(*array, type, arrow::compute::CastOptions::Safe(), &context));
    ARROW_ASSIGN_OR_RAISE(const arrow::Datum filled,
                          arrow::compute::CallFunction("coalesce", {plain, value_}, &context));
    return filled.make_array();
  }

 private:
  const std::shared_ptr<arrow::Scalar> value_;
};

/// Lists of numbers: missing items become the value, missing lists are empty.
class FillItemsStep final : public Preparation::Step {
 public:
  FillItemsStep(std::shared_ptr<arrow::Scalar> value, std::shared_ptr<arrow::DataType> lists)
      : value_(std::move(value)), lists_(std::move(lists)) {}

  arrow::Result<ArrayPtr> Run(const ArrayPtr& array, arrow::MemoryPool* pool) const override {
    ARROW_ASSIGN_OR_RAISE(const ListReader reader, ListReader::Open(*array->data()));
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> offsets,
                          arrow::AllocateBuffer((array->length() + 1) * int64_t{sizeof(int64_t)}, pool));
    auto* begins = reinterpret_cast<int64_t*>(offsets->mutable_data());
    begins[0] = 0;
    for (int64_t row = 0; row < array->length(); ++row) begins[row + 1] = begins[row] + reader.At(row).size;
    ARROW_ASSIGN_OR_RAISE(ArrayPtr items, FlattenLists(*array, pool));
    if (items->null_count() > 0) {
      arrow::compute::ExecContext context(pool);
      ARROW_ASSIGN_OR_RAISE(const arrow::Datum filled,
                            arrow::compute::CallFunction("coalesce", {items, value_}, &context));
      items = filled.make_array();
    }
    return std::make_shared<arrow::LargeListArray>(lists_, array->length(), std::move(offsets), std::move(items));
  }

 private:
  const std::shared_ptr<arrow::Scalar> value_;
  const std::shared_ptr<arrow::DataType> lists_;
};

arrow::Result<std::shared_ptr<arrow::Scalar>> NumberScalar(const ops::FillNull& value,
                                                           const std::shared_ptr<arrow::DataType>& type) {
  const auto dtype = PhysicalType(*type);
  std::array<uint8_t, 16> bytes{};
  ARROW_RETURN_NOT_OK(EncodeFill(value, *dtype, bytes.data()));
  if (*dtype == DType::kBool) return std::make_shared<arrow::BooleanScalar>(bytes[0] != 0);
  auto buffer = std::make_shared<arrow::Buffer>(bytes.data(), ByteWidth(*dtype));
  return arrow::MakeArray(arrow::ArrayData::Make(type, 1, {nullptr, std::move(buffer)}, 0))->GetScalar(0);
}

bool IsListOfNumbers(const arrow::DataType& type) {
  if (!arrow::is_var_length_list_like(type.id()) || type.id() == Type::MAP) return false;
  const Type::type item = type.field(0)->type()->id();
  return arrow::is_integer(item) || arrow::is_floating(item) || item == Type::BOOL;
}

}  // namespace

arrow::Status Preparation::Fill(const ops::FillNull& value) {
  ARROW_RETURN_NOT_OK(arrow::compute::Initialize());
  const arrow::DataType& type = *StorageType(field_->type());
  if (IsListOfNumbers(type)) {
    const auto item = type.field(0)->WithNullable(false);
    ARROW_ASSIGN_OR_RAISE(auto scalar, NumberScalar(value, item->type()));
    auto lists = arrow::large_list(item);
    Add(std::make_shared<FillItemsStep>(std::move(scalar), lists), field_->WithType(lists)->WithNullable(false));
    return arrow::Status::OK();
  }
  if (!IsText(type)) {
    return arrow::Status::TypeError(type.ToString(),
                                    ": a value cannot be put where a row is missing; use nulls=\"mask\"");
  }
  if (!value.text) return arrow::Status::TypeError(type.ToString(), " is filled with a text, not a number");
  const bool is_view = arrow::is_binary_view_like(type.id());
  const auto wide = type.id() == Type::STRING_VIEW ? arrow::large_utf8() : arrow::large_binary();
  const auto plain = is_view ? wide : type.GetSharedPtr();
  const arrow::Datum text(std::make_shared<arrow::StringScalar>(*value.text));
  ARROW_ASSIGN_OR_RAISE(const arrow::Datum cast, arrow::compute::Cast(text, plain));
  Add(std::make_shared<FillStep>(cast.scalar()), field_->WithType(plain)->WithNullable(false));
  return arrow::Status::OK();
}

}  // namespace penstock

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

#include <utility>

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

}  // namespace

arrow::Status Preparation::Fill(const ops::FillNull& value) {
  ARROW_RETURN_NOT_OK(arrow::compute::Initialize());
  const arrow::DataType& type = *StorageType(field_->type());
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

#include <arrow/array/array_base.h>
#include <arrow/array/util.h>
#include <arrow/buffer.h>
#include <arrow/scalar.h>
#include <arrow/type.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "ops/compiled_converter.h"
#include "penstock/custom_op.h"

namespace penstock {
namespace {

// What an op gives for the rows of one call, where further ops follow; a larger row is a call of its own.
constexpr int64_t kCallBytes = 64 << 10;

/// Rows through an op of the user's, and what it gives through the chain.
class CustomConverter final : public CompiledConverter {
 public:
  using CompiledConverter::CompiledConverter;

  bool takes_arrays_only() const override { return true; }
  bool is_dear() const override { return op().is_dear() || CompiledConverter::is_dear(); }

  arrow::Status ConvertArray(const arrow::Array& array, int64_t offset, int64_t length, const RowKey& key,
                             SlotTarget target) const override {
    if (!array.type()->Equals(*field_.source_type)) {
      return arrow::Status::TypeError("an array of ", array.type()->ToString(), " came where ",
                                      field_.source_type->ToString(), " was promised");
    }
    if (length == 0) return arrow::Status::OK();
    Spend(key, length);
    if (chain().kernels.empty()) return Apply(array, offset, length, key, target.values);
    const int64_t row_bytes = items() * ByteWidth(op_type());
    const int64_t call_rows = std::clamp<int64_t>(kCallBytes / row_bytes, 1, length);
    ARROW_ASSIGN_OR_RAISE(const auto buffer, arrow::AllocateBuffer(call_rows * row_bytes));
    for (int64_t done = 0; done < length; done += call_rows) {
      const int64_t n = std::min(call_rows, length - done);
      ARROW_RETURN_NOT_OK(Apply(array, offset + done, n, key.Advance(done), buffer->mutable_data()));
      const ValueSpan span{op_type(), buffer->data(), nullptr, n * items()};
      ARROW_RETURN_NOT_OK(ConvertSpan(span, 0, key.Advance(done), Advance(target, done * items())));
    }
    return arrow::Status::OK();
  }

  arrow::Status ConvertConstant(const arrow::Scalar& value, int64_t length, SlotTarget target) const override {
    if (length == 0) return arrow::Status::OK();
    ARROW_ASSIGN_OR_RAISE(const auto array, value.is_valid ? arrow::MakeArrayFromScalar(value, 1)
                                                           : arrow::MakeArrayOfNull(value.type, 1));
    ARROW_RETURN_NOT_OK(ConvertArray(*array, 0, 1, 0, target));
    RepeatRow(length, target);
    return arrow::Status::OK();
  }

 private:
  const CustomOp& op() const { return *chain().intake.custom; }
  DType op_type() const { return chain().rule.natural; }

  arrow::Status Apply(const arrow::Array& array, int64_t offset, int64_t rows, const RowKey& key, uint8_t* out) const {
    const arrow::Status status = op().Apply(*array.Slice(offset, rows), key, out);
    if (status.ok()) return status;
    return status.WithMessage(Where(status, key, rows), ": ", op().name(), ": ", status.message());
  }

  static std::string Where(const arrow::Status& status, const RowKey& key, int64_t rows) {
    const arrow::StatusDetail* detail = status.detail().get();
    // By name: the detail may come from another shared object, where the type is another.
    if (detail != nullptr && std::strcmp(detail->type_id(), RowDetail::kTypeId) == 0) {
      return "row " + std::to_string(key.row(static_cast<const RowDetail*>(detail)->row()));
    }
    if (rows == 1) return "row " + std::to_string(key.row(0));
    return "rows " + std::to_string(key.row(0)) + " to " + std::to_string(key.row(rows - 1));
  }
};

}  // namespace

std::shared_ptr<const Converter> MakeCustomConverter(Field field, Chain chain, const NullPolicy& nulls, Layout layout) {
  return std::make_shared<const CustomConverter>(std::move(field), std::move(chain), nulls, layout);
}

}  // namespace penstock

#include <arrow/array/array_binary.h>
#include <arrow/memory_pool.h>
#include <arrow/type.h>

#include <string_view>

#include "image/arena.h"
#include "image/compiled.h"

namespace penstock::image {

class Transform final : public CustomOp {
 public:
  explicit Transform(Plan plan) : plan_(std::move(plan)) {}

  std::string name() const override { return "image"; }
  bool is_dear() const override { return true; }

  arrow::Result<Output> OutputFor(const arrow::Field& input) const override {
    switch (input.type()->id()) {
      case arrow::Type::BINARY:
      case arrow::Type::LARGE_BINARY:
      case arrow::Type::BINARY_VIEW:
        return Output{plan_.dtype(), plan_.shape()};
      default:
        return arrow::Status::TypeError("images are a column of binary values, not of ", input.type()->ToString(),
                                        input.type()->id() == arrow::Type::STRUCT
                                            ? "; take the field that has them: ps.col(\"" + input.name() + ".bytes\")"
                                            : "");
    }
  }

  arrow::Status Apply(const arrow::Array& rows, const RowKey& key, uint8_t* out) const override {
    switch (rows.type_id()) {
      case arrow::Type::LARGE_BINARY:
        return ApplyTo(static_cast<const arrow::LargeBinaryArray&>(rows), key, out);
      case arrow::Type::BINARY_VIEW:
        return ApplyTo(static_cast<const arrow::BinaryViewArray&>(rows), key, out);
      default:
        return ApplyTo(static_cast<const arrow::BinaryArray&>(rows), key, out);
    }
  }

 private:
  template <typename ArrayType>
  arrow::Status ApplyTo(const ArrayType& rows, const RowKey& key, uint8_t* out) const {
    int64_t row_bytes = ByteWidth(plan_.dtype());
    for (int64_t extent : plan_.shape()) row_bytes *= extent;
    Arena arena(key.pool != nullptr ? key.pool : arrow::default_memory_pool());
    for (int64_t i = 0; i < rows.length(); ++i) {
      if (rows.IsNull(i)) return RowError(i, arrow::Status::Invalid("the image is missing; pass on_error=\"skip\""));
      const std::string_view bytes = rows.GetView(i);
      const arrow::Status status = plan_.compiled_->Run({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                                                        key.Advance(i), out + i * row_bytes, BestPasses(), &arena);
      if (!status.ok()) return RowError(i, status);
      arena.Reset();
    }
    return arrow::Status::OK();
  }

  const Plan plan_;
};

std::shared_ptr<const CustomOp> MakeTransform(Plan plan) { return std::make_shared<const Transform>(std::move(plan)); }

}  // namespace penstock::image

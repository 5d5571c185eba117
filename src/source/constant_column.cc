#include "source/constant_column.h"

#include <arrow/array/util.h>
#include <arrow/buffer.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <arrow/type_traits.h>

#include <algorithm>
#include <utility>

namespace penstock {
namespace {

bool IsArray(const OutputColumn& output) { return output.partition_index >= 0 && !output.is_constant(); }

const std::shared_ptr<arrow::Scalar>& ValueOf(const OutputColumn& output, const arrow::ScalarVector& partition_values) {
  return partition_values.at(static_cast<size_t>(output.partition_index));
}

}  // namespace

ConstantColumns::ConstantColumns(const Projection& projection, const std::vector<int>& outputs,
                                 const arrow::ScalarVector& partition_values) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const OutputColumn& output = projection.outputs[static_cast<size_t>(outputs[i])];
    if (!IsArray(output)) continue;
    columns_.push_back({static_cast<int>(i), output.input_field, ValueOf(output, partition_values)});
  }
}

arrow::Result<std::shared_ptr<arrow::RecordBatch>> ConstantColumns::AddTo(std::shared_ptr<arrow::RecordBatch> rows,
                                                                          arrow::MemoryPool* pool) const {
  for (const Column& column : columns_) {
    ARROW_ASSIGN_OR_RAISE(const auto array, arrow::MakeArrayFromScalar(*column.value, rows->num_rows(), pool));
    ARROW_ASSIGN_OR_RAISE(rows, rows->AddColumn(column.position, column.field, array));
  }
  return rows;
}

int64_t ConstantArenaBytes(const Projection& projection, const arrow::ScalarVector& partition_values, int64_t rows) {
  if (partition_values.empty()) return 0;  // Of a look at the first rows, which belongs to no file.
  int64_t row_bytes = 0;
  for (const OutputColumn& output : projection.outputs) {
    if (!IsArray(output)) continue;
    const arrow::Scalar& value = *ValueOf(output, partition_values);
    if (!value.is_valid || !arrow::is_base_binary_like(value.type->id())) continue;
    row_bytes += static_cast<const arrow::BaseBinaryScalar&>(value).value->size();
  }
  return rows * row_bytes;
}

int64_t ConstantArrayBytes(const Projection& projection, const arrow::ScalarVector& partition_values, int64_t rows) {
  constexpr int64_t kOffsetBytes = 4 + 8, kCopies = 2;
  const auto arrays = std::ranges::count_if(projection.outputs, IsArray);
  return rows * arrays * kOffsetBytes + kCopies * ConstantArenaBytes(projection, partition_values, rows);
}

}  // namespace penstock

#include <arrow/array/array_base.h>
#include <arrow/array/data.h>
#include <arrow/array/util.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>

#include "batch/slot_buffer.h"
#include "batch/varying_column.h"
#include "penstock/batch.h"

namespace penstock {
namespace {

/// The elements of a column as one flat array of `type`.
std::shared_ptr<arrow::ArrayData> FlatElements(const Field& field, const Batch::Column& column, int64_t elements,
                                               const std::shared_ptr<arrow::DataType>& type,
                                               const std::shared_ptr<void>& hold) {
  std::shared_ptr<arrow::Buffer> validity;
  int64_t null_count = 0;
  if (column.mask != nullptr) {
    null_count = elements - PackBitsInPlace(column.mask, elements, 1);
    if (null_count > 0) validity = std::make_shared<SlotBuffer>(column.mask, (elements + 7) / 8, hold);
  }
  int64_t value_bytes = elements * ByteWidth(field.dtype);
  if (field.dtype == DType::kBool) {
    PackBitsInPlace(column.values, elements, 0);
    value_bytes = (elements + 7) / 8;
  }
  auto values = std::make_shared<SlotBuffer>(column.values, value_bytes, hold);
  return arrow::ArrayData::Make(type, elements, {std::move(validity), std::move(values)}, null_count);
}

std::shared_ptr<arrow::ArrayData> ColumnData(const Field& field, const Batch::Column& column, int64_t rows,
                                             const std::shared_ptr<void>& hold) {
  std::vector<std::shared_ptr<arrow::DataType>> list_types;
  std::shared_ptr<arrow::DataType> element_type = field.arrow_type;
  while (element_type->id() == arrow::Type::FIXED_SIZE_LIST) {
    list_types.push_back(element_type);
    element_type = element_type->field(0)->type();
  }
  auto data = FlatElements(field, column, rows * field.items(), element_type, hold);
  // The positions that a lookup gives have a vocabulary too, but are numbers.
  if (element_type->id() == arrow::Type::DICTIONARY) data->dictionary = field.vocabulary->data();
  int64_t length = rows;
  std::vector<int64_t> lengths;
  for (int64_t extent : field.shape) {
    lengths.push_back(length);
    length *= extent;
  }
  for (size_t level = list_types.size(); level-- > 0;) {
    data = arrow::ArrayData::Make(list_types[level], lengths[level], {nullptr}, {std::move(data)}, 0);
  }
  return data;
}

}  // namespace

arrow::Result<std::shared_ptr<arrow::Array>> Batch::ArrayColumn(int i) const {
  const Column& data = column(i);
  const auto& varying = (*schema_)[static_cast<size_t>(i)].varying;
  if (varying == nullptr) return arrow::Status::Invalid("column ", i, " is of fixed size");
  return varying->Array(data.strands.data(), num_rows_, data.counts.data(), hold_);
}

arrow::Result<std::shared_ptr<arrow::RecordBatch>> Batch::ToRecordBatch() const {
  arrow::FieldVector fields;
  std::vector<std::shared_ptr<arrow::ArrayData>> columns;
  for (size_t i = 0; i < columns_.size(); ++i) {
    const Field& field = (*schema_)[i];
    if (field.arrow_type == nullptr) return arrow::Status::Invalid("column '", field.name, "' has no Arrow type");
    fields.push_back(arrow::field(field.name, field.arrow_type, field.has_mask));
    if (field.varying == nullptr) {
      columns.push_back(ColumnData(field, columns_[i], num_rows_, hold_));
    } else {
      ARROW_ASSIGN_OR_RAISE(const auto array, ArrayColumn(static_cast<int>(i)));
      columns.push_back(array->data());
    }
  }
  return arrow::RecordBatch::Make(arrow::schema(std::move(fields)), num_rows_, std::move(columns));
}

}  // namespace penstock

#include <arrow/array.h>
#include <arrow/array/concatenate.h>
#include <arrow/compute/api_vector.h>
#include <arrow/compute/exec.h>
#include <arrow/compute/expression.h>
#include <arrow/compute/initialize.h>
#include <arrow/datum.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <arrow/util/int_util.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "source/read_plan.h"
#include "source/row_group_reader.h"

namespace penstock {
namespace {

using arrow::Array;
using arrow::ArrayVector;

// Arrow built these arrays itself, so offsets, lengths and null counts are right by construction (Validate() looks at
// them once more, at no cost per row). One thing is copied from the file unchecked: the indices of arrays that are read
// as dictionaries. Text is not checked for UTF-8, nor decimals for their precision: nothing reads out of bounds because
// of them, and direct decoding does not look either.
arrow::Status CheckIndices(const arrow::ArrayData& data) {
  if (data.type->id() == arrow::Type::DICTIONARY) {
    const auto& type = static_cast<const arrow::DictionaryType&>(*data.type);
    arrow::ArraySpan indices(data);
    indices.type = type.index_type().get();
    ARROW_RETURN_NOT_OK(arrow::internal::CheckIndexBounds(indices, static_cast<uint64_t>(data.dictionary->length)));
    ARROW_RETURN_NOT_OK(CheckIndices(*data.dictionary));
  }
  for (const auto& child : data.child_data) ARROW_RETURN_NOT_OK(CheckIndices(*child));
  return arrow::Status::OK();
}

// One top-level column of the row group; gives its rows in whatever portions are asked for.
class PieceColumn {
 public:
  PieceColumn(std::string name, std::shared_ptr<arrow::RecordBatchReader> reader, int64_t num_rows)
      : name_(std::move(name)), reader_(std::move(reader)), num_rows_(num_rows) {}

  const std::string& name() const { return name_; }

  // The next `rows` rows as one array.
  arrow::Result<std::shared_ptr<Array>> Take(int64_t rows, arrow::MemoryPool* pool) {
    while (pending_rows_ < rows) ARROW_RETURN_NOT_OK(ReadMore());
    ArrayVector parts;
    for (int64_t missing = rows; missing > 0;) {
      std::shared_ptr<Array>& front = pending_.front();
      const int64_t take = std::min(missing, front->length());
      parts.push_back(front->Slice(0, take));
      front = front->Slice(take);
      if (front->length() == 0) pending_.erase(pending_.begin());
      missing -= take;
    }
    pending_rows_ -= rows;
    taken_rows_ += rows;
    return parts.size() == 1 ? arrow::Result<std::shared_ptr<Array>>(parts[0]) : arrow::Concatenate(parts, pool);
  }

 private:
  arrow::Status ReadMore() {
    std::shared_ptr<arrow::RecordBatch> batch;
    ARROW_RETURN_NOT_OK(reader_->ReadNext(&batch));
    if (batch == nullptr || batch->num_rows() == 0) {
      return arrow::Status::IOError("the column chunk ends after ", taken_rows_ + pending_rows_, " of ", num_rows_,
                                    " rows");
    }
    const std::shared_ptr<Array> part = batch->column(0);
    ARROW_RETURN_NOT_OK(part->Validate());
    ARROW_RETURN_NOT_OK(CheckIndices(*part->data()));
    pending_rows_ += part->length();
    pending_.push_back(part);
    return arrow::Status::OK();
  }

  const std::string name_;
  const std::shared_ptr<arrow::RecordBatchReader> reader_;
  const int64_t num_rows_;
  ArrayVector pending_;
  int64_t pending_rows_ = 0;
  int64_t taken_rows_ = 0;
};

// The filter over pieces of one row group. Columns that it does not use stand in its batches as null scalars, partition
// columns as constants: neither takes memory per row.
class PieceFilter {
 public:
  arrow::Status Init(const Projection& projection, const ParquetFile& file, const std::vector<int>& column_of_field) {
    ARROW_RETURN_NOT_OK(arrow::compute::Initialize());
    expression_ = projection.filter;
    column_of_field_ = column_of_field;
    const arrow::Schema& schema = *projection.dataset_schema;
    for (const auto& field : schema.fields()) inputs_.emplace_back(arrow::MakeNullScalar(field->type()));
    const auto& constants = file.entry.partition_values;
    if (constants.size() > inputs_.size()) return arrow::Status::Invalid("more partition values than fields");
    const size_t first = inputs_.size() - constants.size();
    for (size_t i = 0; i < constants.size(); ++i) {
      if (constants[i] != nullptr && constants[i]->is_valid) inputs_[first + i] = constants[i];
    }
    return arrow::Status::OK();
  }

  // Bits of the rows to keep; null where a constant says it for all, `*keeps_all` telling what. A null of the
  // expression counts as false.
  arrow::Result<std::shared_ptr<arrow::BooleanArray>> Mask(const ArrayVector& columns, int64_t rows,
                                                           arrow::compute::ExecContext* context,
                                                           bool* keeps_all) const {
    std::vector<arrow::Datum> inputs = inputs_;
    for (size_t field = 0; field < column_of_field_.size(); ++field) {
      const int column = column_of_field_[field];
      if (column >= 0) inputs[field] = columns[static_cast<size_t>(column)];
    }
    ARROW_ASSIGN_OR_RAISE(arrow::Datum result,
                          arrow::compute::ExecuteScalarExpression(
                              *expression_, arrow::compute::ExecBatch(std::move(inputs), rows), context));
    *keeps_all = false;
    if (result.type()->id() != arrow::Type::BOOL) {
      return arrow::Status::TypeError("the filter is of type ", result.type()->ToString(), ", not bool");
    }
    if (!result.is_scalar()) return std::static_pointer_cast<arrow::BooleanArray>(result.make_array());
    const auto& scalar = result.scalar_as<arrow::BooleanScalar>();
    *keeps_all = scalar.is_valid && scalar.value;
    return nullptr;
  }

 private:
  std::shared_ptr<const arrow::compute::Expression> expression_;
  std::vector<int> column_of_field_;  // By field of the data set's schema; -1: not read.
  std::vector<arrow::Datum> inputs_;
};

// Positions in the row group of the rows that `mask` keeps.
arrow::Result<std::shared_ptr<Array>> RowNumbers(const arrow::BooleanArray* mask, int64_t first_row, int64_t rows,
                                                 arrow::MemoryPool* pool) {
  const int64_t kept = mask == nullptr ? rows : mask->true_count();
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> buffer,
                        arrow::AllocateBuffer(kept * int64_t{sizeof(int64_t)}, pool));
  auto* numbers = reinterpret_cast<int64_t*>(buffer->mutable_data());
  int64_t n = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (mask == nullptr || (mask->IsValid(i) && mask->Value(i))) numbers[n++] = first_row + i;
  }
  return std::make_shared<arrow::Int64Array>(kept, std::move(buffer));
}

class ArrowPieceReader final : public PieceReader {
 public:
  ArrowPieceReader(std::shared_ptr<const ParquetFile> file, int row_group, std::shared_ptr<ReservedPool> pool,
                   int64_t piece_rows)
      : file_(std::move(file)),
        pool_(std::move(pool)),
        row_group_(row_group),
        piece_rows_(piece_rows),
        context_(pool_.get()) {
    context_.set_use_threads(false);
  }

  arrow::Status Init(const Projection& projection, const std::vector<int>& outputs, int64_t skip_rows) {
    if (row_group_ < 0 || row_group_ >= file_->metadata->num_row_groups() || piece_rows_ < 1) {
      return Where(arrow::Status::Invalid("there is no such row group, or no rows in a piece"));
    }
    ARROW_RETURN_NOT_OK(Where(CatchParquet([&] { return OpenFile(projection, outputs); })));
    if (skip_rows < 0 || skip_rows > num_rows_) {
      return Where(arrow::Status::Invalid("cannot skip ", skip_rows, " of ", num_rows_, " rows"));
    }
    ARROW_RETURN_NOT_OK(OpenColumns(projection, outputs));
    while (row_ < skip_rows) {  // Parquet's Arrow reader cannot skip: decode and drop.
      ARROW_RETURN_NOT_OK(TakeColumns(std::min(piece_rows_, skip_rows - row_)).status());
    }
    return arrow::Status::OK();
  }

  arrow::Result<Piece> Next() override {
    ARROW_RETURN_NOT_OK(failure_);
    auto piece = NextPiece();
    failure_ = piece.status();
    return piece;
  }

 private:
  arrow::Status Where(const arrow::Status& status, const std::string& column = "") const {
    return InColumn(status, *file_, row_group_, column);
  }

  arrow::Status OpenFile(const Projection& projection, const std::vector<int>& outputs) {
    num_rows_ = file_->metadata->RowGroup(row_group_)->num_rows();
    if (num_rows_ < 0) return arrow::Status::IOError("the footer says ", num_rows_, " rows");
    std::vector<int> leaves;
    for (const std::string& name : NeededColumns(projection, outputs)) {
      const auto found = LeavesOf(*file_, name);
      leaves.insert(leaves.end(), found.begin(), found.end());
    }
    const int64_t buffer_bytes = StreamBufferBytes(*file_, row_group_, leaves);
    auto parquet_reader =
        parquet::ParquetFileReader::Open(file_->file, MakeReaderProperties(pool_.get(), buffer_bytes), file_->metadata);
    parquet::ArrowReaderProperties properties(/*use_threads=*/false);
    properties.set_pre_buffer(false);
    properties.set_batch_size(std::clamp<int64_t>(piece_rows_, 1, std::max<int64_t>(num_rows_, 1)));
    ARROW_ASSIGN_OR_RAISE(reader_,
                          parquet::arrow::FileReader::Make(pool_.get(), std::move(parquet_reader), properties));
    return arrow::Status::OK();
  }

  arrow::Status OpenColumns(const Projection& projection, const std::vector<int>& outputs) {
    for (const std::string& name : NeededColumns(projection, outputs)) {
      ARROW_RETURN_NOT_OK(Where(CatchParquet([&] { return OpenColumn(name); }), name));
    }
    arrow::FieldVector fields;
    for (int output : outputs) {
      const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
      if (column.partition_index >= 0) continue;
      output_columns_.push_back(ColumnOf(column.input));
      fields.push_back(file_->schema->GetFieldByName(column.input));
    }
    schema_ = arrow::schema(std::move(fields));
    if (projection.filter == nullptr) return arrow::Status::OK();
    std::vector<int> column_of_field(static_cast<size_t>(projection.dataset_schema->num_fields()), -1);
    for (const auto& field : projection.filter_fields) {
      const int position = projection.dataset_schema->GetFieldIndex(field->name());
      if (position >= 0) column_of_field[static_cast<size_t>(position)] = ColumnOf(field->name());
    }
    filter_.emplace();
    return Where(filter_->Init(projection, *file_, column_of_field));
  }

  static std::vector<std::string> NeededColumns(const Projection& projection, const std::vector<int>& outputs) {
    std::vector<std::string> names;
    const auto add = [&](const std::string& name) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    };
    for (int output : outputs) {
      const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
      if (column.partition_index < 0) add(column.input);
    }
    if (projection.filter != nullptr) {
      for (const auto& field : projection.filter_fields) add(field->name());
    }
    return names;
  }

  // A reader per column: an error can then name its column, and each column keeps its own length.
  arrow::Status OpenColumn(const std::string& name) {
    const std::vector<int> leaves = LeavesOf(*file_, name);
    if (leaves.empty()) return arrow::Status::Invalid("the file has no such column");
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::RecordBatchReader> batches,
                          reader_->GetRecordBatchReader({row_group_}, leaves));
    if (batches->schema()->num_fields() != 1) return arrow::Status::IOError("the column's schema is inconsistent");
    columns_.emplace_back(name, std::move(batches), num_rows_);
    return arrow::Status::OK();
  }

  int ColumnOf(const std::string& name) const {
    const auto at =
        std::find_if(columns_.begin(), columns_.end(), [&](const PieceColumn& c) { return c.name() == name; });
    return static_cast<int>(at - columns_.begin());
  }

  arrow::Result<ArrayVector> TakeColumns(int64_t rows) {
    ArrayVector arrays;
    for (PieceColumn& column : columns_) {
      ARROW_RETURN_NOT_OK(Where(CatchParquet([&] {
                                  ARROW_ASSIGN_OR_RAISE(auto array, column.Take(rows, pool_.get()));
                                  arrays.push_back(std::move(array));
                                  return arrow::Status::OK();
                                }),
                                column.name()));
    }
    row_ += rows;
    return arrays;
  }

  arrow::Result<Piece> NextPiece() {
    Piece piece;
    piece.first_row = row_;
    piece.rows_read = std::min(piece_rows_, num_rows_ - row_);
    if (piece.rows_read == 0) return piece;
    ARROW_ASSIGN_OR_RAISE(ArrayVector columns, TakeColumns(piece.rows_read));
    int64_t rows = piece.rows_read;
    if (filter_) {
      ARROW_RETURN_NOT_OK(Where(CatchParquet([&] { return Filter(&columns, &piece); })));
      rows = piece.row_numbers->length();
    }
    ArrayVector arrays;
    for (int column : output_columns_) arrays.push_back(columns[static_cast<size_t>(column)]);
    piece.rows = arrow::RecordBatch::Make(schema_, rows, std::move(arrays));
    return piece;
  }

  arrow::Status Filter(ArrayVector* columns, Piece* piece) {
    bool keeps_all = false;
    ARROW_ASSIGN_OR_RAISE(auto mask, filter_->Mask(*columns, piece->rows_read, &context_, &keeps_all));
    if (mask != nullptr) keeps_all = mask->true_count() == piece->rows_read;
    const bool keeps_none = !keeps_all && (mask == nullptr || mask->true_count() == 0);
    const arrow::BooleanArray* selection = keeps_all || keeps_none ? nullptr : mask.get();
    ARROW_ASSIGN_OR_RAISE(piece->row_numbers,
                          RowNumbers(selection, piece->first_row, keeps_none ? 0 : piece->rows_read, pool_.get()));
    for (size_t i = 0; i < columns->size(); ++i) {
      std::shared_ptr<Array>& column = (*columns)[i];
      const auto needed = std::find(output_columns_.begin(), output_columns_.end(), static_cast<int>(i));
      if (needed == output_columns_.end()) {
        column.reset();  // Only the filter needed it.
      } else if (keeps_none) {
        column = column->Slice(0, 0);
      } else if (selection != nullptr) {
        ARROW_ASSIGN_OR_RAISE(
            arrow::Datum kept,
            arrow::compute::Filter(column, mask, arrow::compute::FilterOptions::Defaults(), &context_));
        column = kept.make_array();
      }
    }
    return arrow::Status::OK();
  }

  // In the order of need: columns die before the file reader, and all before the pool.
  const std::shared_ptr<const ParquetFile> file_;
  const std::shared_ptr<ReservedPool> pool_;
  const int row_group_;
  const int64_t piece_rows_;
  arrow::compute::ExecContext context_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::vector<PieceColumn> columns_;
  std::vector<int> output_columns_;  // Positions in columns_.
  std::shared_ptr<arrow::Schema> schema_;
  std::optional<PieceFilter> filter_;
  int64_t num_rows_ = 0;
  int64_t row_ = 0;
  arrow::Status failure_;
};

}  // namespace

arrow::Result<std::unique_ptr<PieceReader>> PieceReader::Open(std::shared_ptr<const ParquetFile> file, int row_group,
                                                              const Projection& projection, std::vector<int> outputs,
                                                              std::shared_ptr<ReservedPool> pool, int64_t piece_rows,
                                                              int64_t skip_rows) {
  auto reader = std::make_unique<ArrowPieceReader>(std::move(file), row_group, std::move(pool), piece_rows);
  ARROW_RETURN_NOT_OK(reader->Init(projection, outputs, skip_rows));
  return reader;
}

}  // namespace penstock

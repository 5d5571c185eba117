#include <arrow/array.h>
#include <arrow/array/concatenate.h>
#include <arrow/record_batch.h>
#include <arrow/util/int_util.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "source/bytes_column.h"
#include "source/column_layout.h"
#include "source/constant_column.h"
#include "source/list_column.h"
#include "source/piece_column.h"
#include "source/piece_filter.h"
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

// A column of any type, by Arrow's reader, which gives its rows in portions of its own.
class ArrowColumn final : public PieceColumn {
 public:
  ArrowColumn(std::shared_ptr<arrow::RecordBatchReader> reader, int64_t num_rows, arrow::MemoryPool* pool)
      : reader_(std::move(reader)), num_rows_(num_rows), pool_(pool) {}

  const std::shared_ptr<arrow::Field>& field() const override { return reader_->schema()->field(0); }

  arrow::Result<std::shared_ptr<Array>> Take(int64_t rows) override {
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
    return parts.size() == 1 ? arrow::Result<std::shared_ptr<Array>>(parts[0]) : arrow::Concatenate(parts, pool_);
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

  const std::shared_ptr<arrow::RecordBatchReader> reader_;
  const int64_t num_rows_;
  arrow::MemoryPool* const pool_;
  ArrayVector pending_;
  int64_t pending_rows_ = 0;
  int64_t taken_rows_ = 0;
};

class RowGroupPieces final : public PieceReader {
 public:
  RowGroupPieces(std::shared_ptr<const ParquetFile> file, int row_group, std::shared_ptr<ReservedPool> pool,
                 int64_t piece_rows, bool use_direct_decode)
      : file_(std::move(file)),
        pool_(std::move(pool)),
        row_group_(row_group),
        piece_rows_(piece_rows),
        use_direct_decode_(use_direct_decode) {}

  arrow::Status Init(const Projection& projection, const std::vector<int>& outputs, int64_t skip_rows,
                     uint64_t sample_key) {
    if (row_group_ < 0 || row_group_ >= file_->metadata->num_row_groups() || piece_rows_ < 1) {
      return Where(arrow::Status::Invalid("there is no such row group, or no rows in a piece"));
    }
    ARROW_RETURN_NOT_OK(Where(CatchParquet([&] { return OpenFile(projection, outputs); })));
    if (skip_rows < 0 || skip_rows > num_rows_) {
      return Where(arrow::Status::Invalid("cannot skip ", skip_rows, " of ", num_rows_, " rows"));
    }
    ARROW_RETURN_NOT_OK(OpenColumns(projection, outputs, sample_key));
    while (row_ < skip_rows) {  // Neither reader can skip: decode and drop.
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
  struct Column {
    std::string name;
    std::unique_ptr<PieceColumn> decoder;
    std::shared_ptr<arrow::DataType> type;  // In the first file, where it is another one there.
  };

  arrow::Status Where(const arrow::Status& status, const std::string& column = "") const {
    return InColumn(status, *file_, row_group_, column);
  }

  arrow::Status OpenFile(const Projection& projection, const std::vector<int>& outputs) {
    num_rows_ = file_->metadata->RowGroup(row_group_)->num_rows();
    if (num_rows_ < 0) return arrow::Status::IOError("the footer says ", num_rows_, " rows");
    std::vector<int> leaves;
    for (const ColumnPath& path : NeededPaths(projection, outputs)) {
      const auto found = LeavesOf(*file_, path);
      leaves.insert(leaves.end(), found.begin(), found.end());
    }
    buffer_bytes_ = StreamBufferBytes(*file_, row_group_, leaves);
    return arrow::Status::OK();
  }

  // Arrow's reader, opened where a column needs it.
  arrow::Status OpenReader() {
    if (reader_ != nullptr) return arrow::Status::OK();
    auto parquet_reader = parquet::ParquetFileReader::Open(
        file_->file, MakeReaderProperties(pool_.get(), buffer_bytes_), file_->metadata);
    parquet::ArrowReaderProperties properties(/*use_threads=*/false);
    properties.set_pre_buffer(false);
    properties.set_batch_size(std::clamp<int64_t>(piece_rows_, 1, std::max<int64_t>(num_rows_, 1)));
    ARROW_ASSIGN_OR_RAISE(reader_,
                          parquet::arrow::FileReader::Make(pool_.get(), std::move(parquet_reader), properties));
    return arrow::Status::OK();
  }

  arrow::Status OpenColumns(const Projection& projection, const std::vector<int>& outputs, uint64_t sample_key) {
    std::vector<std::string> names;
    for (const ColumnPath& path : NeededPaths(projection, outputs)) {
      names.push_back(path.ToString());
      ARROW_RETURN_NOT_OK(Where(CatchParquet([&] { return OpenColumn(projection, path); }), names.back()));
      columns_.back().type = OtherType(projection, path);
    }
    arrow::FieldVector fields;
    for (int output : outputs) {
      const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
      if (!column.is_read()) continue;
      output_columns_.push_back(ColumnOf(column.path().ToString()));
      const Column& read = columns_[static_cast<size_t>(output_columns_.back())];
      const auto& field = read.decoder->field();
      fields.push_back(read.type == nullptr ? field : field->WithType(read.type));
    }
    schema_ = arrow::schema(std::move(fields));
    constants_.emplace(projection, outputs, file_->entry.partition_values);
    if (!projection.selects_rows()) return arrow::Status::OK();
    auto filter = PieceFilter::Make(projection, file_->entry.partition_values, sample_key, names, output_columns_);
    return Where(std::move(filter).Value(&filter_));
  }

  // A reader per column: an error can then name its column, and each column keeps its own length.
  arrow::Status OpenColumn(const Projection& projection, const ColumnPath& path) {
    const std::vector<int> leaves = LeavesOf(*file_, path);
    if (leaves.empty()) return arrow::Status::Invalid("the file has no such column");
    ARROW_ASSIGN_OR_RAISE(auto own, OpenOwn(projection, path, leaves[0]));
    if (own != nullptr) {
      columns_.push_back({path.ToString(), std::move(own), nullptr});
      return arrow::Status::OK();
    }
    ARROW_RETURN_NOT_OK(OpenReader());
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::RecordBatchReader> batches,
                          reader_->GetRecordBatchReader({row_group_}, leaves));
    if (batches->schema()->num_fields() != 1) return arrow::Status::IOError("the column's schema is inconsistent");
    columns_.push_back(
        {path.ToString(), std::make_unique<ArrowColumn>(std::move(batches), num_rows_, pool_.get()), nullptr});
    return arrow::Status::OK();
  }

  // The type of a column in the first file, where this one has another one (of other layout); else null.
  std::shared_ptr<arrow::DataType> OtherType(const Projection& projection, const ColumnPath& path) const {
    const auto here = path.fields.empty() ? file_->schema->GetFieldByName(path.column) : nullptr;
    const auto first = projection.dataset_schema->GetFieldByName(path.column);
    if (here == nullptr || first == nullptr || here->type()->Equals(*first->type())) return nullptr;
    return first->type();
  }

  // A decoder of this library; null where there is none for the column.
  arrow::Result<std::unique_ptr<PieceColumn>> OpenOwn(const Projection& projection, const ColumnPath& path, int leaf) {
    if (!use_direct_decode_) return nullptr;
    if (const auto field = ListField(*file_, row_group_, path)) {
      return list_column::Open(*file_, row_group_, field, leaf, pool_.get(), buffer_bytes_);
    }
    if (const auto field = BytesField(projection, *file_, path)) {
      return bytes_column::Open(*file_, row_group_, field, leaf, pool_.get(), buffer_bytes_);
    }
    return nullptr;
  }

  int ColumnOf(const std::string& name) const {
    const auto at = std::find_if(columns_.begin(), columns_.end(), [&](const Column& c) { return c.name == name; });
    return static_cast<int>(at - columns_.begin());
  }

  arrow::Result<ArrayVector> TakeColumns(int64_t rows) {
    ArrayVector arrays;
    for (const Column& column : columns_) {
      ARROW_RETURN_NOT_OK(Where(CatchParquet([&] {
                                  ARROW_ASSIGN_OR_RAISE(auto array, column.decoder->Take(rows));
                                  if (column.type != nullptr) {
                                    ARROW_ASSIGN_OR_RAISE(array,
                                                          InLayoutOf(column.type, std::move(array), pool_.get()));
                                  }
                                  arrays.push_back(std::move(array));
                                  return arrow::Status::OK();
                                }),
                                column.name));
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
    if (filter_ != nullptr) {
      ARROW_RETURN_NOT_OK(Where(CatchParquet([&] { return filter_->Apply(&columns, &piece, pool_.get()); })));
      rows = piece.row_numbers->length();
    }
    ArrayVector arrays;
    for (int column : output_columns_) arrays.push_back(columns[static_cast<size_t>(column)]);
    std::shared_ptr<arrow::Schema> schema = schema_;
    for (int i = 0; filter_ != nullptr && i < schema->num_fields(); ++i) {  // A filter may turn views into offsets.
      const auto& type = arrays[static_cast<size_t>(i)]->type();
      if (type->Equals(*schema->field(i)->type())) continue;
      ARROW_ASSIGN_OR_RAISE(schema, schema->SetField(i, schema->field(i)->WithType(type)));
    }
    auto read = arrow::RecordBatch::Make(std::move(schema), rows, std::move(arrays));
    ARROW_ASSIGN_OR_RAISE(piece.rows, constants_->AddTo(std::move(read), pool_.get()));
    return piece;
  }

  // In the order of need: columns die before the file reader, and all before the pool.
  const std::shared_ptr<const ParquetFile> file_;
  const std::shared_ptr<ReservedPool> pool_;
  const int row_group_;
  const int64_t piece_rows_;
  const bool use_direct_decode_;
  int64_t buffer_bytes_ = 0;
  std::unique_ptr<parquet::arrow::FileReader> reader_;  // Null where no column needs it.
  std::vector<Column> columns_;
  std::vector<int> output_columns_;  // Positions in columns_.
  std::shared_ptr<arrow::Schema> schema_;
  std::optional<ConstantColumns> constants_;
  std::unique_ptr<PieceFilter> filter_;
  int64_t num_rows_ = 0;
  int64_t row_ = 0;
  arrow::Status failure_;
};

}  // namespace

arrow::Result<std::unique_ptr<PieceReader>> OpenRowGroupPieces(std::shared_ptr<const ParquetFile> file, int row_group,
                                                               const Projection& projection, std::vector<int> outputs,
                                                               std::shared_ptr<ReservedPool> pool, int64_t piece_rows,
                                                               int64_t skip_rows, bool use_direct_decode,
                                                               uint64_t sample_key) {
  auto reader =
      std::make_unique<RowGroupPieces>(std::move(file), row_group, std::move(pool), piece_rows, use_direct_decode);
  ARROW_RETURN_NOT_OK(reader->Init(projection, outputs, skip_rows, sample_key));
  return reader;
}

}  // namespace penstock

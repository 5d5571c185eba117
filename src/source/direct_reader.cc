#include <arrow/buffer.h>
#include <arrow/type.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "source/direct_column.h"
#include "source/read_plan.h"
#include "source/row_group_reader.h"

namespace penstock {
namespace {

class ParquetDirectReader final : public DirectReader {
 public:
  ParquetDirectReader(std::shared_ptr<const ParquetFile> file, int row_group, std::shared_ptr<ReservedPool> pool)
      : file_(std::move(file)), pool_(std::move(pool)), row_group_(row_group) {}

  arrow::Status Init(const Projection& projection, const std::vector<int>& outputs, int64_t skip_rows) {
    ARROW_RETURN_NOT_OK(OpenRowGroup(projection, outputs));
    if (skip_rows < 0 || skip_rows > num_rows_) {
      return Where(arrow::Status::Invalid("cannot skip ", skip_rows, " of ", num_rows_, " rows"), "");
    }
    row_ = skip_rows;
    ARROW_RETURN_NOT_OK(Where(CatchParquet([&] { return MakeScratch(projection, outputs); }), ""));
    for (int output : outputs) {
      const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
      ARROW_RETURN_NOT_OK(Where(CatchParquet([&] { return OpenColumn(column); }), column.input));
    }
    return arrow::Status::OK();
  }

  arrow::Status Read(int64_t rows, const std::vector<SlotColumn>& targets, int64_t slot_row) override {
    ARROW_RETURN_NOT_OK(failure_);
    if (rows < 0 || rows > num_rows_ - row_ || targets.size() != columns_.size()) {
      return Where(arrow::Status::Invalid("cannot read ", rows, " rows at row ", row_, " of ", num_rows_), "");
    }
    for (size_t i = 0; i < columns_.size(); ++i) {
      const Column& column = columns_[i];
      const SlotTarget target{targets[i].values + slot_row * column.width,
                              targets[i].mask == nullptr ? nullptr : targets[i].mask + slot_row};
      // A column that failed half-way has no defined position any more: the reader is done for.
      failure_ = Where(CatchParquet([&] { return column.decoder->Read(rows, row_, target); }), column.name);
      ARROW_RETURN_NOT_OK(failure_);
    }
    row_ += rows;
    return arrow::Status::OK();
  }

 private:
  struct Column {
    std::string name;
    int64_t width = 0;
    std::unique_ptr<DirectColumn> decoder;
  };

  arrow::Status Where(const arrow::Status& status, const std::string& column) const {
    return InColumn(status, *file_, row_group_, column);
  }

  arrow::Status OpenRowGroup(const Projection& projection, const std::vector<int>& outputs) {
    if (row_group_ < 0 || row_group_ >= file_->metadata->num_row_groups()) {
      return Where(arrow::Status::Invalid("the file has ", file_->metadata->num_row_groups(), " row groups"), "");
    }
    return Where(CatchParquet([&] {
                   std::vector<int> leaves;
                   for (int output : outputs) {
                     const auto found = LeavesOf(*file_, projection.outputs[static_cast<size_t>(output)].path());
                     leaves.insert(leaves.end(), found.begin(), found.end());
                   }
                   buffer_bytes_ = StreamBufferBytes(*file_, row_group_, leaves);
                   num_rows_ = file_->metadata->RowGroup(row_group_)->num_rows();
                   return num_rows_ < 0 ? arrow::Status::IOError("the footer says ", num_rows_, " rows")
                                        : arrow::Status::OK();
                 }),
                 "");
  }

  arrow::Status MakeScratch(const Projection& projection, const std::vector<int>& outputs) {
    int64_t bytes = 0;
    for (int output : outputs) {
      for (int leaf : LeavesOf(*file_, projection.outputs[static_cast<size_t>(output)].path())) {
        bytes = std::max(bytes, DirectColumn::ScratchBytes(*file_->metadata->schema()->Column(leaf)));
      }
    }
    ARROW_ASSIGN_OR_RAISE(scratch_, arrow::AllocateBuffer(bytes, pool_.get()));
    std::memset(scratch_->mutable_data(), 0, static_cast<size_t>(bytes));
    return arrow::Status::OK();
  }

  arrow::Status OpenColumn(const OutputColumn& output) {
    const std::vector<int> leaves = LeavesOf(*file_, output.path());
    if (leaves.size() != 1) return arrow::Status::Invalid("the file has no flat column of this name");
    const auto& leaf = *file_->metadata->schema()->Column(leaves[0]);
    const auto form = DirectForm(leaf, *file_->schema->GetFieldByName(output.input)->type());
    if (!form) return arrow::Status::Invalid("values of this type are read through Arrow");
    const int64_t values = file_->metadata->RowGroup(row_group_)->ColumnChunk(leaves[0])->num_values();
    if (values != num_rows_) {
      return arrow::Status::IOError("the footer says ", values, " values for ", num_rows_, " rows");
    }
    const DirectColumn::Source source{
        file_.get(), row_group_, leaves[0], num_rows_, pool_.get(), buffer_bytes_, scratch_->mutable_data()};
    ARROW_ASSIGN_OR_RAISE(auto decoder, DirectColumn::Make(source, *form, output.converter));
    ARROW_RETURN_NOT_OK(decoder->Skip(row_));
    columns_.push_back({output.input, ByteWidth(output.converter->field().dtype), std::move(decoder)});
    return arrow::Status::OK();
  }

  // In the order of need: columns die before file and pool.
  const std::shared_ptr<const ParquetFile> file_;
  const std::shared_ptr<ReservedPool> pool_;
  const int row_group_;
  std::unique_ptr<arrow::Buffer> scratch_;  // Of all columns: they are read one after the other.
  std::vector<Column> columns_;
  int64_t buffer_bytes_ = 0;
  int64_t num_rows_ = 0;
  int64_t row_ = 0;
  arrow::Status failure_;
};

}  // namespace

arrow::Result<std::unique_ptr<DirectReader>> DirectReader::Open(std::shared_ptr<const ParquetFile> file, int row_group,
                                                                const Projection& projection, std::vector<int> outputs,
                                                                std::shared_ptr<ReservedPool> pool, int64_t skip_rows) {
  auto reader = std::make_unique<ParquetDirectReader>(std::move(file), row_group, std::move(pool));
  ARROW_RETURN_NOT_OK(reader->Init(projection, outputs, skip_rows));
  return reader;
}

}  // namespace penstock

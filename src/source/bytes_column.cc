#include "source/bytes_column.h"

#include <arrow/array/array_base.h>
#include <arrow/array/data.h>
#include <arrow/array/util.h>
#include <arrow/buffer.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "source/array_parts.h"
#include "source/chunk_pages.h"
#include "source/page_values.h"

namespace penstock::bytes_column {
namespace {

constexpr int64_t kStrip = LevelReader::kStrip;

struct Scratch {
  alignas(64) BytesView views[kStrip];
  alignas(64) uint8_t valid[kStrip];
};

class BytesColumn final : public PieceColumn, private ChunkPages::Values {
 public:
  using Pages = PageValues<parquet::ByteArrayType, BytesView>;
  static_assert(kStrip <= Pages::kStrip);

  BytesColumn(const ParquetFile& file, int row_group, std::shared_ptr<arrow::Field> field, int leaf,
              arrow::MemoryPool* pool, int64_t buffer_bytes)
      : field_(std::move(field)),
        pool_(pool),
        is_wide_(arrow::is_large_binary_like(field_->type()->id())),
        is_optional_(file.metadata->schema()->Column(leaf)->max_definition_level() > 0),
        num_rows_(file.metadata->RowGroup(row_group)->num_rows()),
        row_bytes_(
            static_cast<double>(file.metadata->RowGroup(row_group)->ColumnChunk(leaf)->total_uncompressed_size()) /
            static_cast<double>(std::max<int64_t>(num_rows_, 1))),
        pages_(file, row_group, leaf, pool, buffer_bytes),
        values_(file.metadata->schema()->Column(leaf), pool) {}

  arrow::Status Init() {
    ARROW_ASSIGN_OR_RAISE(scratch_buffer_, arrow::AllocateBuffer(sizeof(Scratch), pool_));
    scratch_ = reinterpret_cast<Scratch*>(scratch_buffer_->mutable_data());
    return arrow::Status::OK();
  }

  const std::shared_ptr<arrow::Field>& field() const override { return field_; }

  arrow::Result<std::shared_ptr<arrow::Array>> Take(int64_t rows) override {
    return is_wide_ ? TakeRows<int64_t>(rows) : TakeRows<int32_t>(rows);
  }

 private:
  arrow::Status TakeDictionary(const parquet::DictionaryPage& page, std::shared_ptr<arrow::Buffer> kept) override {
    if (kept != nullptr) return values_.KeepDictionary(std::move(kept), page.num_values());
    return values_.KeepDictionary(page.data(), page.size(), page.num_values());
  }
  arrow::Status OpenPage(const DataPageParts& page) override { return values_.Open(page); }

  template <typename Offset>
  arrow::Result<std::shared_ptr<arrow::Array>> TakeRows(int64_t rows) {
    Validity validity(pool_);
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> offsets,
                          arrow::AllocateBuffer((rows + 1) * int64_t{sizeof(Offset)}, pool_));
    ARROW_ASSIGN_OR_RAISE(auto values, GrowingValues::For(rows, row_bytes_, &lender_, pool_));
    auto* offset = offsets->mutable_data_as<Offset>();
    int64_t bytes = 0;
    for (int64_t row = 0; row < rows;) {
      ARROW_ASSIGN_OR_RAISE(const auto stretch, NextStretch(rows - row, row));
      const bool is_full = stretch.present == stretch.rows;
      if (!is_full) ARROW_RETURN_NOT_OK(validity.Mention(row, scratch_->valid, stretch.rows));
      const int64_t more = BytesOf(stretch.present);
      if (bytes + more > std::numeric_limits<Offset>::max()) {
        return arrow::Status::CapacityError("values of more than 2^31 - 1 bytes together are in one piece");
      }
      ARROW_RETURN_NOT_OK(values.Reserve(bytes + more, std::numeric_limits<int64_t>::max()));
      Copy(stretch.rows, is_full ? nullptr : scratch_->valid, bytes, offset + row, values.data());
      bytes += more;
      row += stretch.rows;
    }
    offset[rows] = static_cast<Offset>(bytes);
    taken_rows_ += rows;
    row_bytes_ = static_cast<double>(bytes) / static_cast<double>(rows);
    ARROW_ASSIGN_OR_RAISE(auto bits, validity.Finish(rows));
    ARROW_ASSIGN_OR_RAISE(auto data, values.Finish(bytes));
    return arrow::MakeArray(arrow::ArrayData::Make(
        field_->type(), rows, {std::move(bits.buffer), std::move(offsets), std::move(data)}, bits.missing));
  }

  // The values of the next rows, at most `rows` and kStrip, to the scratch, and which are there where one is missing.
  arrow::Result<LevelReader::Stretch> NextStretch(int64_t rows, int64_t row) {
    if (page_.rows == 0) {
      ARROW_ASSIGN_OR_RAISE(const bool is_more, pages_.Next(this, &page_));
      if (!is_more) {
        return arrow::Status::IOError("the column chunk ends after ", taken_rows_ + row, " of ", num_rows_, " rows");
      }
    }
    rows = std::min({rows, page_.rows, kStrip});
    LevelReader::Stretch stretch{rows, rows};
    if (is_optional_) {
      ARROW_ASSIGN_OR_RAISE(stretch, page_.levels.Next(rows, scratch_->valid));
      if (stretch.rows == 0) return arrow::Status::IOError("a page has fewer levels than rows");
    }
    page_.rows -= stretch.rows;
    ARROW_RETURN_NOT_OK(values_.Read(stretch.present, scratch_->views));
    return stretch;
  }

  int64_t BytesOf(int64_t values) const {
    int64_t bytes = 0;
    for (int64_t i = 0; i < values; ++i) bytes += scratch_->views[i].size;
    return bytes;
  }

  // \param at  of the first value's bytes in `out`.
  template <typename Offset>
  void Copy(int64_t rows, const uint8_t* valid, int64_t at, Offset* offsets, uint8_t* out) const {
    const BytesView* view = scratch_->views;
    for (int64_t i = 0; i < rows; ++i) {
      offsets[i] = static_cast<Offset>(at);
      if (valid != nullptr && valid[i] == 0) continue;
      if (view->size > 0) std::memcpy(out + at, view->data, view->size);
      at += view->size;
      ++view;
    }
  }

  const std::shared_ptr<arrow::Field> field_;
  arrow::MemoryPool* const pool_;
  const bool is_wide_;
  const bool is_optional_;
  const int64_t num_rows_;
  double row_bytes_;  // Of a row: by the footer, then by the rows taken last.
  ChunkPages pages_;
  DataPageParts page_;  // Its rows: what is left of them.
  Pages values_;
  BufferLender lender_;
  std::unique_ptr<arrow::Buffer> scratch_buffer_;
  Scratch* scratch_ = nullptr;
  int64_t taken_rows_ = 0;
};

}  // namespace

bool Takes(const ParquetFile& file, const arrow::Field& field, int leaf) {
  const parquet::ColumnDescriptor& descriptor = *file.metadata->schema()->Column(leaf);
  const auto id = field.type()->id();
  return (arrow::is_base_binary_like(id) || arrow::is_binary_view_like(id)) &&
         descriptor.physical_type() == parquet::Type::BYTE_ARRAY && descriptor.max_repetition_level() == 0 &&
         descriptor.max_definition_level() <= 1 && descriptor.path()->ToDotVector().size() == 1;
}

arrow::Result<std::unique_ptr<PieceColumn>> Open(const ParquetFile& file, int row_group,
                                                 std::shared_ptr<arrow::Field> field, int leaf, arrow::MemoryPool* pool,
                                                 int64_t buffer_bytes) {
  auto column = std::make_unique<BytesColumn>(file, row_group, std::move(field), leaf, pool, buffer_bytes);
  ARROW_RETURN_NOT_OK(column->Init());
  return column;
}

}  // namespace penstock::bytes_column

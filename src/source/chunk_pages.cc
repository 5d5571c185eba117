#include "source/chunk_pages.h"

#include <parquet/metadata.h>
#include <parquet/schema.h>

#include <utility>

#include "source/column_pages.h"

namespace penstock {

using parquet::PageType;

ChunkPages::ChunkPages(const ParquetFile& file, int row_group, int leaf, arrow::MemoryPool* pool, int64_t buffer_bytes)
    : leaf_(*file.metadata->schema()->Column(leaf)),
      values_left_(file.metadata->RowGroup(row_group)->ColumnChunk(leaf)->num_values()),
      buffer_bytes_(buffer_bytes),
      pages_(OpenColumnPages(file, row_group, leaf, MakeReaderProperties(pool, buffer_bytes), &plain_)) {}

arrow::Result<bool> ChunkPages::Next(Values* values, DataPageParts* page) {
  while (true) {
    std::shared_ptr<parquet::Page> next = pages_->NextPage();
    if (next == nullptr) {
      if (values_left_ <= 0) return false;
      return arrow::Status::IOError("the column chunk ends ", values_left_, " values before the footer says");
    }
    if (next->type() == PageType::DICTIONARY_PAGE) {
      const auto& dictionary = static_cast<const parquet::DictionaryPage&>(*next);
      ARROW_RETURN_NOT_OK(CheckDictionary(dictionary));
      // A small one is cheaper to copy than to have a window of its own.
      const bool is_kept = plain_ != nullptr && dictionary.size() >= buffer_bytes_;
      if (is_kept) plain_->LeaveWindow();
      ARROW_RETURN_NOT_OK(values->TakeDictionary(dictionary, is_kept ? dictionary.buffer() : nullptr));
    } else if (next->type() == PageType::DATA_PAGE || next->type() == PageType::DATA_PAGE_V2) {
      ARROW_ASSIGN_OR_RAISE(*page, DataPageParts::Of(*next, leaf_));
      ARROW_RETURN_NOT_OK(values->OpenPage(*page));
      page_ = std::move(next);
      values_left_ -= page->rows;
      if (page->rows > 0) return true;
    }
  }
}

arrow::Status ChunkPages::CheckDictionary(const parquet::DictionaryPage& page) {
  if (std::exchange(has_dictionary_, true)) return arrow::Status::IOError("the column chunk has two dictionaries");
  if (page.encoding() == parquet::Encoding::PLAIN || page.encoding() == parquet::Encoding::PLAIN_DICTIONARY) {
    return arrow::Status::OK();
  }
  return arrow::Status::IOError("the dictionary has an unknown encoding");
}

}  // namespace penstock

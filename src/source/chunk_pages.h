#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <parquet/column_page.h>
#include <parquet/column_reader.h>

#include <cstdint>
#include <memory>

#include "source/chunk_stream.h"
#include "source/data_page.h"
#include "source/parquet_file.h"

namespace penstock {

/// The pages of a column chunk from front to back, for a decoder of its values.
///
/// Ownership: file and pool must outlive it. Threads: one at a time. Errors: Parquet's exceptions pass through (wrap
/// calls in CatchParquet).
class ChunkPages {
 public:
  /// Takes in what pages have.
  class Values {
   public:
    virtual ~Values() = default;
    /// \param page  plain values; gone after the call...
    /// \param kept  ... but where this is not null: its bytes, which stay for as long as this is held.
    virtual arrow::Status TakeDictionary(const parquet::DictionaryPage& page, std::shared_ptr<arrow::Buffer> kept) = 0;
    /// Goes on to another page, valid until the next one.
    virtual arrow::Status OpenPage(const DataPageParts& page) = 0;
  };

  /// \param buffer_bytes  to read at once.
  ChunkPages(const ParquetFile& file, int row_group, int leaf, arrow::MemoryPool* pool, int64_t buffer_bytes);

  /// Goes on to the next page with rows (see DataPageParts::rows), and says what is in it to `values`.
  /// \return false after the last. IOError where pages have fewer values than the footer says.
  arrow::Result<bool> Next(Values* values, DataPageParts* page);

  /// By the footer, behind the page; may be below 0 where that is wrong.
  int64_t values_left() const { return values_left_; }

 private:
  arrow::Status CheckDictionary(const parquet::DictionaryPage& page);

  const parquet::ColumnDescriptor& leaf_;
  int64_t values_left_;
  bool has_dictionary_ = false;
  const int64_t buffer_bytes_;
  std::shared_ptr<ChunkStream> plain_;  // What pages are slices of; null: they are unpacked.
  const std::unique_ptr<parquet::PageReader> pages_;
  std::shared_ptr<parquet::Page> page_;  // What was given last.
};

}  // namespace penstock

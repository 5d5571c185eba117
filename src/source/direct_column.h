#pragma once

#include <arrow/memory_pool.h>
#include <arrow/status.h>

#include <cstdint>
#include <memory>

#include "ops/converter.h"
#include "penstock/dtype.h"
#include "source/parquet_file.h"

namespace penstock {

/// Decodes one flat column chunk into a slot, from front to back, page by page: plain values are copied, indices are
/// unpacked and looked up in the dictionary's converted values; whatever else is converted strip by strip.
///
/// Ownership: keeps the converter; the file and the pool must outlive it. Threads: one at a time.
/// Errors: Parquet's exceptions pass through (wrap calls in CatchParquet). After an error only the destructor may be
/// called.
class DirectColumn {
 public:
  struct Source {
    const ParquetFile* file = nullptr;
    int row_group = -1;
    int leaf = -1;
    int64_t num_rows = 0;  ///< Of the row group.
    arrow::MemoryPool* pool = nullptr;
    int64_t buffer_bytes = 0;    ///< To read at once.
    uint8_t* scratch = nullptr;  ///< ScratchBytes() of this leaf, that columns which are read in turn may share.
  };

  /// Room for what is between a page and the slot, in bytes; aligned to 64, and initialised, with whatever.
  static int64_t ScratchBytes(const parquet::ColumnDescriptor& leaf);

  /// \param form  what the chunk's values are for the converter (see DirectForm).
  static arrow::Result<std::unique_ptr<DirectColumn>> Make(const Source& source, DType form,
                                                           std::shared_ptr<const Converter> converter);
  virtual ~DirectColumn() = default;

  /// Passes over `rows` rows at the front. \return IOError where the chunk has fewer.
  virtual arrow::Status Skip(int64_t rows) = 0;

  /// Decodes the next `rows` rows to `target`. \param first_row  their position in the row group, for messages and
  /// keyed ops.
  virtual arrow::Status Read(int64_t rows, int64_t first_row, SlotTarget target) = 0;
};

}  // namespace penstock

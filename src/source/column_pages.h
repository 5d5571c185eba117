#pragma once

#include <arrow/memory_pool.h>
#include <parquet/column_reader.h>

#include <memory>

#include "source/parquet_file.h"

namespace parquet {
class RowGroupReader;
}

namespace penstock {

/// Parquet's reader of one flat column chunk, as RowGroupReader::Column() gives it, but that ZSTD pages are
/// decompressed with a context that the thread keeps: Parquet makes one for each page, which is a tenth of the time of
/// decoding.
///
/// \param properties  of the row group's file reader: pool, checksums, stream buffer.
/// Errors: throws what Parquet throws (see CatchParquet). Threads: one at a time.
std::shared_ptr<parquet::ColumnReader> OpenColumnReader(const ParquetFile& file, parquet::RowGroupReader* row_group,
                                                        int leaf, parquet::ReaderProperties properties);

}  // namespace penstock

#pragma once

#include <parquet/column_reader.h>

#include <memory>

#include "source/chunk_stream.h"
#include "source/parquet_file.h"

namespace penstock {

/// The pages of one column chunk, decompressed and their checksums verified, as Parquet's own page reader gives them:
/// each is valid until the next is asked for. Two things are done otherwise, as they take a tenth of the time of
/// decoding each: pages are not allocated one by one (see ChunkStream), and ZSTD is decompressed with a context that
/// the thread keeps.
///
/// \param properties  pool, checksums, bytes to read at once.
/// \param plain       set to what the pages are slices of, where they are not compressed; may be null.
/// Errors: throws what Parquet throws (see CatchParquet). Threads: one at a time.
std::unique_ptr<parquet::PageReader> OpenColumnPages(const ParquetFile& file, int row_group, int leaf,
                                                     const parquet::ReaderProperties& properties,
                                                     std::shared_ptr<ChunkStream>* plain = nullptr);

}  // namespace penstock

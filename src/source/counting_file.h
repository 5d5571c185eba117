#pragma once

#include <arrow/io/interfaces.h>

#include <memory>

#include "source/parquet_file.h"

namespace penstock {

/// `file`, with time and bytes of its reads added to `counters` (may be null) and to the calling thread's own time.
///
/// Ownership: shares `file`; `counters` must outlive the result. Threads: as `file`; ReadAt() from any thread.
std::shared_ptr<arrow::io::RandomAccessFile> CountReads(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                                        IoCounters* counters);

}  // namespace penstock

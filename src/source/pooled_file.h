#pragma once

#include <arrow/io/interfaces.h>
#include <arrow/memory_pool.h>

#include <cstdint>
#include <memory>

namespace penstock {

/// A part of a file, as a file of its own, whose buffers come from a pool. Nothing outside of the part is read.
///
/// \param keeper  of the pool: kept by the file and its buffers (readers that read ahead on threads of Arrow's let go
/// of
///                them when these are done); null where the pool outlives them anyway.
/// Ownership: shares `file`; `pool` must outlive the buffers. Threads: as `file`; ReadAt() from any thread.
std::shared_ptr<arrow::io::RandomAccessFile> PooledPart(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                                        int64_t begin, int64_t size_bytes, arrow::MemoryPool* pool,
                                                        std::shared_ptr<const void> keeper = nullptr);

}  // namespace penstock

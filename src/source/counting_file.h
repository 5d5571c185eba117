#pragma once

#include <arrow/io/interfaces.h>

#include <chrono>
#include <cstdint>
#include <memory>

#include "source/file_set.h"
#include "source/io_counters.h"

namespace penstock {

/// IOError where a file's size or time of the last write are not those of `entry` (-1: not known, not compared).
arrow::Status CheckUnchanged(const FileEntry& entry, int64_t size_bytes, int64_t mtime_ns);

/// While it lives, reads of the calling thread are nobody's waiting: their time is not counted, but whoever waits for
/// them says so by AddReadWait().
class BackgroundRead {
 public:
  BackgroundRead();
  ~BackgroundRead();
  BackgroundRead(const BackgroundRead&) = delete;
  BackgroundRead& operator=(const BackgroundRead&) = delete;
};

/// Counts the time that the calling thread waited for somebody else's read as its own. `counters` may be null.
void AddReadWait(std::chrono::nanoseconds waited, IoCounters* counters);

/// `file`, with time and bytes of its reads added to `counters` (may be null) and to the calling thread's own time.
/// Each read of a local file also checks that nobody wrote to it since `entry` was made: bytes of two versions are
/// never mixed. Each read of a remote one, that an answer has all the bytes that were asked for.
///
/// Ownership: shares `file`; `counters` must outlive the result. Threads: as `file`; ReadAt() from any thread.
std::shared_ptr<arrow::io::RandomAccessFile> CountReads(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                                        const FileEntry& entry, IoCounters* counters);

/// Opens what `entry` names, as CountReads() has it. IOError where it is missing, no file, or has changed.
/// \param is_local  set to whether it is on a disk or in memory, so that small reads cost little; may be null.
arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenCounted(arrow::fs::FileSystem& fs,
                                                                        const FileEntry& entry, IoCounters* counters,
                                                                        bool* is_local = nullptr);

}  // namespace penstock

#pragma once

#include <arrow/io/type_fwd.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>
#include <parquet/type_fwd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "source/file_set.h"
#include "source/io_counters.h"

namespace parquet {
class ReaderProperties;
}

namespace penstock {

/// Of a file that is not on this machine, where a request costs milliseconds.
struct RemoteFile {
  std::function<arrow::Status()> check;  ///< OK where the file is still what its entry says; asks for it.
  IoCounters* counters = nullptr;        ///< May be null.
};

/// One open Parquet file: its bytes and its footer.
///
/// Ownership: shared by the row groups that are being read. Threads: reading at positions may be done from any thread.
struct ParquetFile {
  FileEntry entry;
  std::shared_ptr<arrow::io::RandomAccessFile> file;  ///< Counts into IoCounters.
  std::shared_ptr<const RemoteFile> remote;           ///< Null: local, or in memory.
  std::shared_ptr<parquet::FileMetaData> metadata;
  std::shared_ptr<arrow::Schema>
      schema;                ///< As Arrow reads it (ARROW:schema honoured, its key-value metadata dropped).
  int64_t footer_bytes = 0;  ///< Serialized.
  uint64_t footer_digest = 0;

  /// Estimate of the heap memory held, in bytes.
  int64_t MemoryBytes() const;
};

/// Opens a file and reads its footer. Errors are IOError or Invalid and start with "'path': "; they say what a person
/// can do (missing, empty, truncated, not Parquet, encrypted, changed since the loader was made: size or mtime differ
/// from `entry`).
arrow::Result<std::shared_ptr<ParquetFile>> OpenParquet(arrow::fs::FileSystem& fs, const FileEntry& entry,
                                                        IoCounters* counters);

/// The reader properties used everywhere: counted pool, page checksums verified, buffered stream on with
/// `buffer_bytes`.
parquet::ReaderProperties MakeReaderProperties(arrow::MemoryPool* pool, int64_t buffer_bytes);

/// Runs `body` and turns whatever Parquet throws (ParquetStatusException, ParquetException, std::exception) into a
/// Status. Out-of-memory stays OutOfMemory. Text is made valid UTF-8.
template <typename Body>
arrow::Status CatchParquet(Body&& body);
/// For CatchParquet: the Status of the exception being handled.
arrow::Status StatusOfCurrentException();

template <typename Body>
arrow::Status CatchParquet(Body&& body) {
  try {
    return body();
  } catch (...) {
    return StatusOfCurrentException();
  }
}

}  // namespace penstock

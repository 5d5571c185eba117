#pragma once

#include <arrow/filesystem/type_fwd.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "penstock/state.h"

namespace penstock {

/// One file as it was found when the loader was made.
struct FileEntry {
  std::string path;         ///< As the file system knows it.
  int64_t size_bytes = -1;  ///< -1: the file system does not say.
  int64_t mtime_ns = -1;    ///< -1: the file system does not say.
  std::vector<std::shared_ptr<arrow::Scalar>>
      partition_values;  ///< One per partition field, in its type; null scalars where the path has none.
};

/// What a loader reads, in order.
struct FileSet {
  std::shared_ptr<arrow::fs::FileSystem> filesystem;
  std::vector<FileEntry> files;
  std::vector<std::shared_ptr<arrow::Field>>
      partition_fields;  ///< int32, or int64 where int32 is too narrow, or string.

  std::vector<std::string> Paths() const;
  /// Estimate of the heap memory that this object holds, in bytes.
  int64_t MemoryBytes() const;
  /// Paths count from the folder that all files have in common, so that data that was moved is the same.
  DataFingerprint Fingerprint() const;
};

/// Resolves paths, folders (recursively; names that start with '.' or '_' are left out; "key=value" folders become
/// partition columns, values unquoted from URI escapes, __HIVE_DEFAULT_PARTITION__ is null; in a folder only
/// "*.parquet", "*.parq", "*.pq" files unless there are none of these), glob patterns (*, ?, [..], ** on the local or
/// the given file system) and URIs.
///
/// \param filesystem  null: local, or what a URI names ("file:///...", "s3://..."). Mixing file systems is Invalid.
/// \return IOError where a path does not exist (naming it), Invalid where nothing matches a pattern, a folder has no
/// data file, or `paths` is empty. Blocking: lists folders; call without the GIL. Threads: any.
arrow::Result<FileSet> ResolveFiles(const std::vector<std::string>& paths,
                                    std::shared_ptr<arrow::fs::FileSystem> filesystem);

/// Gives each file the values of its row in `partitions`, in place of those of hive folders. Invalid where there are
/// not as many rows as files.
arrow::Status SetPartitions(const arrow::RecordBatch& partitions, FileSet* files);

}  // namespace penstock

#pragma once

#include <arrow/filesystem/type_fwd.h>
#include <arrow/result.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "source/file_set.h"
#include "source/io_counters.h"

namespace penstock {

enum class FileKind : uint8_t { kParquet, kIpcFile, kIpcStream, kCsv, kTsv, kJson, kUnknown };
/// "a Parquet file", "a CSV file", ...
std::string_view NameOf(FileKind kind);

/// By the name alone, a suffix for compression (".csv.gz") left aside.
std::optional<FileKind> KindOfName(std::string_view path);

/// Text by its name, everything else by its first bytes. Blocking: may read.
arrow::Result<FileKind> KindOf(arrow::fs::FileSystem& fs, const FileEntry& entry, IoCounters* counters);

/// `status` of reading a text file; where its bytes are not text, an error that says what it is.
arrow::Status OrMisnamed(const arrow::Status& status, const FileSet& files, size_t index, FileKind kind,
                         IoCounters* counters);

/// `status` of opening files.files[index] as `kind`; where that failed because the file is of another kind, an error
/// that names it and the first file.
arrow::Status OrMixed(const arrow::Status& status, const FileSet& files, size_t index, FileKind kind,
                      IoCounters* counters);

}  // namespace penstock

#pragma once

#include <arrow/result.h>

#include <memory>

#include "source/file_set.h"
#include "source/parquet_file.h"
#include "source/source.h"

namespace penstock {

/// Parquet files. Opens the first to learn the schema.
/// \param counters  must outlive the source.
arrow::Result<std::unique_ptr<Source>> MakeParquetSource(FileSet files, IoCounters* counters);

}  // namespace penstock

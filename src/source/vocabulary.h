#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "source/file_set.h"
#include "source/parquet_file.h"

namespace penstock {

/// Reads the values of dictionary columns over all row groups of all files, each value once, in order of first
/// appearance.
///
/// Where a column chunk is fully dictionary-encoded only its dictionary page is read (it may hold values that no row
/// uses).
/// \param fields  of dictionary type, all in `first`.
/// \return by name; errors name the file, the row group and the column. Blocking: reads every footer.
arrow::Result<std::map<std::string, std::shared_ptr<arrow::Array>>> ReadVocabularies(
    const std::vector<std::shared_ptr<arrow::Field>>& fields, const FileSet& files, const ParquetFile& first,
    arrow::MemoryPool* pool, IoCounters* counters);

/// That `file` has the column `field`, once and with the same type. Errors start with "'path': ".
arrow::Status CheckColumn(const ParquetFile& file, const arrow::Field& field);

}  // namespace penstock

#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include "source/file_set.h"
#include "source/parquet_file.h"
#include "source/source.h"

namespace penstock {

/// Reads the values of dictionary columns over all row groups of all files, each value once, in order of first
/// appearance.
///
/// Where a column chunk is fully dictionary-encoded only its dictionary page is read (it may hold values that no row
/// uses).
/// \param fields  of dictionary type, all in the first file.
/// \return by name; errors name the file, the row group and the column. Blocking: reads every footer.
arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields, const FileSet& files,
                                             arrow::MemoryPool* pool, IoCounters* counters);

}  // namespace penstock

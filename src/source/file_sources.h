#pragma once

#include <arrow/result.h>

#include <memory>

#include "source/file_kind.h"
#include "source/file_set.h"
#include "source/source.h"

namespace penstock {

/// Arrow IPC files. Counted: the headers of their record batches say how many rows there are. `counters` must outlive
/// the source.
arrow::Result<std::unique_ptr<Source>> MakeIpcSource(FileSet files, IoCounters* counters);

/// Files that are read from front to back: IPC streams, CSV, TSV, JSON lines. Not counted.
/// \param names_columns  columns are asked for by name: what else comes up in lines of JSON is passed over.
arrow::Result<std::unique_ptr<Source>> MakeStreamedFilesSource(FileSet files, FileKind kind, bool names_columns,
                                                               IoCounters* counters);

}  // namespace penstock

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
arrow::Result<std::unique_ptr<Source>> MakeStreamedFilesSource(FileSet files, FileKind kind, IoCounters* counters);

}  // namespace penstock

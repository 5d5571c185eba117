#pragma once

#include <arrow/filesystem/type_fwd.h>
#include <nanobind/nanobind.h>

#include <memory>

namespace penstock::python {

/// The Arrow file system for what penstock._source.resolve_filesystem() gave: None (local files and URIs), a str (local
/// files below that folder) or a pyarrow.fs.FileSystem, which is then called under the GIL, on the workers. Needs the
/// GIL.
std::shared_ptr<arrow::fs::FileSystem> MakeFileSystem(nanobind::handle filesystem);

}  // namespace penstock::python

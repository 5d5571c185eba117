#include "file_system.h"

#include <arrow/filesystem/filesystem.h>
#include <arrow/filesystem/localfs.h>
#include <arrow/python/filesystem.h>
#include <arrow/python/io.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

namespace penstock::python {

namespace nb = nanobind;

namespace {

using arrow::fs::FileInfo;

// Arrow calls the functions below with the GIL held and looks for a pending Python error afterwards: no C++ exception
// may pass.
template <typename Fn>
void KeepPythonError(Fn&& fn) {
  try {
    fn();
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

FileInfo ToFileInfo(nb::handle info) {
  FileInfo out(nb::cast<std::string>(info.attr("path")),
               static_cast<arrow::fs::FileType>(nb::cast<int>(info.attr("type").attr("value"))));
  if (nb::object size = info.attr("size"); !size.is_none()) out.set_size(nb::cast<int64_t>(size));
  if (nb::object mtime = info.attr("mtime_ns"); !mtime.is_none()) {
    out.set_mtime(arrow::fs::TimePoint(arrow::fs::TimePoint::duration(nb::cast<int64_t>(mtime))));
  }
  return out;
}

std::vector<FileInfo> ToFileInfos(nb::handle infos) {
  std::vector<FileInfo> out;
  for (nb::handle info : infos) out.push_back(ToFileInfo(info));
  return out;
}

std::vector<FileInfo> Select(nb::handle fs, const arrow::fs::FileSelector& select) {
  nb::object selector = nb::module_::import_("pyarrow.fs")
                            .attr("FileSelector")(select.base_dir, nb::arg("allow_not_found") = select.allow_not_found,
                                                  nb::arg("recursive") = select.recursive);
  return ToFileInfos(fs.attr("get_file_info")(selector));
}

template <typename... Args>
void RefuseToWrite(PyObject*, Args&&...) {
  PyErr_SetString(PyExc_NotImplementedError, "penstock only reads");
}

using GetReader = PyObject* (*)(PyObject*, bool, std::shared_ptr<arrow::io::RandomAccessFile>*);

// pyarrow's own way from a NativeFile to the C++ file in it; null where this pyarrow has none of this signature.
GetReader FindGetReader() {
  constexpr const char* kSignature = "PyObject *(PyObject *, bool, std::shared_ptr< arrow::io::RandomAccessFile>  *)";
  nb::object api = nb::module_::import_("pyarrow.lib").attr("__pyx_capi__");
  nb::object capsule = api.attr("get")("get_reader");
  if (PyCapsule_IsValid(capsule.ptr(), kSignature) == 0) return nullptr;
  return reinterpret_cast<GetReader>(PyCapsule_GetPointer(capsule.ptr(), kSignature));
}

// S3 and the like are then read without the GIL, at several places at once. What is Python's is read through one layer.
std::shared_ptr<arrow::io::RandomAccessFile> ToFile(const nb::object& file) {
  const GetReader get_reader = FindGetReader();
  if (get_reader == nullptr || !nb::isinstance(file, nb::module_::import_("pyarrow").attr("NativeFile"))) {
    return std::make_shared<arrow::py::PyReadableFile>(file.ptr());
  }
  std::shared_ptr<arrow::io::RandomAccessFile> reader;
  const nb::object done = nb::steal(get_reader(file.ptr(), /*use_memory_map=*/false, &reader));
  if (!done.is_valid()) throw nb::python_error();
  return reader;
}

template <typename File>
auto OpenWith() {
  return [](PyObject* fs, const std::string& path, std::shared_ptr<File>* out) {
    KeepPythonError([&] { *out = ToFile(nb::handle(fs).attr("open_input_file")(path)); });
  };
}

void AddQueries(arrow::py::fs::PyFileSystemVtable* vtable) {
  vtable->get_type_name = [](PyObject* fs, std::string* out) {
    KeepPythonError([&] { *out = nb::cast<std::string>(nb::handle(fs).attr("type_name")); });
  };
  vtable->equals = [](PyObject* fs, const arrow::fs::FileSystem& other) {
    const auto* wrapped = dynamic_cast<const arrow::py::fs::PyFileSystem*>(&other);
    return wrapped != nullptr && wrapped->handler() == fs;
  };
  vtable->get_file_info = [](PyObject* fs, const std::string& path, FileInfo* out) {
    KeepPythonError([&] { *out = ToFileInfo(nb::handle(fs).attr("get_file_info")(path)); });
  };
  vtable->get_file_info_vector = [](PyObject* fs, const std::vector<std::string>& paths, std::vector<FileInfo>* out) {
    KeepPythonError([&] { *out = ToFileInfos(nb::handle(fs).attr("get_file_info")(nb::cast(paths))); });
  };
  vtable->get_file_info_selector = [](PyObject* fs, const arrow::fs::FileSelector& select, std::vector<FileInfo>* out) {
    KeepPythonError([&] { *out = Select(fs, select); });
  };
  vtable->normalize_path = [](PyObject* fs, const std::string& path, std::string* out) {
    KeepPythonError([&] { *out = nb::cast<std::string>(nb::handle(fs).attr("normalize_path")(path)); });
  };
  vtable->open_input_stream = OpenWith<arrow::io::InputStream>();
  vtable->open_input_file = OpenWith<arrow::io::RandomAccessFile>();
}

void RefuseWrites(arrow::py::fs::PyFileSystemVtable* vtable) {
  vtable->create_dir = [](auto&&... args) { RefuseToWrite(args...); };
  vtable->delete_dir = [](auto&&... args) { RefuseToWrite(args...); };
  vtable->delete_dir_contents = [](auto&&... args) { RefuseToWrite(args...); };
  vtable->delete_root_dir_contents = [](auto&&... args) { RefuseToWrite(args...); };
  vtable->delete_file = [](auto&&... args) { RefuseToWrite(args...); };
  vtable->move = [](auto&&... args) { RefuseToWrite(args...); };
  vtable->copy_file = [](auto&&... args) { RefuseToWrite(args...); };
  vtable->open_output_stream = [](auto&&... args) { RefuseToWrite(args...); };
  vtable->open_append_stream = [](auto&&... args) { RefuseToWrite(args...); };
}

}  // namespace

std::shared_ptr<arrow::fs::FileSystem> MakeFileSystem(nb::handle filesystem) {
  if (filesystem.is_none()) return nullptr;
  if (nb::isinstance<nb::str>(filesystem)) {
    return std::make_shared<arrow::fs::SubTreeFileSystem>(nb::cast<std::string>(filesystem),
                                                          std::make_shared<arrow::fs::LocalFileSystem>());
  }
  arrow::py::fs::PyFileSystemVtable vtable;
  AddQueries(&vtable);
  RefuseWrites(&vtable);
  return arrow::py::fs::PyFileSystem::Make(filesystem.ptr(), std::move(vtable));
}

}  // namespace penstock::python

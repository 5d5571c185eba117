#include "arrow_exchange.h"

#include <arrow/array.h>
#include <arrow/c/abi.h>
#include <arrow/c/bridge.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>

#include <string>
#include <string_view>
#include <utility>

#include "bindings.h"
#include "errors.h"

namespace penstock::python {

using namespace nb::literals;

namespace {

// A capsule that owns a C structure: what nobody has moved out of it is released when the capsule dies.
template <typename CStruct>
struct Capsule;
template <>
struct Capsule<ArrowSchema> {
  static constexpr const char* kName = "arrow_schema";
};
template <>
struct Capsule<ArrowArray> {
  static constexpr const char* kName = "arrow_array";
};

template <>
struct Capsule<ArrowArrayStream> {
  static constexpr const char* kName = "arrow_array_stream";
};

template <typename CStruct>
struct Owned {
  CStruct c_struct{};
  ~Owned() {
    if (c_struct.release != nullptr) c_struct.release(&c_struct);
  }
};

template <typename CStruct>
void DestroyCapsule(PyObject* capsule) {
  auto* c_struct = static_cast<CStruct*>(PyCapsule_GetPointer(capsule, Capsule<CStruct>::kName));
  if (c_struct->release != nullptr) c_struct->release(c_struct);
  delete c_struct;
}

template <typename CStruct>
std::pair<nb::object, CStruct*> MakeCapsule() {
  auto c_struct = std::make_unique<CStruct>();
  c_struct->release = nullptr;
  nb::object capsule = nb::steal(PyCapsule_New(c_struct.get(), Capsule<CStruct>::kName, &DestroyCapsule<CStruct>));
  if (!capsule.is_valid()) throw nb::python_error();
  return {std::move(capsule), c_struct.release()};
}

template <typename CStruct>
CStruct* FromCapsule(nb::handle capsule) {
  auto* c_struct = static_cast<CStruct*>(PyCapsule_GetPointer(capsule.ptr(), Capsule<CStruct>::kName));
  if (c_struct == nullptr) throw nb::python_error();
  return c_struct;
}

/// What Python sees of an array, record batch or schema on its way out. Holds it until the consumer has taken it.
struct ArrowExport {
  std::shared_ptr<arrow::Array> array;
  std::shared_ptr<arrow::RecordBatch> batch;
  std::shared_ptr<arrow::Schema> schema;
};

nb::object SchemaCapsule(const ArrowExport& self) {
  auto [capsule, c_schema] = MakeCapsule<ArrowSchema>();
  if (self.array != nullptr) {
    Check(arrow::ExportType(*self.array->type(), c_schema));
  } else {
    Check(arrow::ExportSchema(self.batch != nullptr ? *self.batch->schema() : *self.schema, c_schema));
  }
  return capsule;
}

nb::tuple ArrayCapsules(const ArrowExport& self, nb::handle /*requested_schema: a wish that may be ignored*/) {
  if (self.array == nullptr && self.batch == nullptr) throw nb::type_error("a schema has no data");
  auto [capsule, c_array] = MakeCapsule<ArrowArray>();
  Check(self.array != nullptr ? arrow::ExportArray(*self.array, c_array)
                              : arrow::ExportRecordBatch(*self.batch, c_array));
  return nb::make_tuple(SchemaCapsule(self), capsule);
}

// What Arrow says of a stream that it cannot import names neither the column nor what to do. A stream whose schema
// cannot be had says so itself when it is imported.
arrow::Status CheckStream(ArrowArrayStream* stream, const char* source) {
  Owned<ArrowSchema> schema;
  if (stream->get_schema(stream, &schema.c_struct) != 0) return arrow::Status::OK();
  if (std::string_view(schema.c_struct.format) != "+s") {
    return arrow::Status::TypeError("a ", source, " is a single column, not a table; give a table, such as ",
                                    "pyarrow.table({\"x\": column})");
  }
  for (int64_t i = 0; i < schema.c_struct.n_children; ++i) {
    ArrowSchema* child = schema.c_struct.children[i];
    const std::string name = child->name == nullptr ? "" : child->name;
    const arrow::Status imported = arrow::ImportField(child).status();
    if (imported.ok()) continue;
    return imported.WithMessage("column '", name, "' of the ", source, " is of a type that Arrow does not know (",
                                imported.message(), "); cast it, or leave it out");
  }
  return arrow::Status::OK();
}

}  // namespace

std::shared_ptr<arrow::Array> ImportArray(nb::handle array) {
  nb::object capsules = array.attr("__arrow_c_array__")();
  auto* c_schema = FromCapsule<ArrowSchema>(capsules[0]);
  return Unwrap(arrow::ImportArray(FromCapsule<ArrowArray>(capsules[1]), c_schema));
}

arrow::Result<std::shared_ptr<arrow::RecordBatch>> ImportRecordBatch(nb::handle batch) {
  nb::object capsules = batch.attr("__arrow_c_array__")();
  auto* c_schema = FromCapsule<ArrowSchema>(capsules[0]);
  return arrow::ImportRecordBatch(FromCapsule<ArrowArray>(capsules[1]), c_schema);
}

arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> ImportStream(nb::handle stream) {
  nb::object capsule = stream.attr("__arrow_c_stream__")();
  ARROW_RETURN_NOT_OK(CheckStream(FromCapsule<ArrowArrayStream>(capsule), nb::type_name(stream.type()).c_str()));
  return arrow::ImportRecordBatchReader(FromCapsule<ArrowArrayStream>(capsule));
}

nb::object ExportArray(std::shared_ptr<arrow::Array> array) {
  return nb::cast(ArrowExport{std::move(array), nullptr, nullptr});
}

nb::object ExportRecordBatch(std::shared_ptr<arrow::RecordBatch> batch) {
  return nb::cast(ArrowExport{nullptr, std::move(batch), nullptr});
}

nb::object ExportSchema(std::shared_ptr<arrow::Schema> schema) {
  return nb::cast(ArrowExport{nullptr, nullptr, std::move(schema)});
}

void BindArrowExport(nb::module_& m) {
  nb::class_<ArrowExport>(m, "ArrowExport",
                          "Arrow data on its way to a library that speaks the Arrow PyCapsule interface.")
      .def("__arrow_c_schema__", &SchemaCapsule)
      .def("__arrow_c_array__", &ArrayCapsules, "requested_schema"_a.none() = nb::none(),
           nb::sig("def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]"));
}

}  // namespace penstock::python

#include <string>
#include <utility>
#include <vector>

#include "batch_exporter.h"
#include "bindings.h"
#include "dict_exporter.h"

namespace penstock::python {

namespace {

/// One column's bytes in a slot, for the buffer protocol: the `base` of the NumPy arrays. Holds the slot.
struct SlotView {
  void* data = nullptr;
  int64_t size_bytes = 0;
  std::shared_ptr<void> hold;
};

int GetBuffer(PyObject* self, Py_buffer* buffer, int flags) {
  const auto* view = nb::inst_ptr<SlotView>(self);
  return PyBuffer_FillInfo(buffer, self, view->data, static_cast<Py_ssize_t>(view->size_bytes), /*readonly=*/0, flags);
}

PyType_Slot kSlotViewSlots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(&GetBuffer)}, {0, nullptr}};

class NumpyMaker {
 public:
  using Type = nb::object;

  nb::object TypeOf(DType type) const {
    if (type == DType::kDecimal128 || type == DType::kBytes) {
      throw nb::type_error(("a column of " + std::string(DTypeName(type)) + " has no array form").c_str());
    }
    const std::string_view name = DTypeName(type);
    return dtype_(nb::str(name.data(), name.size()));
  }

  nb::object Make(const Batch& batch, uint8_t* data, int64_t length, const Type& dtype,
                  const std::vector<int64_t>& row_shape, int64_t bytes) const {
    const nb::object shape = Shape(length, row_shape);
    nb::object view = nb::inst_alloc(view_type_);
    new (nb::inst_ptr<SlotView>(view)) SlotView{data, bytes, batch.hold()};
    nb::inst_mark_ready(view);
    PyObject* const args[] = {shape.ptr(), dtype.ptr(), view.ptr()};
    nb::object array = nb::steal(PyObject_Vectorcall(ndarray_.ptr(), args, 3, nullptr));
    if (!array.is_valid()) throw nb::python_error();
    return array;
  }

 private:
  static nb::object Shape(int64_t length, const std::vector<int64_t>& row_shape) {
    nb::object shape = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(row_shape.size()) + 1));
    if (!shape.is_valid()) throw nb::python_error();
    PyTuple_SetItem(shape.ptr(), 0, PyLong_FromLongLong(length));
    for (size_t i = 0; i < row_shape.size(); ++i) {
      PyTuple_SetItem(shape.ptr(), static_cast<Py_ssize_t>(i) + 1, PyLong_FromLongLong(row_shape[i]));
    }
    return shape;
  }

  nb::object ndarray_ = nb::module_::import_("numpy").attr("ndarray");
  nb::object dtype_ = nb::module_::import_("numpy").attr("dtype");
  nb::handle view_type_ = nb::type<SlotView>();
};

}  // namespace

std::unique_ptr<BatchExporter> MakeNumpyExporter(const Schema& schema) {
  return std::make_unique<DictExporter<NumpyMaker>>(schema);
}

void BindSlotView(nb::module_& m) {
  nb::class_<SlotView>(m, "SlotView", nb::type_slots(kSlotViewSlots),
                       "Bytes of a slot that a NumPy array looks at; the slot stays as long as this object does.");
}

}  // namespace penstock::python

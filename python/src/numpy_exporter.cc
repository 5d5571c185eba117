#include <string>
#include <utility>
#include <vector>

#include "batch_exporter.h"
#include "bindings.h"

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

/// Batches as {name: numpy.ndarray}.
class NumpyExporter : public BatchExporter {
 public:
  explicit NumpyExporter(const Schema& schema) {
    for (const Field& field : schema) {
      Column column{ColumnKey(field.name), nb::object(),  NumpyType(field.dtype),
                    field.shape,           field.items(), ByteWidth(field.dtype)};
      if (field.has_mask) column.mask_key = MaskKey(field.name);
      columns_.push_back(std::move(column));
    }
  }

  nb::object Export(const Batch& batch) override {
    nb::object out = nb::steal(PyDict_New());
    for (size_t i = 0; i < columns_.size(); ++i) {
      const Column& column = columns_[i];
      const Batch::Column& data = batch.column(static_cast<int>(i));
      nb::object shape = Shape(batch.num_rows(), column.shape);
      const int64_t items = batch.num_rows() * column.items;
      Put(out, column.key, MakeArray(batch, data.values, items * column.width, shape, column.dtype));
      if (data.mask == nullptr || !column.mask_key.is_valid()) continue;
      Put(out, column.mask_key, MakeArray(batch, data.mask, items, shape, bool_));
    }
    return out;
  }

 private:
  struct Column {
    nb::object key;
    nb::object mask_key;
    nb::object dtype;
    std::vector<int64_t> shape;  // Of one row.
    int64_t items;               // In one row.
    int64_t width;               // Bytes of one element.
  };

  nb::object NumpyType(DType type) const {
    if (type == DType::kDecimal128 || type == DType::kBytes) {
      throw nb::type_error(("a column of " + std::string(DTypeName(type)) + " has no array form").c_str());
    }
    const std::string_view name = DTypeName(type);
    return dtype_(nb::str(name.data(), name.size()));
  }

  static void Put(nb::handle dict, nb::handle key, const nb::object& value) {
    if (PyDict_SetItem(dict.ptr(), key.ptr(), value.ptr()) != 0) throw nb::python_error();
  }

  static nb::object Shape(int64_t num_rows, const std::vector<int64_t>& row_shape) {
    nb::object shape = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(row_shape.size()) + 1));
    if (!shape.is_valid()) throw nb::python_error();
    PyTuple_SetItem(shape.ptr(), 0, PyLong_FromLongLong(num_rows));
    for (size_t i = 0; i < row_shape.size(); ++i) {
      PyTuple_SetItem(shape.ptr(), static_cast<Py_ssize_t>(i) + 1, PyLong_FromLongLong(row_shape[i]));
    }
    return shape;
  }

  nb::object MakeArray(const Batch& batch, uint8_t* data, int64_t size_bytes, nb::handle shape, nb::handle dtype) {
    static uint8_t nothing;  // An address for arrays without elements.
    nb::object view = nb::inst_alloc(view_type_);
    new (nb::inst_ptr<SlotView>(view)) SlotView{data != nullptr ? data : &nothing, size_bytes, batch.hold()};
    nb::inst_mark_ready(view);
    PyObject* const args[] = {shape.ptr(), dtype.ptr(), view.ptr()};
    nb::object array = nb::steal(PyObject_Vectorcall(ndarray_.ptr(), args, 3, nullptr));
    if (!array.is_valid()) throw nb::python_error();
    return array;
  }

  nb::object ndarray_ = nb::module_::import_("numpy").attr("ndarray");
  nb::object dtype_ = nb::module_::import_("numpy").attr("dtype");
  nb::object bool_ = dtype_("bool");
  nb::handle view_type_ = nb::type<SlotView>();
  std::vector<Column> columns_;
};

}  // namespace

std::unique_ptr<BatchExporter> MakeNumpyExporter(const Schema& schema) {
  return std::make_unique<NumpyExporter>(schema);
}

void BindSlotView(nb::module_& m) {
  nb::class_<SlotView>(m, "SlotView", nb::type_slots(kSlotViewSlots),
                       "Bytes of a slot that a NumPy array looks at; the slot stays as long as this object does.");
}

}  // namespace penstock::python

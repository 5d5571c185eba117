#include "batch_exporter.h"

#include <arrow/record_batch.h>

#include <string>

#include "arrow_exchange.h"
#include "errors.h"

namespace penstock::python {

namespace nb = nanobind;

namespace {

/// Batches as pyarrow.RecordBatch.
class ArrowExporter : public BatchExporter {
 public:
  nb::object Export(const Batch& batch) override {
    return record_batch_(ExportRecordBatch(Unwrap(batch.ToRecordBatch())));
  }

 private:
  nb::object record_batch_ = nb::module_::import_("pyarrow").attr("record_batch");
};

}  // namespace

std::unique_ptr<BatchExporter> MakeArrowExporter() { return std::make_unique<ArrowExporter>(); }

std::unique_ptr<BatchExporter> MakeExporter(std::string_view format, const Schema& schema) {
  if (format == "torch") return MakeTorchExporter(schema);
  if (format == "numpy") return MakeNumpyExporter(schema);
  if (format == "arrow") return MakeArrowExporter();
  throw nb::value_error("format must be 'torch', 'numpy' or 'arrow'");
}

nb::object ColumnKey(const std::string& name) {
  PyObject* key = PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size()));
  if (key == nullptr) throw nb::python_error();
  PyUnicode_InternInPlace(&key);
  return nb::steal(key);
}

nb::object MaskKey(const std::string& name) { return ColumnKey(name + "_mask"); }

}  // namespace penstock::python

#include "batch_exporter.h"

#include <arrow/record_batch.h>

#include <string>
#include <utility>

#include "arrow_exchange.h"
#include "errors.h"

namespace penstock::python {

namespace nb = nanobind;

namespace {

/// Batches as pyarrow.RecordBatch, or as what a Python function makes of one.
class ArrowExporter : public BatchExporter {
 public:
  explicit ArrowExporter(nb::object convert) : convert_(std::move(convert)) {}

  nb::object Export(const Batch& batch) override {
    nb::object rows = record_batch_(ExportRecordBatch(Unwrap(batch.ToRecordBatch())));
    return convert_.is_none() ? rows : convert_(rows);
  }

 private:
  nb::object record_batch_ = nb::module_::import_("pyarrow").attr("record_batch");
  nb::object convert_;
};

}  // namespace

std::unique_ptr<BatchExporter> MakeArrowExporter() { return std::make_unique<ArrowExporter>(nb::none()); }

std::unique_ptr<BatchExporter> MakePandasExporter() {
  return std::make_unique<ArrowExporter>(nb::module_::import_("penstock._pandas").attr("to_dataframe"));
}

std::unique_ptr<BatchExporter> MakeExporter(std::string_view format, const Schema& schema) {
  if (format == "torch") return MakeTorchExporter(schema);
  if (format == "numpy") return MakeNumpyExporter(schema);
  if (format == "arrow") return MakeArrowExporter();
  if (format == "pandas") return MakePandasExporter();
  throw nb::value_error("format must be 'torch', 'numpy', 'arrow' or 'pandas'");
}

nb::object ColumnKey(const std::string& name) {
  PyObject* key = PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size()));
  if (key == nullptr) throw nb::python_error();
  PyUnicode_InternInPlace(&key);
  return nb::steal(key);
}

}  // namespace penstock::python

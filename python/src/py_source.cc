#include "py_source.h"

#include <arrow/python/common.h>
#include <arrow/record_batch.h>
#include <arrow/table.h>
#include <arrow/type.h>
#include <nanobind/stl/string.h>

#include <string>
#include <utility>

#include "arrow_exchange.h"
#include "errors.h"
#include "gil.h"

namespace penstock::python {

namespace nb = nanobind;

namespace {

using Reader = std::shared_ptr<arrow::RecordBatchReader>;

/// What Python raised, as a Status that still has it.
arrow::Status StatusOf(nb::python_error& error) {
  error.restore();
  return arrow::py::ConvertPyError();
}

/// Runs `body` with the GIL; no exception passes.
template <typename Body>
auto WithGil(Body&& body) -> decltype(body()) {
  arrow::py::PyAcquireGIL gil;
  try {
    return body();
  } catch (nb::python_error& error) {
    return StatusOf(error);
  } catch (const std::exception& error) {
    return arrow::Status::UnknownError(error.what());
  }
}

arrow::Status NotBatches(nb::handle item, int64_t position) {
  return arrow::Status::TypeError("item ", position, " of the iterable is of type ",
                                  nb::cast<std::string>(item.type().attr("__name__")),
                                  "; an iterable gives tables or record batches (pyarrow's, or whatever has "
                                  "__arrow_c_stream__ or __arrow_c_array__)");
}

/// The batches of what a Python iterator gives.
///
/// Threads: one at a time, without the GIL.
class IteratorReader final : public arrow::RecordBatchReader {
 public:
  explicit IteratorReader(nb::object iterator) : iterator_(iterator.release().ptr()) {}

  /// Pulls the first item, whose schema is that of the reader.
  arrow::Status Init() {
    ARROW_RETURN_NOT_OK(Pull());
    if (item_ == nullptr) {
      return arrow::Status::Invalid("the iterable gives nothing, so that there are no columns either");
    }
    schema_ = item_->schema();
    return arrow::Status::OK();
  }

  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }

  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* out) override {
    while (item_ != nullptr) {
      const arrow::Status read = item_->ReadNext(out);
      if (!read.ok()) {
        return read.WithMessage("item ", position_ - 1, " of the iterable: ", read.message());
      }
      if (*out != nullptr) return read;
      ARROW_RETURN_NOT_OK(Pull());
    }
    out->reset();
    return arrow::Status::OK();
  }

 private:
  /// Sets item_ to the next item's batches; null at the end.
  arrow::Status Pull() {
    item_.reset();
    return WithGil([&] {
      nb::object item = nb::steal(PyIter_Next(iterator_.obj()));
      if (!item.is_valid()) return PyErr_Occurred() != nullptr ? arrow::py::ConvertPyError() : arrow::Status::OK();
      const int64_t position = position_++;
      if (nb::hasattr(item, "__arrow_c_stream__")) return ImportStream(item).Value(&item_);
      if (!nb::hasattr(item, "__arrow_c_array__")) return NotBatches(item, position);
      ARROW_ASSIGN_OR_RAISE(auto batch, ImportRecordBatch(item));
      auto schema = batch->schema();
      return arrow::RecordBatchReader::Make({std::move(batch)}, std::move(schema)).Value(&item_);
    });
  }

  arrow::py::OwnedRefNoGIL iterator_;
  std::shared_ptr<arrow::Schema> schema_;
  Reader item_;
  int64_t position_ = 0;  // Of the item that comes next.
};

arrow::Result<Reader> OpenReader(PyObject* open) {
  std::shared_ptr<IteratorReader> items;
  auto stream = WithGil([&]() -> arrow::Result<Reader> {
    nb::object source = nb::handle(open)();
    if (nb::hasattr(source, "__arrow_c_stream__")) return ImportStream(source);
    items = std::make_shared<IteratorReader>(std::move(source));
    return nullptr;
  });
  if (!stream.ok() || items == nullptr) return stream;
  ARROW_RETURN_NOT_OK(items->Init());
  return items;
}

}  // namespace

std::shared_ptr<arrow::Table> ImportTable(nb::handle table) {
  if (!nb::hasattr(table, "__arrow_c_stream__")) {
    return Unwrap(arrow::Table::FromRecordBatches({Unwrap(ImportRecordBatch(table))}));
  }
  const Reader reader = Unwrap(ImportStream(table));
  auto read = [&] {
    GilRelease no_gil;
    return reader->ToTable();
  }();
  return Unwrap(std::move(read));
}

BatchReaderFactory MakeReaderFactory(nb::handle open) {
  auto function = std::make_shared<arrow::py::OwnedRefNoGIL>(open.inc_ref().ptr());
  return [function] { return OpenReader(function->obj()); };
}

}  // namespace penstock::python

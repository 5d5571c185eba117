#include "py_source.h"

#include <arrow/python/common.h>
#include <arrow/record_batch.h>
#include <arrow/table.h>
#include <arrow/type.h>
#include <nanobind/stl/string.h>

#include <deque>
#include <iterator>
#include <string>
#include <utility>

#include "arrow_exchange.h"
#include "errors.h"
#include "gil.h"
#include "penstock/store_reader.h"

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

/// The batches of what a Python iterator gives. An item with an attribute `is_in_store` is let go with its last batch:
/// when that batch's rows have been copied.
///
/// Threads: one at a time, without the GIL.
class IteratorReader final : public StoreReader {
 public:
  explicit IteratorReader(nb::object iterator) : iterator_(iterator.release().ptr()) {}

  /// Pulls the first item, whose schema is that of the reader.
  arrow::Status Init() {
    ARROW_RETURN_NOT_OK(Pull());
    if (item_ == nullptr && !is_owned_) {
      return arrow::Status::Invalid("the iterable gives nothing, so that there are no columns either");
    }
    if (item_ != nullptr) schema_ = item_->schema();
    return arrow::Status::OK();
  }

  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  bool is_in_store() const override { return is_in_store_; }
  std::shared_ptr<const void> TakeOwner() override { return batches_.empty() ? std::move(owner_) : owner_; }

  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* out) override {
    while (item_ != nullptr || is_owned_) {
      if (!batches_.empty()) {
        *out = std::move(batches_.front());
        batches_.pop_front();
        return arrow::Status::OK();
      }
      if (is_owned_) {
        ARROW_RETURN_NOT_OK(Pull());
        continue;
      }
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
    owner_.reset();
    is_owned_ = is_in_store_ = false;
    return WithGil([&] {
      nb::object item = nb::steal(PyIter_Next(iterator_.obj()));
      if (!item.is_valid()) return PyErr_Occurred() != nullptr ? arrow::py::ConvertPyError() : arrow::Status::OK();
      const int64_t position = position_++;
      if (nb::hasattr(item, "is_in_store")) return Own(std::move(item));
      if (nb::hasattr(item, "__arrow_c_stream__")) return ImportStream(item).Value(&item_);
      if (!nb::hasattr(item, "__arrow_c_array__")) return NotBatches(item, position);
      ARROW_ASSIGN_OR_RAISE(auto batch, ImportRecordBatch(item));
      auto schema = batch->schema();
      return arrow::RecordBatchReader::Make({std::move(batch)}, std::move(schema)).Value(&item_);
    });
  }

  /// Takes all batches out of an item, so that nothing else keeps them. Needs the GIL.
  arrow::Status Own(nb::object item) {
    is_in_store_ = nb::cast<bool>(item.attr("is_in_store"));
    ARROW_ASSIGN_OR_RAISE(const Reader reader, ImportStream(item));
    ARROW_ASSIGN_OR_RAISE(auto batches, reader->ToRecordBatches());
    if (schema_ == nullptr) schema_ = reader->schema();
    batches_ = {std::make_move_iterator(batches.begin()), std::make_move_iterator(batches.end())};
    owner_ = std::make_shared<arrow::py::OwnedRefNoGIL>(item.release().ptr());
    is_owned_ = true;
    return arrow::Status::OK();
  }

  arrow::py::OwnedRefNoGIL iterator_;
  std::shared_ptr<arrow::Schema> schema_;
  Reader item_;                                              // The one that is being read...
  bool is_owned_ = false;                                    // ... or, where this is true, its
  std::deque<std::shared_ptr<arrow::RecordBatch>> batches_;  // batches
  std::shared_ptr<const void> owner_;                        // and itself.
  bool is_in_store_ = false;
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

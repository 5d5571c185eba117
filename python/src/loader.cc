#include <arrow/buffer.h>
#include <arrow/compute/expression.h>
#include <arrow/type.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "arrow_exchange.h"
#include "bindings.h"
#include "charge.h"
#include "errors.h"
#include "file_system.h"
#include "gil.h"
#include "order_choices.h"
#include "py_loader.h"
#include "py_source.h"
#include "python_op.h"
#include "reports.h"

namespace penstock::python {

namespace {

// How long the end of the interpreter waits for a thread to come out of next(), which has nothing more to wait for.
constexpr int kExitWaitMs = 1000;

}  // namespace

using namespace nb::literals;

PyLoader::PyLoader(LoaderOptions options, std::string format) : format_(std::move(format)) {
  arrow::Result<std::unique_ptr<Loader>> made = [&] {
    GilRelease no_gil;  // Footers are read here.
    return Loader::Make(std::move(options));
  }();
  loader_ = Unwrap(std::move(made));
}

PyLoader::~PyLoader() {
  made_.clear();
  GilRelease no_gil;
  loader_.reset();
}

BatchExporter& PyLoader::exporter() {
  if (exporter_ == nullptr) exporter_ = MakeExporter(format_, *loader_->schema());
  return *exporter_;
}

PyLoader::Made PyLoader::Make(const Batch& batch) {
  BatchExporter& exporter = this->exporter();
  Made made{exporter.Export(batch), batch.num_rows()};
  for (int i = 1; i < exporter.most_together(); ++i) {
    const std::optional<Batch> further = loader_->NextAtHand();
    if (!further) break;
    made_.push_back({exporter.Export(*further), further->num_rows()});
  }
  return made;
}

PyLoader::Made PyLoader::TakeMade() {
  if (made_.empty() || pid_ != getpid()) return {};  // After a fork the loader itself says what is wrong.
  Made made = std::move(made_.front());
  made_.pop_front();
  return made;
}

PyLoader::Turn::Turn(PyLoader* loader) : loader_(loader) {
  // After a fork the thread that was taking a batch is gone; the loader itself says so.
  if (loader->is_taken_ && loader->pid_ == getpid()) {
    throw std::runtime_error("another thread is taking a batch from this loader; take them from one thread at a time");
  }
  loader->is_taken_ = true;
}

int64_t PyLoader::StartEpoch() {
  if (is_closing_) RaiseFromUse(arrow::Status::Cancelled("the loader is closed"));
  Turn turn(this);
  made_.clear();
  exporter();  // What is missing (torch) shows before threads start.
  arrow::Status status = [&] {
    GilRelease no_gil;
    return loader_->StartEpoch();
  }();
  if (!status.ok()) RaiseFromUse(status);
  return ++epoch_;
}

void PyLoader::RaiseFromUse(const arrow::Status& status) const {
  if (status.IsCancelled() && is_closed_at_exit_ && !IsMainThread()) {
    PyErr_SetNone(PyExc_SystemExit);
    throw nb::python_error();
  }
  Raise(status);
}

void PyLoader::EndEpoch(int64_t epoch) {
  if (epoch != epoch_) return;
  made_.clear();
  GilRelease no_gil;
  loader_->EndEpoch();
}

void PyLoader::Close() {
  is_closing_ = true;
  made_.clear();
  GilRelease no_gil;
  loader_->Close();
}

void PyLoader::CloseAtExit() {
  is_closed_at_exit_ = true;
  Close();
  for (int waited_ms = 0; is_taken_ && waited_ms < kExitWaitMs; ++waited_ms) {
    GilRelease no_gil;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

std::string PyLoader::TakePinRefusal() {
  if (is_refusal_taken_) return {};
  std::string refusal = loader_->PinRefusal();
  is_refusal_taken_ = !refusal.empty();
  return refusal;
}

namespace {

using Transforms = std::vector<std::tuple<std::string, std::string, std::vector<Op>>>;

/// Keyword arguments of _core.Loader that are more than plain values.
struct Choices {
  std::optional<nb::bytes> filter;
  Transforms transforms;
  bool is_mask;
  std::map<std::string, ops::FillNull> fill;
};

void SetChoices(Choices choices, LoaderOptions* options) {
  if (choices.filter) {
    auto buffer = arrow::Buffer::FromString(std::string(choices.filter->c_str(), choices.filter->size()));
    options->filter =
        std::make_shared<const arrow::compute::Expression>(Unwrap(arrow::compute::Deserialize(std::move(buffer))));
  }
  for (auto& [output, input, chain] : choices.transforms) {
    options->transforms.push_back({std::move(output), std::move(input), std::move(chain)});
  }
  options->nulls.otherwise = choices.is_mask ? NullPolicy::Kind::kMask : NullPolicy::Kind::kError;
  options->nulls.fill = std::move(choices.fill);
}

PinMemory PinMemoryNamed(const std::string& name) {
  if (name == "no") return PinMemory::kNo;
  return name == "required" ? PinMemory::kRequired : PinMemory::kWherePossible;
}

void InitLoader(PyLoader* self, std::vector<std::string> paths, nb::object table, nb::object stream, bool is_one_shot,
                nb::object partitions, nb::object filesystem, int64_t batch_size, bool drop_last,
                std::optional<std::vector<std::string>> columns, std::optional<nb::bytes> filter, Transforms transforms,
                bool mask_nulls, std::map<std::string, ops::FillNull> fill_nulls, std::string format, int num_workers,
                int prefetch_batches, int64_t memory_budget_bytes, bool in_order, std::optional<int64_t> limit,
                std::optional<std::tuple<int64_t, double, double>> sample, int collate_workers, int collate_batches,
                const std::string& pin_memory, int pin_device, bool waits_for_copies, const OrderChoices& order,
                bool direct_decode) {
  LoaderOptions options;
  options.paths = std::move(paths);
  if (!table.is_none()) options.table = ImportTable(table);
  if (!stream.is_none()) options.batches = MakeReaderFactory(stream);
  options.is_one_shot = is_one_shot;
  if (!partitions.is_none()) options.partitions = Unwrap(ImportRecordBatch(partitions));
  options.filesystem = MakeFileSystem(filesystem);
  options.batch_size = batch_size;
  options.drop_last = drop_last;
  options.columns = std::move(columns);
  SetChoices({std::move(filter), std::move(transforms), mask_nulls, std::move(fill_nulls)}, &options);
  options.layout = format == "arrow" || format == "pandas" ? Layout::kArrow : Layout::kTensor;
  options.num_workers = num_workers;
  options.prefetch_batches = prefetch_batches;
  options.memory_budget_bytes = memory_budget_bytes;
  options.in_order = in_order;
  options.limit = limit;
  if (sample) options.sample = {std::get<0>(*sample), std::get<1>(*sample), std::get<2>(*sample)};
  options.collate_workers = collate_workers;
  options.collate_batches = collate_batches;
  options.is_consumer_apart = true;  // Batches are made ahead of who gets them.
  options.pin_memory = PinMemoryNamed(pin_memory);
  options.pin_device = pin_device;
  options.waits_for_copies = waits_for_copies;
  order.SetIn(&options);
  options.use_direct_decode = direct_decode;
  new (self) PyLoader(std::move(options), std::move(format));
}

Account AccountNamed(const std::string& name) {
  for (const Account account : {Account::kPython, Account::kDevice, Account::kShuffle}) {
    if (name == AccountName(account)) return account;
  }
  throw nb::value_error("only \"python\", \"device\" and \"shuffle\" can be charged");
}

nb::tuple DescribeSchema(PyLoader& self) {
  nb::list fields;
  arrow::FieldVector arrow_fields, source_fields;
  for (const Field& field : *self.loader().schema()) {
    nb::object vocabulary = field.vocabulary != nullptr ? ExportArray(field.vocabulary) : nb::none();
    nb::list shape;
    for (int64_t extent : field.shape) shape.append(extent);
    nb::list arrays;
    for (const std::string& name : ArrayNames(field)) arrays.append(name);
    nb::object dtype = field.form == Form::kArrow ? nb::none() : nb::cast(std::string(DTypeName(field.dtype)));
    const auto lists = field.form == Form::kRagged ? field.level_masks.size() - 1 : 0;
    fields.append(nb::make_tuple(field.name, std::move(dtype), nb::tuple(shape), field.has_mask, std::move(vocabulary),
                                 nb::tuple(arrays), lists, field.tensor_ndim));
    arrow_fields.push_back(arrow::field(field.name, field.arrow_type));
    source_fields.push_back(arrow::field(field.name, field.source_type));
  }
  return nb::make_tuple(fields, ExportSchema(arrow::schema(std::move(arrow_fields))),
                        ExportSchema(arrow::schema(std::move(source_fields))));
}

int64_t NumBatches(PyLoader& self) {
  arrow::Result<int64_t> batches = [&] {
    GilRelease no_gil;
    return self.loader().NumBatches();
  }();
  return Unwrap(std::move(batches));
}

void Resume(PyLoader& self, std::vector<EpochState> states) {
  arrow::Status status = [&] {
    GilRelease no_gil;
    return self.loader().Resume(std::move(states));
  }();
  Check(status);
}

nb::tuple Explain(PyLoader& self) {
  arrow::Result<Explanation> result = [&] {
    GilRelease no_gil;
    return self.loader().Explain();
  }();
  Explanation explanation = Unwrap(std::move(result));
  return nb::make_tuple(explanation.ToString(), ToDict(explanation));
}

nb::tuple Stats(PyLoader& self) {
  const StatsReport report = self.loader().Stats();
  return nb::make_tuple(report.ToString(), ToDict(report));
}

template <typename Visit>
void VisitPythonOps(PyObject* self, Visit&& visit) {
  if (!nb::inst_ready(self)) return;
  for (const Transform& transform : nb::inst_ptr<PyLoader>(self)->loader().options().transforms) {
    for (const Op& op : transform.ops) {
      const auto* custom = std::get_if<ops::Custom>(&op);
      if (custom == nullptr) continue;
      if (const auto* python_op = dynamic_cast<const PythonOp*>(custom->op.get())) visit(*python_op);
    }
  }
}

// Functions of ops may know the loader: such a circle is the garbage collector's to find.
int Traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  int stop = 0;
  VisitPythonOps(self, [&](const PythonOp& op) {
    if (stop == 0 && op.run() != nullptr) stop = visit(op.run(), arg);
  });
  return stop;
}

int Clear(PyObject* self) {
  if (!nb::inst_ready(self)) return 0;
  nb::inst_ptr<PyLoader>(self)->Close();  // Workers may be calling them.
  VisitPythonOps(self, [](const PythonOp& op) { op.Clear(); });
  return 0;
}

PyType_Slot kLoaderSlots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&Traverse)}, {Py_tp_clear, reinterpret_cast<void*>(&Clear)}, {0, nullptr}};

}  // namespace

void BindLoader(nb::module_& m) {
  nb::class_<Charge>(m, "Charge", "Bytes in an account of a loader, until this dies or is released.")
      .def("release", &Charge::Release, "Give the bytes back. Idempotent.");
  nb::class_<PyLoader>(m, "Loader", nb::is_weak_referenceable(), nb::type_slots(kLoaderSlots),
                       "The native loader behind penstock.Loader.")
      .def("__init__", &InitLoader, nb::kw_only(), "paths"_a, "table"_a.none(), "stream"_a.none(), "is_one_shot"_a,
           "partitions"_a.none(), "filesystem"_a.none(), "batch_size"_a, "drop_last"_a, "columns"_a.none(),
           "filter"_a.none(), "transforms"_a, "mask_nulls"_a, "fill_nulls"_a, "format"_a, "num_workers"_a,
           "prefetch_batches"_a, "memory_budget_bytes"_a, "in_order"_a, "limit"_a.none(), "sample"_a.none(),
           "collate_workers"_a, "collate_batches"_a, "pin_memory"_a, "pin_device"_a, "waits_for_copies"_a, "order"_a,
           "direct_decode"_a)
      .def("schema", &DescribeSchema,
           nb::sig("def schema(self) -> tuple[list[tuple[typing.Any, ...]], ArrowExport, ArrowExport]"),
           "Fields as (name, dtype or None, shape, has_mask, vocabulary or None, arrays, lists, tensor_ndim); their "
           "Arrow "
           "types; their types in the files.")
      .def("num_batches", &NumBatches)
      .def("state", [](PyLoader& self) { return Unwrap(self.loader().State()); })
      .def("resume", &Resume, "states"_a, "Make the next epoch go on from one state, or from those of all ranks.")
      .def(
          "set_epoch", [](PyLoader& self, int64_t epoch) { Check(self.loader().SetEpoch(epoch)); }, "epoch"_a)
      .def("explain", &Explain, nb::sig("def explain(self) -> tuple[str, dict[str, typing.Any]]"),
           "The explanation as (text, dict).")
      .def("stats", &Stats, nb::sig("def stats(self) -> tuple[str, dict[str, typing.Any]]"),
           "The statistics as (text, dict).")
      .def(
          "memory", [](PyLoader& self) { return ToDict(self.loader().Memory()); },
          nb::sig("def memory(self) -> dict[str, typing.Any]"))
      .def(
          "charge",
          [](PyLoader& self, const std::string& account, int64_t bytes) {
            return std::make_unique<Charge>(self.loader().ledger(), AccountNamed(account), bytes);
          },
          "account"_a, "bytes"_a, "Charge what already exists to \"python\", \"device\" or \"shuffle\".")
      .def(
          "consumer_called", [](PyLoader& self) { self.loader().ConsumerCalled(); },
          "Say that the consumer asked for its next batch.")
      .def(
          "consumer_returned", [](PyLoader& self, int64_t rows) { self.loader().ConsumerReturned(rows); }, "rows"_a,
          "Say what the consumer got; 0 rows at the end of the epoch.")
      .def(
          "add_user_code",
          [](PyLoader& self, const std::string& stage, int64_t busy_ns) {
            self.loader().AddUserCode(stage == "collate" ? UserCode::kCollate : UserCode::kFinalize, busy_ns);
          },
          "stage"_a, "busy_ns"_a, "Add what \"collate\" or \"finalize\" took for one batch.")
      .def("close", &PyLoader::Close)
      .def("close_at_exit", &PyLoader::CloseAtExit)
      .def_prop_ro("num_workers", [](PyLoader& self) { return self.loader().options().num_workers; })
      .def("take_pin_refusal", &PyLoader::TakePinRefusal,
           "Why slots are not page-locked that were to be where possible, once; empty where none was refused.")
      .def_prop_ro("held_batches", &PyLoader::held_batches)
      .def_prop_ro("made_batches", &PyLoader::made_batches)
      .def_prop_ro("is_closed", [](PyLoader& self) { return self.loader().is_closed(); });
}

}  // namespace penstock::python

#include "plan/order.h"

#include <arrow/compute/expression.h>
#include <arrow/type.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>
#include <utility>

#include "ops/hash.h"
#include "plan/row_ranges.h"
#include "plan/state_check.h"
#include "plan/survivors.h"
#include "source/text.h"

namespace penstock {
namespace {

constexpr size_t kMostFilterText = 400;

// Of what is read, whatever is made of it.
std::string ColumnsDigest(const Projection& projection) {
  std::set<std::string> columns;
  for (const OutputColumn& output : projection.outputs) {
    columns.insert(output.input + '\n' + (output.input_field == nullptr ? "" : output.input_field->type()->ToString()));
  }
  std::string all;
  for (const std::string& column : columns) all += column + '\n';
  if (projection.packing.is_any()) all += "packed to " + std::to_string(projection.packing.length) + '\n';
  return text::Hex(Hash64(all));
}

std::string PartText(const std::optional<RowSample>& sample) {
  if (!sample) return "";
  std::array<char, 100> text;
  std::snprintf(text.data(), text.size(), "[%.17g, %.17g) of seed %lld", sample->begin, sample->end,
                static_cast<long long>(sample->seed));
  return text.data();
}

std::string FilterText(const arrow::compute::Expression& filter) {
  std::string all = filter.ToString();
  if (all.size() <= kMostFilterText) return text::ToValidUtf8(all);
  return text::ToValidUtf8(all.substr(0, kMostFilterText)) + "... (" + text::Hex(Hash64(all)) + ")";
}

}  // namespace

arrow::Status Order::CheckRanks() const {
  if (options_->world_size < 1) {
    return arrow::Status::Invalid("world_size must be at least 1, not ", options_->world_size);
  }
  if (options_->rank < 0 || options_->rank >= options_->world_size) {
    return arrow::Status::Invalid("rank must be at least 0 and below world_size=", options_->world_size, ", not ",
                                  options_->rank);
  }
  if (options_->epochs < 1) return arrow::Status::Invalid("epochs must be at least 1, not ", options_->epochs);
  if (projection_->packing.is_any()) ARROW_RETURN_NOT_OK(CheckPacking());
  if (!is_divided()) return arrow::Status::OK();
  if (!source_->is_counted()) {
    const char* what = options_->world_size > 1 ? "ranks need" : "epochs and balance need";
    return arrow::Status::Invalid(
        what, " a source whose rows are known without reading it (files, a table); ",
        source_->is_one_shot() ? "a stream that can be read once cannot be divided" : "this one is read to be counted",
        ". Write it to Parquet or Arrow files, or read it into a pyarrow.Table");
  }
  const bool is_one_pass = options_->world_size == 1 && options_->epochs == 1;
  if (!options_->limit || is_one_pass) return arrow::Status::OK();
  if (projection_->packing.is_any() && !CountsPackedRows()) {
    return arrow::Status::Invalid(
        "`limit` and ps.ops.pack need balance=\"rows\" where there are ranks, and one epoch at a time");
  }
  if (projection_->filter != nullptr && !is_counted()) {
    return arrow::Status::Invalid("`limit` and a filter need balance=\"rows\" where there are ranks or several epochs");
  }
  return arrow::Status::OK();
}

arrow::Status Order::CheckPacking() const {
  if (options_->skips_errors) {
    return arrow::Status::Invalid(
        "on_error=\"skip\" does not go with ps.ops.pack: items that are left out would move all that follow");
  }
  if (!CountsPackedRows()) return arrow::Status::OK();
  if (options_->epochs > 1) {
    return arrow::Status::Invalid("balance=\"rows\" and ps.ops.pack count one epoch: iterate once for each instead of ",
                                  "epochs=", options_->epochs);
  }
  if (options_->world_size > 1 && options_->uneven == Uneven::kRepeat) {
    return arrow::Status::Invalid(
        "uneven=\"repeat\" does not go with balance=\"rows\" and ps.ops.pack: the row that is filled up ends an epoch. "
        "Leave `uneven` out: fewer rows than there are ranks are dropped");
  }
  return arrow::Status::OK();
}

void Order::SetWindow(int64_t rows) {
  window_rows_ = rows;
  MutexLock lock(mu_);
  own_.shuffle_window_rows = rows;
}

arrow::Status Order::Init() {
  ARROW_RETURN_NOT_OK(CheckRanks());
  MutexLock lock(mu_);
  own_.data = source_->fingerprint();
  own_.columns = ColumnsDigest(*projection_);
  if (projection_->filter != nullptr) own_.filter = FilterText(*options_->filter);
  own_.batch_size = options_->batch_size;
  own_.shuffle = options_->shuffle;
  own_.seed = options_->seed;
  own_.uneven = options_->uneven;
  own_.limit = options_->limit;
  own_.part = PartText(projection_->sample);
  own_.balance = (IsBalanced() && projection_->filter != nullptr) || CountsPackedRows() ? "rows" : "";
  return arrow::Status::OK();
}

int64_t Order::EpochRows(const Catalog& catalog) const {
  int64_t rows = catalog.num_rows();
  if (CountsPackedRows()) rows = (rows + projection_->packing.length - 1) / projection_->packing.length;
  return options_->limit && is_counted() ? std::min(rows, *options_->limit) : rows;
}

arrow::Status Order::CheckEnoughRows(int64_t epoch_rows) const {
  if (options_->world_size == 1 || options_->uneven == Uneven::kRepeat || epoch_rows >= options_->world_size)
    return arrow::Status::OK();
  return arrow::Status::Invalid("an epoch has ", epoch_rows, " rows, fewer than the ", options_->world_size,
                                " ranks: none would get any. Use fewer ranks",
                                CountsPackedRows() ? "." : ", or uneven=\"repeat\".");
}

arrow::Result<std::shared_ptr<const Catalog>> Order::ReadCatalog() {
  MutexLock lock(catalog_mu_);
  if (catalog_ != nullptr) return catalog_;
  Catalog::CountRows count;
  InputContext context = Context();
  const Projection of_filter = FilterAlone(*projection_);
  const Projection of_items = CountsPackedRows() ? ItemsAlone(*projection_) : Projection{};
  if (CountsPackedRows()) {
    context.projection = &of_items;
    count = [&](const Input& input, int chunk) { return CountItems(of_items, input, chunk, ledger_); };
  } else if (IsBalanced()) {
    context.projection = &of_filter;
    count = [&](const Input& input, int chunk) { return CountSurvivors(of_filter, input, chunk, ledger_); };
  }
  ARROW_ASSIGN_OR_RAISE(const auto inputs, source_->Open(context));
  ARROW_ASSIGN_OR_RAISE(catalog_, Catalog::Read(*inputs, ledger_, count));
  MutexLock own_lock(mu_);
  if (own_.data.files > 0) {
    own_.data.num_footers = catalog_->num_inputs();
    own_.data.footers = catalog_->Digest(catalog_->num_inputs());
  }
  return catalog_;
}

PlanCursor Order::CursorOf(std::shared_ptr<const Catalog> catalog, EpochRun run) {
  PlanCursor cursor([this] { return source_->Open(Context()); }, projection_, std::move(catalog), std::move(run));
  if (IsBalanced() || CountsPackedRows()) {
    const auto place_of = [this](const Input& opened, int64_t number, int chunk, int64_t position) {
      return PlaceOf(opened, number, chunk, position);
    };
    cursor.set_place_of(place_of, /*cuts_ends=*/IsBalanced());
  }
  return cursor;
}

arrow::Result<SourcePlace> Order::PlaceOf(const Input& opened, int64_t number, int chunk, int64_t position) {
  const Projection alone = CountsPackedRows() ? ItemsAlone(*projection_) : FilterAlone(*projection_);
  const auto place_in = [&](const Input& input) {
    return CountsPackedRows() ? PlaceOfItem(alone, input, chunk, position, ledger_)
                              : PlaceOfSurvivor(alone, input, chunk, position, ledger_);
  };
  if (alone.outputs.empty() && alone.filter == nullptr) return place_in(opened);  // Nothing is read.
  ARROW_ASSIGN_OR_RAISE(const auto inputs, source_->Open({&alone, ledger_, options_->use_direct_decode}));
  ARROW_RETURN_NOT_OK(inputs->Skip(number));
  ARROW_ASSIGN_OR_RAISE(const auto again, inputs->Next());
  if (again == nullptr) return arrow::Status::IOError("the data has become shorter since the loader was made");
  return place_in(*again);
}

EpochRun Order::ItemsOf(const Catalog& catalog, const EpochRun& run, Start* start) const {
  const int64_t share_rows = ShareRows(EpochRows(catalog), options_->world_size, options_->uneven);
  start->given_rows = share_rows - CountRows(run.ranges(0));
  const int64_t share_begin = options_->rank * share_rows;
  const int64_t begin = share_begin + start->given_rows - AgainRows(start->given_rows);
  const int64_t end = share_begin + share_rows;
  start->limit = end - begin;
  const auto item_of = [&](int64_t row) { return std::min(row * projection_->packing.length, catalog.num_rows()); };
  return EpochRun(run.epoch(0), RowRange{item_of(begin), item_of(end)});
}

arrow::Result<Order::Start> Order::StartRun() {
  std::optional<EpochRun> run;
  Start start;
  int64_t first_epoch = 0;
  {
    MutexLock lock(mu_);
    run = pending_;
    first_epoch = next_epoch_;
    start.times_asked = times_asked_;
    if (run) start.given_rows = given_rows_;
    if (run) start.skip_items = given_items_;
  }
  start.is_shuffled = options_->shuffle;
  if (!is_counted() && options_->limit) {
    start.limit = *options_->limit - (start.given_rows - AgainRows(start.given_rows));
  }
  ShufflePlan shuffle{options_->seed, MixesPackedRows() ? 0 : window_rows_, kUnknownRows};
  if (run || is_divided()) {
    ARROW_ASSIGN_OR_RAISE(auto catalog, ReadCatalog());
    const int64_t epoch_rows = EpochRows(*catalog);
    if (!run) {
      ARROW_RETURN_NOT_OK(CheckEnoughRows(epoch_rows));
      run = EpochRun(epoch_rows, Ranks(), first_epoch, options_->epochs);
    }
    shuffle.epoch_rows = catalog->num_rows();
    EpochRun read = CountsPackedRows() ? ItemsOf(*catalog, *run, &start) : *run;
    start.cursor = CursorOf(std::move(catalog), std::move(read));
    start.cursor.set_skip_items(start.skip_items);
    if (options_->shuffle) start.cursor.set_shuffle(shuffle, ledger_);
  } else {
    run = EpochRun(first_epoch);
    ARROW_ASSIGN_OR_RAISE(auto inputs, source_->Open(Context()));
    start.cursor = PlanCursor(std::move(inputs), projection_, *run);
    start.cursor.set_on_input([this](int64_t number, uint64_t digest) {
      MutexLock lock(mu_);
      if (own_.data.files == 0 || number != seen_.num_inputs() || number < own_.data.num_footers) return;
      seen_.Add(digest);
      own_.data.num_footers = seen_.num_inputs();
      own_.data.footers = seen_.Text();
    });
    start.limit = options_->limit;
  }
  if (MixesPackedRows()) {
    // Their windows are numbered through all epochs of the run, and keyed by the last, which is the same after a
    // resume.
    shuffle = {options_->seed, window_rows_, kUnknownRows};
    start.windows = WindowCursor(shuffle, EpochRun(run->epoch(run->num_epochs() - 1), start.given_rows));
    start.rows = kUnknownRows;
  } else if (options_->shuffle) {
    start.windows = WindowCursor(shuffle, *run);
    start.rows = run->num_rows();
  }
  start.run = std::move(*run);
  return start;
}

void Order::Began(const Start& start) {
  MutexLock lock(mu_);
  dropped_rows_ = start.run.dropped_rows();
  repeated_rows_ = start.run.repeated_rows();
  run_ = start.run;
  had_.clear();
  on_the_way_.clear();
  is_all_taken_ = false;
  if (times_asked_ != start.times_asked) return;  // What was asked for meanwhile comes next.
  pending_.reset();
  next_epoch_ = start.run.epoch(start.run.num_epochs());
  given_rows_ = start.given_rows;
  given_items_ = start.skip_items;
}

void Order::Took(const BatchOrigin* origin) {
  MutexLock lock(mu_);
  if (origin != nullptr) {
    on_the_way_.push_back(*origin);
  } else {
    is_all_taken_ = true;
  }
}

void Order::Gave() {
  MutexLock lock(mu_);
  GaveEmptyLocked();
  if (run_ && !on_the_way_.empty()) GaveOneLocked();
}

void Order::GaveOneLocked() {
  const BatchOrigin& origin = on_the_way_.front();
  if (!pending_) {
    given_rows_ += origin.rows.rows();
    given_items_ = origin.source_items;
  }
  if (CountsPackedRows()) given_items_ = 0;  // The packed rows say it.
  const RowRange rows = is_counted() ? origin.rows : origin.source_rows;
  if (had_.size() == 1 && had_.front().end == rows.begin) {
    had_.front().end = rows.end;
  } else if (rows.begin < rows.end) {
    had_ = Union(had_, {rows});
  }
  on_the_way_.pop_front();
}

void Order::GaveEmptyLocked() {
  while (run_ && !on_the_way_.empty() && on_the_way_.front().is_empty) GaveOneLocked();
}

void Order::GaveEnd() {
  MutexLock lock(mu_);
  GaveEmptyLocked();
  // Where a batch is still on the way, what was to come of it was an error.
  if (is_all_taken_ && on_the_way_.empty()) run_.reset();
}

arrow::Status Order::CheckCanResume() const {
  if (projection_->packing.is_any() && !options_->in_order) {
    return arrow::Status::Invalid("with ps.ops.pack and in_order=False there is no state: pass in_order=True");
  }
  if (source_->is_counted()) return arrow::Status::OK();
  return arrow::Status::Invalid(source_->is_one_shot()
                                    ? "a stream that can be read once has no state: it cannot be gone on with"
                                    : (source_->num_files() > 0 ? "text files and Arrow streams have no state: their"
                                                                : "an iterable has no state: its") +
                                          std::string(" rows are known when they have been read; write them to "
                                                      "Parquet or Arrow files, or read them into a pyarrow.Table"));
}

arrow::Result<EpochState> Order::State() const {
  ARROW_RETURN_NOT_OK(CheckCanResume());
  MutexLock lock(mu_);
  const std::optional<EpochRun>& run = pending_ ? pending_ : run_;
  EpochState state = own_;
  if (!run) {
    state.epoch = next_epoch_;
    state.epochs_left = options_->epochs;
    state.rank = options_->rank;
    state.history = {{options_->world_size, 0, {}}};
    return state;
  }
  if (!options_->in_order && run->num_epochs() > 1) {
    return arrow::Status::Invalid("with in_order=False and epochs=", options_->epochs,
                                  " there is no state: iterate once for each epoch instead");
  }
  run->Locate(pending_ ? RowRanges{} : had_, is_counted() && options_->in_order, &state);
  if (!is_counted() && (options_->limit || MixesPackedRows())) state.given_rows = given_rows_;
  state.given_items = given_items_;
  return state;
}

arrow::Status Order::Resume(std::vector<EpochState> states) {
  ARROW_RETURN_NOT_OK(CheckCanResume());
  EpochState state;
  if (projection_->packing.is_any() && (states.size() != 1 || states[0].history.size() != 1 ||
                                        states[0].history.front().world_size != options_->world_size)) {
    return arrow::Status::Invalid(
        "with ps.ops.pack a rank goes on with its own state, and with as many ranks as there were: rows begin within "
        "documents, which are not divided anew");
  }
  if (states.size() == 1) {
    state = std::move(states.front());
  } else {
    ARROW_ASSIGN_OR_RAISE(state, MergeStates(std::move(states)));
  }
  EpochState own;
  {
    MutexLock lock(mu_);
    own = own_;
  }
  own.data.num_footers = 0;  // What can be told without opening anything comes first.
  own.shuffle_window_rows = state.shuffle_window_rows;
  ARROW_RETURN_NOT_OK(CheckState(state, own));
  ARROW_ASSIGN_OR_RAISE(const auto catalog, ReadCatalog());
  if (own.data.files > 0) {
    own.data.num_footers = std::min(state.data.num_footers, catalog->num_inputs());
    own.data.footers = catalog->Digest(own.data.num_footers);
  }
  // All windows that the whole epoch fits into are one and the same.
  const int64_t most_rows = MixesPackedRows() ? kUnknownRows : catalog->num_rows();
  own.shuffle_window_rows = std::min(window_rows_, most_rows);
  state.shuffle_window_rows = std::min(state.shuffle_window_rows, most_rows);
  ARROW_RETURN_NOT_OK(CheckState(state, own));
  ARROW_ASSIGN_OR_RAISE(EpochRun run, EpochRun::Resume(EpochRows(*catalog), Ranks(), state, state.epochs_left));
  MutexLock lock(mu_);
  ++times_asked_;
  next_epoch_ = run.epoch(run.num_epochs());
  pending_ = std::move(run);
  given_rows_ = state.given_rows;
  given_items_ = state.given_items;
  return arrow::Status::OK();
}

arrow::Status Order::SetEpoch(int64_t epoch) {
  if (epoch < 0 || epoch > kMostEpoch) {
    return arrow::Status::Invalid("epoch must be at least 0 and at most ", kMostEpoch, ", not ", epoch);
  }
  MutexLock lock(mu_);
  // A loop that says which epoch begins says so for the one that it goes on with, too.
  if (pending_ && pending_->epoch(0) == epoch) return arrow::Status::OK();
  ++times_asked_;
  pending_.reset();
  next_epoch_ = epoch;
  return arrow::Status::OK();
}

arrow::Result<int64_t> Order::NumRows() {
  ARROW_ASSIGN_OR_RAISE(const auto catalog, ReadCatalog());
  const int64_t epoch_rows = EpochRows(*catalog);
  ARROW_RETURN_NOT_OK(CheckEnoughRows(epoch_rows));
  return EpochRun(epoch_rows, Ranks(), 0, options_->epochs).num_rows();
}

int64_t Order::dropped_rows() const {
  MutexLock lock(mu_);
  return dropped_rows_;
}

int64_t Order::repeated_rows() const {
  MutexLock lock(mu_);
  return repeated_rows_;
}

void Order::Close() {
  MutexLock lock(catalog_mu_);
  catalog_.reset();
}

}  // namespace penstock

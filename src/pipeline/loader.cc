#include "penstock/loader.h"

#include <arrow/array/array_base.h>
#include <arrow/type.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "device/cuda_page_locker.h"
#include "penstock/mutex.h"
#include "pipeline/budget.h"
#include "pipeline/check_options.h"
#include "pipeline/copy_gate.h"
#include "pipeline/explain.h"
#include "pipeline/fork_generation.h"
#include "pipeline/pinned_slots.h"
#include "pipeline/running_epoch.h"
#include "pipeline/survey.h"
#include "plan/order.h"
#include "source/skipping_source.h"

namespace penstock {
namespace {

// Of dictionary columns; what a caller gave to Lookup is the caller's.
int64_t VocabularyBytes(const Projection& projection) {
  int64_t bytes = 0;
  for (const OutputColumn& output : projection.outputs) {
    const Field& field = output.field;
    if (field.vocabulary == nullptr || field.source_type->id() != arrow::Type::DICTIONARY) continue;
    bytes += arrow::util::TotalBufferSize(*field.vocabulary);
  }
  return bytes;
}

int64_t SaturatingMultiply(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? kUnlimited : product;
}

constexpr int64_t kFewFiles = 16;

class LoaderImpl : public Loader {
 public:
  explicit LoaderImpl(LoaderOptions options)
      : options_(std::move(options)),
        ledger_(std::make_shared<Ledger>(options_.memory_budget_bytes)),
        stats_(std::make_shared<StatsCollector>()),
        held_batches_(std::make_shared<std::atomic<int64_t>>(0)),
        fork_generation_(ForkGeneration()) {}

  ~LoaderImpl() override { Close(); }

  arrow::Status Init();

  arrow::Status StartEpoch() override;
  arrow::Result<std::optional<Batch>> Next() override { return NextBefore(std::nullopt, nullptr); }
  arrow::Result<std::optional<Batch>> NextFor(std::chrono::nanoseconds timeout, bool* timed_out) override {
    return NextBefore(std::chrono::steady_clock::now() + timeout, timed_out);
  }
  std::optional<Batch> NextAtHand() override;
  void EndEpoch() override { End(/*is_closing=*/false); }
  void Close() override { End(/*is_closing=*/true); }
  bool is_closed() const override { return is_closed_; }

  const std::shared_ptr<const Schema>& schema() const override { return schema_; }
  arrow::Result<EpochState> State() const override { return order_->State(); }
  arrow::Status Resume(std::vector<EpochState> states) override;
  arrow::Status SetEpoch(int64_t epoch) override { return order_->SetEpoch(epoch); }
  arrow::Result<int64_t> NumBatches() override;
  arrow::Result<int64_t> NumRows() override;
  arrow::Result<Explanation> Explain() override;
  StatsReport Stats() const override;
  MemoryReport Memory() const override { return ledger_->Report(); }
  int64_t held_batches() const override { return held_batches_->load(std::memory_order_relaxed); }
  const LoaderOptions& options() const override { return options_; }
  const std::shared_ptr<Ledger>& ledger() const override { return ledger_; }
  void ConsumerCalled() override { stats_->NextCalled(NowNs()); }
  void ConsumerReturned(int64_t rows) override {
    stats_->NextReturned(NowNs(), rows);
    rows > 0 ? order_->Gave() : order_->GaveEnd();
  }
  void AddUserCode(UserCode stage, int64_t busy_ns) override { stats_->AddUserCode(stage, busy_ns); }
  std::string PinRefusal() const override {
    return options_.pin_memory == PinMemory::kWherePossible ? stats_->LockRefusal() : std::string();
  }

 private:
  arrow::Status CheckUsable() const;
  arrow::Status InitPinning();
  arrow::Status DivideBudget(int64_t known_rows);
  int64_t ShuffledRows(const Survey& survey) const;
  EpochPlan PlanEpoch(const Order::Start& start) const;
  MixPlan PlanMix(Order::Start* start) const;
  void FillSlabs(EpochPlan* plan, MixPlan* mix) const;
  arrow::Result<std::optional<Batch>> NextBefore(SlotGiver::Deadline deadline, bool* timed_out);
  arrow::Result<std::optional<Batch>> NextWithRows(SlotGiver* giver, SlotGiver::Deadline deadline, bool* timed_out);
  void End(bool is_closing);
  void AbandonAfterFork() PENSTOCK_NO_THREAD_SAFETY_ANALYSIS;
  // Null between epochs.
  std::shared_ptr<RunningEpoch> CurrentEpoch() const {
    MutexLock lock(epoch_mu_);
    return epoch_;
  }
  std::shared_ptr<SlotGiver> CurrentGiver() const {
    MutexLock lock(epoch_mu_);
    return epoch_ != nullptr ? epoch_->giver() : nullptr;
  }
  BudgetTerms Terms() const {
    return {&options_,
            source_.get(),
            &projection_,
            schema_,
            metadata_bytes_,
            order_->is_divided(),
            gate_ != nullptr ? 1 : 0};
  }
  arrow::Result<const Survey*> SurveyAll();
  InputContext ContextOf(std::shared_ptr<Ledger> ledger) const {
    return {&projection_, std::move(ledger), options_.use_direct_decode};
  }

  LoaderOptions options_;
  const std::shared_ptr<Ledger> ledger_;
  const std::shared_ptr<StatsCollector> stats_;
  const std::shared_ptr<std::atomic<int64_t>> held_batches_;
  const int fork_generation_;

  // Constant after Init().
  std::shared_ptr<PinnedSlots> pinned_;  // Null without pin_memory...
  std::shared_ptr<CopyGate> gate_;       // ... and where nobody copies from slots without waiting.
  std::unique_ptr<Source> source_;
  Projection projection_;
  std::unique_ptr<Order> order_;
  std::shared_ptr<const Schema> schema_;
  int64_t metadata_bytes_ = 0;  // Of the source (the list of files) and the vocabularies.
  bool is_metadata_charged_ = false;
  BudgetDivision division_;

  std::atomic<bool> is_closed_{false};
  Mutex consumer_mu_;  // Held by Next(), so that End() by another thread waits for it to return.
  mutable Mutex epoch_mu_;
  std::shared_ptr<RunningEpoch> epoch_ PENSTOCK_GUARDED_BY(epoch_mu_);

  bool has_failed_ PENSTOCK_GUARDED_BY(consumer_mu_) = false;  // The present epoch.

  Mutex survey_mu_;
  std::optional<Survey> survey_ PENSTOCK_GUARDED_BY(survey_mu_);
};

arrow::Status LoaderImpl::Init() {
  ARROW_RETURN_NOT_OK(CheckOptions(options_));
  if (options_.num_workers < 0) options_.num_workers = AvailableCores();
  ARROW_RETURN_NOT_OK(InitPinning());
  ARROW_ASSIGN_OR_RAISE(source_, MakeSource(options_, &stats_->io));
  if (options_.skips_errors) {
    options_.use_direct_decode = false;
    if (source_->is_counted() && source_->num_files() > 0) {
      source_ = SkipBadFiles(std::move(source_), [this](const arrow::Status& status) {
        return TooManyErrors(stats_->AddFileError(status.message()), options_.max_errors, status);
      });
    }
  }
  metadata_bytes_ = source_->MemoryBytes();
  {
    const auto vocabulary_pool = ReservedPool::TryMake(ledger_, 0, Account::kMetadata);
    ARROW_ASSIGN_OR_RAISE(projection_, MakeProjection(options_, *source_, vocabulary_pool));
  }
  int64_t known_rows = !projection_.discovers_rows() ? source_->known_rows() : -1;
  if (options_.limit) known_rows = known_rows < 0 ? *options_.limit : std::min(known_rows, *options_.limit);
  if (projection_.outputs.empty()) return arrow::Status::Invalid("no columns: `columns` and `transforms` name none");
  auto schema = std::make_shared<Schema>();
  for (const OutputColumn& output : projection_.outputs) schema->push_back(output.field);
  schema_ = std::move(schema);
  order_ = std::make_unique<Order>(&options_, source_.get(), &projection_, ledger_);
  ARROW_RETURN_NOT_OK(order_->Init());
  metadata_bytes_ += VocabularyBytes(projection_);
  return DivideBudget(options_.epochs > 1 ? -1 : known_rows);
}

arrow::Status LoaderImpl::InitPinning() {
  if (options_.pin_memory == PinMemory::kNo) return arrow::Status::OK();
  const bool is_required = options_.pin_memory == PinMemory::kRequired;
  auto locker = CudaPageLocker::Make(options_.pin_device);
  if (is_required) ARROW_RETURN_NOT_OK(locker.status());
  pinned_ = std::make_shared<PinnedSlots>(locker.ValueOr(nullptr), is_required, locker.status(), ledger_, stats_);
  if (locker.ok() && !options_.waits_for_copies) gate_ = std::make_shared<CopyGate>(*locker);
  return arrow::Status::OK();
}

arrow::Status LoaderImpl::DivideBudget(int64_t known_rows) {
  ARROW_RETURN_NOT_OK(CheckBatchBytes(options_, *schema_));
  // Looked at with a ledger of its own, without a limit: the question is what a budget would have to be.
  const auto unlimited = std::make_shared<Ledger>(kUnlimited);
  // A shuffle reads all footers when it begins. Where they are few they are looked at here: little data needs no large
  // window.
  const bool knows_all = options_.shuffle && source_->is_counted() && source_->num_files() <= kFewFiles;
  ARROW_ASSIGN_OR_RAISE(const Survey first,
                        Survey::Of(*source_, ContextOf(unlimited), options_, knows_all ? kFewFiles : 1, kUnlimited));
  if (!source_->is_counted()) {
    MutexLock lock(survey_mu_);
    survey_ = first;  // What a stream gives first is looked at once, before an epoch takes it.
  }
  ARROW_ASSIGN_OR_RAISE(division_,
                        BudgetDivision::Of(Terms(), first, known_rows, knows_all ? ShuffledRows(first) : -1));
  if (options_.shuffle) order_->SetWindow(division_.shuffle.sizing.window_rows);
  ledger_->Add(Account::kMetadata, metadata_bytes_);
  is_metadata_charged_ = true;
  ledger_->SetAside(division_.room);
  return arrow::Status::OK();
}

// The most that windows can have rows of: no more than two epochs meet in them. -1: not known ahead.
int64_t LoaderImpl::ShuffledRows(const Survey& survey) const {
  const int64_t epochs = std::min<int64_t>(options_.epochs, 2);
  const int64_t length = projection_.packing.length;
  if (length == 0) return epochs * survey.rows;
  // Items end to end, and the last row filled up.
  return survey.most_items < 0 ? -1 : epochs * (std::min(survey.most_items / length, 2 * kMostWindowRows) + 1);
}

arrow::Status LoaderImpl::CheckUsable() const {
  if (ForkGeneration() != fork_generation_) {
    return arrow::Status::Cancelled(
        "this loader was made before the process forked, and threads do not survive a fork: make the loader in the "
        "child");
  }
  if (is_closed_) return arrow::Status::Cancelled("the loader was closed");
  return arrow::Status::OK();
}

EpochPlan LoaderImpl::PlanEpoch(const Order::Start& start) const {
  EpochPlan plan;
  plan.projection = &projection_;
  plan.layout = division_.layout;
  plan.sizing = division_.sizing;
  plan.num_workers = options_.num_workers;
  plan.in_order = options_.in_order;
  plan.drop_last = options_.drop_last;
  plan.limit = start.limit;
  if (plan.limit && projection_.packing.is_any()) {
    plan.limit = SaturatingMultiply(*plan.limit, projection_.packing.length);
  }
  plan.seed = options_.seed;
  plan.most_decode_bytes = division_.most_decode_bytes;
  plan.skips_errors = options_.skips_errors;
  plan.max_errors = options_.max_errors;
  plan.may_lose_rows = !order_->is_divided();
  plan.ledger = ledger_;
  plan.stats = stats_;
  plan.held_batches = held_batches_;
  plan.pinned = pinned_;
  plan.gate = gate_;
  return plan;
}

MixPlan LoaderImpl::PlanMix(Order::Start* start) const {
  MixPlan mix;
  mix.windows = std::move(start->windows);
  mix.rows = start->rows;
  mix.layout = division_.layout;
  mix.sizing = division_.sizing;
  mix.pinned = pinned_;
  mix.gate = gate_;
  mix.slab_rows = division_.shuffle.sizing.slab_rows;
  mix.is_threaded = options_.num_workers > 0;
  mix.drop_last = options_.drop_last;
  if (projection_.packing.is_any()) mix.begin = SourcePlace{0, start->skip_items};
  mix.ledger = ledger_;
  mix.stats = stats_;
  mix.held_batches = held_batches_;
  return mix;
}

// What the plan fills is a window's slabs then, which the caller never sees.
void LoaderImpl::FillSlabs(EpochPlan* plan, MixPlan* mix) const {
  const ShuffleRoom& shuffle = division_.shuffle;
  plan->layout = shuffle.slab_layout;
  plan->sizing.open_slots = kOpenSlabs;
  plan->sizing.may_grow = false;
  plan->sizing.slot_bytes = shuffle.slab_bytes;
  plan->in_order = true;
  plan->drop_last = false;
  plan->slot_account = plan->hand_account = Account::kShuffle;
  plan->keeps_slots = true;
  const int64_t most_slabs = shuffle.sizing.most_slabs(-1);
  if (auto records = RecordLayout::Of(*shuffle.slab_layout->schema())) {
    mix->records = std::make_shared<RecordPool>(std::move(*records), shuffle.sizing.slab_rows, most_slabs, ledger_);
  } else if (shuffle.slab_layout->num_domains() == 0) {
    // Without it each slab is a mapping of its own, which is slower and no more.
    plan->region = SlotRegion::Map(shuffle.slab_layout->bytes(), most_slabs).ValueOr(nullptr);
  }
  plan->keeps_lost = true;
  plan->held_batches = std::make_shared<std::atomic<int64_t>>(0);
  plan->pinned = nullptr;
  plan->gate = nullptr;
}

arrow::Status LoaderImpl::StartEpoch() {
  const int64_t asked_ns = NowNs();
  ARROW_RETURN_NOT_OK(CheckUsable());
  EndEpoch();
  if (pinned_ != nullptr) ARROW_RETURN_NOT_OK(pinned_->Open(division_.sizing.all_slots()));
  ARROW_ASSIGN_OR_RAISE(Order::Start start, order_->StartRun());
  EpochPlan plan = PlanEpoch(start);
  std::optional<MixPlan> mix;
  if (start.is_shuffled) {
    mix = PlanMix(&start);
    FillSlabs(&plan, &*mix);
  }
  auto epoch = std::make_shared<RunningEpoch>(std::move(plan), std::move(start.cursor), std::move(mix), gate_);
  stats_->EpochStarted(asked_ns, NowNs());
  MutexLock consumer_lock(consumer_mu_);
  ARROW_RETURN_NOT_OK(CheckUsable());  // Another thread may have closed it meanwhile.
  has_failed_ = false;
  ARROW_RETURN_NOT_OK(epoch->Start());
  order_->Began(start);
  MutexLock lock(epoch_mu_);
  epoch_ = std::move(epoch);
  return arrow::Status::OK();
}

// Passes over batches whose rows were all left out.
arrow::Result<std::optional<Batch>> LoaderImpl::NextWithRows(SlotGiver* giver, SlotGiver::Deadline deadline,
                                                             bool* timed_out) {
  while (true) {
    auto batch = giver->Next(deadline, timed_out);
    if (!batch.ok() || !*batch || (*batch)->num_rows() > 0) return batch;
    if (options_.world_size > 1) {
      return arrow::Status::Invalid(
          "all rows of a batch were left out, and without it this rank would be out of step; "
          "pass a fill value in `nulls`, or write the data without: ",
          stats_->LastError());
    }
    order_->Took(&giver->origin());
  }
}

arrow::Result<std::optional<Batch>> LoaderImpl::NextBefore(SlotGiver::Deadline deadline, bool* timed_out) {
  ARROW_RETURN_NOT_OK(CheckUsable());
  bool ignored = false;
  if (timed_out == nullptr) timed_out = &ignored;
  *timed_out = false;
  MutexLock lock(consumer_mu_);
  const auto giver = CurrentGiver();
  if (giver == nullptr) {
    // Between the check above and here another thread may have closed the loader.
    ARROW_RETURN_NOT_OK(CheckUsable());
    return std::nullopt;
  }
  if (!options_.is_consumer_apart) stats_->NextCalled(NowNs());
  auto batch = NextWithRows(giver.get(), deadline, timed_out);
  if (*timed_out) return batch;
  if (!options_.is_consumer_apart) stats_->NextReturned(NowNs(), batch.ok() && *batch ? (*batch)->num_rows() : 0);
  if (!batch.ok()) has_failed_ = has_failed_ || !batch.status().IsCapacityError();
  if (!batch.ok() || has_failed_) return batch;
  order_->Took(*batch ? &giver->origin() : nullptr);
  if (!options_.is_consumer_apart) *batch ? order_->Gave() : order_->GaveEnd();
  return batch;
}

std::optional<Batch> LoaderImpl::NextAtHand() {
  if (!CheckUsable().ok()) return std::nullopt;
  MutexLock lock(consumer_mu_);
  const auto giver = CurrentGiver();
  if (giver == nullptr) return std::nullopt;
  auto batch = giver->NextAtHand();
  if (!batch) return batch;
  if (!options_.is_consumer_apart) stats_->NextCalled(NowNs());
  if (!options_.is_consumer_apart) stats_->NextReturned(NowNs(), batch->num_rows());
  order_->Took(&giver->origin());
  if (!options_.is_consumer_apart) order_->Gave();
  return batch;
}

arrow::Status LoaderImpl::Resume(std::vector<EpochState> states) {
  ARROW_RETURN_NOT_OK(CheckUsable());
  return order_->Resume(std::move(states));
}

// In a forked child the threads are gone, and a mutex may be held by one of them for ever: everything is left as it is.
void LoaderImpl::AbandonAfterFork() {
  new std::shared_ptr<RunningEpoch>(std::move(epoch_));
  new std::shared_ptr<PinnedSlots>(std::move(pinned_));
}

void LoaderImpl::End(bool is_closing) {
  if (ForkGeneration() != fork_generation_) return AbandonAfterFork();
  if (is_closing) is_closed_ = true;
  if (const auto epoch = CurrentEpoch()) epoch->Stop();
  MutexLock consumer_lock(consumer_mu_);
  if (const auto epoch = CurrentEpoch()) {
    epoch->End();
    MutexLock lock(epoch_mu_);
    epoch_.reset();
  }
  if (is_closing && order_ != nullptr) order_->Close();
  if (is_closing && pinned_ != nullptr) pinned_->Close();
  if (is_closing && std::exchange(is_metadata_charged_, false)) ledger_->Sub(Account::kMetadata, metadata_bytes_);
}

arrow::Result<const Survey*> LoaderImpl::SurveyAll() {
  MutexLock lock(survey_mu_);
  if (!survey_) {
    ARROW_ASSIGN_OR_RAISE(survey_,
                          Survey::Of(*source_, ContextOf(ledger_), options_, kUnlimited, division_.most_decode_bytes,
                                     division_.sizing.open_slots * division_.layout->rows()));
  }
  return &*survey_;
}

arrow::Result<int64_t> LoaderImpl::NumRows() {
  if (projection_.filter != nullptr && !order_->is_counted()) {
    return arrow::Status::TypeError("the number of rows is not known ahead: a filter decides on the way");
  }
  if (projection_.packing.is_any() && !order_->is_counted()) {
    return arrow::Status::TypeError(
        "the number of rows is not known ahead: how many ps.ops.pack makes follows from the lengths of the lists; "
        "balance=\"rows\" counts their items first");
  }
  if (!source_->is_counted()) {
    return arrow::Status::TypeError("the number of rows is not known ahead: it shows when the source has been read");
  }
  ARROW_RETURN_NOT_OK(CheckUsable());
  if (order_->is_divided()) return order_->NumRows();
  ARROW_ASSIGN_OR_RAISE(const Survey* survey, SurveyAll());
  return options_.limit ? std::min(survey->rows, *options_.limit) : survey->rows;
}

arrow::Result<int64_t> LoaderImpl::NumBatches() {
  ARROW_ASSIGN_OR_RAISE(const int64_t rows, NumRows());
  return options_.drop_last ? rows / options_.batch_size : (rows + options_.batch_size - 1) / options_.batch_size;
}

arrow::Result<Explanation> LoaderImpl::Explain() {
  ARROW_RETURN_NOT_OK(CheckUsable());
  ARROW_ASSIGN_OR_RAISE(const Survey* survey, SurveyAll());
  Explanation explanation = ExplainDivision(Terms(), division_, *survey);
  explanation.plan = order_->is_counted() ? "counted" : "discovered";
  if (projection_.filter == nullptr && !projection_.packing.is_any() && source_->is_counted()) {
    ARROW_ASSIGN_OR_RAISE(explanation.rows, NumRows());
    ARROW_ASSIGN_OR_RAISE(explanation.batches, NumBatches());
  }
  return explanation;
}

StatsReport LoaderImpl::Stats() const {
  StatsReport report = stats_->Report();
  report.num_workers = options_.num_workers;
  report.collate_workers = options_.collate_workers;
  report.rows_dropped = order_->dropped_rows();
  report.rows_repeated = order_->repeated_rows();
  report.memory = ledger_->Report();
  Judge(&report);
  return report;
}

}  // namespace

arrow::Result<std::unique_ptr<Loader>> Loader::Make(LoaderOptions options) {
  auto loader = std::make_unique<LoaderImpl>(std::move(options));
  arrow::Status status = loader->Init();
  // At construction there is nothing to wait for: what does not fit is a wrong option.
  if (status.IsOutOfMemory()) return arrow::Status::Invalid(status.message());
  ARROW_RETURN_NOT_OK(status);
  return loader;
}

}  // namespace penstock

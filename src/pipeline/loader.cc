#include "penstock/loader.h"

#include <arrow/array/array_base.h>
#include <arrow/type.h>
#include <arrow/util/byte_size.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "device/cuda_page_locker.h"
#include "memory/scratch_pool.h"
#include "penstock/mutex.h"
#include "pipeline/copy_gate.h"
#include "pipeline/mixer.h"
#include "pipeline/pinned_slots.h"
#include "pipeline/scheduler.h"
#include "pipeline/survey.h"
#include "plan/order.h"
#include "source/skipping_source.h"

namespace penstock {
namespace {

arrow::Status CheckOptions(const LoaderOptions& options) {
  if (options.batch_size < 1) return arrow::Status::Invalid("batch_size must be at least 1, not ", options.batch_size);
  if (options.memory_budget_bytes < 1) {
    return arrow::Status::Invalid("memory_budget must be at least 1 byte, not ", options.memory_budget_bytes);
  }
  if (options.limit && *options.limit < 0)
    return arrow::Status::Invalid("limit must be at least 0, not ", *options.limit);
  if (options.num_workers < -1)
    return arrow::Status::Invalid("num_workers must be at least 0, not ", options.num_workers);
  if (options.prefetch_batches < -1) {
    return arrow::Status::Invalid("prefetch_batches must be at least 0, not ", options.prefetch_batches);
  }
  if (options.shuffle_window_bytes < 1) {
    return arrow::Status::Invalid("shuffle_window must be at least 1 byte, not ", options.shuffle_window_bytes);
  }
  if (options.shuffle_window_rows < 0 || options.shuffle_window_rows > kMostWindowRows) {
    return arrow::Status::Invalid("shuffle_window_rows must be at least 0 and at most 2^31, not ",
                                  options.shuffle_window_rows);
  }
  if (options.collate_batches < 0) {
    return arrow::Status::Invalid("collate_batches must be at least 0, not ", options.collate_batches);
  }
  return arrow::Status::OK();
}

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

// The consumer is to be scheduled at once when it wakes: workers are batch work. Needs no privilege; where it is
// refused nothing is lost.
void BecomeBatchWork() {
  sched_param param = {};
  pthread_setschedparam(pthread_self(), SCHED_BATCH, &param);
  pthread_setname_np(pthread_self(), "penstock");
}

int64_t SaturatingMultiply(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? kUnlimited : product;
}

// Inputs whose metadata (footers) the budget always has room for: of the one being read, of the one that the plan is
// ahead, and of one that len() looks at.
constexpr int64_t kInputsOpen = 3;
// Of a few hundred chunks; what more of them take in the list is taken as they are found.
constexpr int64_t kCatalogBytes = 4096;
constexpr int64_t kFewFiles = 16;
constexpr int64_t kMostFooterSpareBytes = int64_t{4} << 20;
// No computation with bytes of slots overflows below it.
constexpr int64_t kMostBatchBytes = int64_t{1} << 56;

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
  std::string PinRefusal() const override { return stats_->LockRefusal(); }

 private:
  arrow::Status CheckUsable() const;
  arrow::Status InitPinning();
  arrow::Status DivideBudget(int64_t known_rows);
  static int64_t SlotBytes(const SlotLayout& layout, const Survey& survey);
  int64_t OneBatchSlotBytes(const Survey& survey) const;
  void SizeShuffle(const Survey& survey, int64_t data_rows);
  int64_t LeastSlots() const { return 2 + int64_t{options_.collate_batches} + gated_slots(); }
  int gated_slots() const { return gate_ != nullptr ? 1 : 0; }
  int64_t MetadataBytes(const Survey& survey) const;
  int64_t LeastBudget(const Survey& survey) const;
  arrow::Result<std::optional<Batch>> NextBefore(SlotGiver::Deadline deadline, bool* timed_out);
  arrow::Result<std::optional<Batch>> NextWithRows(SlotGiver* giver, SlotGiver::Deadline deadline, bool* timed_out);
  void End(bool is_closing);
  void AbandonAfterFork() PENSTOCK_NO_THREAD_SAFETY_ANALYSIS;
  std::shared_ptr<Scheduler> CurrentEpoch() const {
    MutexLock lock(epoch_mu_);
    return epoch_;
  }
  std::shared_ptr<Mixer> CurrentMixer() const {
    MutexLock lock(epoch_mu_);
    return mixer_;
  }
  // Null between epochs.
  std::shared_ptr<SlotGiver> CurrentGiver() const {
    MutexLock lock(epoch_mu_);
    if (mixer_ != nullptr) return mixer_;
    return epoch_;
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
  std::shared_ptr<const SlotLayout> layout_;
  SlotSizing sizing_;
  // Where there is a shuffle: what goes into its windows.
  ShuffleSizing shuffle_;
  std::shared_ptr<const SlotLayout> slab_layout_;
  int64_t slab_bytes_ = 0;
  int64_t shuffle_bytes_ = 0;
  int64_t metadata_bytes_ = 0;  // Of the source (the list of files) and the vocabularies.
  bool is_metadata_charged_ = false;
  int64_t most_decode_bytes_ = 0;

  std::atomic<bool> is_closed_{false};
  Mutex consumer_mu_;  // Held by Next(), so that End() by another thread waits for it to return.
  mutable Mutex epoch_mu_;
  std::shared_ptr<Scheduler> epoch_ PENSTOCK_GUARDED_BY(epoch_mu_);
  std::shared_ptr<Mixer> mixer_ PENSTOCK_GUARDED_BY(epoch_mu_);  // Between epoch_ and the caller, where it is shuffled.
  std::vector<std::thread> workers_ PENSTOCK_GUARDED_BY(consumer_mu_);

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

// What the front needs to make progress (two slots and what collate holds, one chunk) is set aside; a budget without
// room for it is refused here.
arrow::Status LoaderImpl::DivideBudget(int64_t known_rows) {
  if (options_.batch_size > kMostBatchBytes / std::max<int64_t>(1, SlotLayout::BatchBytes(*schema_, 1))) {
    return arrow::Status::Invalid("memory_budget of ", FormatBytes(options_.memory_budget_bytes),
                                  " is too small for a batch_size of ", options_.batch_size,
                                  ": no machine has memory for such a batch. Lower batch_size.");
  }
  // Looked at with a ledger of its own, without a limit: the question is what a budget would have to be.
  const auto unlimited = std::make_shared<Ledger>(kUnlimited);
  // A shuffle reads all footers when it begins. Where they are few they are looked at here: little data needs no large
  // window.
  const bool knows_all =
      options_.shuffle && source_->is_counted() && !projection_.packing.is_any() && source_->num_files() <= kFewFiles;
  ARROW_ASSIGN_OR_RAISE(const Survey first,
                        Survey::Of(*source_, ContextOf(unlimited), options_, knows_all ? kFewFiles : 1, kUnlimited));
  if (!source_->is_counted()) {
    MutexLock lock(survey_mu_);
    survey_ = first;  // What a stream gives first is looked at once, before an epoch takes it.
  }
  SizeShuffle(first, knows_all ? std::min<int64_t>(options_.epochs, 2) * first.rows : -1);
  const int64_t least_bytes = LeastBudget(first);
  if (options_.memory_budget_bytes < least_bytes && options_.shuffle) {
    return arrow::Status::Invalid(
        "memory_budget of ", FormatBytes(options_.memory_budget_bytes), " is too small for ",
        options_.shuffle_window_rows > 0
            ? "shuffle windows of " + std::to_string(options_.shuffle_window_rows) + " rows"
            : "a shuffle_window of " + FormatBytes(options_.shuffle_window_bytes),
        ": the window takes ", FormatBytes(shuffle_bytes_), ", and the least that works here is ", least_bytes,
        " bytes (with slots of ", FormatBytes(OneBatchSlotBytes(first)), ", ", FormatBytes(first.least_chunk_bytes),
        " to decode a ", source_->chunk_name(), ", ", FormatBytes(MetadataBytes(first)),
        " of metadata). Raise memory_budget or ",
        options_.shuffle_window_rows > 0 ? "mix fewer rows at a time." : "lower shuffle_window.");
  }
  if (options_.memory_budget_bytes < least_bytes) {
    return arrow::Status::Invalid("memory_budget of ", FormatBytes(options_.memory_budget_bytes),
                                  " is too small: the least that works here is ", least_bytes, " bytes (",
                                  LeastSlots() == 2 ? "two" : std::to_string(LeastSlots()), " slots of ",
                                  FormatBytes(OneBatchSlotBytes(first)), ", ", FormatBytes(first.least_chunk_bytes),
                                  " to decode a ", source_->chunk_name(), ", ", FormatBytes(MetadataBytes(first)),
                                  " of metadata). Raise memory_budget, lower batch_size or select fewer columns.");
  }
  ledger_->Add(Account::kMetadata, metadata_bytes_);
  is_metadata_charged_ = true;
  const int64_t rest_bytes = options_.memory_budget_bytes - MetadataBytes(first) - shuffle_bytes_;
  // Beside it, slots are as large as the rest allows.
  const int64_t overhead_bytes =
      SlotLayout(schema_, options_.batch_size, 1, options_.memory_budget_bytes, projection_.packing)
          .ArenaOverheadBytes();
  // A slot larger than a window would have to wait for several.
  if (options_.shuffle && (known_rows < 0 || known_rows > shuffle_.window_rows / 2)) {
    known_rows = std::max<int64_t>(1, shuffle_.window_rows / 2);
  }
  // Nor is a slot to wait for more than a stream gives at once: who reads from it may be slow.
  if (first.stream_rows > 0 && !projection_.packing.is_any() && !options_.shuffle) {
    known_rows = known_rows < 0 ? first.stream_rows : std::min(known_rows, first.stream_rows);
  }
  sizing_ = SlotSizing::Of(options_, projection_, *schema_, first.arena_row_bytes, known_rows,
                           rest_bytes - first.least_chunk_bytes - 3 * overhead_bytes);
  sizing_.collate_slots += gated_slots();
  Packing packing = projection_.packing;
  packing.has_whole_rows = options_.shuffle;
  layout_ = std::make_shared<SlotLayout>(schema_, options_.batch_size, sizing_.batches_per_slot,
                                         options_.memory_budget_bytes, packing);
  sizing_.slot_bytes = SlotBytes(*layout_, first);
  const int64_t slot_bytes = (2 + sizing_.collate_slots) * sizing_.slot_bytes;
  // Footers further on may be larger than the first; where the budget is not tight, it shall not be they that fail.
  const bool is_tight = options_.memory_budget_bytes < 2 * least_bytes;
  const int64_t spare_bytes = is_tight ? 0 : std::min(kMostFooterSpareBytes, options_.memory_budget_bytes / 16);
  most_decode_bytes_ = rest_bytes - slot_bytes - spare_bytes;
  ledger_->SetAside({.slot_bytes = slot_bytes,
                     .decode_bytes = std::min(most_decode_bytes_, 2 * first.most_chunk_bytes),
                     .metadata_bytes = MetadataBytes(first) + spare_bytes,
                     .shuffle_bytes = shuffle_bytes_});
  return arrow::Status::OK();
}

// Slabs are slots of one batch.
void LoaderImpl::SizeShuffle(const Survey& survey, int64_t data_rows) {
  if (!options_.shuffle) return;
  auto schema = std::make_shared<Schema>(*schema_);
  for (Field& field : *schema) field.has_segments = false;  // They are those of a batch.
  const double row_bytes = static_cast<double>(SlotLayout::BatchBytes(*schema, 1)) +
                           static_cast<double>(ExpectedArenaBytes(survey.arena_row_bytes, 1'000'000)) / 1e6;
  const auto choose = [&](const ShuffleSizing& sizing) {
    // A state says where a window begins; where slabs do is known.
    shuffle_ = projection_.packing.is_any() ? sizing.InWholeSlabs() : sizing;
    slab_layout_ =
        std::make_shared<SlotLayout>(schema, shuffle_.slab_rows, 1, options_.memory_budget_bytes, projection_.packing);
    slab_bytes_ = SlotBytes(*slab_layout_, survey);
  };
  const bool is_by_rows = options_.shuffle_window_rows > 0;
  if (is_by_rows) choose(ShuffleSizing::OfRows(options_.shuffle_window_rows, std::max(1.0, row_bytes)));
  // Slabs are whole pages: what that costs comes off the window, so that it keeps to its bytes unless it is tiny.
  int64_t target_bytes = options_.shuffle_window_bytes;
  constexpr int64_t kLeastBytes = int64_t{1} << 20;
  for (int attempt = 0; !is_by_rows && attempt < 4; ++attempt) {
    choose(ShuffleSizing::Of(target_bytes, std::max(1.0, row_bytes)));
    const int64_t bytes =
        shuffle_.most_slabs(-1) * slab_bytes_ + 2 * shuffle_.window_rows * static_cast<int64_t>(sizeof(uint32_t));
    if (bytes <= options_.shuffle_window_bytes || options_.shuffle_window_bytes < kLeastBytes) break;
    target_bytes =
        static_cast<int64_t>(static_cast<double>(target_bytes) * static_cast<double>(options_.shuffle_window_bytes) /
                             static_cast<double>(bytes));
  }
  const int64_t order_rows = data_rows < 0 ? 2 * shuffle_.window_rows : std::min(2 * shuffle_.window_rows, data_rows);
  shuffle_bytes_ = shuffle_.most_slabs(data_rows) * slab_bytes_ + order_rows * static_cast<int64_t>(sizeof(uint32_t));
  order_->SetWindow(shuffle_.window_rows);
}

// With the arenas that are expected.
int64_t LoaderImpl::SlotBytes(const SlotLayout& layout, const Survey& survey) {
  return layout.bytes() + ExpectedArenaBytes(survey.arena_row_bytes, layout.rows()) + layout.ArenaOverheadBytes();
}

int64_t LoaderImpl::OneBatchSlotBytes(const Survey& survey) const {
  return SlotBytes(SlotLayout(schema_, options_.batch_size, 1, options_.memory_budget_bytes, projection_.packing),
                   survey);
}

int64_t LoaderImpl::MetadataBytes(const Survey& survey) const {
  return metadata_bytes_ + kInputsOpen * survey.most_input_bytes + (order_->is_divided() ? kCatalogBytes : 0);
}

int64_t LoaderImpl::LeastBudget(const Survey& survey) const {
  return shuffle_bytes_ + MetadataBytes(survey) + LeastSlots() * OneBatchSlotBytes(survey) + survey.least_chunk_bytes;
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

arrow::Status LoaderImpl::StartEpoch() {
  ARROW_RETURN_NOT_OK(CheckUsable());
  EndEpoch();
  if (pinned_ != nullptr) ARROW_RETURN_NOT_OK(pinned_->Open(sizing_.all_slots()));
  ARROW_ASSIGN_OR_RAISE(Order::Start start, order_->StartRun());
  EpochPlan plan;
  plan.projection = &projection_;
  plan.layout = layout_;
  plan.sizing = sizing_;
  plan.num_workers = options_.num_workers;
  plan.in_order = options_.in_order;
  plan.drop_last = options_.drop_last;
  plan.limit = start.limit;
  if (plan.limit && projection_.packing.is_any()) {
    plan.limit = SaturatingMultiply(*plan.limit, projection_.packing.length);
  }
  plan.seed = options_.seed;
  plan.most_decode_bytes = most_decode_bytes_;
  plan.skips_errors = options_.skips_errors;
  plan.max_errors = options_.max_errors;
  plan.may_lose_rows = !order_->is_divided();
  plan.ledger = ledger_;
  plan.stats = stats_;
  plan.held_batches = held_batches_;
  plan.pinned = pinned_;
  plan.gate = gate_;
  MixPlan mix;
  if (start.is_shuffled) {
    mix.windows = std::move(start.windows);
    mix.rows = start.rows;
    mix.layout = layout_;
    mix.sizing = sizing_;
    mix.pinned = std::move(plan.pinned);
    mix.gate = std::move(plan.gate);
    mix.slab_rows = shuffle_.slab_rows;
    mix.is_threaded = options_.num_workers > 0;
    mix.drop_last = options_.drop_last;
    if (projection_.packing.is_any()) mix.begin = SourcePlace{0, start.skip_items};
    mix.ledger = ledger_;
    mix.stats = stats_;
    mix.held_batches = held_batches_;
    plan.layout = slab_layout_;
    plan.sizing.open_slots = kOpenSlabs;
    plan.sizing.may_grow = false;
    plan.sizing.slot_bytes = slab_bytes_;
    plan.in_order = true;
    plan.drop_last = false;
    plan.slot_account = plan.hand_account = Account::kShuffle;
    plan.keeps_slots = true;
    if (slab_layout_->num_domains() == 0) {
      // Without it each slab is a mapping of its own, which is slower and no more.
      plan.region = SlotRegion::Map(slab_layout_->bytes(), shuffle_.most_slabs(-1)).ValueOr(nullptr);
    }
    plan.keeps_lost = true;
    plan.held_batches = std::make_shared<std::atomic<int64_t>>(0);
  }
  auto epoch = std::make_shared<Scheduler>(std::move(plan), std::move(start.cursor));
  const auto mixer = start.is_shuffled ? std::make_shared<Mixer>(std::move(mix), epoch) : nullptr;
  stats_->EpochStarted();
  MutexLock consumer_lock(consumer_mu_);
  ARROW_RETURN_NOT_OK(CheckUsable());  // Another thread may have closed it meanwhile.
  has_failed_ = false;
  for (int i = 0; i < options_.num_workers; ++i) {
    workers_.emplace_back([epoch] {
      BecomeBatchWork();
      epoch->RunWorker();
    });
  }
  if (gate_ != nullptr && options_.num_workers > 0) {
    gate_->Start();
    workers_.emplace_back([gate = gate_] {
      BecomeBatchWork();
      gate->Run();
    });
  }
  if (mixer != nullptr && options_.num_workers > 0) {
    workers_.emplace_back([mixer] { mixer->RunFiller(); });
    for (int i = 0; i < std::min(options_.num_workers, mixer->most_mixers()); ++i) {
      workers_.emplace_back([mixer] {
        BecomeBatchWork();
        mixer->RunMixer();
      });
    }
  }
  MutexLock lock(epoch_mu_);
  epoch_ = std::move(epoch);
  mixer_ = mixer;
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
  for (auto& worker : workers_) worker.detach();
  workers_.clear();
  new std::shared_ptr<Scheduler>(std::move(epoch_));
  new std::shared_ptr<Mixer>(std::move(mixer_));
  new std::shared_ptr<PinnedSlots>(std::move(pinned_));
}

void LoaderImpl::End(bool is_closing) {
  if (ForkGeneration() != fork_generation_) return AbandonAfterFork();
  if (is_closing) is_closed_ = true;
  if (const auto mixer = CurrentMixer()) mixer->Stop();
  if (const auto epoch = CurrentEpoch()) epoch->Stop();
  MutexLock consumer_lock(consumer_mu_);
  const auto mixer = CurrentMixer();
  const auto epoch = CurrentEpoch();
  if (epoch != nullptr) {
    if (mixer != nullptr) mixer->Stop();
    epoch->Stop();
    if (gate_ != nullptr) gate_->Stop();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
    if (mixer != nullptr) mixer->Clear();
    epoch->Clear();
    MutexLock lock(epoch_mu_);
    epoch_.reset();
    mixer_.reset();
  }
  if (is_closing && order_ != nullptr) order_->Close();
  if (is_closing && pinned_ != nullptr) pinned_->Close();
  if (is_closing && std::exchange(is_metadata_charged_, false)) ledger_->Sub(Account::kMetadata, metadata_bytes_);
}

arrow::Result<const Survey*> LoaderImpl::SurveyAll() {
  MutexLock lock(survey_mu_);
  if (!survey_) {
    ARROW_ASSIGN_OR_RAISE(survey_, Survey::Of(*source_, ContextOf(ledger_), options_, kUnlimited, most_decode_bytes_,
                                              sizing_.open_slots * layout_->rows()));
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
  Explanation explanation;
  const bool is_counted = order_->is_counted();
  explanation.files = source_->num_files();
  explanation.row_groups = survey->chunks;
  explanation.plan = is_counted ? "counted" : "discovered";
  if (projection_.filter == nullptr && !projection_.packing.is_any() && source_->is_counted()) {
    ARROW_ASSIGN_OR_RAISE(explanation.rows, NumRows());
    ARROW_ASSIGN_OR_RAISE(explanation.batches, NumBatches());
  }
  explanation.batch_bytes = sizing_.batch_bytes;
  explanation.batches_per_slot = sizing_.batches_per_slot;
  explanation.slot_bytes = SlotBytes(*layout_, *survey);
  explanation.slots = sizing_.all_slots();
  explanation.chunk_bytes = survey->most_chunk_bytes;
  if (pinned_ != nullptr) explanation.locked_bytes = explanation.slots * layout_->bytes();
  explanation.metadata_bytes = metadata_bytes_ + survey->window_input_bytes;
  explanation.shuffle_window_rows = options_.shuffle ? shuffle_.window_rows : 0;
  explanation.shuffle_bytes = shuffle_bytes_;
  explanation.memory_budget_bytes = options_.memory_budget_bytes;
  explanation.least_budget_bytes = LeastBudget(*survey);
  const bool has_scratch = std::any_of(projection_.outputs.begin(), projection_.outputs.end(),
                                       [](const OutputColumn& output) { return output.is_dear(); });
  const int64_t scratch_bytes = has_scratch ? std::max(1, options_.num_workers) * ScratchPool::kAlwaysBytes : 0;
  explanation.predicted_peak_bytes =
      std::min(options_.memory_budget_bytes, explanation.metadata_bytes + shuffle_bytes_ +
                                                 explanation.slots * explanation.slot_bytes +
                                                 survey->window_chunk_bytes + scratch_bytes);
  explanation.num_workers = options_.num_workers;
  for (size_t i = 0; i < projection_.outputs.size(); ++i) {
    const Field& field = (*schema_)[i];
    std::string type = field.form == Form::kArrow ? field.arrow_type->ToString() : std::string(DTypeName(field.dtype));
    if (field.form != Form::kArrow) {
      for (int64_t extent : field.shape) type += "[" + std::to_string(extent) + "]";
    }
    if (field.form == Form::kRagged) type += field.tensor_ndim > 0 ? " tensors of varying shape" : " lists";
    explanation.columns.push_back({field.name, std::move(type), field.source_type->ToString(), survey->ways[i],
                                   SlotLayout::BatchBytes({field}, 1)});
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

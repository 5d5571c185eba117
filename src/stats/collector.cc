#include "stats/collector.h"

#include <algorithm>
#include <cmath>

namespace penstock {
namespace {

double Seconds(int64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }
double Milliseconds(double nanoseconds) { return nanoseconds * 1e-6; }

int64_t Load(const std::atomic<int64_t>& counter) { return counter.load(std::memory_order_relaxed); }
void Bump(std::atomic<int64_t>& counter, int64_t by) { counter.fetch_add(by, std::memory_order_relaxed); }

const char* UserCodeName(UserCode code) { return code == UserCode::kCollate ? "collate" : "finalize"; }

double BusySeconds(const StatsReport& report, UserCode code) {
  for (const auto& stage : report.stages) {
    if (stage.name == UserCodeName(code)) return stage.busy_s;
  }
  return 0;
}

// The user's code that takes most of the time of the threads that run it; nothing where none does.
bool JudgeUserCode(StatsReport* report) {
  constexpr double kMostOfTheTime = 0.7;
  const double elapsed_s = report->elapsed_s;
  if (BusySeconds(*report, UserCode::kFinalize) > kMostOfTheTime * elapsed_s) {
    report->bottleneck = "finalize";
    report->advice = "finalize_fn, which runs on the caller's thread, is the slowest part: move work to collate_fn.";
    return true;
  }
  const int threads = std::max(1, report->collate_workers);
  if (BusySeconds(*report, UserCode::kCollate) > kMostOfTheTime * elapsed_s * threads) {
    report->bottleneck = "collate";
    report->advice =
        "collate_fn is the slowest part: move work from it to transforms, which run without the GIL, or raise "
        "collate_workers if it lets go of the GIL.";
    return true;
  }
  return false;
}

}  // namespace

void StatsCollector::AddTask(Stage stage, int64_t busy_ns, int64_t items, int64_t bytes) {
  MutexLock lock(mu_);
  StageSum& sum = stages_[static_cast<size_t>(stage)];
  sum.busy_ns += busy_ns;
  sum.items += items;
  sum.bytes += bytes;
}

void StatsCollector::AddIdle(Lack lack, int64_t idle_ns) {
  MutexLock lock(mu_);
  idle_ns_[static_cast<size_t>(lack)] += idle_ns;
}

void StatsCollector::AddUserCode(UserCode stage, int64_t busy_ns) {
  MutexLock lock(mu_);
  StageSum& sum = user_code_[static_cast<size_t>(stage)];
  sum.busy_ns += busy_ns;
  ++sum.items;
}

void StatsCollector::KeepLocked(const std::string& message) {
  constexpr size_t kMostMessages = 10;
  if (messages_.size() < kMostMessages) messages_.push_back(message);
  last_message_ = message;
}

std::string StatsCollector::LastError() const {
  MutexLock lock(mu_);
  return last_message_;
}

int64_t StatsCollector::AddError(const std::string& message) {
  MutexLock lock(mu_);
  ++errors_;
  KeepLocked(message);
  return errors_ - errors_before_ + static_cast<int64_t>(file_errors_.size());
}

int64_t StatsCollector::AddFileError(const std::string& message) {
  MutexLock lock(mu_);
  if (file_errors_.insert(message).second) KeepLocked(message);
  return errors_ - errors_before_ + static_cast<int64_t>(file_errors_.size());
}

void StatsCollector::AddSlotLocked(int64_t busy_ns) {
  Bump(slots_locked_, 1);
  Bump(lock_ns_, busy_ns);
}

void StatsCollector::AddLockRefused(const std::string& message) {
  MutexLock lock(mu_);
  if (lock_refusal_.empty()) lock_refusal_ = message;
}

std::string StatsCollector::LockRefusal() const {
  MutexLock lock(mu_);
  return lock_refusal_;
}

void StatsCollector::EpochStarted(int64_t asked_ns, int64_t now_ns) {
  {
    MutexLock lock(mu_);
    errors_before_ = errors_;
  }
  Bump(epochs_, 1);
  Bump(wait_ns_, now_ns - asked_ns);
  Bump(elapsed_ns_, now_ns - asked_ns);
  epoch_start_ns_ = asked_ns;
  called_ns_ = 0;
  returned_ns_ = now_ns;
  is_first_batch_ = true;
}

void StatsCollector::NextCalled(int64_t now_ns) {
  if (called_ns_ != 0) return;  // Goes on waiting.
  called_ns_ = now_ns;
  if (returned_ns_ != 0) {
    Bump(step_ns_, now_ns - returned_ns_);
    Bump(elapsed_ns_, now_ns - returned_ns_);
  }
}

void StatsCollector::NextReturned(int64_t now_ns, int64_t rows) {
  const int64_t wait_ns = now_ns - called_ns_;
  Bump(wait_ns_, wait_ns);
  Bump(elapsed_ns_, wait_ns);
  called_ns_ = 0;
  returned_ns_ = rows > 0 ? now_ns : 0;
  if (rows == 0) return;
  Bump(batches_, 1);
  Bump(rows_, rows);
  if (is_first_batch_) {
    is_first_batch_ = false;
    first_batch_ns_.store(now_ns - epoch_start_ns_, std::memory_order_relaxed);
    return;
  }
  waits_.Record(wait_ns);
  Bump(steady_waits_, 1);
  Bump(steady_wait_ns_, wait_ns);
  const double wait_ms = Milliseconds(static_cast<double>(wait_ns));
  squares_ms_.store(squares_ms_.load(std::memory_order_relaxed) + wait_ms * wait_ms, std::memory_order_relaxed);
  if (wait_ns > Load(max_wait_ns_)) max_wait_ns_.store(wait_ns, std::memory_order_relaxed);
}

StatsReport StatsCollector::Report() const {
  StatsReport report;
  report.epochs = Load(epochs_);
  report.batches = Load(batches_);
  report.rows = Load(rows_);
  report.elapsed_s = Seconds(Load(elapsed_ns_));
  report.rows_per_s = report.elapsed_s > 0 ? static_cast<double>(report.rows) / report.elapsed_s : 0;
  report.first_batch_s = Seconds(Load(first_batch_ns_));
  report.step_s = Seconds(Load(step_ns_));
  report.consumer_wait_s = Seconds(Load(wait_ns_));
  const auto waits = static_cast<double>(Load(steady_waits_));
  if (waits > 0) {
    auto& wait_ms = report.wait_ms;
    wait_ms.mean = Milliseconds(static_cast<double>(Load(steady_wait_ns_))) / waits;
    wait_ms.std =
        std::sqrt(std::max(0.0, squares_ms_.load(std::memory_order_relaxed) / waits - wait_ms.mean * wait_ms.mean));
    wait_ms.max = Milliseconds(static_cast<double>(Load(max_wait_ns_)));
    wait_ms.p50 = std::min(wait_ms.max, Milliseconds(waits_.Quantile(0.5)));
    wait_ms.p99 = std::min(wait_ms.max, Milliseconds(waits_.Quantile(0.99)));
  }
  report.skipped = Load(rows_skipped_);
  report.filled = Load(rows_filled_);
  report.rows_filtered = Load(rows_filtered_);
  report.row_groups_pruned = Load(row_groups_pruned_);
  report.slots_open = Load(slots_open_);
  report.slots_grown = Load(slots_grown_);
  report.slots_locked = Load(slots_locked_);
  report.lock_s = Seconds(Load(lock_ns_));
  MutexLock lock(mu_);
  report.lock_refusal = lock_refusal_;
  report.errors = errors_ + static_cast<int64_t>(file_errors_.size());
  report.error_messages = messages_;
  static constexpr std::array<const char*, kNumStages> kNames = {"plan", "decode", "transform", "shuffle"};
  for (size_t i = 0; i < kNumStages; ++i) {
    if (i == static_cast<size_t>(Stage::kShuffle) && stages_[i].items == 0) continue;
    report.stages.push_back({kNames[i], Seconds(stages_[i].busy_ns), stages_[i].items, stages_[i].bytes});
    if (i == 0) report.stages.push_back({"read", Seconds(Load(io.busy_ns)), Load(io.reads), Load(io.bytes)});
  }
  report.waits = {Seconds(idle_ns_[0]), Seconds(idle_ns_[1]), Seconds(idle_ns_[2])};
  report.worker_s = report.waits.slot_s + report.waits.budget_s + report.waits.work_s;
  for (const auto& stage : report.stages) report.worker_s += stage.busy_s;
  for (const UserCode code : {UserCode::kCollate, UserCode::kFinalize}) {
    const StageSum& sum = user_code_[static_cast<size_t>(code)];
    if (sum.items > 0) report.stages.push_back({UserCodeName(code), Seconds(sum.busy_ns), sum.items, 0});
  }
  return report;
}

void Judge(StatsReport* report) {
  const double wait_share = report->elapsed_s > 0 ? report->consumer_wait_s / report->elapsed_s : 0;
  if (report->batches < 2) {
    report->bottleneck = "none";
    report->advice = "Too few batches were read to tell.";
    return;
  }
  if (wait_share < 0.05) {
    report->bottleneck = "step";
    report->advice = "The training step is the slower side; the loader keeps up and nothing needs to change.";
    return;
  }
  if (JudgeUserCode(report)) return;
  const auto& waits = report->waits;
  const double idle_share =
      report->worker_s > 0 ? (waits.slot_s + waits.budget_s + waits.work_s) / report->worker_s : 0;
  if (idle_share > 0.5 && waits.budget_s >= std::max(waits.slot_s, waits.work_s)) {
    report->bottleneck = "budget";
    report->advice = "Workers wait for memory: raise memory_budget.";
    return;
  }
  if (idle_share > 0.5 && waits.slot_s >= waits.work_s) {
    report->bottleneck = "slots";
    report->advice = "Some rows last longer than the slots ahead hide: raise prefetch_batches, or use in_order=False.";
    return;
  }
  const auto of_workers_end = std::find_if(report->stages.begin(), report->stages.end(), [](const auto& stage) {
    return stage.name == UserCodeName(UserCode::kCollate) || stage.name == UserCodeName(UserCode::kFinalize);
  });
  const auto dearest = std::max_element(report->stages.begin(), of_workers_end,
                                        [](const auto& a, const auto& b) { return a.busy_s < b.busy_s; });
  report->bottleneck = dearest->name;
  if (report->bottleneck == "read") {
    report->advice = "Reading files is the slowest part: put the data on a faster disk, or read fewer columns.";
  } else if (report->bottleneck == "decode") {
    report->advice =
        "Decoding Parquet is the slowest part: add num_workers if cores are free, read fewer columns, or write with a "
        "lighter codec.";
  } else if (report->bottleneck == "transform") {
    report->advice =
        "The transforms are the slowest part: add num_workers if cores are free, or move work to when the data is "
        "written.";
  } else if (report->bottleneck == "shuffle") {
    report->advice = "Mixing rows is the slowest part: read fewer columns.";
  } else {
    report->advice = "Reading footers is the slowest part: write fewer, larger files.";
  }
}

}  // namespace penstock

#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "penstock/mutex.h"
#include "penstock/stats.h"
#include "source/io_counters.h"
#include "stats/histogram.h"

namespace penstock {

/// Nanoseconds of the steady clock.
inline int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// What workers do, for the statistics. Reading is told apart from the others by IoCounters.
enum class Stage : uint8_t { kPlan, kDecode, kTransform, kShuffle };
inline constexpr int kNumStages = 4;
/// What an idle worker lacks.
enum class Lack : uint8_t { kSlot, kBudget, kWork };
inline constexpr int kNumLacks = 3;

/// Gathers the statistics of one loader over all its epochs.
///
/// Ownership: by shared_ptr from loader and scheduler. Threads: the consumer's calls from one thread at a time,
/// everything else from any. Blocking: none (workers add under a short lock, once per task).
class StatsCollector {
 public:
  IoCounters io;

  /// One task of a worker: `busy_ns` without what it spent reading.
  void AddTask(Stage stage, int64_t busy_ns, int64_t items, int64_t bytes) PENSTOCK_EXCLUDES(mu_);
  void AddIdle(Lack lack, int64_t idle_ns) PENSTOCK_EXCLUDES(mu_);
  void AddFiltered(int64_t rows) { rows_filtered_.fetch_add(rows, std::memory_order_relaxed); }
  void AddPruned(int64_t row_groups) { row_groups_pruned_.fetch_add(row_groups, std::memory_order_relaxed); }
  void SetSlots(int64_t open, int64_t grown) {
    slots_open_.store(open, std::memory_order_relaxed);
    slots_grown_.store(grown, std::memory_order_relaxed);
  }

  // The consumer's side. A call of Next() that gave up (NextFor) and its successors count as one wait.
  /// \param asked_ns  when the caller asked for the epoch: finding out its rows may have read the files.
  void EpochStarted(int64_t asked_ns, int64_t now_ns) PENSTOCK_EXCLUDES(mu_);
  void NextCalled(int64_t now_ns);
  /// \param rows  of the batch that is handed over; 0 at the end of the epoch.
  void NextReturned(int64_t now_ns, int64_t rows);

  /// \return the errors so far in this iteration.
  int64_t AddError(const std::string& message) PENSTOCK_EXCLUDES(mu_);
  /// Of a file, which is looked at many times: it is told of once, and counts in each iteration.
  int64_t AddFileError(const std::string& message) PENSTOCK_EXCLUDES(mu_);
  std::string LastError() const PENSTOCK_EXCLUDES(mu_);
  void AddSkipped(int64_t rows) { rows_skipped_.fetch_add(rows, std::memory_order_relaxed); }
  void AddFilled(int64_t rows) { rows_filled_.fetch_add(rows, std::memory_order_relaxed); }

  void AddSlotLocked(int64_t busy_ns);
  void AddLockRefused(const std::string& message) PENSTOCK_EXCLUDES(mu_);
  std::string LockRefusal() const PENSTOCK_EXCLUDES(mu_);

  void AddUserCode(UserCode stage, int64_t busy_ns) PENSTOCK_EXCLUDES(mu_);

  /// Everything but memory and numbers of workers.
  StatsReport Report() const PENSTOCK_EXCLUDES(mu_);

 private:
  void KeepLocked(const std::string& message) PENSTOCK_REQUIRES(mu_);
  struct StageSum {
    int64_t busy_ns = 0;
    int64_t items = 0;
    int64_t bytes = 0;
  };
  using Counter = std::atomic<int64_t>;

  mutable Mutex mu_;
  std::array<StageSum, kNumStages> stages_ PENSTOCK_GUARDED_BY(mu_);
  std::array<StageSum, 2> user_code_ PENSTOCK_GUARDED_BY(mu_);
  std::array<int64_t, kNumLacks> idle_ns_ PENSTOCK_GUARDED_BY(mu_) = {};
  int64_t errors_ PENSTOCK_GUARDED_BY(mu_) = 0, errors_before_ PENSTOCK_GUARDED_BY(mu_) = 0;  // ... this iteration.
  std::set<std::string> file_errors_ PENSTOCK_GUARDED_BY(mu_);
  std::vector<std::string> messages_ PENSTOCK_GUARDED_BY(mu_);
  std::string last_message_ PENSTOCK_GUARDED_BY(mu_);
  std::string lock_refusal_ PENSTOCK_GUARDED_BY(mu_);  // The first.

  // Written by the consumer's thread alone, read by any.
  Counter epochs_{0}, batches_{0}, rows_{0}, elapsed_ns_{0}, step_ns_{0}, wait_ns_{0}, first_batch_ns_{0};
  Counter steady_waits_{0}, steady_wait_ns_{0}, max_wait_ns_{0};
  std::atomic<double> squares_ms_{0};
  Counter rows_skipped_{0}, rows_filled_{0};
  Counter slots_locked_{0}, lock_ns_{0};
  Counter rows_filtered_{0}, row_groups_pruned_{0}, slots_open_{0}, slots_grown_{0};
  DurationHistogram waits_;
  int64_t epoch_start_ns_ = 0;
  int64_t called_ns_ = 0;    // 0: not in Next().
  int64_t returned_ns_ = 0;  // 0: the epoch is over.
  bool is_first_batch_ = true;
};

/// Names the slowest part of `report` and what to do about it (StatsReport::bottleneck, advice).
void Judge(StatsReport* report);

}  // namespace penstock

#pragma once

#include <arrow/result.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "penstock/ledger.h"
#include "penstock/mutex.h"
#include "pipeline/gather.h"
#include "pipeline/scheduler.h"
#include "pipeline/slot_giver.h"
#include "plan/window_cursor.h"

namespace penstock {

/// What a shuffled run mixes with. What it points to must outlive the run's threads.
struct MixPlan {
  WindowCursor windows;
  int64_t rows = 0;                          ///< Of the run, that are given; kUnknownRows: those that the source has.
  std::shared_ptr<const SlotLayout> layout;  ///< Of the batches that are given.
  SlotSizing sizing;                         ///< Of the slots that are given.
  std::shared_ptr<PinnedSlots> pinned;       ///< See EpochPlan.
  std::shared_ptr<CopyGate> gate;
  int64_t slab_rows = 1;                ///< Rows of a batch of `source`; a power of two.
  std::shared_ptr<RecordPool> records;  ///< Of slabs; null where rows are mixed from where `source` has put them.
  bool is_threaded = true;              ///< False: all work is done on the caller's thread.
  bool drop_last = false;
  /// Where rows of `source` are not those of its own source (ops::Pack): where it begins there. A place between batches
  /// then is where the window begins that the next row is of.
  std::optional<SourcePlace> begin;
  std::shared_ptr<Ledger> ledger;
  std::shared_ptr<StatsCollector> stats;
  std::shared_ptr<std::atomic<int64_t>> held_batches;
};

/// Shuffles a run: takes slabs of rows from a scheduler, which decodes them in the order of the (permuted) row groups,
/// and gathers the rows of a window into slots in mixed order. While one window is emptied, the next is filled; no
/// third begins before the first is gone. Slabs and permutations are charged to `shuffle`, slots to `slots`.
///
/// Ownership: by shared_ptr; slots in the caller's hand keep it.
/// Threads:   RunFiller() on one thread and RunMixer() on most_mixers() at the most (none where !is_threaded); Next()
///            from one thread at a time; everything else from any.
/// Blocking:  RunFiller(), RunMixer() and Next() sleep. The mutex is never held while windows are put into order, rows
///            copied, memory mapped or slabs given back.
class Mixer : public SlotGiver, public std::enable_shared_from_this<Mixer> {
 public:
  Mixer(MixPlan plan, std::shared_ptr<Scheduler> source);
  ~Mixer() override;
  Mixer(const Mixer&) = delete;
  Mixer& operator=(const Mixer&) = delete;

  void RunFiller() PENSTOCK_EXCLUDES(mu_);
  void RunMixer() PENSTOCK_EXCLUDES(mu_);
  /// Arenas are filled in the order of their rows, by one thread.
  int most_mixers() const { return plan_.layout->num_domains() > 0 ? 1 : plan_.sizing.open_slots; }
  void ReturnSlot(SlotStorage storage) override PENSTOCK_EXCLUDES(mu_);
  /// Makes every thread return soon; stop the source as well. Idempotent.
  void Stop() PENSTOCK_EXCLUDES(mu_);
  /// Drops all that the caller does not hold. After the threads are joined, before the source is cleared.
  void Clear() PENSTOCK_EXCLUDES(mu_);

 private:
  enum class Ordering { kNone, kRunning, kDone };
  /// A window on its way: first its slabs come, and its rows are put into order; then they go.
  struct Filling {
    Filling() = default;
    ~Filling() { Empty(); }
    Filling(const Filling&) = delete;
    Filling& operator=(const Filling&) = delete;

    std::shared_ptr<Ledger> ledger;
    Window window;
    int64_t begin_row = 0;  ///< In what the source gives.
    SourcePlace begin, end;
    std::vector<uint32_t> order;
    Ordering ordering = Ordering::kNone;
    std::vector<std::shared_ptr<const Slab>> slabs;
    bool ends_padded = false;  ///< Its last row was filled up: it stays the last.
    bool has_lost = false;     ///< A slab has rows that were left out.
    bool is_full = false;
    bool is_emptying = false;
    int64_t taken_rows = 0;  ///< Of those wanted: by jobs...
    int64_t given_rows = 0;  ///< ... and copied.
    int64_t wanted_rows = 0;
    int64_t charged_bytes = 0;

    void Add(std::shared_ptr<const Slab> slab);
    /// Fills `order`, which is as large as the window.
    void PutIntoOrder();
    /// Gives back what it holds.
    void Empty();
    int64_t end_row() const { return begin_row + window.rows; }
    bool is_mixable() const { return is_full && ordering == Ordering::kDone; }
  };
  /// Rows of a window that go to one slot, one after the other.
  struct Part {
    std::shared_ptr<Filling> from;
    int64_t first = 0;  ///< Of the wanted rows.
    int64_t rows = 0;
  };
  struct Slot {
    explicit Slot(const SlotLayout& layout) : fill(layout) {}
    SlotStorage storage;
    ArenaFill fill;
    std::vector<uint8_t> lost;  ///< As LostRows; bytes, since rows next to each other are set by different threads.
    int64_t taken_rows = 0;     ///< By jobs...
    int64_t done_rows = 0;      ///< ... that have run.
    bool is_closed = false;     ///< No job is to come.
    bool ends_padded = false;   ///< As that of the window that its last row is of.
    std::vector<SourcePlace> places;  ///< As SlotHand::source_places.

    bool is_ready() const { return is_closed && done_rows == taken_rows; }
  };
  /// Rows to be copied to a slot, which stays where it is meanwhile.
  struct Job {
    Slot* slot = nullptr;
    int64_t slot_row = 0;
    std::vector<Part> parts;
    int64_t rows = 0;
  };

  // Filling.
  bool FillLocked(Deadline deadline) PENSTOCK_REQUIRES(mu_);
  arrow::Result<std::shared_ptr<Filling>> OpenWindow(Window window) PENSTOCK_EXCLUDES(mu_);
  arrow::Result<std::shared_ptr<const Slab>> TakeSlab(Deadline deadline, bool* is_end) PENSTOCK_EXCLUDES(mu_);
  void EndLocked() PENSTOCK_REQUIRES(mu_);
  void AddSlabLocked(std::shared_ptr<const Slab> slab) PENSTOCK_REQUIRES(mu_);
  void CheckFullLocked() PENSTOCK_REQUIRES(mu_);
  void FailLocked(arrow::Status status) PENSTOCK_REQUIRES(mu_);

  // Mixing.
  int64_t MixableRowsLocked() const PENSTOCK_REQUIRES(mu_);
  int64_t JobRowsLocked() const PENSTOCK_REQUIRES(mu_);
  bool MayHaveSlotLocked() const PENSTOCK_REQUIRES(mu_);
  bool IsSlotOpenLocked() const PENSTOCK_REQUIRES(mu_);
  bool OpenSlotLocked() PENSTOCK_REQUIRES(mu_);
  bool MixLocked() PENSTOCK_REQUIRES(mu_);
  bool OrderWindowLocked() PENSTOCK_REQUIRES(mu_);
  Job TakeJobLocked() PENSTOCK_REQUIRES(mu_);
  void NotePlacesLocked(Slot* slot, int64_t slot_row, const Filling& from, int64_t rows) PENSTOCK_REQUIRES(mu_);
  void RunJobLocked(const Job& job) PENSTOCK_REQUIRES(mu_);
  void DropEmptiedLocked() PENSTOCK_REQUIRES(mu_);
  arrow::Status Mix(const Job& job) PENSTOCK_EXCLUDES(mu_);
  arrow::Status TakeArenas(Slot* slot, const int64_t* used) PENSTOCK_EXCLUDES(mu_);

  // Giving.
  bool IsSlotReadyLocked() const PENSTOCK_REQUIRES(mu_) { return !slots_.empty() && slots_.front()->is_ready(); }
  bool IsAtEndLocked() const PENSTOCK_REQUIRES(mu_);
  bool GiveRestLocked() PENSTOCK_REQUIRES(mu_);
  bool HandOverLocked() PENSTOCK_REQUIRES(mu_);
  arrow::Result<bool> TakeSlot(Deadline deadline, bool* timed_out) override PENSTOCK_EXCLUDES(mu_);

  MixPlan plan_;
  std::shared_ptr<Scheduler> source_;  // Until Clear().
  const int slab_bits_;

  Mutex mu_;
  CondVar fill_;   // The filler sleeps here...
  CondVar mix_;    // ... mixers here...
  CondVar ready_;  // ... and the consumer here.
  bool is_stopping_ PENSTOCK_GUARDED_BY(mu_) = false;
  bool is_cleared_ PENSTOCK_GUARDED_BY(mu_) = false;
  bool is_consumer_waiting_ PENSTOCK_GUARDED_BY(mu_) = false;
  std::deque<std::shared_ptr<Filling>> windows_ PENSTOCK_GUARDED_BY(mu_);  // At most two.
  bool is_last_window_open_ PENSTOCK_GUARDED_BY(mu_) = false;
  int64_t rows_ PENSTOCK_GUARDED_BY(mu_);                           // As MixPlan::rows, until they are known.
  int64_t source_rows_ PENSTOCK_GUARDED_BY(mu_) = 0;                // Got from the source...
  int64_t window_rows_ PENSTOCK_GUARDED_BY(mu_) = 0;                // ... of all windows opened so far...
  int64_t wanted_rows_ PENSTOCK_GUARDED_BY(mu_) = 0;                // ... and wanted of them.
  SourcePlace source_place_ PENSTOCK_GUARDED_BY(mu_);               // Behind source_rows_ (see MixPlan::begin)...
  SourcePlace last_place_ PENSTOCK_GUARDED_BY(mu_);                 // ... and behind the last whole batch.
  std::shared_ptr<const Slab> last_slab_ PENSTOCK_GUARDED_BY(mu_);  // May reach into the next window.
  arrow::Status failure_ PENSTOCK_GUARDED_BY(mu_);

  int64_t mixed_rows_ PENSTOCK_GUARDED_BY(mu_) = 0;  // Taken by jobs.
  int running_ PENSTOCK_GUARDED_BY(mu_) = 0;         // Jobs, slots that are mapped, windows that are put into order.
  bool is_opening_slot_ PENSTOCK_GUARDED_BY(mu_) = false;
  std::deque<std::unique_ptr<Slot>> slots_ PENSTOCK_GUARDED_BY(mu_);  // In the order in which they are given.
  std::vector<SlotStorage> spare_ PENSTOCK_GUARDED_BY(mu_);
  bool is_slot_refused_ PENSTOCK_GUARDED_BY(mu_) = false;
  int user_slots_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int kept_slots_ PENSTOCK_GUARDED_BY(mu_) = 0;

  int64_t given_rows_ PENSTOCK_GUARDED_BY(mu_) = 0;
};

}  // namespace penstock

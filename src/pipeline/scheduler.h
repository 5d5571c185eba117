#pragma once

#include <arrow/result.h>
#include <arrow/util/thread_pool.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "batch/slot_layout.h"
#include "penstock/batch.h"
#include "penstock/ledger.h"
#include "penstock/mutex.h"
#include "pipeline/lane.h"
#include "pipeline/pinned_slots.h"
#include "pipeline/slot_giver.h"
#include "plan/plan_cursor.h"
#include "stats/collector.h"

namespace penstock {

/// What an epoch runs on. Fixed for its duration; what it points to must outlive the epoch's workers (not the batches).
struct EpochPlan {
  const Projection* projection = nullptr;
  std::shared_ptr<const SlotLayout> layout;
  SlotSizing sizing;
  int num_workers = 0;
  bool in_order = true;
  bool drop_last = false;
  std::optional<int64_t> limit;            ///< Of the slots' rows.
  uint64_t seed = 0;                       ///< Of what ops draw.
  int64_t most_decode_bytes = 0;           ///< What decoding one chunk may count on.
  Account slot_account = Account::kSlots;  ///< Of slots that are filled...
  Account hand_account = Account::kUser;   ///< ... and of those in the caller's hand.
  /// What comes back and is not wanted now stays mapped, and in slot_account, until it is: for many slots that come
  /// back at once, as a window's do.
  bool keeps_slots = false;
  std::shared_ptr<SlotRegion> region;   ///< Where slots come from; null: each is a mapping of its own...
  std::shared_ptr<PinnedSlots> pinned;  ///< ... which this locks, where it is not null...
  std::shared_ptr<CopyGate> gate;       ///< ... and which comes back through this.
  bool skips_errors = false;            ///< See LoaderOptions...
  int64_t max_errors = -1;
  bool may_lose_rows = false;  ///< Where a filter decides: nobody has counted the rows of row groups that fail.
  bool keeps_lost = false;     ///< Lost rows stay in their batches, see SlotGiver::lost_rows(); for slots of one batch.
  std::shared_ptr<Ledger> ledger;
  std::shared_ptr<StatsCollector> stats;
  std::shared_ptr<std::atomic<int64_t>> held_batches;

  /// A chunk's rows have their place when it is admitted.
  bool is_counted() const { return !projection->discovers_rows(); }
};

/// One epoch: slots, the lanes that fill them, and who does what next.
///
/// The work of equal shape is a morsel (rows of one lane within one slot). A worker takes the morsel of the *oldest*
/// slot; when there is none it decodes the next piece or opens the next row group that the budget admits; else it
/// sleeps. The algorithm is that of the prototype in docs/design.md
/// ("Oldest first"): a ticket under one mutex, a chain of wake-ups, memory that does not depend on the number of
/// workers.
///
/// Ownership: by shared_ptr; slots in the caller's hand keep it (an empty shell after Clear()).
/// Threads:   RunWorker() on each worker; Next() from one thread at a time; everything else from any thread.
/// Blocking:  RunWorker() and Next() sleep; nothing else does. The mutex is never held while files are read, rows
/// converted, memory mapped
///            or readers, blocks and chunks destroyed.
class Scheduler : public SlotGiver, public std::enable_shared_from_this<Scheduler> {
 public:
  Scheduler(EpochPlan plan, PlanCursor cursor);
  ~Scheduler() override;
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// A worker's life: works until Stop() or until nothing is left to do.
  void RunWorker() PENSTOCK_EXCLUDES(mu_);

  void ReturnSlot(SlotStorage storage) override PENSTOCK_EXCLUDES(mu_);

  /// Makes every worker and a sleeping Next() return soon. Idempotent.
  void Stop() PENSTOCK_EXCLUDES(mu_);
  /// Drops all that the caller does not hold. After the workers are joined.
  void Clear() PENSTOCK_EXCLUDES(mu_);

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  struct Slot {
    explicit Slot(const SlotLayout& layout, SlotStorage from) : storage(std::move(from)), fill(layout) {}
    SlotStorage storage;
    ArenaFill fill;
    int64_t filled_cells = 0;
    LostRows lost;
  };
  /// How far rows have their places, in one stream: those of discovered plans in slots, those of varying size in
  /// arenas.
  struct Placing {
    int64_t sequence = 0;     ///< Of the chunk whose rows come next.
    int64_t next_row = 0;     ///< Of the epoch.
    bool is_blocked = false;  ///< The next rows wait for a slot, or...
    bool is_starved = false;  ///< ... for memory for its arenas.
  };
  /// What is done, by the order in which it fails: the row of the epoch that it begins with, and a column.
  using WorkPlace = std::pair<int64_t, int>;
  struct Task {
    enum class Kind : uint8_t { kNone, kPlan, kFetch, kPiece, kMorsel, kMakeRoom };
    Kind kind = Kind::kNone;
    Lane* lane = nullptr;
    Chunk* chunk = nullptr;
    PieceStream* stream = nullptr;
    std::shared_ptr<RangeReader> ranges;  ///< kFetch.
    int64_t slot = 0;
    uint8_t* base = nullptr;          ///< The slot's memory.
    const ArenaFill* fill = nullptr;  ///< Of the slot; what concerns these rows does not change any more.
    int64_t begin_row = 0;            ///< kMorsel: rows of the epoch.
    int64_t rows = 0;
    int64_t frontier = 0;      ///< kPlan: rows before the chunk that is asked for.
    bool is_last_try = false;  ///< Everything else has made room already.
    bool is_retry = false;     ///< Was refused memory before.
  };
  struct Outcome {
    arrow::Status status;
    std::optional<ChunkSpec> spec;       ///< kPlan; nullopt at the end.
    ChunkSizing sizing;                  ///< kPlan.
    std::shared_ptr<const Block> block;  ///< kPiece; null at the end of the row group.
    int64_t piece_first_row = 0;
    int64_t piece_rows_read = 0;
    bool is_row_error = false;  ///< kPiece: the rows were read, but one of them cannot be prepared.
    std::vector<int64_t> lost;  ///< kMorsel: rows of the slot.
  };
  /// What must be destroyed after the mutex is released.
  struct Doomed {
    std::vector<std::unique_ptr<Lane>> lanes;
    std::vector<std::unique_ptr<Chunk>> chunks;
    std::vector<std::unique_ptr<DirectReader>> readers;
    std::vector<std::unique_ptr<PieceReader>> piece_readers;
    std::vector<std::shared_ptr<const Block>> blocks;
    std::vector<std::shared_ptr<RangeReader>> ranges;  ///< What they hold goes; they live on.
    std::vector<ReturnedSlot> spares;
    std::vector<arrow::Status> failures;  ///< That nobody is told of: those of Python need the GIL to die.
    bool empty() const {
      return lanes.empty() && chunks.empty() && readers.empty() && piece_readers.empty() && blocks.empty() &&
             spares.empty() && failures.empty();
    }
    void Add(arrow::Status failure) {
      if (!failure.ok()) failures.push_back(std::move(failure));
    }
  };

  // Taking (take.cc).
  bool TakeLocked(Task* task, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  bool TakePlanLocked(Task* task, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  bool TakeOldestLocked(Task* task) PENSTOCK_REQUIRES(mu_);
  bool TakeStarvedLocked(Task* task, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  /// False of what comes behind a failure.
  bool IsWantedLocked(WorkPlace place) const PENSTOCK_REQUIRES(mu_) {
    return failed_slot_ == kNever || place < failed_place_;
  }
  void AddLaneLocked(Lane* lane) PENSTOCK_REQUIRES(mu_);
  void TakeMorselLocked(Lane* lane, Task* task) PENSTOCK_REQUIRES(mu_);
  void TakePieceLocked(Chunk* chunk, PieceStream* stream, Task* task) PENSTOCK_REQUIRES(mu_);
  bool TakeMakeRoomLocked(Task* task, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  void SuspendOthersLocked(const Lane* lane, const PieceStream* stream, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  bool AdmitLocked() PENSTOCK_REQUIRES(mu_);
  bool HasWorkAheadLocked() const PENSTOCK_REQUIRES(mu_);
  bool MayFetchAheadLocked() const PENSTOCK_REQUIRES(mu_);
  bool MayDecodeAheadLocked() const PENSTOCK_REQUIRES(mu_);
  bool HasRoomAheadLocked(int64_t bytes) const PENSTOCK_REQUIRES(mu_);
  bool MayOpenAheadLocked() const PENSTOCK_REQUIRES(mu_);
  /// `is` takes a chunk and one of its streams. Not analysed within: where it needs the mutex, that is taken for
  /// another.
  template <typename Predicate>
  bool AnyStreamLocked(const Predicate& is) const PENSTOCK_REQUIRES(mu_) PENSTOCK_NO_THREAD_SAFETY_ANALYSIS {
    for (const auto& [sequence, chunk] : chunks_) {
      for (const PieceStream& stream : chunk->streams) {
        if (is(*chunk, stream)) return true;
      }
    }
    return false;
  }
  bool HasStarvedStreamLocked() const PENSTOCK_REQUIRES(mu_);
  bool IsAheadLocked(const Chunk& chunk, const PieceStream& stream) const PENSTOCK_REQUIRES(mu_);
  bool IsHeldBackLocked() const PENSTOCK_REQUIRES(mu_);
  bool IsDecodingLocked() const PENSTOCK_REQUIRES(mu_);
  int64_t PieceSlotLocked(const Chunk& chunk, const PieceStream& stream) const PENSTOCK_REQUIRES(mu_);
  Lack LackLocked() const PENSTOCK_REQUIRES(mu_);
  bool HasMorselLocked() const PENSTOCK_REQUIRES(mu_);
  bool HasPieceLocked() const PENSTOCK_REQUIRES(mu_);

  // Doing (work.cc); without the mutex.
  Outcome Execute(const Task& task);
  Outcome ExecutePlan(const Task& task);
  Outcome ExecutePiece(const Task& task);
  arrow::Status ExecuteMorsel(const Task& task, Outcome* outcome);
  arrow::Status ConvertBlock(const Task& task, Outcome* outcome);
  arrow::Status ConvertColumn(const Task& task, size_t column, int64_t offset, const RowKey& key, Outcome* outcome);
  bool FillColumn(const Task& task, size_t column, int64_t offset);
  void CopyVarying(const Task& task, int output, const arrow::Array& array);
  // Skipping errors (skip.cc).
  arrow::Result<PieceReader::Piece> MissingPiece(const Chunk& chunk, const PieceStream& stream) const;
  bool PassOverLocked(Chunk* chunk, PieceStream* stream, const Outcome& outcome, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  arrow::Status CountError(const arrow::Status& status);
  arrow::Status ConvertByRows(const Task& task, const OutputColumn& output, const arrow::Array& array,
                              const RowKey& key, SlotTarget target, Outcome* outcome);
  void LoseRows(const Task& task, int64_t first, int64_t rows, Outcome* outcome) const;
  arrow::Status Prepare(const Chunk& chunk, const PieceStream& stream, PieceReader::Piece* piece) const;
  arrow::Status ConvertConstants(const Task& task);
  void WriteIdentity(const Task& task, const OutputColumn& output, SlotTarget target);

  // Finishing (finish.cc).
  void FinishLocked(const Task& task, Outcome&& outcome, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  void FinishPlanLocked(const Task& task, Outcome&& outcome) PENSTOCK_REQUIRES(mu_);
  void FinishPieceLocked(const Task& task, Outcome&& outcome, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  void FinishMorselLocked(const Task& task, const Outcome& outcome, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  Lane* AddBlockLaneLocked(Chunk* chunk, PieceStream* stream, std::shared_ptr<const Block> block, int64_t block_row,
                           int64_t begin_row, int64_t rows) PENSTOCK_REQUIRES(mu_);
  void RetireChunkLocked(Chunk* chunk, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  WorkPlace WorkPlaceOf(const Task& task) const;
  /// Returns what is to be destroyed after the mutex is released: the failure that this one goes before, or itself.
  [[nodiscard]] arrow::Status FailLocked(WorkPlace place, arrow::Status status) PENSTOCK_REQUIRES(mu_);
  void SetTotalLocked(int64_t rows) PENSTOCK_REQUIRES(mu_);
  arrow::Status Refused(const arrow::Status& status, const Chunk& chunk) const;

  // Placing rows (place.cc).
  /// True where the rows of a stream get their places in order, when they are decoded.
  bool IsPlacedInOrder(int stream) const {
    return !plan_.is_counted() || streams_with_arenas_[static_cast<size_t>(stream)] != 0;
  }
  void PlaceAllLocked(Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  void PlaceLocked(int number, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  bool PlaceBlockLocked(Chunk* chunk, PieceStream* stream, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  bool PlaceInArenasLocked(Chunk* chunk, PieceStream* stream, PieceStream::Unplaced* rest) PENSTOCK_REQUIRES(mu_);
  bool FillArenasLocked(Slot* slot, const PieceStream& stream, const PieceStream::Unplaced& rest, int64_t begin_row,
                        int64_t rows) PENSTOCK_REQUIRES(mu_);
  void NoteSourcePlacesLocked(const Chunk& chunk, const Block& block, int64_t block_row, int64_t rows)
      PENSTOCK_REQUIRES(mu_);
  void EndOfPlacingLocked() PENSTOCK_REQUIRES(mu_);
  bool IsStarvedForArenasLocked() const PENSTOCK_REQUIRES(mu_);
  void DropUnplacedLocked(Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  void DropAheadLocked(int64_t sequence, Doomed* doomed) PENSTOCK_REQUIRES(mu_);
  static void DropBlocks(PieceStream* stream, bool keeps_first, Doomed* doomed);
  void GiveUpOnArenasLocked() PENSTOCK_REQUIRES(mu_);
  arrow::Status ArenasRefusedLocked() const PENSTOCK_REQUIRES(mu_);

  // Slots (slots.cc).
  /// Slots from here on hold nothing that comes before a failure.
  int64_t WantedSlotsLocked() const PENSTOCK_REQUIRES(mu_) {
    return failed_slot_ == kNever ? kNever : SlotOf(failed_place_.first + plan_.layout->rows() - 1);
  }
  /// \param is_worker  who may take the time to lock pages; else workers are left to do that.
  void OpenSlots(bool is_worker) PENSTOCK_EXCLUDES(mu_);
  bool MapSlotLocked() PENSTOCK_REQUIRES(mu_);
  void SlotRefusedLocked(const arrow::Status& status) PENSTOCK_REQUIRES(mu_);
  void SetMostSlotsLocked(int slots) PENSTOCK_REQUIRES(mu_);
  bool NeedsSlotLocked() const PENSTOCK_REQUIRES(mu_);
  bool WantsSlotLocked() const PENSTOCK_REQUIRES(mu_);
  bool HasRoomForSlotLocked(int64_t bytes_there) const PENSTOCK_REQUIRES(mu_);
  bool IsFilledLocked() const PENSTOCK_REQUIRES(mu_);
  bool KeepsSpareLocked() const PENSTOCK_REQUIRES(mu_);
  [[nodiscard]] std::vector<ReturnedSlot> DropSparesLocked() PENSTOCK_REQUIRES(mu_);
  void InstallSlotLocked(SlotStorage storage) PENSTOCK_REQUIRES(mu_);
  /// How long the caller waits for one slot before another is opened for idle workers; kNever where slots do not grow.
  int64_t GrowAfterNsLocked() const PENSTOCK_REQUIRES(mu_);
  bool GrowLocked() PENSTOCK_REQUIRES(mu_);
  int64_t SlotOf(int64_t row) const { return row / plan_.layout->rows(); }
  int64_t SlotRowsLocked(int64_t slot) const PENSTOCK_REQUIRES(mu_);
  bool IsCompleteLocked(int64_t index, const Slot& slot) const PENSTOCK_REQUIRES(mu_);

  // The consumer (consumer.cc).
  arrow::Result<bool> TakeSlot(Deadline deadline, bool* timed_out) override PENSTOCK_EXCLUDES(mu_);
  bool IsFailedLocked() const PENSTOCK_REQUIRES(mu_);
  bool IsStarvedLocked() const PENSTOCK_REQUIRES(mu_);
  arrow::Status WorkOnce() PENSTOCK_REQUIRES(mu_);
  bool WaitForSlotLocked(Deadline deadline, int64_t* waits_since_ns, bool* wants_slot) PENSTOCK_REQUIRES(mu_);
  int64_t DeliverableLocked() const PENSTOCK_REQUIRES(mu_);
  bool IsEndLocked() const PENSTOCK_REQUIRES(mu_);
  void HandOverLocked(int64_t index) PENSTOCK_REQUIRES(mu_);
  void TakeSourcePlacesLocked(int64_t index) PENSTOCK_REQUIRES(mu_);

  /// Runs a task that was taken, with the mutex released meanwhile; destroys what made room for it before.
  void RunTask(Task& task, Doomed made_room) PENSTOCK_REQUIRES(mu_);
  /// With the mutex released meanwhile.
  void Destroy(Doomed doomed) PENSTOCK_REQUIRES(mu_);
  void WakeOneLocked() PENSTOCK_REQUIRES(mu_);

  const EpochPlan plan_;
  const int64_t num_outputs_;
  const std::vector<char> streams_with_arenas_;

  Mutex mu_;
  CondVar work_;   // Workers sleep here...
  CondVar ready_;  // ... and the consumer here.
  bool is_stopping_ PENSTOCK_GUARDED_BY(mu_) = false;
  bool is_cleared_ PENSTOCK_GUARDED_BY(mu_) = false;
  int idle_workers_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int idle_for_slot_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int running_tasks_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int64_t num_freed_ PENSTOCK_GUARDED_BY(mu_) = 0;     // Counts what gave memory back; the starved look at it.
  int freeing_tasks_ PENSTOCK_GUARDED_BY(mu_) = 0;     // Done, but with memory still to give back.
  bool is_retrying_ PENSTOCK_GUARDED_BY(mu_) = false;  // A task that was refused memory tries again...
  bool is_last_try_ PENSTOCK_GUARDED_BY(mu_) = false;  // ... and nobody else is to take what was freed for it.

  // The plan.
  PlanCursor cursor_;  // Belongs to the plan task in flight.
  bool is_planning_ PENSTOCK_GUARDED_BY(mu_) = false;
  bool is_plan_done_ PENSTOCK_GUARDED_BY(mu_) = false;
  int64_t plan_starved_at_ PENSTOCK_GUARDED_BY(mu_) = -1;      // num_freed_ when the budget had no room for a footer.
  std::optional<ChunkSpec> pending_ PENSTOCK_GUARDED_BY(mu_);  // Found, not yet admitted.
  ChunkSizing pending_sizing_ PENSTOCK_GUARDED_BY(mu_);
  bool is_admission_refused_ PENSTOCK_GUARDED_BY(mu_) = false;
  arrow::Status plan_failure_ PENSTOCK_GUARDED_BY(mu_);  // Of the input after the last chunk: comes after its rows.
  int64_t frontier_row_ PENSTOCK_GUARDED_BY(mu_) = 0;    // Rows of the epoch that have their place.
  int64_t total_rows_ PENSTOCK_GUARDED_BY(mu_) = -1;     // -1: not known yet.

  // Open row groups, by position in the plan, and the lanes that can be taken.
  using LaneKey = std::tuple<int64_t, int64_t, int64_t, int64_t, Lane*>;  // Slot, chunk, minus cost, number.
  LaneKey KeyOf(Lane* lane) const {
    return {SlotOf(lane->next_row), lane->chunk->sequence, -lane->cost, lane->number, lane};
  }
  static WorkPlace WorkPlaceOf(const Lane& lane) { return {lane.next_row, lane.first_output()}; }
  static WorkPlace WorkPlaceOf(const Chunk& chunk, const PieceStream& stream) {
    return {chunk.begin_row + stream.next_row, stream.outputs[0]};
  }
  std::map<int64_t, std::unique_ptr<Chunk>> chunks_ PENSTOCK_GUARDED_BY(mu_);
  std::set<LaneKey> lanes_ PENSTOCK_GUARDED_BY(mu_);
  std::shared_ptr<arrow::internal::ThreadPool>
      fetchers_;  // Null where nothing is fetched ahead. Constant until Clear().
  std::deque<std::shared_ptr<RangeReader>> unfetched_ PENSTOCK_GUARDED_BY(mu_);  // Of chunks just admitted.
  std::vector<Lane*> starved_lanes_ PENSTOCK_GUARDED_BY(mu_);
  int blocks_ahead_ PENSTOCK_GUARDED_BY(mu_) = kBlocksAhead;  // Of a stream; more where workers are idle otherwise.
  int64_t next_sequence_ PENSTOCK_GUARDED_BY(mu_) = 0;
  std::vector<Placing> placing_ PENSTOCK_GUARDED_BY(mu_);  // By stream.
  bool is_stuck_ PENSTOCK_GUARDED_BY(mu_) = false;         // Only the caller could make room for arenas.
  int64_t next_lane_number_ PENSTOCK_GUARDED_BY(mu_) = 0;

  // Discovered plans: by slot, the place in the run at which it begins and those at which its batches end.
  std::map<int64_t, std::vector<SourcePlace>> source_places_ PENSTOCK_GUARDED_BY(mu_);
  SourcePlace last_batch_end_ PENSTOCK_GUARDED_BY(mu_);   // Where the last whole batch ends...
  SourcePlace last_placed_end_ PENSTOCK_GUARDED_BY(mu_);  // ... and the last row that has its place.

  // Slots.
  std::map<int64_t, Slot> open_ PENSTOCK_GUARDED_BY(mu_);
  int64_t slot_end_ PENSTOCK_GUARDED_BY(mu_) = 0;            // Slots ever opened: [0, slot_end_).
  int mapping_slots_ PENSTOCK_GUARDED_BY(mu_) = 0;           // Reserved, their memory under way...
  int unmapped_slots_ PENSTOCK_GUARDED_BY(mu_) = 0;          // ... or left to the next worker.
  int user_slots_ PENSTOCK_GUARDED_BY(mu_) = 0;              // In the caller's hand.
  std::vector<SlotStorage> spare_ PENSTOCK_GUARDED_BY(mu_);  // See KeepsSpareLocked().
  int kept_slots_ PENSTOCK_GUARDED_BY(mu_) = 0;              // Of these, not given back when the next was asked for.
  int most_slots_ PENSTOCK_GUARDED_BY(mu_);
  bool is_growth_refused_ PENSTOCK_GUARDED_BY(mu_) = false;  // A slot more than needed was refused its memory.
  int64_t handed_over_ns_ PENSTOCK_GUARDED_BY(mu_) = 0;      // When the last slot was handed over...
  int64_t slot_period_ns_ PENSTOCK_GUARDED_BY(mu_) = -1;     // ... and the usual time between two; -1: not known yet.
  int64_t delivered_slots_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int64_t next_slot_ PENSTOCK_GUARDED_BY(mu_) = 0;  // In order: the one that the consumer gets next.
  bool is_consumer_waiting_ PENSTOCK_GUARDED_BY(mu_) = false;
  std::multiset<WorkPlace> running_places_ PENSTOCK_GUARDED_BY(mu_);
  int64_t failed_slot_ PENSTOCK_GUARDED_BY(mu_) = kNever;
  WorkPlace failed_place_ PENSTOCK_GUARDED_BY(mu_);  // Of what failed first in the order of rows, not of time.
  arrow::Status failure_ PENSTOCK_GUARDED_BY(mu_);
};

}  // namespace penstock

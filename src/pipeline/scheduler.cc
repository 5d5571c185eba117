#include "pipeline/scheduler.h"

#include <algorithm>
#include <utility>

namespace penstock {
namespace {

constexpr int kFetchers = 8;

std::vector<char> StreamsWithArenas(const EpochPlan& plan) {
  std::vector<char> has_arenas(static_cast<size_t>(NumStreams(*plan.projection)));
  for (size_t i = 0; i < plan.layout->schema()->size(); ++i) {
    const Field& field = (*plan.layout->schema())[i];
    if (field.varying != nullptr && field.varying->num_domains() > 0) has_arenas[i % has_arenas.size()] = 1;
  }
  return has_arenas;
}

}  // namespace

Scheduler::Scheduler(EpochPlan plan, PlanCursor cursor)
    : SlotGiver(plan.layout, plan.ledger, plan.stats, plan.held_batches, plan.gate),
      plan_(std::move(plan)),
      num_outputs_(static_cast<int64_t>(plan_.projection->outputs.size())),
      streams_with_arenas_(StreamsWithArenas(plan_)),
      cursor_(std::move(cursor)),
      placing_(static_cast<size_t>(NumStreams(*plan_.projection))),
      most_slots_(plan_.sizing.open_slots + 1) {
  plan_.stats->SetSlots(most_slots_, 0);
  if (plan_.num_workers == 0) return;
  // Starts threads when there is something for them.
  if (auto fetchers = arrow::internal::ThreadPool::Make(kFetchers); fetchers.ok()) fetchers_ = std::move(*fetchers);
}

Scheduler::~Scheduler() = default;

void Scheduler::WakeOneLocked() {
  if (idle_workers_ > 0) work_.NotifyOne();
}

void Scheduler::RunWorker() {
  OpenSlots(/*is_worker=*/true);
  MutexLock lock(mu_);
  while (!is_stopping_) {
    if (unmapped_slots_ > 0) {
      --unmapped_slots_;
      MapSlotLocked();
      continue;
    }
    Task task;
    Doomed doomed;
    const bool is_taken = TakeLocked(&task, &doomed);
    if (is_taken) {
      // A chain: who takes work and sees more wakes one colleague, so that the consumer never has to wake them all.
      if (idle_workers_ > 0 && (HasMorselLocked() || HasPieceLocked())) work_.NotifyOne();
      RunTask(task, std::move(doomed));
      continue;
    }
    if (!doomed.empty()) {
      Destroy(std::move(doomed));
      continue;
    }
    const Lack lack = LackLocked();
    const int64_t idle_since_ns = NowNs();
    ++idle_workers_;
    if (lack == Lack::kSlot) ++idle_for_slot_;
    work_.Wait(mu_);
    if (lack == Lack::kSlot) --idle_for_slot_;
    --idle_workers_;
    plan_.stats->AddIdle(lack, NowNs() - idle_since_ns);
  }
}

void Scheduler::RunTask(Task& task, Doomed made_room) {
  ++running_tasks_;
  const auto running_place = running_places_.insert(WorkPlaceOf(task));
  mu_.Unlock();
  for (const auto& ranges : made_room.ranges) ranges->ReadDirectly();
  made_room = {};

  const int64_t began_ns = NowNs();
  const int64_t read_ns = IoCounters::ThreadBusyNs();
  Outcome outcome = Execute(task);
  task.ranges.reset();  // Its chunk may be done already: what it reads from dies here, not under the mutex.
  const int64_t busy_ns = NowNs() - began_ns - (IoCounters::ThreadBusyNs() - read_ns);
  Stage stage = Stage::kPlan;
  int64_t bytes = 0;
  if (task.kind == Task::Kind::kPiece) {
    stage = Stage::kDecode;
    bytes = outcome.block == nullptr ? 0 : outcome.block->bytes;
  } else if (task.kind == Task::Kind::kMorsel) {
    stage = task.lane->kind == Lane::Kind::kDirect ? Stage::kDecode : Stage::kTransform;
    bytes = task.rows * plan_.layout->bytes() / plan_.layout->rows();
  }
  if (task.kind != Task::Kind::kFetch) plan_.stats->AddTask(stage, busy_ns, 1, bytes);

  mu_.Lock();
  Doomed doomed;
  running_places_.erase(running_place);
  FinishLocked(task, std::move(outcome), &doomed);
  doomed.Add(std::move(outcome.status));
  if (!doomed.empty()) Destroy(std::move(doomed));
  --running_tasks_;  // Not before its memory is given back: who is then alone has all there is.
  if (task.is_retry) is_retrying_ = false;
  if (task.is_last_try) is_last_try_ = false;
  if (failed_slot_ != kNever) ready_.NotifyOne();
}

void Scheduler::Destroy(Doomed doomed) {
  ++freeing_tasks_;
  mu_.Unlock();
  doomed = {};
  mu_.Lock();
  --freeing_tasks_;
  ++num_freed_;
}

void Scheduler::Stop() {
  MutexLock lock(mu_);
  is_stopping_ = true;
  work_.NotifyAll();
  ready_.NotifyAll();
}

void Scheduler::Clear() {
  std::map<int64_t, std::unique_ptr<Chunk>> chunks;
  std::map<int64_t, Slot> slots;
  std::vector<SlotStorage> spare;
  int unmapped = 0;
  std::optional<ChunkSpec> pending;
  std::deque<std::shared_ptr<RangeReader>> unfetched;
  PlanCursor cursor;
  // What a user's Python raised may lead, through its traceback, to batches, and these lead here.
  arrow::Status failure, plan_failure;
  hand_ = {};
  {
    MutexLock lock(mu_);
    is_cleared_ = true;
    chunks.swap(chunks_);
    slots.swap(open_);
    spare.swap(spare_);
    unmapped = std::exchange(unmapped_slots_, 0);
    pending.swap(pending_);
    std::swap(failure, failure_);
    std::swap(plan_failure, plan_failure_);
    lanes_.clear();
    unfetched.swap(unfetched_);
    starved_lanes_.clear();
    std::swap(cursor, cursor_);
  }
  for (auto& [index, slot] : slots) spare.push_back(std::move(slot.storage));
  for (SlotStorage& storage : spare) {
    KeepOrFree(std::move(storage), plan_.pinned.get(), plan_.ledger, plan_.slot_account);
  }
  plan_.ledger->Sub(plan_.slot_account, unmapped * plan_.layout->bytes());
  chunks.clear();  // Waits for requests under way.
  fetchers_.reset();
}

}  // namespace penstock

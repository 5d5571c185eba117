#pragma once

#include <arrow/result.h>
#include <arrow/status.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "memory/page_locker.h"
#include "penstock/mutex.h"

namespace penstock {

class SlotRegion;

/// Page-aligned memory of one slot, from the system and back to it: what the ledger gives back, the process gives back.
/// Most of it may be address space that is never touched: pages are the process's when they are first written.
///
/// Ownership: move-only. Threads: may move between threads.
class SlotMemory {
 public:
  SlotMemory() = default;
  SlotMemory(SlotMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        region_(std::move(other.region_)),
        locker_(std::move(other.locker_)) {}
  SlotMemory& operator=(SlotMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(region_, other.region_);
    std::swap(locker_, other.locker_);
    return *this;
  }
  ~SlotMemory();

  /// Maps `fixed_bytes` + `arena_bytes` zeroed bytes (the first > 0). OutOfMemory where the system refuses.
  /// \param arena_bytes  address space behind the fixed part, of which little may be used.
  static arrow::Result<SlotMemory> Map(int64_t fixed_bytes, int64_t arena_bytes = 0);

  /// Locks the first `bytes` (whole pages) in place until this dies. Once, and not for pieces of a region.
  /// \return as PageLocker::Lock(); what is not locked can be used all the same.
  arrow::Status Lock(std::shared_ptr<PageLocker> locker, int64_t bytes);

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  bool is_locked() const { return locker_ != nullptr; }

  /// Gives the pages from `offset` on back to the system; they read as zeros again.
  void Discard(int64_t offset);

 private:
  friend class SlotRegion;

  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
  std::shared_ptr<SlotRegion> region_;  ///< That it is a piece of, if any.
  std::shared_ptr<PageLocker> locker_;  ///< That has locked it, if any.
};

/// Address space that many slots of one size are cut from, next to each other, so that the system can back them with
/// huge pages where one slot alone is smaller: whoever reads them in random order would wait for addresses to be
/// translated, and whoever writes them first for thousands of page faults. A huge page may reach into the neighbour:
/// the process may have one (2 MiB) more than the slots that are taken.
///
/// Ownership: by shared_ptr; slots keep it. Threads: any.
class SlotRegion : public std::enable_shared_from_this<SlotRegion> {
 public:
  /// Address space for `most_slots` of `slot_bytes` each (both > 0). OutOfMemory where the system refuses.
  static arrow::Result<std::shared_ptr<SlotRegion>> Map(int64_t slot_bytes, int64_t most_slots);
  ~SlotRegion();
  SlotRegion(const SlotRegion&) = delete;
  SlotRegion& operator=(const SlotRegion&) = delete;

  /// Memory of one slot, zeroed; where all are taken, it has a mapping of its own.
  arrow::Result<SlotMemory> Take() PENSTOCK_EXCLUDES(mu_);

 private:
  friend class SlotMemory;
  SlotRegion() = default;
  void GiveBack(uint8_t* data) PENSTOCK_EXCLUDES(mu_);

  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
  int64_t slot_bytes_ = 0;
  Mutex mu_;
  std::vector<uint8_t*> free_ PENSTOCK_GUARDED_BY(mu_);  // From the end: next to each other at first.
};

}  // namespace penstock

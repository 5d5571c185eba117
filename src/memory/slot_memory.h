#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <utility>

namespace penstock {

/// Page-aligned memory of one slot, from the system and back to it: what the ledger gives back, the process gives back.
/// Most of it may be address space that is never touched: pages are the process's when they are first written.
///
/// Ownership: move-only. Threads: may move between threads.
class SlotMemory {
 public:
  SlotMemory() = default;
  SlotMemory(SlotMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  SlotMemory& operator=(SlotMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~SlotMemory();

  /// Maps `fixed_bytes` + `arena_bytes` zeroed bytes (the first > 0). OutOfMemory where the system refuses.
  /// \param arena_bytes  address space behind the fixed part, of which little may be used.
  static arrow::Result<SlotMemory> Map(int64_t fixed_bytes, int64_t arena_bytes = 0);

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

  /// Gives the pages from `offset` on back to the system; they read as zeros again.
  void Discard(int64_t offset);

 private:
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace penstock

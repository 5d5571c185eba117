#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <utility>

namespace penstock {

/// Page-aligned memory of one slot, from the system and back to it: what the ledger gives back, the process gives back.
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

  /// Maps `bytes` zeroed bytes (> 0); pages are committed when they are first written. OutOfMemory where the system
  /// refuses.
  static arrow::Result<SlotMemory> Map(int64_t bytes);

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace penstock

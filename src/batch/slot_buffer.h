#pragma once

#include <arrow/buffer.h>

#include <cstdint>
#include <memory>
#include <utility>

namespace penstock {

/// A view of slot memory that keeps the slot.
class SlotBuffer : public arrow::Buffer {
 public:
  SlotBuffer(const uint8_t* data, int64_t bytes, std::shared_ptr<void> hold)
      : Buffer(data, bytes), hold_(std::move(hold)) {}

 private:
  std::shared_ptr<void> hold_;
};

/// Packs `length` bytes of 0 and 1 into bits at the front of the same memory; `flip` is xor-ed to each. Returns the
/// number of ones.
int64_t PackBitsInPlace(uint8_t* bytes, int64_t length, uint8_t flip);

}  // namespace penstock

#pragma once

#include <cstdint>

#include "penstock/custom_op.h"
#include "plan/philox.h"

namespace penstock::image {

/// Random numbers for one row: a function of the seed, the epoch, the row's file and place in it, the step that asks
/// and how often it has asked.
class Draws {
 public:
  explicit Draws(const RowKey& key) {
    const auto epoch = static_cast<uint64_t>(key.epoch), file = static_cast<uint64_t>(key.file);
    const PhiloxCounter stream =
        Philox4x32({Low(epoch), High(epoch), static_cast<uint32_t>(file), kForImages}, PhiloxKeyOf(key.seed));
    key_ = {stream[0], stream[1]};
    row_ = static_cast<uint64_t>(key.file_row + key.row(0));
  }

  void StartStep(size_t step) {
    step_ = static_cast<uint32_t>(step);
    next_ = 0;
  }
  /// In [0, 1), 53 bits.
  double Unit() {
    const uint64_t bits = Next();
    return static_cast<double>(bits >> 11) * 0x1p-53;
  }
  double Between(double low, double high) { return low + (high - low) * Unit(); }
  /// In [0, n), where n >= 1 is far below 2^53.
  int64_t Below(int64_t n) { return static_cast<int64_t>(Unit() * static_cast<double>(n)); }

 private:
  // Keeps this stream apart from those of shuffles with the same seed.
  static constexpr uint32_t kForImages = 0x696D6167;
  static uint32_t Low(uint64_t value) { return static_cast<uint32_t>(value); }
  static uint32_t High(uint64_t value) { return static_cast<uint32_t>(value >> 32); }

  uint64_t Next() {
    const PhiloxCounter words = Philox4x32({Low(row_), High(row_), step_, next_++}, key_);
    return uint64_t{words[1]} << 32 | words[0];
  }

  PhiloxKey key_;
  uint64_t row_;
  uint32_t step_ = 0, next_ = 0;
};

}  // namespace penstock::image

#include "plan/permutation.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <numeric>
#include <utility>

#include "plan/philox.h"

namespace penstock {
namespace {

// What the random numbers of an epoch are for; no two uses share a counter.
enum Purpose : uint32_t { kForRowGroups = 1, kForWindow = 2 };

// As many as make small domains uniform too: with ten, some orders of five row groups are 5 % more likely than others.
constexpr uint32_t kRounds = 16;

/// The random words of a window, one after the other.
class WordStream {
 public:
  WordStream(ShuffleKey key, uint32_t window)
      : key_(PhiloxKeyOf(key.seed)), counter_{0, window, key.epoch, kForWindow} {}

  uint32_t Next() {
    if (next_ == words_.size()) Refill();
    return words_[next_++];
  }

  /// Uniform in [0, bound), bound in [1, 2^32] (Lemire: "Fast random integer generation in an interval", 2019).
  uint32_t Below(uint64_t bound) {
    uint64_t product = Next() * bound;
    if (static_cast<uint32_t>(product) < bound) {
      const uint64_t least = (uint64_t{1} << 32) % bound;
      while (static_cast<uint32_t>(product) < least) product = Next() * bound;
    }
    return static_cast<uint32_t>(product >> 32);
  }

 private:
  // Eight blocks side by side, for the compiler to vectorize.
  void Refill() {
    constexpr size_t kBlocks = 8;
    std::array<PhiloxCounter, kBlocks> blocks;
    for (size_t i = 0; i < kBlocks; ++i) {
      blocks[i] = counter_;
      blocks[i][0] += static_cast<uint32_t>(i);
    }
    for (PhiloxCounter& block : blocks) block = Philox4x32(block, key_);
    counter_[0] += kBlocks;
    std::memcpy(words_.data(), blocks.data(), sizeof words_);
    next_ = 0;
  }

  PhiloxKey key_;
  PhiloxCounter counter_;
  std::array<uint32_t, 32> words_;
  size_t next_ = words_.size();
};

}  // namespace

Permutation::Permutation(ShuffleKey key, int64_t size) : key_(key), size_(static_cast<uint64_t>(size)) {
  assert(size >= 1 && size <= int64_t{1} << 62);
  const int bits = std::bit_width(size_ - 1);
  low_bits_ = bits / 2;
  low_mask_ = (uint64_t{1} << low_bits_) - 1;
  high_mask_ = (uint64_t{1} << (bits - low_bits_)) - 1;
}

uint32_t Permutation::Mix(uint64_t half, uint32_t round) const {
  return Philox4x32({static_cast<uint32_t>(half), round, key_.epoch, kForRowGroups}, PhiloxKeyOf(key_.seed))[0];
}

uint64_t Permutation::Forward(uint64_t value) const {
  uint64_t low = value & low_mask_;
  uint64_t high = value >> low_bits_;
  for (uint32_t round = 0; round < kRounds; round += 2) {
    low = (low + Mix(high, round)) & low_mask_;
    high = (high + Mix(low, round + 1)) & high_mask_;
  }
  return high << low_bits_ | low;
}

uint64_t Permutation::Backward(uint64_t value) const {
  uint64_t low = value & low_mask_;
  uint64_t high = value >> low_bits_;
  for (uint32_t round = kRounds; round > 0; round -= 2) {
    high = (high - Mix(low, round - 1)) & high_mask_;
    low = (low - Mix(high, round - 2)) & low_mask_;
  }
  return high << low_bits_ | low;
}

int64_t Permutation::At(int64_t position) const {
  auto value = static_cast<uint64_t>(position);
  assert(value < size_);
  do {
    value = Forward(value);
  } while (value >= size_);
  return static_cast<int64_t>(value);
}

int64_t Permutation::PositionOf(int64_t value) const {
  auto position = static_cast<uint64_t>(value);
  assert(position < size_);
  do {
    position = Backward(position);
  } while (position >= size_);
  return static_cast<int64_t>(position);
}

void ShuffleWindow(ShuffleKey key, uint32_t window, std::span<uint32_t> rows) {
  std::iota(rows.begin(), rows.end(), 0U);
  WordStream words(key, window);
  // Partners are drawn some steps ahead, so that the memory they lie in is on its way when they are swapped.
  std::array<uint32_t, 256> partners;
  for (size_t left = rows.size(); left > 1;) {
    const size_t steps = std::min(partners.size(), left - 1);
    for (size_t i = 0; i < steps; ++i) {
      partners[i] = words.Below(left - i);
      __builtin_prefetch(&rows[partners[i]], 1);
    }
    for (size_t i = 0; i < steps; ++i) std::swap(rows[left - 1 - i], rows[partners[i]]);
    left -= steps;
  }
}

}  // namespace penstock

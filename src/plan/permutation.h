#pragma once

#include <cstdint>
#include <span>

namespace penstock {

/// What an epoch's order follows from, beside the data.
struct ShuffleKey {
  uint64_t seed = 0;
  uint32_t epoch = 0;
};

/// A permutation of [0, size), computed position by position; there is no array of indices. An alternating Feistel
/// network over the next power of two, followed until it comes back into range (cycle walking: Black, Rogaway: "Ciphers
/// with arbitrary finite domains", CT-RSA 2002; less than two steps on average), keyed by Philox.
///
/// Threads: any. Blocking: none.
class Permutation {
 public:
  /// \param size  in [1, 2^62].
  Permutation(ShuffleKey key, int64_t size);

  int64_t size() const { return static_cast<int64_t>(size_); }
  /// What stands at `position`, both in [0, size()).
  int64_t At(int64_t position) const;
  /// The position at which `value` stands.
  int64_t PositionOf(int64_t value) const;

 private:
  uint32_t Mix(uint64_t half, uint32_t round) const;
  uint64_t Forward(uint64_t value) const;
  uint64_t Backward(uint64_t value) const;

  ShuffleKey key_;
  uint64_t size_;
  int low_bits_;
  uint64_t low_mask_;
  uint64_t high_mask_;
};

/// Puts a uniform random permutation of [0, rows.size()) into `rows`, at most 2^32 of them: Fisher-Yates, keyed by the
/// epoch and the number of the window.
void ShuffleWindow(ShuffleKey key, uint32_t window, std::span<uint32_t> rows);

}  // namespace penstock

#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace penstock {

/// Counts durations in buckets of 1/16 of a power of two, so that a quantile is exact within 7 %, in constant memory.
///
/// Threads: one thread records, any may read (a reader may miss the newest entries).
class DurationHistogram {
 public:
  void Record(int64_t nanoseconds) { counts_[Bucket(nanoseconds)].fetch_add(1, std::memory_order_relaxed); }

  /// The q-quantile in nanoseconds, 0 < q <= 1; 0 where nothing was recorded.
  double Quantile(double q) const {
    int64_t total = 0;
    for (const auto& count : counts_) total += count.load(std::memory_order_relaxed);
    if (total == 0) return 0;
    const double wanted = q * static_cast<double>(total);
    int64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i].load(std::memory_order_relaxed);
      if (static_cast<double>(seen) >= wanted) return Middle(i);
    }
    return Middle(counts_.size() - 1);
  }

 private:
  static constexpr int kStepBits = 4;  // 16 steps in each power of two.

  static size_t Bucket(int64_t nanoseconds) {
    const auto value = static_cast<uint64_t>(nanoseconds < 1 ? 1 : nanoseconds);
    if (value < 16) return value;
    const int shift = std::bit_width(value) - 1 - kStepBits;
    return static_cast<size_t>(((shift + 1) << kStepBits) + static_cast<int>((value >> shift) & 15));
  }
  static double Middle(size_t bucket) {
    if (bucket < 16) return static_cast<double>(bucket);
    const int shift = static_cast<int>(bucket >> kStepBits) - 1;
    const auto low = static_cast<double>((16 + (bucket & 15)) << shift);
    return low + static_cast<double>(uint64_t{1} << shift) / 2;
  }

  std::array<std::atomic<int64_t>, 62 * 16> counts_{};
};

}  // namespace penstock

#pragma once

#include <atomic>
#include <cstdint>

namespace penstock {

/// Time and bytes of reading, summed over all files of a loader. Also kept per thread so that a stage's own time can be
/// told from the time it read.
struct IoCounters {
  std::atomic<int64_t> bytes{0};
  std::atomic<int64_t> reads{0};
  std::atomic<int64_t> busy_ns{0};
  /// Nanoseconds that the calling thread has spent reading, ever.
  static int64_t ThreadBusyNs();
};

}  // namespace penstock

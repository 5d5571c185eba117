#pragma once

#include <cstdint>
#include <optional>

#include "plan/epoch_run.h"
#include "plan/permutation.h"
#include "plan/row_ranges.h"

namespace penstock {

/// How a run is shuffled: the chunks of an epoch are put into another order (ChunkOrder), and the rows of that order
/// are mixed within windows of `window_rows`.
struct ShufflePlan {
  uint64_t seed = 0;
  int64_t window_rows = 0;  ///< 0: none are; what comes of them is (ops::Pack).
  int64_t epoch_rows = 0;   ///< Of the data, whatever a limit leaves of it.
};

/// One window of an epoch, as a run visits it.
struct Window {
  ShuffleKey key;
  uint32_t number = 0;    ///< In its epoch.
  int64_t begin_row = 0;  ///< In the order of the epoch before it is mixed; all of its rows are read.
  int64_t rows = 0;
  RowRanges wanted;  ///< Positions in the mixed window that the run gives, in order.
};

/// Walks over the windows that a run needs, in order.
///
/// Threads: one at a time.
class WindowCursor {
 public:
  /// At the end from the start.
  WindowCursor() = default;
  WindowCursor(ShufflePlan plan, EpochRun run) : plan_(plan), run_(std::move(run)) {}

  /// The next window; nullopt after the last.
  std::optional<Window> Next();

  /// The rows of all windows that the n-th epoch of a run needs, in the order of the epoch before it is mixed.
  static RowRanges RowsOf(const ShufflePlan& plan, const EpochRun& run, int64_t n);

 private:
  Window WindowAt(int64_t position) const;

  ShufflePlan plan_;
  std::optional<EpochRun> run_;
  int64_t epoch_ = 0;  ///< Of the run.
  size_t range_ = 0;   ///< Of the epoch.
  int64_t had_ = 0;    ///< Of the range.
};

}  // namespace penstock

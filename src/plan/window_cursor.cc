#include "plan/window_cursor.h"

#include <algorithm>

namespace penstock {

Window WindowCursor::WindowAt(int64_t position) const {
  Window window;
  window.key = {plan_.seed, static_cast<uint32_t>(run_->epoch(epoch_))};
  window.number = static_cast<uint32_t>(position / plan_.window_rows);
  window.begin_row = position / plan_.window_rows * plan_.window_rows;
  window.rows = std::min(plan_.window_rows, plan_.epoch_rows - window.begin_row);
  return window;
}

std::optional<Window> WindowCursor::Next() {
  std::optional<Window> window;
  while (run_ && epoch_ < run_->num_epochs()) {
    const RowRanges& ranges = run_->ranges(epoch_);
    if (range_ == ranges.size()) {
      if (window) return window;
      ++epoch_;
      range_ = 0;
      continue;
    }
    const RowRange& range = ranges[range_];
    const int64_t position = range.begin + had_;
    if (position == range.end) {
      ++range_;
      had_ = 0;
      continue;
    }
    // What comes again (see Uneven::kRepeat) is another visit.
    const bool is_same = window && position >= window->begin_row + window->wanted.back().end &&
                         position < window->begin_row + window->rows;
    if (window && !is_same) return window;
    if (!window) window = WindowAt(position);
    const int64_t end = std::min(range.end, window->begin_row + window->rows);
    Append(&window->wanted, {position - window->begin_row, end - window->begin_row});
    had_ += end - position;
  }
  return window;
}

RowRanges WindowCursor::RowsOf(const ShufflePlan& plan, const EpochRun& run, int64_t n) {
  if (plan.window_rows == 0) return run.ranges(n);
  WindowCursor cursor(plan, run);
  cursor.epoch_ = n;
  RowRanges rows;
  while (true) {
    const auto window = cursor.Next();
    if (!window || window->key.epoch != static_cast<uint32_t>(run.epoch(n))) return rows;
    Append(&rows, {window->begin_row, window->begin_row + window->rows});
  }
}

}  // namespace penstock

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace penstock {

/// Of a loader with ops::Pack: a row of its batches is a run of items, and items are the rows of pieces and slots.
struct Packing {
  int64_t length = 0;                            ///< Items of a row; 0: nothing is packed.
  int positions = -1;                            ///< The column with each item's position in its segment.
  std::vector<std::array<uint8_t, 16>> padding;  ///< By column: an element of what fills up the last row.

  bool is_any() const { return length > 0; }
  /// Rows of a slot that are one row of a batch.
  int64_t slot_rows_per_row() const { return std::max<int64_t>(1, length); }
};

}  // namespace penstock

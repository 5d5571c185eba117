#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace penstock {

/// Of a loader with ops::Pack: a row of its batches is a run of items, and items are the rows of pieces and of the
/// slots that they are decoded into.
struct Packing {
  int64_t length = 0;                            ///< Items of a row; 0: nothing is packed.
  int positions = -1;                            ///< The column with each item's position in its segment.
  std::vector<std::array<uint8_t, 16>> padding;  ///< By column: an element of what fills up the last row.

  bool has_whole_rows = false;  ///< A slot's rows are those of batches: they are made, and mixed as rows.

  bool is_any() const { return length > 0; }
  /// Rows of a slot that are one row of a batch.
  int64_t slot_rows_per_row() const { return is_any() && !has_whole_rows ? length : 1; }
  /// Items that are one row of a slot.
  int64_t items_per_slot_row() const { return is_any() && has_whole_rows ? length : 1; }
};

}  // namespace penstock

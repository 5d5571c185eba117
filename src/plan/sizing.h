#pragma once

#include <arrow/result.h>

#include <algorithm>
#include <cstdint>

#include "penstock/options.h"
#include "source/input.h"
#include "source/projection.h"

namespace penstock {

/// How many slots there are and how large they are, decided once, before anything runs. Depends on the options, the
/// schema and the first input, never on the number of workers or on timing.
struct SlotSizing {
  int64_t batch_bytes = 0;
  int64_t batches_per_slot = 1;
  int open_slots = 2;      ///< That may be filling or ready at once; the caller's comes on top.
  int collate_slots = 0;   ///< That LoaderOptions::collate_batches and copies to a device take; on top as well.
  bool may_grow = true;    ///< prefetch_batches = "auto".
  int64_t slot_bytes = 0;  ///< With the arenas that are expected; set when the layout is known.

  /// That may be there at once before any is added for idle workers: with the caller's, and those that collate takes.
  int all_slots() const { return open_slots + 1 + collate_slots; }

  /// \param arena_bytes  what the rows of a batch are likely to take in arenas, with the batch's end.
  /// \param known_rows  of an epoch, or -1; slots are not made larger than the data.
  /// \param room_bytes  what the budget leaves for all slots; a small one gets small slots, down to one batch each.
  static SlotSizing Of(const LoaderOptions& options, const Projection& projection, const Schema& schema,
                       int64_t arena_bytes, int64_t known_rows, int64_t room_bytes);
};

/// What `rows` rows are likely to take in arenas: a slot has more than the average now and then.
int64_t ExpectedArenaBytes(double arena_row_bytes, int64_t rows);

inline constexpr int64_t kMostWindowRows = int64_t{1} << 31;

/// What mixing rows takes. The rows of a window follow from data, columns and shuffle_window alone, as the order does.
struct ShuffleSizing {
  int64_t window_rows = 0;
  int64_t slab_rows = 1;  ///< Rows come in slabs of so many; a power of two.

  /// \param row_bytes  of a row in a slab, with what it takes in arenas.
  static ShuffleSizing Of(int64_t window_bytes, double row_bytes);
  /// \param window_rows  at most kMostWindowRows.
  static ShuffleSizing OfRows(int64_t window_rows, double row_bytes);
  /// With windows that begin with slabs, as large as those allow.
  ShuffleSizing InWholeSlabs() const;
  /// The most slabs that are there at once: of two windows, and on their way.
  int64_t most_slabs(int64_t epoch_rows) const;
};

/// What decoding one chunk needs.
struct ChunkSizing {
  int64_t piece_rows = 0;     ///< Rows per piece through Arrow; 0: nothing goes that way.
  int64_t promise_bytes = 0;  ///< To be reserved when it is opened.
  int64_t direct_bytes = 0;   ///< Of these, for columns that are decoded straight into slots.
  int64_t least_bytes = 0;    ///< What it needs with the smallest pieces, and nothing fetched ahead.
  FetchPlan fetch;            ///< Of a remote file; part of the promise.

  /// \param most_bytes  that decoding may take; pieces get smaller to stay below, as far as they can.
  static ChunkSizing Of(const ChunkSpec& chunk, const Projection& projection, int64_t most_bytes);
};

/// Slabs that are filled at once.
inline constexpr int kOpenSlabs = 3;
/// Blocks of one chunk that may wait for their rows to be copied, beside the piece being decoded.
inline constexpr int kBlocksAhead = 2;
/// Where workers are idle otherwise.
inline constexpr int kMostBlocksAhead = 1024;
/// No further chunk is opened while there is so much that can be done at once. The same for all but large numbers of
/// workers, so that what is held does not depend on them.
inline int64_t WorkAhead(int num_workers) { return std::max(8, num_workers); }
/// Chunks that may be open at once; bounds open files where chunks are tiny.
inline constexpr int kMaxOpenChunks = 64;

}  // namespace penstock

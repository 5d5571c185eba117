#include "plan/sizing.h"

#include <algorithm>
#include <bit>

#include "batch/slot_layout.h"

namespace penstock {
namespace {

// Measured (bench/RESULTS.md): slabs below 1 MiB make the workers meet too often, above 4 MiB they leave the caches.
constexpr int64_t kSlabBytes = int64_t{2} << 20;
constexpr int64_t kMaxSlotRows = 1 << 20;
constexpr int64_t kPieceBytes = int64_t{2} << 20;
constexpr int64_t kLeastPieceBytes = int64_t{64} << 10;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool HasDearColumn(const Projection& projection) {
  return std::any_of(projection.outputs.begin(), projection.outputs.end(),
                     [](const OutputColumn& output) { return output.is_dear(); });
}

}  // namespace

int64_t ExpectedArenaBytes(double arena_row_bytes, int64_t rows) {
  constexpr double kSpread = 1.125;
  return static_cast<int64_t>(kSpread * arena_row_bytes * static_cast<double>(rows));
}

SlotSizing SlotSizing::Of(const LoaderOptions& options, const Projection& projection, const Schema& schema,
                          int64_t arena_bytes, int64_t known_rows, int64_t room_bytes) {
  SlotSizing sizing;
  sizing.batch_bytes = std::max<int64_t>(1, SlotLayout::BatchBytes(schema, options.batch_size) + arena_bytes);
  // An eighth: three slots ahead beside the caller's take half, and decoding has room to be ahead as well.
  // What collate holds comes on top.
  const int64_t slab_bytes = std::min(kSlabBytes, room_bytes / (8 + options.collate_batches));
  const int64_t by_bytes = slab_bytes / sizing.batch_bytes;
  const int64_t by_rows = kMaxSlotRows / options.batch_size;
  sizing.batches_per_slot = std::max<int64_t>(1, std::min(by_bytes, by_rows));
  // Dear rows make the batch last, not the meeting of workers: nobody should wait for a whole run of such batches.
  if (HasDearColumn(projection)) sizing.batches_per_slot = 1;
  if (known_rows >= 0) {
    sizing.batches_per_slot =
        std::min(sizing.batches_per_slot, std::max<int64_t>(1, CeilDiv(known_rows, options.batch_size)));
  }
  sizing.may_grow = options.prefetch_batches < 0;
  const int ready_behind = options.collate_batches > 0 ? 1 : 0;  // That batch is finished and ahead as well.
  if (sizing.may_grow) {
    sizing.open_slots = sizing.batches_per_slot == 1 ? 2 - ready_behind : 3;
  } else {
    const int64_t ahead = std::max(0, options.prefetch_batches - ready_behind);
    sizing.open_slots = static_cast<int>(1 + CeilDiv(ahead, sizing.batches_per_slot));
  }
  // Consecutive batches, whose first may lie in the slot that the caller's batch lies in.
  sizing.collate_slots = static_cast<int>(CeilDiv(options.collate_batches, sizing.batches_per_slot));
  return sizing;
}

ShuffleSizing ShuffleSizing::Of(int64_t window_bytes, double row_bytes) {
  // Two windows: one is filled while the other is emptied. Four bytes per row say where it goes; the rest is for slabs
  // that are on their way (six of them, see most_slabs()).
  constexpr double kWindows = 2.5;
  constexpr int64_t kOrderBytes = 4;
  return OfRows(static_cast<int64_t>(static_cast<double>(window_bytes) / (kWindows * row_bytes + 2 * kOrderBytes)),
                row_bytes);
}

ShuffleSizing ShuffleSizing::OfRows(int64_t window_rows, double row_bytes) {
  constexpr int64_t kSlabsPerWindow = 16;
  ShuffleSizing sizing;
  sizing.window_rows = std::clamp<int64_t>(window_rows, 1, kMostWindowRows);
  const int64_t most_rows = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(kSlabBytes) / row_bytes));
  const int64_t rows = std::min({sizing.window_rows / kSlabsPerWindow, most_rows, kMaxSlotRows});
  sizing.slab_rows = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(std::max<int64_t>(1, rows))));
  return sizing;
}

ShuffleSizing ShuffleSizing::InWholeSlabs() const { return {window_rows - window_rows % slab_rows, slab_rows}; }

int64_t ShuffleSizing::most_slabs(int64_t epoch_rows) const {
  const int64_t rows = epoch_rows < 0 ? 2 * window_rows : std::min(2 * window_rows, epoch_rows);
  // Those in which windows begin and end, three that are filled, and one that is handed over.
  return CeilDiv(rows, slab_rows) + 2 + kOpenSlabs + 1;
}

ChunkSizing ChunkSizing::Of(const ChunkSpec& chunk, const Projection& projection, int64_t most_bytes) {
  const Input& input = *chunk.input;
  ChunkSizing sizing;
  const int64_t direct_bytes = input.DirectBytes(projection, chunk.index);
  sizing.promise_bytes = sizing.least_bytes = sizing.direct_bytes = direct_bytes;
  // Half of what decoding leaves: the next chunk is fetched while this one is decoded.
  const auto plan_fetch = [&] {
    sizing.fetch = input.PlanFetch(projection, chunk.index, (most_bytes - sizing.promise_bytes) / 2);
    sizing.promise_bytes += sizing.fetch.bytes;
    return sizing;
  };
  if (input.read_plan().through_arrow.empty() && !projection.discovers_rows()) return plan_fetch();

  const auto promise = [&](int64_t piece_rows) {
    const int64_t rows = std::min(chunk.rows, piece_rows * (kBlocksAhead + 1));
    const int64_t begins_bytes = projection.packing.is_any() ? rows * int64_t{sizeof(int64_t)} : 0;
    return direct_bytes + begins_bytes + input.PieceBytes(projection, chunk.index, rows);
  };
  const int64_t chunk_bytes = std::max<int64_t>(1, input.DecodedBytes(chunk.index));
  const int64_t row_bytes = std::max<int64_t>(1, CeilDiv(chunk_bytes, chunk.rows));
  // Dear rows are few and large: small pieces keep their blocks small, and more workers busy.
  const int64_t target_bytes = HasDearColumn(projection) ? kPieceBytes / 4 : kPieceBytes;
  sizing.piece_rows = std::clamp<int64_t>(target_bytes / row_bytes, 1, chunk.rows);
  sizing.promise_bytes = promise(sizing.piece_rows);
  // Smaller pieces help where a chunk can be decoded in parts.
  const int64_t smallest_bytes = promise(1);
  while (sizing.promise_bytes > most_bytes && sizing.piece_rows > 1 && smallest_bytes < sizing.promise_bytes) {
    sizing.piece_rows = CeilDiv(sizing.piece_rows, 2);
    sizing.promise_bytes = promise(sizing.piece_rows);
  }
  sizing.least_bytes = promise(std::clamp<int64_t>(kLeastPieceBytes / row_bytes, 1, chunk.rows));
  return plan_fetch();
}

}  // namespace penstock

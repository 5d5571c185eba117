#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "memory/reserved_pool.h"
#include "plan/sizing.h"
#include "source/input.h"
#include "source/row_group_reader.h"

namespace penstock {

/// Decoded rows that wait to be copied into slots. Counted in `blocks` from when they are decoded until they are freed.
struct Block {
  Block(std::shared_ptr<ReservedPool> from, PieceReader::Piece decoded);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  int64_t num_rows() const { return piece.rows->num_rows(); }

  std::shared_ptr<ReservedPool> pool;
  PieceReader::Piece piece;
  int64_t bytes = 0;
};

struct Chunk;

/// A run of rows of some output columns on their way into slots. A worker takes a lane's next rows that lie in one
/// slot: a morsel.
///
/// A lane over a sequential reader is exclusive: one morsel at a time, though each may be another worker's. A lane over
/// a block hands out as many morsels at once as there are takers.
///
/// Rows are numbered within the epoch. Guarded by the scheduler's mutex but for `reader`, which belongs to the morsel
/// in flight.
struct Lane {
  enum class Kind : uint8_t { kDirect, kBlock, kConstant };

  Kind kind = Kind::kDirect;
  Chunk* chunk = nullptr;
  int64_t number = 0;          ///< Unique; the last tie-breaker.
  std::vector<int> outputs;    ///< What it fills, positions in Projection::outputs.
  std::vector<int> constants;  ///< Partition columns that it fills beside them.
  int64_t begin_row = 0;
  int64_t next_row = 0;  ///< First row not handed out yet.
  int64_t end_row = 0;
  int64_t morsel_rows = 0;  ///< At most; 0: as many as the slot takes.
  int64_t cost = 0;         ///< Of two lanes at the same slot the dearer goes first.
  int in_flight = 0;
  int64_t starved_at = -1;  ///< Its reader was refused memory when this many things had been freed; -1: it was not.
  std::unique_ptr<DirectReader>
      reader;  ///< kDirect: opened by its first morsel, and again after it was closed for want of memory.
  std::shared_ptr<const Block> block;  ///< kBlock.

  bool is_exclusive() const { return kind == Kind::kDirect; }
  bool is_done() const { return next_row == end_row && in_flight == 0; }
  int64_t num_cells_per_row() const { return static_cast<int64_t>(outputs.size() + constants.size()); }
};

/// A row group that is open: its reservation, its lanes, and the reader of what goes through Arrow.
struct Chunk {
  int64_t sequence = 0;  ///< Position in the plan.
  ChunkSpec spec;
  int64_t rows = 0;            ///< That are wanted; fewer than spec.rows where a limit cuts it.
  int64_t begin_row = 0;       ///< Counted plans: of its first row in the epoch.
  int64_t next_piece_row = 0;  ///< Within the row group: where the next piece begins.
  int64_t piece_rows = 0;
  bool has_pieces = false;
  bool is_piece_in_flight = false;
  bool are_pieces_done = false;
  int64_t starved_at = -1;                            ///< As Lane::starved_at, for the piece reader.
  int ready_blocks = 0;                               ///< With rows that nobody has taken yet.
  std::deque<std::shared_ptr<const Block>> unplaced;  ///< Discovered plans: decoded before their place is known.
  arrow::Status failure;                              ///< Discovered plans: of the piece after those in `unplaced`.
  std::vector<std::unique_ptr<Lane>> lanes;
  std::shared_ptr<ReservedPool> pool;
  std::unique_ptr<PieceReader> pieces;  ///< Belongs to the piece task in flight.

  bool is_done() const {
    return lanes.empty() && unplaced.empty() && !is_piece_in_flight && (!has_pieces || are_pieces_done);
  }
};

/// The direct lanes of a chunk (and one for its partition columns), over all of its rows. Columns are spread over lanes
/// by their weight, so that workers share a row group by columns; a row group with little in it is one lane.
std::vector<std::unique_ptr<Lane>> MakeLanes(Chunk* chunk, const Projection& projection, int64_t* next_number);

}  // namespace penstock

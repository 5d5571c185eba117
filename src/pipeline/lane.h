#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "memory/reserved_pool.h"
#include "plan/sizing.h"
#include "source/input.h"
#include "source/range_reader.h"
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
  bool is_lost = false;  ///< Its rows could not be read: missing values stand in for them.
  std::string error;     ///< Why; empty where an earlier block has told of it.
};

struct Chunk;
struct PieceStream;

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
  int64_t block_row = 0;         ///< kBlock: of begin_row, in the block.
  bool is_end_of_block = false;  ///< kBlock: no rows of the block come after it.
  int64_t morsel_rows = 0;       ///< At most; 0: as many as the slot takes.
  int64_t cost = 0;              ///< Of two lanes at the same slot the dearer goes first.
  int64_t promise_bytes = 0;     ///< kDirect: its part of what the chunk is promised.
  int in_flight = 0;
  int64_t starved_at = -1;  ///< Its reader was refused memory when this many things had been freed; -1: it was not.
  std::unique_ptr<DirectReader>
      reader;  ///< kDirect: opened by its first morsel, and again after it was closed for want of memory.
  std::shared_ptr<const Block> block;  ///< kBlock.
  PieceStream* stream = nullptr;       ///< kBlock: where the block comes from.
  std::vector<int64_t> arena_first;    ///< kBlock: per domain of the slot, the first element of begin_row.

  bool is_exclusive() const { return kind == Kind::kDirect; }
  bool is_done() const { return next_row == end_row && in_flight == 0; }
  int first_output() const { return outputs.empty() ? constants.at(0) : outputs[0]; }
  int64_t num_cells_per_row() const { return static_cast<int64_t>(outputs.size() + constants.size()); }
};

/// Some columns of a row group on their way through Arrow: read piece by piece, one piece at a time, beside the row
/// group's other streams.
///
/// Guarded by the scheduler's mutex but for `reader` and `filtered_end_row`, which belong to the piece task in flight.
struct PieceStream {
  int number = 0;            ///< Position in Chunk::streams; the same columns of varying size in every row group.
  std::vector<int> outputs;  ///< Positions in Projection::outputs.
  int64_t next_row = 0;      ///< Within the row group: where the next piece begins.
  int64_t piece_rows = 0;
  int64_t whole_piece_rows = 0;  ///< Before anything was refused or failed.
  int64_t lost_begin_row = 0;    ///< From here...
  int64_t lost_end_row = 0;      ///< ... up to here nothing can be read, for this reason:
  std::string error;
  int64_t error_row = 0;  ///< The first of these rows that comes out: it tells of the error.
  bool is_in_flight = false;
  bool is_done = false;
  int64_t starved_at = -1;  ///< As Lane::starved_at.
  int ready_blocks = 0;     ///< With rows that nobody has taken yet.

  /// Decoded rows whose place is not known yet: in discovered plans, and where their arenas have no room.
  struct Unplaced {
    std::shared_ptr<const Block> block;
    int64_t next_row = 0;  ///< Of the block: what is before has its place.
    int64_t end_row = 0;
  };
  std::deque<Unplaced> unplaced;
  arrow::Status failure;         ///< Discovered plans: of the piece after those in `unplaced`.
  bool is_passed_over = false;   ///< The failure is counted when its turn comes, and is no more than that.
  int64_t filtered_end_row = 0;  ///< Rows before it that were filtered away are counted.
  std::unique_ptr<PieceReader> reader;

  bool is_at_lost() const { return next_row >= lost_begin_row && next_row < lost_end_row; }
};

/// A row group that is open: its reservation, its lanes, and the readers of what goes through Arrow.
struct Chunk {
  int64_t sequence = 0;  ///< Position in the plan.
  ChunkSpec spec;
  int64_t end_row = 0;    ///< Of the chunk; before spec.end_row where a limit cuts it.
  int64_t begin_row = 0;  ///< Counted plans: of the chunk's row 0 in the epoch, whether it is wanted or not.
  std::vector<PieceStream> streams;
  std::vector<std::unique_ptr<Lane>> lanes;
  std::shared_ptr<ReservedPool> pool;
  std::shared_ptr<RangeReader> ranges;  ///< What spec.input reads through; null where nothing is fetched ahead.

  bool is_done() const;
};

/// How many streams the columns that go through Arrow are spread over, so that workers share a row group by columns. A
/// filter needs all its columns together.
int NumStreams(const Projection& projection);
/// The streams of a chunk.
std::vector<PieceStream> MakeStreams(const Chunk& chunk, const Projection& projection, int64_t piece_rows);

/// The direct lanes of a chunk (and one for its partition columns), over all of its rows. Columns are spread over lanes
/// by their weight, so that workers share a row group by columns; a row group with little in it is one lane.
/// \param direct_bytes  what the direct lanes are promised together.
std::vector<std::unique_ptr<Lane>> MakeLanes(Chunk* chunk, const Projection& projection, int64_t direct_bytes,
                                             int64_t* next_number);

}  // namespace penstock

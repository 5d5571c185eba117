#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>

namespace penstock {

/// Reads columns of one chunk as Arrow arrays in pieces, and filters them.
///
/// Ownership: keeps what it reads from and the pool alive. Threads: one at a time; may move between threads. Blocking:
/// reads.
class PieceReader {
 public:
  struct Piece {
    std::shared_ptr<arrow::RecordBatch>
        rows;  ///< Columns in the order of `outputs` (partition columns excluded), filtered; may have 0 rows.
    int64_t first_row = 0;  ///< Of the piece in its chunk, before the filter.
    int64_t rows_read = 0;  ///< Before the filter.
    /// With a filter: for each row in `rows`, its position in the chunk (for messages); null without.
    std::shared_ptr<arrow::Array> row_numbers;
    /// Where `rows` are the items of lists (Explode()): for each row that they are from, the position of its first
    /// item, and where the last one's items end, Int64. Below 0 where items of the first were left out. Null: rows are
    /// rows.
    std::shared_ptr<arrow::Array> documents;
    std::shared_ptr<const void> owner;  ///< Of the memory behind `rows` that is not from the pool; goes after them.
  };

  virtual ~PieceReader() = default;

  /// The next piece (exactly as many rows before the filter as were asked for when it was opened, but for the last);
  /// `rows` null at the end of the chunk. Buffers come from the pool. Arrays are validated so that nothing later reads
  /// out of bounds.
  /// \return OutOfMemory where the pool refused: nothing is lost, open a new reader at the row where this call began.
  ///         Other errors start with Input::Where() and the column.
  virtual arrow::Result<Piece> Next() = 0;
};

}  // namespace penstock

#pragma once

#include <arrow/memory_pool.h>
#include <arrow/status.h>

#include <cstdint>
#include <vector>

#include "source/piece_reader.h"
#include "source/projection.h"

namespace penstock {

/// Where an item comes from: how many of its row's items come with or before it.
struct ItemPlace {
  int64_t row = 0;    ///< Of the chunk.
  int64_t items = 0;  ///< >= 1.
  bool is_last = false;
};

/// For ps.ops.pack: puts the items of lists in the place of a piece's rows, and sets Piece::documents.
///
/// \param outputs     whose columns the piece has.
/// \param skip_items  of the first row's items that are left out.
/// \return Invalid where a list is missing that must not be, or columns differ in how many items a row has; the message
///         starts with the column.
arrow::Status Explode(const Projection& projection, const std::vector<int>& outputs, int64_t skip_items,
                      arrow::MemoryPool* pool, PieceReader::Piece* piece);

/// Of an item of an exploded piece.
ItemPlace PlaceOf(const PieceReader::Piece& piece, int64_t item);

/// Positions within segments of items [first, first + n) of an exploded piece, which go to rows of `length` items from
/// item `slot_row` of a slot on.
void WritePositions(const PieceReader::Piece& piece, int64_t first, int64_t n, int64_t slot_row, int64_t length,
                    int32_t* out);

}  // namespace penstock

#pragma once

#include <cstdint>
#include <span>

#include "penstock/state.h"

namespace penstock {

/// Who reads what, as arithmetic with ranges of rows; nothing here knows of files. An epoch is the rows [0, n) in its
/// order, shuffled or not. Each phase divides what is left among its ranks:
///
///   drop:   every rank has n // w consecutive rows; the n mod w at the end are nobody's (until the next phase).
///   repeat: every rank has ceil(n / w) consecutive rows; where the end is reached, the rows at the front come again.
///
/// What a phase leaves is the rest of the first rank's share, then the second's, and so on, then what was nobody's. So
/// the same world size over again goes on as if nothing had happened.

/// Appends a range; one that continues the last is joined to it, an empty one left out.
void Append(RowRanges* ranges, RowRange range);
int64_t CountRows(std::span<const RowRange> ranges);
/// The rows at [begin, end) of `ranges`, counted over all of them; what lies beyond is left out.
RowRanges Slice(std::span<const RowRange> ranges, int64_t begin, int64_t end);
/// Slice() from [0, rows) of what is not in `taken`: ascending ranges of positions in `ranges`.
RowRanges Without(std::span<const RowRange> ranges, const RowRanges& taken);
/// Positions in [0, rows) that are not in `taken`, which is ascending.
RowRanges Complement(const RowRanges& taken, int64_t rows);
/// Both, ascending and joined.
RowRanges Union(const RowRanges& a, const RowRanges& b);

/// Rows of each rank's share.
int64_t ShareRows(int64_t rows, int64_t world_size, Uneven uneven);
/// The share of one rank, in the order of reading.
RowRanges ShareOf(const RowRanges& left, int64_t rank, int64_t world_size, Uneven uneven);
/// What a phase that began with `left` leaves. A rank without an entry in a `taken` that is not empty has had nothing.
RowRanges LeftAfter(const RowRanges& left, const EpochPhase& phase, Uneven uneven);
/// What is left of an epoch of `rows` rows after all phases of `history`.
RowRanges LeftOfEpoch(int64_t rows, std::span<const EpochPhase> history, Uneven uneven);

}  // namespace penstock

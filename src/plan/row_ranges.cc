#include "plan/row_ranges.h"

#include <algorithm>

namespace penstock {

void Append(RowRanges* ranges, RowRange range) {
  if (range.begin >= range.end) return;
  if (!ranges->empty() && ranges->back().end == range.begin) {
    ranges->back().end = range.end;
  } else {
    ranges->push_back(range);
  }
}

int64_t CountRows(std::span<const RowRange> ranges) {
  int64_t rows = 0;
  for (const RowRange& range : ranges) rows += range.rows();
  return rows;
}

RowRanges Slice(std::span<const RowRange> ranges, int64_t begin, int64_t end) {
  RowRanges slice;
  int64_t before = 0;
  for (const RowRange& range : ranges) {
    if (before >= end) break;
    const int64_t from = std::max<int64_t>(0, begin - before);
    const int64_t to = std::min(range.rows(), end - before);
    Append(&slice, {range.begin + from, range.begin + to});
    before += range.rows();
  }
  return slice;
}

RowRanges Complement(const RowRanges& taken, int64_t rows) {
  RowRanges rest;
  int64_t next = 0;
  for (const RowRange& range : taken) {
    Append(&rest, {next, std::min(range.begin, rows)});
    next = std::max(next, range.end);
  }
  Append(&rest, {next, rows});
  return rest;
}

RowRanges Without(std::span<const RowRange> ranges, const RowRanges& taken) {
  RowRanges rest;
  for (const RowRange& kept : Complement(taken, CountRows(ranges))) {
    for (const RowRange& range : Slice(ranges, kept.begin, kept.end)) Append(&rest, range);
  }
  return rest;
}

RowRanges Union(const RowRanges& a, const RowRanges& b) {
  RowRanges all = a;
  all.insert(all.end(), b.begin(), b.end());
  std::sort(all.begin(), all.end(), [](const RowRange& x, const RowRange& y) { return x.begin < y.begin; });
  RowRanges joined;
  for (const RowRange& range : all) {
    if (!joined.empty() && range.begin <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else {
      Append(&joined, range);
    }
  }
  return joined;
}

int64_t ShareRows(int64_t rows, int64_t world_size, Uneven uneven) {
  const int64_t whole = rows / world_size;
  return uneven == Uneven::kRepeat && rows % world_size != 0 ? whole + 1 : whole;
}

RowRanges ShareOf(const RowRanges& left, int64_t rank, int64_t world_size, Uneven uneven) {
  const int64_t rows = CountRows(left);
  const int64_t share = ShareRows(rows, world_size, uneven);
  RowRanges ranges;
  for (int64_t begin = rank * share, end = begin + share; begin < end;) {
    const int64_t at = begin % rows;
    const int64_t step = std::min(end - begin, rows - at);
    for (const RowRange& range : Slice(left, at, at + step)) Append(&ranges, range);
    begin += step;
  }
  return ranges;
}

RowRanges LeftAfter(const RowRanges& left, const EpochPhase& phase, Uneven uneven) {
  const int64_t rows = CountRows(left);
  const int64_t share = ShareRows(rows, phase.world_size, uneven);
  RowRanges rest;
  for (int64_t rank = 0; rank < phase.world_size; ++rank) {
    // Rows that come again are the first ranks' own.
    const int64_t begin = std::min(rows, rank * share);
    const int64_t end = std::min(rows, begin + share);
    RowRanges taken;
    if (phase.taken.empty()) {
      taken = {{0, phase.rows}};
    } else if (static_cast<size_t>(rank) < phase.taken.size()) {
      taken = phase.taken[static_cast<size_t>(rank)];
    }
    for (const RowRange& kept : Complement(taken, end - begin)) {
      for (const RowRange& range : Slice(left, begin + kept.begin, begin + kept.end)) Append(&rest, range);
    }
  }
  for (const RowRange& range : Slice(left, std::min(rows, phase.world_size * share), rows)) Append(&rest, range);
  return rest;
}

RowRanges LeftOfEpoch(int64_t rows, std::span<const EpochPhase> history, Uneven uneven) {
  RowRanges left;
  Append(&left, {0, rows});
  for (const EpochPhase& phase : history) left = LeftAfter(left, phase, uneven);
  return left;
}

}  // namespace penstock

#include "batch/packed.h"

#include <cstring>
#include <numeric>

#include "ops/gather.h"

namespace penstock {
namespace {

int64_t FindSegments(const int32_t* positions, int64_t items, int32_t* segments) {
  int64_t n = 0;
  for (int64_t i = 0; i < items; ++i) {
    segments[n] = static_cast<int32_t>(i);
    n += positions[i] == 0;
  }
  segments[n] = static_cast<int32_t>(items);
  return n;
}

}  // namespace

void FinishPacked(const Schema& schema, const Packing& packing, int64_t items, std::vector<Batch::Column>* columns) {
  const int64_t rows = (items + packing.length - 1) / packing.length;
  const int64_t missing = rows * packing.length - items;
  auto* positions = reinterpret_cast<int32_t*>((*columns)[static_cast<size_t>(packing.positions)].values);
  for (size_t i = 0; i < columns->size() && missing > 0; ++i) {
    const Field& field = schema[i];
    const Batch::Column& column = (*columns)[i];
    const int64_t elements = field.items() / packing.length;  // Of an item.
    FillAll(ByteWidth(field.dtype), packing.padding[i].data(), missing * elements,
            column.values + items * elements * ByteWidth(field.dtype));
    if (column.mask != nullptr) std::memset(column.mask + items * elements, 0, static_cast<size_t>(missing * elements));
  }
  std::iota(positions + items, positions + items + missing, 0);
  for (Batch::Column& column : *columns) {
    if (column.segments != nullptr) {
      column.num_segments = FindSegments(positions, rows * packing.length, column.segments);
    }
  }
}

}  // namespace penstock

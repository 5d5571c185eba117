#include "batch/slot_layout.h"

#include <algorithm>

namespace penstock {
namespace {

constexpr int64_t kColumnAlignment = 64;  // A cache line, and what Arrow recommends.
constexpr int64_t kPageBytes = 4096;

int64_t RoundUp(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

SlotLayout::SlotLayout(std::shared_ptr<const Schema> schema, int64_t batch_rows, int64_t batches_per_slot)
    : schema_(std::move(schema)), batch_rows_(batch_rows), batches_per_slot_(batches_per_slot) {
  int64_t end = 0;
  for (const Field& field : *schema_) {
    Place place;
    place.values = end;
    end = RoundUp(end + rows() * field.row_bytes(), kColumnAlignment);
    if (field.has_mask) {
      place.mask = end;
      end = RoundUp(end + rows() * field.items(), kColumnAlignment);
    }
    places_.push_back(place);
  }
  bytes_ = std::max(kPageBytes, RoundUp(end, kPageBytes));
}

Batch SlotLayout::View(uint8_t* base, int64_t batch, int64_t num_rows, std::shared_ptr<void> hold) const {
  std::vector<Batch::Column> columns;
  columns.reserve(places_.size());
  const int64_t first_row = batch * batch_rows_;
  for (size_t i = 0; i < places_.size(); ++i) {
    const Field& field = (*schema_)[i];
    Batch::Column column;
    column.values = base + places_[i].values + first_row * field.row_bytes();
    if (field.has_mask) column.mask = base + places_[i].mask + first_row * field.items();
    columns.push_back(column);
  }
  return Batch(schema_, std::move(columns), num_rows, std::move(hold));
}

int64_t SlotLayout::BatchBytes(const Schema& schema, int64_t batch_rows) {
  int64_t bytes = 0;
  for (const Field& field : schema) {
    bytes += batch_rows * (field.row_bytes() + (field.has_mask ? field.items() : 0));
  }
  return bytes;
}

}  // namespace penstock

#include "batch/slot_layout.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "batch/packed.h"

namespace penstock {
namespace {

constexpr int64_t kColumnAlignment = 64;  // A cache line, and what Arrow recommends.
constexpr int64_t kPageBytes = 4096;
// A process has 128 TiB.
constexpr int64_t kMostAddressBytes = int64_t{1} << 41;

int64_t RoundUp(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

int64_t ExtraElements(const Strand& strand, int64_t batches) {
  return strand.kind == Strand::Kind::kOffsets ? batches : 0;
}

// The most that the offsets of a batch's segments take: each item may be one.
int64_t SegmentBytes(int64_t items) { return (items + 1) * int64_t{sizeof(int32_t)}; }

}  // namespace

SlotLayout::SlotLayout(std::shared_ptr<const Schema> schema, int64_t batch_size, int64_t batches_per_slot,
                       int64_t most_arena_bytes, Packing packing)
    : schema_(std::move(schema)),
      packing_(std::move(packing)),
      batch_rows_(batch_size * packing_.slot_rows_per_row()),
      batches_per_slot_(batches_per_slot) {
  int64_t end = 0;
  for (size_t i = 0; i < schema_->size(); ++i) {
    const Field& field = (*schema_)[i];
    Place place;
    end = field.varying != nullptr ? PlaceVarying(*field.varying, end, &place)
                                   : PlaceDense(static_cast<int>(i), end, &place);
    places_.push_back(std::move(place));
  }
  bytes_ = std::max(kPageBytes, RoundUp(end, kPageBytes));
  if (!arenas_.empty()) PlaceArenas(most_arena_bytes);
}

int64_t SlotLayout::BatchSegmentBytes() const { return SegmentBytes(batch_rows_ * packing_.items_per_slot_row()); }

int64_t SlotLayout::PlaceDense(int column, int64_t end, Place* place) {
  const Field& field = (*schema_)[static_cast<size_t>(column)];
  place->values = end;
  end = RoundUp(end + rows() * row_bytes(column), kColumnAlignment);
  if (field.has_mask) {
    place->mask = end;
    end = RoundUp(end + rows() * row_elements(column), kColumnAlignment);
  }
  if (field.has_segments) {
    place->segments = end;
    end = RoundUp(end + batches_per_slot_ * BatchSegmentBytes(), kColumnAlignment);
  }
  return end;
}

int64_t SlotLayout::PlaceVarying(const VaryingColumn& column, int64_t end, Place* place) {
  place->first_domain = num_domains_;
  num_domains_ += column.num_domains();
  for (const Strand& strand : column.strands()) {
    if (strand.domain > 0) {
      place->strands.push_back(-1);  // Behind the fixed part, once that is known.
      arenas_.push_back(
          {place->first_domain + strand.domain - 1, strand.width, ExtraElements(strand, batches_per_slot_)});
      continue;
    }
    place->strands.push_back(end);
    end = RoundUp(end + (rows() + ExtraElements(strand, batches_per_slot_)) * strand.width, kColumnAlignment);
  }
  return end;
}

void SlotLayout::PlaceArenas(int64_t most_arena_bytes) {
  const int64_t by_address = kMostAddressBytes / static_cast<int64_t>(arenas_.size());
  const int64_t each = RoundUp(std::min(most_arena_bytes, by_address) + kPageBytes, kPageBytes);
  capacities_.assign(static_cast<size_t>(num_domains_), std::numeric_limits<int64_t>::max() / 64);
  for (const Arena& arena : arenas_) {
    int64_t& capacity = capacities_[static_cast<size_t>(arena.domain)];
    capacity = std::min(capacity, each / arena.width - arena.extra);
  }
  int64_t end = bytes_;
  for (Place& place : places_) {
    for (int64_t& strand : place.strands) {
      if (strand >= 0) continue;
      strand = end;
      end += each;
    }
  }
  arena_address_bytes_ = end - bytes_;
}

int64_t SlotLayout::ArenaBytes(const int64_t* used) const {
  int64_t bytes = 0;
  for (const Arena& arena : arenas_) {
    if (used[arena.domain] > 0) bytes += RoundUp((used[arena.domain] + arena.extra) * arena.width, kPageBytes);
  }
  return bytes;
}

int64_t SlotLayout::ArenaOverheadBytes() const {
  int64_t bytes = BatchEndBytes() * batches_per_slot_;
  for (const Arena& arena : arenas_) bytes += kPageBytes + arena.extra * arena.width;
  return bytes;
}

int64_t SlotLayout::BatchEndBytes() const {
  int64_t bytes = 0;
  for (const Arena& arena : arenas_) bytes += VaryingColumn::kAlignment * arena.width;
  return bytes;
}

std::vector<uint8_t*> SlotLayout::Strands(uint8_t* base, int i) const {
  std::vector<uint8_t*> strands;
  for (int64_t strand : places_[static_cast<size_t>(i)].strands) strands.push_back(base + strand);
  return strands;
}

Batch SlotLayout::View(uint8_t* base, const ArenaFill* fill, int64_t batch, int64_t num_rows,
                       std::shared_ptr<void> hold) const {
  std::vector<Batch::Column> columns;
  columns.reserve(places_.size());
  const int64_t first_row = batch * batch_rows_;
  for (size_t i = 0; i < places_.size(); ++i) {
    const Field& field = (*schema_)[i];
    Batch::Column column;
    if (field.varying != nullptr) {
      const std::vector<uint8_t*> strands = Strands(base, static_cast<int>(i));
      VaryingColumn::Target target;
      target.strands = strands.data();
      target.batch = batch;
      target.row = target.batch_row = first_row;
      if (fill != nullptr) {
        target.first = target.batch_first = fill->first(batch) + places_[i].first_domain;
        const int64_t* counts = fill->counts(batch) + places_[i].first_domain;
        column.counts.assign(counts, counts + field.varying->num_domains());
      }
      column.strands = field.varying->View(target);
    } else {
      const auto index = static_cast<int>(i);
      column.values = base + places_[i].values + first_row * row_bytes(index);
      if (field.has_mask) column.mask = base + places_[i].mask + first_row * row_elements(index);
      if (field.has_segments) {
        column.segments = reinterpret_cast<int32_t*>(base + places_[i].segments + batch * BatchSegmentBytes());
      }
    }
    columns.push_back(std::move(column));
  }
  if (packing_.is_any()) {
    const int64_t items = num_rows * packing_.items_per_slot_row();
    FinishPacked(*schema_, packing_, items, &columns);
    num_rows = (items + packing_.length - 1) / packing_.length;
  }
  return Batch(schema_, std::move(columns), num_rows, std::move(hold));
}

int64_t SlotLayout::BatchBytes(const Schema& schema, int64_t batch_size) {
  int64_t bytes = 0;
  for (const Field& field : schema) {
    if (field.varying == nullptr) {
      bytes += batch_size * (field.row_bytes() + (field.has_mask ? field.items() : 0));
      if (field.has_segments) bytes += SegmentBytes(batch_size * field.shape.front());
      continue;
    }
    for (const Strand& strand : field.varying->strands()) {
      if (strand.domain == 0) bytes += (batch_size + ExtraElements(strand, 1)) * strand.width;
    }
  }
  return bytes;
}

}  // namespace penstock

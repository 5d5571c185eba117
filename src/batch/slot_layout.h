#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "penstock/batch.h"
#include "penstock/schema.h"
#include "source/row_group_reader.h"

namespace penstock {

/// Where each column lies in a slot. A slot holds a run of consecutive batches, column-major over all its rows, so that
/// a column is written in one piece and every batch is a view.
///
/// Ownership: immutable value. Threads: any.
class SlotLayout {
 public:
  SlotLayout(std::shared_ptr<const Schema> schema, int64_t batch_rows, int64_t batches_per_slot);

  int64_t batch_rows() const { return batch_rows_; }
  int64_t batches_per_slot() const { return batches_per_slot_; }
  int64_t rows() const { return batch_rows_ * batches_per_slot_; }
  /// Whole pages, > 0.
  int64_t bytes() const { return bytes_; }
  const std::shared_ptr<const Schema>& schema() const { return schema_; }

  /// Row 0 of column `i` in the slot at `base`.
  SlotColumn Column(uint8_t* base, int i) const {
    const Place& place = places_[static_cast<size_t>(i)];
    return {base + place.values, place.mask < 0 ? nullptr : base + place.mask};
  }
  /// Batch number `batch` of the slot at `base`, of `num_rows` rows.
  Batch View(uint8_t* base, int64_t batch, int64_t num_rows, std::shared_ptr<void> hold) const;

  /// Bytes that one batch of this schema takes, masks included, before rounding.
  static int64_t BatchBytes(const Schema& schema, int64_t batch_rows);

 private:
  struct Place {
    int64_t values = 0;
    int64_t mask = -1;
  };
  std::shared_ptr<const Schema> schema_;
  int64_t batch_rows_;
  int64_t batches_per_slot_;
  int64_t bytes_ = 0;
  std::vector<Place> places_;
};

}  // namespace penstock

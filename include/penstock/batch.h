#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "penstock/schema.h"

namespace penstock {

/// A column of lists of numbers as flat arrays: views of the slot. Yours to write to.
struct Ragged {
  struct Level {
    int64_t* offsets = nullptr;  ///< length + 1 of them, from 0: where each list begins among those further in.
    uint8_t* mask = nullptr;     ///< 1 = missing (its list is empty); null: there is none.
    int64_t length = 0;
  };
  std::vector<Level> levels;  ///< Outermost first: rows, then the lists within them.
  uint8_t* values = nullptr;  ///< num_values * Field::items() elements of Field::dtype.
  uint8_t* mask = nullptr;    ///< As many bytes as there are elements, 1 = missing; null: there is none.
  int64_t num_values = 0;
  int64_t* extents = nullptr;  ///< Field::tensor_ndim per row; null: the column has lists, no tensors.
};

/// Rows that are ready for the caller: views of a slot, nothing copied.
///
/// Ownership: holds its slot; the slot's bytes stay counted (account `user`) until the last Batch and the last array
/// exported from it are gone. Threads:   may be read, moved and destroyed on any thread, also after the loader is gone.
class Batch {
 public:
  /// One column's values and, where the field has one, its mask.
  struct Column {
    uint8_t* values =
        nullptr;  ///< num_rows * field.row_bytes() bytes, row-major, aligned to the element's width. Yours to write to.
    uint8_t* mask = nullptr;  ///< num_rows * field.items() bytes, 1 = missing; null: the field has no mask.
    /// Where Field::has_segments: num_segments + 1 of them, from 0. Segment i is the items [segments[i], segments[i +
    /// 1]) of the batch: as much of one list as lies in one row, or what fills up the last row.
    int32_t* segments = nullptr;
    int64_t num_segments = 0;
    /// Columns of varying size have these instead: see Field::varying.
    std::vector<uint8_t*> strands;  ///< VaryingColumn::View().
    std::vector<int64_t> counts;    ///< Elements per domain behind the rows.
  };

  Batch() = default;
  Batch(std::shared_ptr<const Schema> schema, std::vector<Column> columns, int64_t num_rows, std::shared_ptr<void> hold)
      : schema_(std::move(schema)), columns_(std::move(columns)), num_rows_(num_rows), hold_(std::move(hold)) {}

  int64_t num_rows() const { return num_rows_; }
  int num_columns() const { return static_cast<int>(columns_.size()); }
  const Schema& schema() const { return *schema_; }
  const Column& column(int i) const { return columns_[static_cast<size_t>(i)]; }
  /// Column `i`, of Form::kRagged.
  Ragged RaggedColumn(int i) const;
  /// Column `i`, of Form::kArrow, as an array of Field::arrow_type. Packs bits in place: call it once.
  [[nodiscard]] arrow::Result<std::shared_ptr<arrow::Array>> ArrayColumn(int i) const;

  /// Keeps the slot's memory alive; copy it into whatever outlives this object.
  const std::shared_ptr<void>& hold() const { return hold_; }

  /// As an Arrow record batch of Field::arrow_type columns over the slot's memory. Needs Layout::kArrow. Booleans and
  /// validity are packed to bits in place (the byte arrays are consumed): call it once.
  [[nodiscard]] arrow::Result<std::shared_ptr<arrow::RecordBatch>> ToRecordBatch() const;

 private:
  std::shared_ptr<const Schema> schema_;
  std::vector<Column> columns_;
  int64_t num_rows_ = 0;
  std::shared_ptr<void> hold_;
};

}  // namespace penstock

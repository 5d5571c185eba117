#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arrow_exchange.h"
#include "batch_exporter.h"
#include "bindings.h"
#include "errors.h"

namespace penstock::python {

/// Batches as {name: array}: dense columns as values and mask, lists of numbers as flat values, offsets, masks and
/// shapes, all others as pyarrow arrays.
///
/// \tparam Maker  has Type TypeOf(DType), and nb::object Make(const Batch&, uint8_t* data, int64_t length, const Type&,
///                const std::vector<int64_t>& row_shape, int64_t bytes), an array of `length` rows over the slot.
template <typename Maker>
class DictExporter : public BatchExporter {
 public:
  explicit DictExporter(const Schema& schema) {
    for (const Field& field : schema) {
      Column column{field.form, {}, {}, {}, {}};
      column.values = field.form == Form::kArrow ? Entry{ColumnKey(field.name), {}, {}, 0}
                                                 : MakeEntry(field.name, field.dtype, field.shape);
      if (field.form == Form::kDense && field.has_mask) {
        column.masks.push_back(MakeEntry(MaskName(field), DType::kBool, field.shape));
      }
      if (field.has_segments) column.offsets.push_back(MakeEntry(OffsetsName(field, 0), DType::kInt32, {}));
      if (field.form == Form::kRagged) AddLevels(field, &column);
      has_arrow_ |= field.form == Form::kArrow;
      columns_.push_back(std::move(column));
    }
    if (has_arrow_) array_ = nb::module_::import_("pyarrow").attr("array");
  }

  // Of plain numbers alone, since nothing but objects of Python is made then: no memory that somebody would have to
  // count. Of so many arrays that who waits for the first batch does not notice the others.
  int most_together() const override {
    constexpr size_t kMostBatches = 16, kMostArrays = 64;
    size_t arrays = 0;
    for (const Column& column : columns_) {
      if (column.form != Form::kDense) return 1;
      arrays += 1 + column.masks.size() + column.offsets.size();
    }
    return static_cast<int>(std::clamp<size_t>(kMostArrays / std::max<size_t>(1, arrays), 1, kMostBatches));
  }

  nb::object Export(const Batch& batch) override {
    nb::object out = nb::steal(PyDict_New());
    for (size_t i = 0; i < columns_.size(); ++i) {
      const Column& column = columns_[i];
      const auto index = static_cast<int>(i);
      if (column.form == Form::kDense) {
        const Batch::Column& data = batch.column(index);
        Put(out, batch, column.values, data.values, batch.num_rows());
        if (!column.masks.empty()) Put(out, batch, column.masks[0], data.mask, batch.num_rows());
        if (!column.offsets.empty()) {
          Put(out, batch, column.offsets[0], reinterpret_cast<uint8_t*>(data.segments), data.num_segments + 1);
        }
      } else if (column.form == Form::kArrow) {
        Put(out, column.values.key, array_(ExportArray(Unwrap(batch.ArrayColumn(index)))));
      } else {
        PutRagged(out, batch, column, batch.RaggedColumn(index));
      }
    }
    return out;
  }

 private:
  struct Entry {
    nb::object key;  // Null: there is no such array.
    typename Maker::Type type;
    std::vector<int64_t> shape;  // Of one row.
    int64_t row_bytes = 0;
  };
  struct Column {
    Form form;
    Entry values;
    std::vector<Entry> masks;    // kRagged: one per level, values last.
    std::vector<Entry> offsets;  // kRagged: one per level; kDense: of segments, where it has them.
    Entry extents;
  };

  Entry MakeEntry(const std::string& name, DType dtype, std::vector<int64_t> shape) {
    int64_t bytes = ByteWidth(dtype);
    for (int64_t extent : shape) bytes *= extent;
    return {ColumnKey(name), maker_.TypeOf(dtype), std::move(shape), bytes};
  }

  void AddLevels(const Field& field, Column* column) {
    const auto levels = static_cast<int>(field.level_masks.size()) - 1;
    for (int level = 0; level <= levels; ++level) {
      if (level < levels) column->offsets.push_back(MakeEntry(OffsetsName(field, level), DType::kInt64, {}));
      const bool is_masked = field.level_masks[static_cast<size_t>(level)];
      column->masks.push_back(is_masked ? MakeEntry(MaskName(field, level), DType::kBool,
                                                    level == levels ? field.shape : std::vector<int64_t>())
                                        : Entry());
    }
    if (field.tensor_ndim > 0) column->extents = MakeEntry(ShapeName(field), DType::kInt64, {field.tensor_ndim});
  }

  void PutRagged(nb::handle out, const Batch& batch, const Column& column, const Ragged& ragged) {
    Put(out, batch, column.values, ragged.values, ragged.num_values);
    for (size_t level = 0; level < ragged.levels.size(); ++level) {
      const Ragged::Level& lists = ragged.levels[level];
      Put(out, batch, column.offsets[level], reinterpret_cast<uint8_t*>(lists.offsets), lists.length + 1);
      Put(out, batch, column.masks[level], lists.mask, lists.length);
    }
    Put(out, batch, column.masks.back(), ragged.mask, ragged.num_values);
    Put(out, batch, column.extents, reinterpret_cast<uint8_t*>(ragged.extents), batch.num_rows());
  }

  void Put(nb::handle out, const Batch& batch, const Entry& entry, uint8_t* data, int64_t length) {
    static uint8_t nothing[8];  // An address for arrays without elements.
    if (!entry.key.is_valid()) return;
    Put(out, entry.key,
        maker_.Make(batch, data != nullptr ? data : nothing, length, entry.type, entry.shape,
                    length * entry.row_bytes));
  }
  static void Put(nb::handle dict, nb::handle key, const nb::object& value) {
    if (PyDict_SetItem(dict.ptr(), key.ptr(), value.ptr()) != 0) throw nb::python_error();
  }

  Maker maker_;
  nb::object array_;
  bool has_arrow_ = false;
  std::vector<Column> columns_;
};

}  // namespace penstock::python

#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "penstock/dtype.h"

namespace penstock {

class VaryingColumn;

/// How a column comes in a batch.
enum class Form : uint8_t {
  kDense,   ///< Values of one shape, and a mask where the field has one.
  kArrow,   ///< An Arrow array: strings, binary, and with Layout::kArrow whatever has no fixed size.
  kRagged,  ///< Lists of numbers as flat values and offsets, see Ragged.
};

/// One column of the batches that a loader gives.
struct Field {
  std::string name;
  Form form = Form::kDense;
  DType dtype = DType::kInt64;
  std::vector<int64_t> shape;  ///< Of one row: empty for a scalar, {3, 224, 224} for nested fixed-size lists.
  bool has_mask = false;  ///< A second array `<name>_mask` of the same shape, bool, true where the value is missing.
                          ///< Of a column that is no kDense one: whether rows may be missing.
  std::shared_ptr<arrow::DataType> source_type;  ///< In the files.
  std::shared_ptr<arrow::DataType> arrow_type;   ///< Of the column in format "arrow".
  std::shared_ptr<arrow::Array> vocabulary;      ///< What codes stand for; null where there is none.
  std::vector<bool> level_masks;                 ///< kRagged: of which levels there are masks, rows first, values last.
  /// kDense: rows are runs of items (ops::Pack), and a batch has offsets of where segments begin as well: see
  /// Batch::Column.
  bool has_segments = false;
  int tensor_ndim = 0;  ///< kRagged: rows are tensors of so many dimensions, each of its own shape; 0: lists.
  /// Set but for Form::kDense: how the column lies in a slot. Then dtype and shape are those of the values (kRagged) or
  /// mean nothing (kArrow).
  std::shared_ptr<const VaryingColumn> varying;

  /// Elements in one row, >= 1 (0 for a fixed-size list of length 0).
  int64_t items() const {
    int64_t n = 1;
    for (int64_t extent : shape) n *= extent;
    return n;
  }
  int64_t row_bytes() const { return items() * ByteWidth(dtype); }
};

/// Names of the arrays of a kRagged column beside its values (which have its name); level 0 is that of the rows.
std::string OffsetsName(const Field& field, int level);
std::string MaskName(const Field& field, int level = 0);
std::string ShapeName(const Field& field);
/// All names under which a column's arrays come in a batch of tensors.
std::vector<std::string> ArrayNames(const Field& field);

using Schema = std::vector<Field>;

}  // namespace penstock

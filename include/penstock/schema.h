#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "penstock/dtype.h"

namespace penstock {

class VaryingColumn;

/// One column of the batches that a loader gives.
struct Field {
  std::string name;
  DType dtype = DType::kInt64;
  std::vector<int64_t> shape;  ///< Of one row: empty for a scalar, {3, 224, 224} for nested fixed-size lists.
  bool has_mask = false;  ///< A second array `<name>_mask` of the same shape, bool, true where the value is missing.
  std::shared_ptr<arrow::DataType> source_type;  ///< In the files.
  std::shared_ptr<arrow::DataType> arrow_type;   ///< Of the column in format "arrow".
  std::shared_ptr<arrow::Array> vocabulary;      ///< What codes stand for; null where there is none.
  /// Set where rows vary in size (strings, lists, structs of them): how they lie in a slot. Then dtype, shape, has_mask
  /// and what follows from them say nothing about the slot.
  std::shared_ptr<const VaryingColumn> varying;

  /// Elements in one row, >= 1 (0 for a fixed-size list of length 0).
  int64_t items() const {
    int64_t n = 1;
    for (int64_t extent : shape) n *= extent;
    return n;
  }
  int64_t row_bytes() const { return items() * ByteWidth(dtype); }
};

using Schema = std::vector<Field>;

}  // namespace penstock

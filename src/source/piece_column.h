#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>

namespace penstock {

/// One top-level column of a row group, decoded to Arrow arrays from front to back, as many rows at a time as are asked
/// for.
///
/// Ownership: file and pool must outlive it; the pool also the arrays. Threads: one at a time.
/// Errors: Parquet's exceptions pass through (wrap calls in CatchParquet). After an error only the destructor may be
/// called.
class PieceColumn {
 public:
  virtual ~PieceColumn() = default;

  virtual const std::shared_ptr<arrow::Field>& field() const = 0;

  /// The next `rows` rows, all of which the row group has by its footer, as one array. \return IOError where the chunk
  /// has fewer.
  virtual arrow::Result<std::shared_ptr<arrow::Array>> Take(int64_t rows) = 0;
};

}  // namespace penstock

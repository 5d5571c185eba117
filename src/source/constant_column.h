#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "source/projection.h"

namespace penstock {

/// Partition columns that come as arrays (strings): one value for all rows of a file.
///
/// Threads: any, once it is made.
class ConstantColumns {
 public:
  /// Those among `outputs`.
  /// \param partition_values  of the file, one per partition field of the data set.
  ConstantColumns(const Projection& projection, const std::vector<int>& outputs,
                  const arrow::ScalarVector& partition_values);

  /// `rows` has the columns of the outputs that are read, in their order; adds the others at their places.
  arrow::Result<std::shared_ptr<arrow::RecordBatch>> AddTo(std::shared_ptr<arrow::RecordBatch> rows,
                                                           arrow::MemoryPool* pool) const;

 private:
  struct Column {
    int position;
    std::shared_ptr<arrow::Field> field;
    std::shared_ptr<arrow::Scalar> value;
  };
  std::vector<Column> columns_;
};

/// Bytes that such columns take in the arenas of slots.
int64_t ConstantArenaBytes(const Projection& projection, const arrow::ScalarVector& partition_values, int64_t rows);
/// Bytes of their arrays, also while these get a slot's offsets.
int64_t ConstantArrayBytes(const Projection& projection, const arrow::ScalarVector& partition_values, int64_t rows);

}  // namespace penstock

#pragma once

#include <arrow/compute/type_fwd.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "source/piece_reader.h"
#include "source/projection.h"

namespace arrow {
struct Datum;
}

namespace penstock {

/// The projection's filter and sample over the columns of one chunk, piece by piece.
///
/// Threads: Apply() from one at a time.
class PieceFilter {
 public:
  /// \param sample_key        of the chunk (see SampleKey), where there is a sample.
  /// \param names             of the columns that Apply() gets, as NeededColumns() has them.
  /// \param kept              positions of those that are still needed afterwards.
  /// \param partition_values  of the chunk's input, one per partition field.
  static arrow::Result<std::unique_ptr<PieceFilter>> Make(const Projection& projection,
                                                          const arrow::ScalarVector& partition_values,
                                                          uint64_t sample_key, const std::vector<std::string>& names,
                                                          std::vector<int> kept);
  virtual ~PieceFilter() = default;

  /// Leaves in `columns` the rows of `piece` in the sample for which the filter is true (null counts as false); columns
  /// that nobody needs any more become null. Sets piece->row_numbers. New buffers come from `pool`.
  virtual arrow::Status Apply(arrow::ArrayVector* columns, PieceReader::Piece* piece,
                              arrow::MemoryPool* pool) const = 0;
};

}  // namespace penstock

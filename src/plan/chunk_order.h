#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "penstock/ledger.h"
#include "plan/catalog.h"
#include "plan/permutation.h"

namespace penstock {

/// The chunks of a data set in another order, epoch by epoch. Eight bytes per chunk, charged as metadata: where the
/// rows of each begin.
///
/// Threads: any.
class ChunkOrder {
 public:
  /// OutOfMemory where the budget has no room for it.
  static arrow::Result<std::unique_ptr<const ChunkOrder>> Make(std::shared_ptr<const Catalog> catalog, ShuffleKey key,
                                                               std::shared_ptr<Ledger> ledger);
  ~ChunkOrder();
  ChunkOrder(const ChunkOrder&) = delete;
  ChunkOrder& operator=(const ChunkOrder&) = delete;

  /// The chunk that `row` lies in; begin_row and end_row are positions in this order.
  Catalog::Chunk ChunkAt(int64_t row) const;

 private:
  ChunkOrder(std::shared_ptr<const Catalog> catalog, ShuffleKey key, std::shared_ptr<Ledger> ledger, int64_t bytes);

  const std::shared_ptr<const Catalog> catalog_;
  const std::shared_ptr<Ledger> ledger_;
  const int64_t bytes_;
  const Permutation permutation_;
  std::vector<int64_t> begin_rows_;  // One more than there are chunks.
};

}  // namespace penstock

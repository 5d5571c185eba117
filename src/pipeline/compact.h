#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>

#include <cstdint>
#include <vector>

#include "batch/slot_layout.h"

namespace penstock {

/// Rows of a slot that are left out of their batches; empty where there are none.
using LostRows = std::vector<bool>;

/// Closes the gaps that lost rows leave in a batch of `rows` rows.
/// \param lost  by row of the slot. \param fill  null where there are no arenas.
/// \param pool  for a copy of one column at a time, where rows vary in size.
/// \return the rows that are left.
arrow::Result<int64_t> Compact(const SlotLayout& layout, const LostRows& lost, int64_t batch, int64_t rows,
                               uint8_t* base, ArenaFill* fill, arrow::MemoryPool* pool);

}  // namespace penstock

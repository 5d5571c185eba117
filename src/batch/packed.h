#pragma once

#include <cstdint>
#include <vector>

#include "ops/packing.h"
#include "penstock/batch.h"

namespace penstock {

/// Makes whole rows of a batch of `items` items, >= 1: fills up the last row, and says where segments begin.
///
/// Padding is a segment of its own. Costs a pass over the positions.
/// \param columns  of the batch, in the form that its slot has; Batch::Column::segments has room for one more offset
/// than the batch has items.
void FinishPacked(const Schema& schema, const Packing& packing, int64_t items, std::vector<Batch::Column>* columns);

}  // namespace penstock

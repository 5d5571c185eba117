#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>

#include "penstock/ledger.h"
#include "source/input.h"
#include "source/projection.h"

namespace penstock {

/// The same filter and sample, and no columns: what is read to count the rows that pass. Inputs must be opened for it.
Projection FilterAlone(const Projection& projection);

/// Rows of a chunk that are in the sample; nothing is read.
int64_t RowsInSample(const RowSample& sample, const Input& input, int chunk);

/// Rows of a chunk that pass. Reads the filter's columns, unless it is known without.
arrow::Result<int64_t> CountSurvivors(const Projection& of_filter, const Input& input, int chunk,
                                      const std::shared_ptr<Ledger>& ledger);

/// The row in the chunk of the survivor of that number, counted from 0.
arrow::Result<int64_t> RowOfSurvivor(const Projection& of_filter, const Input& input, int chunk, int64_t survivor,
                                     const std::shared_ptr<Ledger>& ledger);

}  // namespace penstock

#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>

#include "penstock/ledger.h"
#include "plan/epoch_run.h"
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

/// In front of the row in the chunk that is the survivor of that number, counted from 0.
arrow::Result<SourcePlace> PlaceOfSurvivor(const Projection& of_filter, const Input& input, int chunk, int64_t survivor,
                                           const std::shared_ptr<Ledger>& ledger);

/// The same filter and sample, and the first column of those that are packed: what is read to count items.
Projection ItemsAlone(const Projection& projection);

/// Items of the lists of a chunk's rows that pass. Reads them, unless the input has counted them.
arrow::Result<int64_t> CountItems(const Projection& of_items, const Input& input, int chunk,
                                  const std::shared_ptr<Ledger>& ledger);

/// Where in the chunk the item of that number is, counted from 0 over the rows that pass.
arrow::Result<SourcePlace> PlaceOfItem(const Projection& of_items, const Input& input, int chunk, int64_t item,
                                       const std::shared_ptr<Ledger>& ledger);

}  // namespace penstock

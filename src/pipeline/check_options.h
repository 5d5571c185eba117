#pragma once

#include <arrow/status.h>

#include "penstock/options.h"
#include "penstock/schema.h"

namespace penstock {

/// Invalid where a number makes no sense by itself. What data and ranks have to do with it is not looked at.
arrow::Status CheckOptions(const LoaderOptions& options);

/// Invalid where batches are so large that computations with their bytes would overflow.
arrow::Status CheckBatchBytes(const LoaderOptions& options, const Schema& schema);

}  // namespace penstock

#pragma once

#include <arrow/compute/expression.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <memory>
#include <string>
#include <vector>

#include "source/parquet_file.h"
#include "source/projection.h"

namespace penstock {

/// Checks a filter and binds it to `schema`; sets `*names` to the columns that it refers to, each once, in the schema's
/// order.
///
/// \param path  of the first file, for messages.
/// \return Invalid for unknown, ambiguous and nested columns, for what is not a boolean, for types that do not compare.
arrow::Result<std::shared_ptr<const arrow::compute::Expression>> BindFilter(const arrow::compute::Expression& filter,
                                                                            const arrow::Schema& schema,
                                                                            const std::string& path,
                                                                            std::vector<std::string>* names);

/// False where the filter cannot be true for any row of the row group, by its statistics and the file's partition
/// values. True without a filter.
arrow::Result<bool> MayMatch(const Projection& projection, const ParquetFile& file, int row_group);

/// False where the filter cannot be true for any row of an input with these partition values. True without a filter.
arrow::Result<bool> MayMatch(const Projection& projection, const arrow::ScalarVector& partition_values);

}  // namespace penstock

#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>

#include "source/parquet_file.h"
#include "source/piece_column.h"

namespace penstock {

/// Decodes one column chunk of lists of numbers, page by page: rows begin where the repetition levels say so, and items
/// go from the page straight to the array's values. Arrow's reader first copies all levels, and then walks through them
/// for each of the array's levels.
///
/// Source of the format: the Apache Parquet specification, "Nested encoding" (Dremel's levels).
namespace list_column {

/// Whether Open() takes the column: list or large_list of integers, float32 or float64 at the top level, in the
/// three-level form that the specification asks for, stored in the items' own type and with levels that are no legacy
/// bits.
bool Takes(const ParquetFile& file, int row_group, const arrow::Field& field, int leaf);

/// What decoding `rows` rows takes beside pages and dictionary: the array and scratch strips, in bytes.
int64_t ArrayBytes(const ParquetFile& file, int row_group, const arrow::Field& field, int leaf, int64_t rows);

/// \param buffer_bytes  to read at once.
arrow::Result<std::unique_ptr<PieceColumn>> Open(const ParquetFile& file, int row_group,
                                                 std::shared_ptr<arrow::Field> field, int leaf, arrow::MemoryPool* pool,
                                                 int64_t buffer_bytes);

}  // namespace list_column
}  // namespace penstock

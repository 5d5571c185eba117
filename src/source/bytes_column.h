#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>

#include "source/parquet_file.h"
#include "source/piece_column.h"

/// Decodes one column chunk of strings or binary, page by page: values go from the page, or from the dictionary,
/// straight to the array's bytes.
namespace penstock::bytes_column {

/// Scratch strips of a column that is open, in bytes.
inline constexpr int64_t kScratchBytes = 2048 * (16 + 16 + 1) + 192;

/// Whether the column is a flat one of byte arrays that are strings or binary, in any of Arrow's layouts.
bool Takes(const ParquetFile& file, const arrow::Field& field, int leaf);

/// \param field         string, binary, large_string or large_binary: what the arrays become, whatever layout the
/// file's
///                      schema asks for.
/// \param buffer_bytes  to read at once.
arrow::Result<std::unique_ptr<PieceColumn>> Open(const ParquetFile& file, int row_group,
                                                 std::shared_ptr<arrow::Field> field, int leaf, arrow::MemoryPool* pool,
                                                 int64_t buffer_bytes);

}  // namespace penstock::bytes_column

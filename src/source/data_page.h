#pragma once

#include <arrow/result.h>
#include <parquet/types.h>

#include <cstdint>

#include "source/page_levels.h"
#include "source/page_runs.h"

namespace parquet {
class ColumnDescriptor;
class Page;
}  // namespace parquet

namespace penstock {

/// A data page, of either version, taken apart.
///
/// Ownership: views the page.
struct DataPageParts {
  int64_t rows = 0;         ///< Of a repeated column: levels, of which empty and missing lists have one each.
  LevelReader levels;       ///< Of an optional flat column.
  LevelReader repetitions;  ///< Of a column that is repeated once; 0: a row begins.
  RunDecoder definitions;   ///< Of such a column; whether they are too high is for the caller to see.
  parquet::Encoding::type encoding = parquet::Encoding::PLAIN;
  const uint8_t* values = nullptr;
  int64_t size = 0;  ///< Of `values`, in bytes.

  /// \param page    of type DATA_PAGE or DATA_PAGE_V2, decompressed.
  /// \param column  flat, or repeated once.
  /// \return IOError where levels are longer than the page, or stored in a way that does not exist (of repeated columns
  ///         also: as plain bits).
  static arrow::Result<DataPageParts> Of(const parquet::Page& page, const parquet::ColumnDescriptor& column);
};

}  // namespace penstock

#pragma once

#include <arrow/result.h>
#include <parquet/types.h>

#include <cstdint>

#include "source/page_levels.h"

namespace parquet {
class Page;
}

namespace penstock {

/// A data page of a flat column, of either version, taken apart.
///
/// Ownership: views the page.
struct DataPageParts {
  int64_t rows = 0;
  LevelReader levels;  ///< Of an optional column.
  parquet::Encoding::type encoding = parquet::Encoding::PLAIN;
  const uint8_t* values = nullptr;
  int64_t size = 0;  ///< Of `values`, in bytes.

  /// \param page         of type DATA_PAGE or DATA_PAGE_V2, decompressed.
  /// \param is_optional  whether values may be missing; repeated columns have no parts.
  /// \return IOError where levels are longer than the page, or stored in a way that does not exist.
  static arrow::Result<DataPageParts> Of(const parquet::Page& page, bool is_optional);
};

}  // namespace penstock

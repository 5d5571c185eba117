#include "source/data_page.h"

#include <parquet/column_page.h>

#include <cstring>

namespace penstock {
namespace {

arrow::Status TooLong() { return arrow::Status::IOError("a page's levels are longer than the page"); }

// Levels stand in front: runs with their length before them, or plain bits whose number the rows tell.
arrow::Status TakeLevels(const parquet::DataPageV1& page, DataPageParts* parts) {
  const bool is_legacy = page.definition_level_encoding() == parquet::Encoding::BIT_PACKED;
  if (!is_legacy && page.definition_level_encoding() != parquet::Encoding::RLE) {
    return arrow::Status::IOError("a page's levels are stored in an unknown way");
  }
  int64_t bytes = (parts->rows + 7) / 8;
  if (!is_legacy) {
    int32_t length = 0;
    if (parts->size < static_cast<int64_t>(sizeof(length))) return TooLong();
    std::memcpy(&length, parts->values, sizeof(length));
    bytes = length;
    parts->values += sizeof(length);
    parts->size -= static_cast<int64_t>(sizeof(length));
  }
  if (bytes < 0 || bytes > parts->size) return TooLong();
  parts->levels = LevelReader(parts->values, bytes, is_legacy);
  parts->values += bytes;
  parts->size -= bytes;
  return arrow::Status::OK();
}

arrow::Status TakeLevels(const parquet::DataPageV2& page, DataPageParts* parts) {
  const int64_t repetition = page.repetition_levels_byte_length();
  const int64_t definition = page.definition_levels_byte_length();
  if (repetition < 0 || definition < 0 || repetition + definition > parts->size) return TooLong();
  parts->levels = LevelReader(parts->values + repetition, definition, false);
  parts->values += repetition + definition;
  parts->size -= repetition + definition;
  return arrow::Status::OK();
}

}  // namespace

arrow::Result<DataPageParts> DataPageParts::Of(const parquet::Page& page, bool is_optional) {
  const auto& data = static_cast<const parquet::DataPage&>(page);
  DataPageParts parts;
  parts.rows = data.num_values();
  parts.encoding = data.encoding();
  parts.values = page.data();
  parts.size = page.size();
  if (parts.rows < 0) return arrow::Status::IOError("a page has ", parts.rows, " values");
  if (page.type() == parquet::PageType::DATA_PAGE_V2) {
    ARROW_RETURN_NOT_OK(TakeLevels(static_cast<const parquet::DataPageV2&>(page), &parts));
  } else if (is_optional) {
    ARROW_RETURN_NOT_OK(TakeLevels(static_cast<const parquet::DataPageV1&>(page), &parts));
  }
  return parts;
}

}  // namespace penstock

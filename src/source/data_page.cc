#include "source/data_page.h"

#include <parquet/column_page.h>
#include <parquet/schema.h>

#include <bit>
#include <cstring>

namespace penstock {
namespace {

arrow::Status TooLong() { return arrow::Status::IOError("a page's levels are longer than the page"); }

// Takes levels off the front.
const uint8_t* Take(int64_t bytes, DataPageParts* parts) {
  const uint8_t* front = parts->values;
  parts->values += bytes;
  parts->size -= bytes;
  return front;
}

// The length of the runs that follow.
arrow::Result<int64_t> TakeLength(DataPageParts* parts) {
  int32_t length = 0;
  if (parts->size < static_cast<int64_t>(sizeof(length))) return TooLong();
  std::memcpy(&length, Take(sizeof(length), parts), sizeof(length));
  if (length < 0 || length > parts->size) return TooLong();
  return length;
}

RunDecoder Definitions(const uint8_t* data, int64_t bytes, const parquet::ColumnDescriptor& column) {
  return {data, bytes, static_cast<int>(std::bit_width(static_cast<unsigned>(column.max_definition_level())))};
}

arrow::Status UnknownWay() { return arrow::Status::IOError("a page's levels are stored in an unknown way"); }

// Levels stand in front: runs with their length before them, or plain bits whose number the rows tell.
arrow::Status TakeLevels(const parquet::DataPageV1& page, const parquet::ColumnDescriptor& column,
                         DataPageParts* parts) {
  const auto is_runs = [](parquet::Encoding::type encoding) { return encoding == parquet::Encoding::RLE; };
  if (column.max_repetition_level() > 0) {
    const auto is_legacy = [](parquet::Encoding::type encoding) { return encoding == parquet::Encoding::BIT_PACKED; };
    if (is_legacy(page.repetition_level_encoding()) || is_legacy(page.definition_level_encoding())) {
      return arrow::Status::IOError("a page's levels are plain bits (BIT_PACKED), which the footer does not say");
    }
    if (!is_runs(page.repetition_level_encoding()) || !is_runs(page.definition_level_encoding())) return UnknownWay();
    ARROW_ASSIGN_OR_RAISE(const int64_t repetition, TakeLength(parts));
    parts->repetitions = LevelReader(Take(repetition, parts), repetition, false);
    ARROW_ASSIGN_OR_RAISE(const int64_t definition, TakeLength(parts));
    parts->definitions = Definitions(Take(definition, parts), definition, column);
    return arrow::Status::OK();
  }
  if (column.max_definition_level() == 0) return arrow::Status::OK();
  if (is_runs(page.definition_level_encoding())) {
    ARROW_ASSIGN_OR_RAISE(const int64_t bytes, TakeLength(parts));
    parts->levels = LevelReader(Take(bytes, parts), bytes, false);
    return arrow::Status::OK();
  }
  if (page.definition_level_encoding() != parquet::Encoding::BIT_PACKED) return UnknownWay();
  const int64_t bytes = (parts->rows + 7) / 8;
  if (bytes > parts->size) return TooLong();
  parts->levels = LevelReader(Take(bytes, parts), bytes, true);
  return arrow::Status::OK();
}

arrow::Status TakeLevels(const parquet::DataPageV2& page, const parquet::ColumnDescriptor& column,
                         DataPageParts* parts) {
  const int64_t repetition = page.repetition_levels_byte_length();
  const int64_t definition = page.definition_levels_byte_length();
  if (repetition < 0 || definition < 0 || repetition + definition > parts->size) return TooLong();
  parts->repetitions = LevelReader(Take(repetition, parts), repetition, false);
  const uint8_t* definitions = Take(definition, parts);
  if (column.max_repetition_level() > 0) {
    parts->definitions = Definitions(definitions, definition, column);
  } else {
    parts->levels = LevelReader(definitions, definition, false);
  }
  return arrow::Status::OK();
}

}  // namespace

arrow::Result<DataPageParts> DataPageParts::Of(const parquet::Page& page, const parquet::ColumnDescriptor& column) {
  const auto& data = static_cast<const parquet::DataPage&>(page);
  DataPageParts parts;
  parts.rows = data.num_values();
  parts.encoding = data.encoding();
  parts.values = page.data();
  parts.size = page.size();
  if (parts.rows < 0) return arrow::Status::IOError("a page has ", parts.rows, " values");
  if (page.type() == parquet::PageType::DATA_PAGE_V2) {
    ARROW_RETURN_NOT_OK(TakeLevels(static_cast<const parquet::DataPageV2&>(page), column, &parts));
  } else {
    ARROW_RETURN_NOT_OK(TakeLevels(static_cast<const parquet::DataPageV1&>(page), column, &parts));
  }
  return parts;
}

}  // namespace penstock

#pragma once

#include <arrow/result.h>

#include <cstdint>

#include "source/page_runs.h"

namespace penstock {

/// Levels of a page that are 0 or 1: definition levels of a flat optional column, where 1 is a row with a value, and
/// repetition levels of a column that is repeated once, where 1 is a value that goes on with its row (as "present"
/// below).
///
/// Ownership and threads: as RunDecoder.
class LevelReader {
 public:
  /// Rows that LevelReader::Next() writes at most.
  static constexpr int64_t kStrip = 2048;

  struct Stretch {
    int64_t rows = 0;     ///< 0: the levels end.
    int64_t present = 0;  ///< Of these rows.
  };

  LevelReader() = default;
  /// \param is_legacy  plain bits, most significant first ("BIT_PACKED", long deprecated), rather than runs.
  LevelReader(const uint8_t* data, int64_t size, bool is_legacy)
      : runs_(data, size, 1), bits_(is_legacy ? data : nullptr), bits_left_(is_legacy ? size * 8 : 0) {}

  /// The next rows, at most `rows`. Where all of a long run are present, there is no other limit and `valid` is not
  /// written; otherwise at most kStrip rows, and `valid` has one byte for each, 1 = present.
  /// \return IOError for a level that there is not.
  arrow::Result<Stretch> Next(int64_t rows, uint8_t* valid);

 private:
  Stretch NextBits(int64_t rows, uint8_t* valid);

  RunDecoder runs_;
  const uint8_t* bits_ = nullptr;
  int64_t bits_left_ = 0;
  int64_t bit_ = 0;
};

}  // namespace penstock

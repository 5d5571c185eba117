#pragma once

#include <arrow/io/interfaces.h>

#include <cstdint>
#include <vector>

namespace penstock {

/// In which requests the column chunks of a row group come from a file that is far.
struct FetchPlan {
  struct Block {
    arrow::io::ReadRange range;
    int next = -1;    ///< The block that is fetched ahead when this one is asked for; -1: none.
    int columns = 1;  ///< How many of FetchPlan::columns have bytes in it.
  };
  std::vector<arrow::io::ReadRange> columns;  ///< Sorted, not empty, not overlapping.
  std::vector<Block> blocks;                  ///< Sorted, not overlapping; empty: whoever reads reads for itself.
  bool is_whole = false;                      ///< All blocks are fetched at once, before anybody asks.
  int64_t bytes = 0;                          ///< The most that is held at one time.

  /// The column chunks are merged over holes of up to kHoleBytes and cut into requests of kRequestBytes. Where they do
  /// not fit into `most_bytes`, each column comes by itself in smaller steps, two of which are held; where that would
  /// be no gain, there are no blocks.
  static FetchPlan Of(std::vector<arrow::io::ReadRange> columns, int64_t most_bytes);
  /// At 50 ms and 50 MB/s of one connection, a request takes as long as the transfer of 2.5 MB. A hole costs memory as
  /// well as time.
  static constexpr int64_t kHoleBytes = int64_t{256} << 10;
  static constexpr int64_t kRequestBytes = int64_t{8} << 20;
  /// Twice what readers ask for at once.
  static constexpr int64_t kLeastStepBytes = int64_t{128} << 10;
};

}  // namespace penstock

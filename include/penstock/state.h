#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "penstock/options.h"

namespace penstock {

/// Rows [begin, end), by position in something that has an order: an epoch, what is left of it, a rank's share.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t rows() const { return end - begin; }
  bool operator==(const RowRange&) const = default;
};
/// One after the other; none is empty.
using RowRanges = std::vector<RowRange>;

/// What a data set is known by, wherever it lies: relative paths, sizes, footers.
struct DataFingerprint {
  int64_t files = 0;
  int64_t size_bytes = 0;   ///< Of all files.
  int64_t rows = 0;         ///< Of a table, which has no files.
  std::string names;        ///< Digest of the relative paths and sizes; of a table, of the lengths of its chunks.
  int64_t num_footers = 0;  ///< How many files, from the first on, `footers` covers: those that had been opened.
  std::string footers;      ///< Digest of their footers.

  bool operator==(const DataFingerprint&) const = default;
};

/// What the ranks of one world size have had of an epoch. Each has its share, in order, of what the phase before left.
struct EpochPhase {
  int64_t world_size = 1;
  /// Rows that every rank has had, from the front of its share: steps x batch_size...
  int64_t rows = 0;
  /// ... unless ranks do not step together (a filter, in_order = false): then for each rank the rows of its share that
  /// it has had. In a state as one rank gives it, of the last phase only the own entry is there.
  std::vector<RowRanges> taken;

  bool operator==(const EpochPhase&) const = default;
};

/// Where the user of a Loader is: all that is needed to go on with exactly the batches that would have come. A few
/// hundred bytes; made by Loader::State(), taken by Loader::Resume().
///
/// The order follows from the first group of fields; a state is refused where they are not the loader's own.
struct EpochState {
  static constexpr int kVersion = 1;

  int version = kVersion;
  DataFingerprint data;
  std::string columns;  ///< Digest of names and types of what is read.
  std::string filter;   ///< As text, shortened; empty without.
  std::string part;     ///< Of the rows, as text; empty for all of them (LoaderOptions::sample).
  int64_t batch_size = 0;
  bool shuffle = false;
  uint64_t seed = 0;
  int64_t shuffle_window_rows = 0;
  Uneven uneven = Uneven::kDrop;
  std::optional<int64_t> limit;
  std::string balance;  ///< "" or "rows".

  int64_t epoch = 0;
  int64_t epochs_left = 1;  ///< Of the iteration, this one included.
  int64_t rank = 0;         ///< Of the loader that gave it.
  std::vector<EpochPhase> history;
  /// With a filter and a limit: rows that count towards it so far. With ops::Pack and shuffle: packed rows that were
  /// given; `history` and `given_items` then say where the window begins that the next one is of.
  int64_t given_rows = 0;
  int64_t given_items = 0;  ///< With ops::Pack: items of the next row that were given.

  bool operator==(const EpochState&) const = default;
};

}  // namespace penstock

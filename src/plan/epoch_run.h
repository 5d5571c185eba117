#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <vector>

#include "penstock/state.h"

namespace penstock {

/// The last epoch that an order can be keyed by.
inline constexpr int64_t kMostEpoch = (int64_t{1} << 32) - 1;

/// Of an epoch whose rows are known when they have been read.
inline constexpr int64_t kUnknownRows = int64_t{1} << 62;

/// Which rows a batch has, numbered from 0 in the order of the run: those that are given, and those that were read for
/// them before a filter.
struct BatchOrigin {
  RowRange rows;
  RowRange source_rows;
  int64_t source_items = 0;  ///< Of the row behind source_rows: items that were given (ops::Pack).
  bool ends_padded = false;  ///< Its last row was filled up (ops::Pack); it is the last of all.
  bool is_empty = false;     ///< All of its rows were left out: it is not given.
};

/// A place among the rows that are read: in front of a row, or behind some of its items.
struct SourcePlace {
  int64_t row = 0;
  int64_t items = 0;
};

/// What one iteration reads: the rest of one epoch, and whole epochs after it. Plain arithmetic; the rows of a run are
/// numbered from 0 on in the order in which this rank reads them.
class EpochRun {
 public:
  struct Ranks {
    int64_t rank = 0;
    int64_t world_size = 1;
    Uneven uneven = Uneven::kDrop;
  };

  /// Of an epoch of unknown length, from a row on, by one rank.
  explicit EpochRun(int64_t epoch = 0, int64_t first_row = 0);
  /// Some rows of one epoch.
  EpochRun(int64_t epoch, RowRange rows);
  /// From the first row of `first_epoch` on.
  /// \param epoch_rows  of one epoch, all ranks together.
  EpochRun(int64_t epoch_rows, Ranks ranks, int64_t first_epoch, int64_t num_epochs);
  /// From where `state` is. The same world size goes on in its phase; another begins a new one, for which every rank's
  /// rows must be known: Invalid otherwise.
  static arrow::Result<EpochRun> Resume(int64_t epoch_rows, Ranks ranks, const EpochState& state, int64_t num_epochs);

  int64_t num_epochs() const { return num_epochs_; }
  int64_t epoch(int64_t n) const { return first_epoch_ + n; }
  /// Positions in the order of the n-th epoch of the run (0: the first) that are to be read.
  const RowRanges& ranges(int64_t n) const { return n == 0 ? first_ : later_; }
  bool is_length_known() const { return epoch_rows_ != kUnknownRows; }
  int64_t num_rows() const;
  /// Of the whole run: rows that are nobody's, and rows that come twice, counting all ranks.
  int64_t dropped_rows() const;
  int64_t repeated_rows() const;

  /// Where a user is who has had the rows `had` of the run, ascending: sets epoch, rank and history. Rows of two epochs
  /// at once only where `had` is one range from 0 on.
  /// \param are_ranks_together  every rank is where this one is: one number says it for all.
  void Locate(const RowRanges& had, bool are_ranks_together, EpochState* state) const;

 private:
  int64_t epoch_rows_;
  Ranks ranks_;
  int64_t first_epoch_;
  int64_t num_epochs_;
  int64_t left_rows_;               // Of the first epoch when the present phase began, all ranks together.
  std::vector<EpochPhase> before_;  // The phases before the present one.
  bool were_ranks_together_ = true;
  RowRanges had_;    // Of the share in the first epoch, when the run began.
  RowRanges rest_;   // The others; positions in the share.
  RowRanges first_;  // ... and in the epoch.
  RowRanges later_;
};

}  // namespace penstock

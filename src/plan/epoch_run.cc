#include "plan/epoch_run.h"

#include <algorithm>

#include "plan/row_ranges.h"
#include "plan/state_check.h"

namespace penstock {

EpochRun::EpochRun(int64_t epoch_rows, Ranks ranks, int64_t first_epoch, int64_t num_epochs)
    : epoch_rows_(epoch_rows),
      ranks_(ranks),
      first_epoch_(first_epoch),
      num_epochs_(num_epochs),
      left_rows_(epoch_rows) {
  RowRanges all;
  Append(&all, {0, epoch_rows});
  first_ = later_ = ShareOf(all, ranks.rank, ranks.world_size, ranks.uneven);
  Append(&rest_, {0, CountRows(first_)});
}

EpochRun::EpochRun(int64_t epoch, int64_t first_row)
    : EpochRun(epoch, RowRange{std::min(first_row, kUnknownRows - 1), kUnknownRows}) {}

EpochRun::EpochRun(int64_t epoch, RowRange rows) : EpochRun(kUnknownRows, {}, epoch, 1) {
  first_.clear();
  Append(&first_, rows);
  rest_ = first_;
}

arrow::Result<EpochRun> EpochRun::Resume(int64_t epoch_rows, Ranks ranks, const EpochState& state, int64_t num_epochs) {
  EpochRun run(epoch_rows, ranks, state.epoch, num_epochs);
  const EpochPhase& last = state.history.back();
  for (const EpochPhase& phase : state.history) {
    if (phase.rows > epoch_rows) {
      return arrow::Status::Invalid("the state is corrupt: it has had ", phase.rows, " rows of an epoch of ",
                                    epoch_rows, "; use one as state_dict() gave it");
    }
  }
  run.before_ = state.history;
  if (last.world_size == ranks.world_size) {
    run.before_.pop_back();
    run.were_ranks_together_ = last.taken.empty();
    if (last.taken.empty()) {
      Append(&run.had_, {0, last.rows});
    } else if (last.taken.size() > 1 || last.world_size == 1) {
      run.had_ = last.taken[static_cast<size_t>(ranks.rank)];
    } else if (state.rank == ranks.rank) {
      run.had_ = last.taken.front();
    } else {
      return arrow::Status::Invalid("this state is rank ", state.rank,
                                    "'s, and the ranks were not at the same step: ", "give rank ", ranks.rank,
                                    " its own, or every rank the list of all ranks' states");
    }
  } else if (IsOfOneRank(state)) {
    return arrow::Status::Invalid("the ranks were not at the same step: to go on with ", ranks.world_size,
                                  " ranks where there were ", last.world_size,
                                  ", give load_state_dict() the list of all ranks' states");
  }
  const RowRanges left = LeftOfEpoch(epoch_rows, run.before_, ranks.uneven);
  run.left_rows_ = CountRows(left);
  const RowRanges share = ShareOf(left, ranks.rank, ranks.world_size, ranks.uneven);
  const int64_t share_rows = CountRows(share);
  if (!run.had_.empty() && run.had_.back().end > share_rows) {
    if (!run.were_ranks_together_)
      return arrow::Status::Invalid("the state is corrupt: it has had rows that are not there");
    run.had_ = {{0, share_rows}};
  }
  run.rest_ = Complement(run.had_, share_rows);
  run.first_ = Without(share, run.had_);
  return run;
}

int64_t EpochRun::num_rows() const {
  const int64_t first = CountRows(first_), later = CountRows(later_);
  if (later > 0 && num_epochs_ - 1 > (kUnknownRows - first) / later) return kUnknownRows;  // Nobody gets there.
  return first + (num_epochs_ - 1) * later;
}

int64_t EpochRun::dropped_rows() const {
  if (ranks_.uneven != Uneven::kDrop) return 0;
  return left_rows_ % ranks_.world_size + (num_epochs_ - 1) * (epoch_rows_ % ranks_.world_size);
}

int64_t EpochRun::repeated_rows() const {
  if (ranks_.uneven == Uneven::kDrop) return 0;
  const auto repeated = [&](int64_t rows) {
    return ShareRows(rows, ranks_.world_size, ranks_.uneven) * ranks_.world_size - rows;
  };
  return repeated(left_rows_) + (num_epochs_ - 1) * repeated(epoch_rows_);
}

void EpochRun::Locate(const RowRanges& had, bool are_ranks_together, EpochState* state) const {
  const int64_t first_rows = CountRows(first_);
  const int64_t end = had.empty() ? 0 : had.back().end;
  state->rank = ranks_.rank;
  state->epoch = first_epoch_;
  state->epochs_left = num_epochs_;
  state->history = before_;
  EpochPhase phase{ranks_.world_size, 0, {}};
  RowRanges taken;
  if (num_epochs_ > 1 && end >= first_rows && CountRows(later_) > 0) {
    const int64_t beyond = end - first_rows;
    const int64_t whole = std::min(num_epochs_ - 2, beyond / CountRows(later_));
    state->epoch += 1 + whole;
    state->epochs_left -= 1 + whole;
    state->history.clear();
    Append(&taken, {0, beyond - whole * CountRows(later_)});
  } else {
    taken = had_;
    for (const RowRange& range : had) taken = Union(taken, Slice(rest_, range.begin, range.end));
    are_ranks_together = are_ranks_together && were_ranks_together_;
  }
  const bool is_prefix = taken.empty() || (taken.size() == 1 && taken.front().begin == 0);
  if (is_prefix && (are_ranks_together || ranks_.world_size == 1)) {
    phase.rows = taken.empty() ? 0 : taken.front().end;
  } else {
    phase.taken.push_back(std::move(taken));
  }
  state->history.push_back(std::move(phase));
}

}  // namespace penstock

#include "plan/state_check.h"

#include <algorithm>
#include <utility>

#include "plan/epoch_run.h"

namespace penstock {
namespace {

std::string Text(const std::string& value) { return value; }
std::string Text(int64_t value) { return std::to_string(value); }
std::string Text(uint64_t value) { return std::to_string(value); }
std::string Text(bool value) { return value ? "True" : "False"; }
std::string Text(Uneven value) { return value == Uneven::kDrop ? "\"drop\"" : "\"repeat\""; }
std::string Text(std::optional<int64_t> value) { return value ? std::to_string(*value) : "None"; }

template <typename... Words>
arrow::Status Refuse(const Words&... words) {
  return arrow::Status::Invalid("this state does not belong to this loader: ", words...);
}

template <typename T>
arrow::Status CheckSame(const char* name, const T& saved, const T& own) {
  if (saved == own) return arrow::Status::OK();
  return Refuse(name, " was ", Text(saved), " and is ", Text(own), " here");
}

arrow::Status CheckSameData(const DataFingerprint& saved, const DataFingerprint& own) {
  const auto text = [](const DataFingerprint& data) {
    if (data.files == 0) return "a table of " + std::to_string(data.rows) + " rows";
    return std::to_string(data.files) + " files of " + std::to_string(data.size_bytes) + " bytes";
  };
  if (saved.files != own.files || saved.size_bytes != own.size_bytes || saved.rows != own.rows) {
    return Refuse("the data differs; it was saved over ", text(saved), ", and here it is ", text(own));
  }
  if (saved.names != own.names && own.files == 0) {
    return Refuse("the data differs; there is ", text(own), " as there was, but in other chunks");
  }
  if (saved.names != own.names) {
    return Refuse("the data differs; there are ", text(own), " as there were, but their names or sizes are others");
  }
  if (saved.num_footers > 0 && saved.num_footers == own.num_footers && saved.footers != own.footers) {
    return Refuse("the data differs; names and sizes of the files are the same, but their contents are not");
  }
  return arrow::Status::OK();
}

// More than any machine has; what is computed for each of them takes no time to speak of.
constexpr int64_t kMostRanks = int64_t{1} << 20;

arrow::Status Corrupt(const char* what) {
  return arrow::Status::Invalid("the state is corrupt: ", what, "; use one as state_dict() gave it");
}

bool IsAscending(const RowRanges& ranges) {
  int64_t end = 0;
  for (const RowRange& range : ranges) {
    if (range.begin < end || range.end <= range.begin) return false;
    end = range.end;
  }
  return true;
}

arrow::Status CheckShape(const EpochState& state) {
  if (state.epoch < 0) return Corrupt("`epoch` is negative");
  if (state.epochs_left < 1) return Corrupt("`epochs_left` is below 1");
  if (state.epoch > kMostEpoch || state.epochs_left > kMostEpoch)
    return Corrupt("`epoch` or `epochs_left` is too high");
  if (state.given_rows < 0) return Corrupt("`given_rows` is negative");
  if (state.given_items < 0) return Corrupt("`given_items` is negative");
  if (state.history.empty()) return Corrupt("`history` is empty");
  for (const EpochPhase& phase : state.history) {
    if (phase.world_size < 1) return Corrupt("a world_size in `history` is below 1");
    if (phase.world_size > kMostRanks) return Corrupt("a world_size in `history` is too high");
    if (phase.rows < 0) return Corrupt("a number of rows in `history` is negative");
    if (!std::all_of(phase.taken.begin(), phase.taken.end(), IsAscending)) {
      return Corrupt("rows in `history` are not in ascending order");
    }
    const auto entries = static_cast<int64_t>(phase.taken.size());
    const bool may_be_own = &phase == &state.history.back();
    if (entries != 0 && entries != phase.world_size && !(may_be_own && entries == 1)) {
      return Corrupt("`history` has rows of some ranks, but not of all");
    }
  }
  if (state.rank < 0 || state.rank >= state.history.back().world_size) return Corrupt("`rank` is outside world_size");
  return arrow::Status::OK();
}

}  // namespace

arrow::Status CheckState(const EpochState& saved, const EpochState& own) {
  if (saved.version > own.version) {
    return arrow::Status::Invalid("the state is of version ", saved.version, ", newer than this penstock, which knows ",
                                  own.version, ": install the version that it was saved with");
  }
  if (saved.version < 1) return Corrupt("`version` is below 1");
  ARROW_RETURN_NOT_OK(CheckShape(saved));
  ARROW_RETURN_NOT_OK(CheckSameData(saved.data, own.data));
  if (saved.columns != own.columns) return Refuse("its columns (names or types) are not these");
  if (saved.filter != own.filter) {
    const auto text = [](const std::string& filter) { return filter.empty() ? "no filter" : "filter " + filter; };
    return Refuse("it was saved with ", text(saved.filter), ", and here there is ", text(own.filter));
  }
  if (saved.part != own.part) {
    const auto text = [](const std::string& part) { return part.empty() ? "all rows" : "the part " + part; };
    return Refuse("it was saved over ", text(saved.part), ", and here there is ", text(own.part));
  }
  ARROW_RETURN_NOT_OK(CheckSame("batch_size", saved.batch_size, own.batch_size));
  ARROW_RETURN_NOT_OK(CheckSame("shuffle", saved.shuffle, own.shuffle));
  if (own.shuffle) {
    ARROW_RETURN_NOT_OK(CheckSame("seed", saved.seed, own.seed));
    if (saved.shuffle_window_rows != own.shuffle_window_rows) {
      return Refuse("the windows of its shuffle had ", saved.shuffle_window_rows, " rows and have ",
                    own.shuffle_window_rows,
                    " here: that follows from shuffle_window and from what a row takes in "
                    "a batch, so shuffle_window, format, transforms and nulls must be what they were");
    }
  }
  ARROW_RETURN_NOT_OK(CheckSame("uneven", saved.uneven, own.uneven));
  ARROW_RETURN_NOT_OK(CheckSame("limit", saved.limit, own.limit));
  return CheckSame("balance", saved.balance, own.balance);
}

bool IsOfOneRank(const EpochState& state) {
  const EpochPhase& last = state.history.back();
  return last.taken.size() == 1 && last.world_size > 1;
}

arrow::Result<EpochState> MergeStates(std::vector<EpochState> states) {
  if (states.empty()) return arrow::Status::Invalid("the list of states is empty");
  for (const EpochState& state : states) ARROW_RETURN_NOT_OK(CheckShape(state));
  std::sort(states.begin(), states.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
  EpochState merged = states.front();
  const int64_t world_size = merged.history.back().world_size;
  if (static_cast<int64_t>(states.size()) != world_size) {
    return arrow::Status::Invalid("the list has ", states.size(), " states, but there were ", world_size, " ranks");
  }
  const bool are_together = std::all_of(states.begin(), states.end(), [&](const EpochState& state) {
    return state.history == merged.history && state.history.back().taken.size() != 1;
  });
  std::vector<RowRanges> taken;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    EpochState& state = states[static_cast<size_t>(rank)];
    if (state.rank != rank) {
      return arrow::Status::Invalid("the list of states has none of rank ", rank, ", or one twice");
    }
    const EpochPhase& last = state.history.back();
    if (last.taken.size() == 1) {
      taken.push_back(last.taken.front());
    } else if (!last.taken.empty()) {
      taken.push_back(last.taken[static_cast<size_t>(rank)]);
    } else {
      taken.emplace_back();
      if (last.rows > 0) taken.back().push_back({0, last.rows});
    }
  }
  const auto elsewhere =
      std::find_if(states.begin(), states.end(), [&](const EpochState& state) { return state.epoch != merged.epoch; });
  if (elsewhere != states.end()) {
    return arrow::Status::Invalid("the states in the list are not of one moment: rank ", merged.rank, " was in epoch ",
                                  merged.epoch, ", rank ", elsewhere->rank, " in epoch ", elsewhere->epoch,
                                  "; save them before the first rank begins the next epoch");
  }
  for (EpochState& state : states) {
    const bool is_same_world = state.history.back().world_size == world_size;
    state.rank = merged.rank;
    state.given_rows = merged.given_rows;
    state.data = merged.data;  // How many footers had been seen may differ.
    state.history.pop_back();
    const auto before = std::vector<EpochPhase>(merged.history.begin(), merged.history.end() - 1);
    const auto history = std::exchange(state.history, merged.history);
    if (history != before || !is_same_world || state != merged) {
      return arrow::Status::Invalid("the states in the list are not of one moment: order or history differ");
    }
  }
  if (!are_together) {
    merged.history.back().rows = 0;
    merged.history.back().taken = std::move(taken);
  }
  return merged;
}

}  // namespace penstock

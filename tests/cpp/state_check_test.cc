#include "plan/state_check.h"

#include <gtest/gtest.h>

#include <functional>

namespace penstock {
namespace {

EpochState Own() {
  EpochState state;
  state.data = {3, 300, 0, "names", 3, "footers"};
  state.columns = "columns";
  state.batch_size = 10;
  state.shuffle = true;
  state.seed = 5;
  state.shuffle_window_rows = 1000;
  state.epoch = 2;
  state.history = {{1, 7, {}}};
  return state;
}

// Whatever the order follows from must be the same, and the message says what is not.
TEST(CheckStateTest, SaysWhatDiffers) {
  const std::vector<std::pair<const char*, std::function<void(EpochState*)>>> changes = {
      {"version 2, newer", [](EpochState* s) { s->version = 2; }},
      {"4 files of 300 bytes", [](EpochState* s) { s->data.files = 4; }},
      {"names or sizes", [](EpochState* s) { s->data.names = "x"; }},
      {"their contents", [](EpochState* s) { s->data.footers = "x"; }},
      {"columns", [](EpochState* s) { s->columns = "x"; }},
      {"filter (x > 1), and here there is no filter", [](EpochState* s) { s->filter = "(x > 1)"; }},
      {"batch_size was 11 and is 10", [](EpochState* s) { s->batch_size = 11; }},
      {"shuffle was False and is True", [](EpochState* s) { s->shuffle = false; }},
      {"seed was 6 and is 5", [](EpochState* s) { s->seed = 6; }},
      {"windows of its shuffle had 1 rows and have 1000 here", [](EpochState* s) { s->shuffle_window_rows = 1; }},
      {"uneven was \"repeat\" and is \"drop\"", [](EpochState* s) { s->uneven = Uneven::kRepeat; }},
      {"limit was 9 and is None", [](EpochState* s) { s->limit = 9; }},
      {"corrupt: `epoch`", [](EpochState* s) { s->epoch = -1; }},
      {"corrupt: `rank`", [](EpochState* s) { s->rank = 1; }},
      {"corrupt: `history`", [](EpochState* s) { s->history.clear(); }},
      {"corrupt: a number of rows", [](EpochState* s) { s->history[0].rows = -1; }},
      {"corrupt: a world_size", [](EpochState* s) { s->history[0].world_size = 0; }},
      {"corrupt: rows", [](EpochState* s) { s->history[0].taken = {{{5, 6}, {1, 2}}}; }},
      {"corrupt: `history` has rows", [](EpochState* s) { s->history[0].taken = {{{1, 2}}, {{1, 2}}}; }},
  };
  for (const auto& [words, change] : changes) {
    EpochState saved = Own();
    change(&saved);
    const arrow::Status status = CheckState(saved, Own());
    EXPECT_TRUE(status.IsInvalid()) << words;
    EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
  }
  EXPECT_TRUE(CheckState(Own(), Own()).ok());
}

TEST(CheckStateTest, WithoutShuffleTheSeedDoesNotMatter) {
  EpochState saved = Own(), own = Own();
  saved.shuffle = own.shuffle = false;
  saved.seed = 8;
  EXPECT_TRUE(CheckState(saved, own).ok());
}

std::vector<EpochState> RanksOf(int64_t world_size) {
  std::vector<EpochState> states(static_cast<size_t>(world_size), Own());
  for (int64_t rank = 0; rank < world_size; ++rank) {
    states[static_cast<size_t>(rank)].rank = rank;
    states[static_cast<size_t>(rank)].history = {{7, 1, {}}, {world_size, 7, {}}};
  }
  return states;
}

TEST(MergeStatesTest, RanksInStepAreOneOfThem) { EXPECT_EQ(MergeStates(RanksOf(3)).ValueOrDie(), RanksOf(3)[0]); }

TEST(MergeStatesTest, KeepsWhatEachRankHasHad) {
  auto states = RanksOf(3);
  states[0].history.back() = {3, 0, {{{0, 4}}}};
  states[2].history.back() = {3, 0, {{{0, 9}, {12, 14}}}};
  std::swap(states[0], states[1]);
  const EpochState merged = MergeStates(states).ValueOrDie();
  ASSERT_EQ(merged.history.size(), 2U);
  EXPECT_EQ(merged.history.back(), (EpochPhase{3, 0, {{{0, 4}}, {{0, 7}}, {{0, 9}, {12, 14}}}}));
  EXPECT_TRUE(CheckState(merged, Own()).ok());
}

TEST(MergeStatesTest, RefusesWhatIsNotAllRanksOfOneMoment) {
  auto missing = RanksOf(3);
  missing.pop_back();
  EXPECT_TRUE(MergeStates(missing).status().IsInvalid());
  auto twice = RanksOf(3);
  twice[2].rank = 1;
  EXPECT_TRUE(MergeStates(twice).status().IsInvalid());
  auto later = RanksOf(3);
  later[1].epoch = 3;
  EXPECT_TRUE(MergeStates(later).status().IsInvalid());
  auto other = RanksOf(3);
  other[1].history.front().rows = 2;
  EXPECT_TRUE(MergeStates(other).status().IsInvalid());
  EXPECT_TRUE(MergeStates({}).status().IsInvalid());
}

}  // namespace
}  // namespace penstock

#include "plan/epoch_run.h"

#include <gtest/gtest.h>

#include <random>

#include "plan/row_ranges.h"
#include "plan/state_check.h"

namespace penstock {
namespace {

// (epoch, position) of every row of a run.
std::vector<std::pair<int64_t, int64_t>> RowsOf(const EpochRun& run) {
  std::vector<std::pair<int64_t, int64_t>> rows;
  for (int64_t n = 0; n < run.num_epochs(); ++n) {
    for (const RowRange& range : run.ranges(n)) {
      for (int64_t row = range.begin; row < range.end; ++row) rows.emplace_back(run.epoch(n), row);
    }
  }
  return rows;
}

TEST(EpochRunTest, CountsWhatIsDroppedAndRepeated) {
  EXPECT_EQ(EpochRun(11, {0, 3, Uneven::kDrop}, 0, 1).dropped_rows(), 2);
  EXPECT_EQ(EpochRun(11, {0, 3, Uneven::kRepeat}, 0, 1).repeated_rows(), 1);
  EXPECT_EQ(EpochRun(11, {0, 3, Uneven::kRepeat}, 0, 2).num_rows(), 8);
  EXPECT_FALSE(EpochRun().is_length_known());
}

// Wherever one is, and however often one stops: what comes is what would have come.
TEST(EpochRunTest, ResumeAtEveryRowGoesOnAsIfNothingHadHappened) {
  for (const Uneven uneven : {Uneven::kDrop, Uneven::kRepeat}) {
    for (int64_t rank = 0; rank < 3; ++rank) {
      const EpochRun run(14, {rank, 3, uneven}, 4, 3);
      const auto rows = RowsOf(run);
      ASSERT_EQ(static_cast<int64_t>(rows.size()), run.num_rows());
      for (int64_t had = 0; had <= run.num_rows(); ++had) {
        EpochState state;
        run.Locate(had == 0 ? RowRanges{} : RowRanges{{0, had}}, true, &state);
        const EpochRun rest = EpochRun::Resume(14, {rank, 3, uneven}, state, 7 - state.epoch).ValueOrDie();
        EXPECT_EQ(RowsOf(rest), std::vector(rows.begin() + had, rows.end())) << had;
        for (int64_t more = 1; had + more <= run.num_rows(); more += 3) {
          EpochState later;
          rest.Locate({{0, more}}, true, &later);
          EpochState direct;
          run.Locate({{0, had + more}}, true, &direct);
          EXPECT_EQ(later, direct) << had << " + " << more;
        }
      }
    }
  }
}

TEST(EpochRunTest, RowsOutOfOrderAreNotReadAgain) {
  std::mt19937_64 random(8);
  for (int trial = 0; trial < 500; ++trial) {
    EpochRun run(40, {1, 2, Uneven::kDrop}, 0, 1);
    std::vector<std::pair<int64_t, int64_t>> seen;
    for (int stop = 0; stop < 3; ++stop) {
      RowRanges had;
      const auto rows = RowsOf(run);
      for (size_t i = 0; i < rows.size(); ++i) {
        if (random() % 3 != 0) continue;
        const auto row = static_cast<int64_t>(i);
        Append(&had, {row, row + 1});
        seen.push_back(rows[i]);
      }
      EpochState state;
      run.Locate(had, false, &state);
      run = EpochRun::Resume(40, {1, 2, Uneven::kDrop}, state, 1).ValueOrDie();
    }
    const auto rest = RowsOf(run);
    seen.insert(seen.end(), rest.begin(), rest.end());
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, RowsOf(EpochRun(40, {1, 2, Uneven::kDrop}, 0, 1)));
  }
}

TEST(EpochRunTest, AnotherWorldSizeNeedsEveryRanksRows) {
  EpochState own;
  EpochRun(40, {1, 2, Uneven::kDrop}, 0, 1).Locate({{3, 5}}, false, &own);
  EXPECT_TRUE(EpochRun::Resume(40, {0, 3, Uneven::kDrop}, own, 1).status().IsInvalid());
  EXPECT_TRUE(EpochRun::Resume(40, {0, 2, Uneven::kDrop}, own, 1).status().IsInvalid());
  EpochState other;
  EpochRun(40, {0, 2, Uneven::kDrop}, 0, 1).Locate({{0, 20}}, false, &other);
  const EpochState both = MergeStates({own, other}).ValueOrDie();
  std::vector<std::pair<int64_t, int64_t>> rows;
  for (int64_t rank = 0; rank < 3; ++rank) {
    const auto of_rank = RowsOf(EpochRun::Resume(40, {rank, 3, Uneven::kDrop}, both, 1).ValueOrDie());
    EXPECT_EQ(of_rank.size(), 6U);
    rows.insert(rows.end(), of_rank.begin(), of_rank.end());
  }
  const auto all = RowsOf(EpochRun::Resume(40, {1, 2, Uneven::kDrop}, both, 1).ValueOrDie());
  EXPECT_EQ(rows, all);
}

}  // namespace
}  // namespace penstock

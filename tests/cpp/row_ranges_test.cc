#include "plan/row_ranges.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace penstock {
namespace {

std::vector<int64_t> RowsOf(const RowRanges& ranges) {
  std::vector<int64_t> rows;
  for (const RowRange& range : ranges) {
    for (int64_t row = range.begin; row < range.end; ++row) rows.push_back(row);
  }
  return rows;
}

TEST(RowRangesTest, SliceCountsOverAllRanges) {
  const RowRanges ranges = {{0, 3}, {10, 12}, {5, 9}};
  EXPECT_EQ(Slice(ranges, 0, 9), ranges);
  EXPECT_EQ(Slice(ranges, 2, 4), (RowRanges{{2, 3}, {10, 11}}));
  EXPECT_EQ(Slice(ranges, 3, 3), RowRanges{});
  EXPECT_EQ(Slice(ranges, 8, 100), (RowRanges{{8, 9}}));
}

TEST(RowRangesTest, WithoutAndUnionAreEachOthersReverse) {
  const RowRanges ranges = {{100, 110}, {200, 210}};
  EXPECT_EQ(Without(ranges, {{0, 2}, {5, 12}}), (RowRanges{{102, 105}, {202, 210}}));
  EXPECT_EQ(Complement({{0, 2}, {5, 12}}, 20), (RowRanges{{2, 5}, {12, 20}}));
  EXPECT_EQ(Union({{0, 2}, {8, 10}}, {{2, 5}, {9, 12}}), (RowRanges{{0, 5}, {8, 12}}));
}

TEST(ShareTest, DropGivesEachRankAsManyConsecutiveRows) {
  const RowRanges all = {{0, 11}};
  EXPECT_EQ(ShareOf(all, 0, 3, Uneven::kDrop), (RowRanges{{0, 3}}));
  EXPECT_EQ(ShareOf(all, 2, 3, Uneven::kDrop), (RowRanges{{6, 9}}));
  EXPECT_EQ(ShareOf(all, 2, 12, Uneven::kDrop), RowRanges{});
}

TEST(ShareTest, RepeatGoesOnAtTheFront) {
  const RowRanges all = {{0, 11}};
  EXPECT_EQ(ShareOf(all, 0, 3, Uneven::kRepeat), (RowRanges{{0, 4}}));
  EXPECT_EQ(ShareOf(all, 2, 3, Uneven::kRepeat), (RowRanges{{8, 11}, {0, 1}}));
  EXPECT_EQ(ShareOf({{0, 2}}, 4, 5, Uneven::kRepeat), (RowRanges{{0, 1}}));
  EXPECT_EQ(ShareOf({{0, 2}}, 1, 5, Uneven::kRepeat), (RowRanges{{1, 2}}));
  EXPECT_EQ(ShareOf({}, 1, 5, Uneven::kRepeat), RowRanges{});
}

TEST(ShareTest, StepsBeyondTheShareAreItsEnd) {
  EXPECT_EQ(LeftAfter({{0, 11}}, {3, 4, {}}, Uneven::kDrop), (RowRanges{{9, 11}}));
  EXPECT_EQ(LeftAfter({{0, 11}}, {3, int64_t{1} << 62, {}}, Uneven::kDrop), (RowRanges{{9, 11}}));
}

// An epoch read by phases of different world sizes, in steps or by each rank at its own pace, up to the end of the
// last: no row twice, none missing but fewer than the last world size; with repeat, none missing at all.
TEST(ElasticTest, EachRowOnceOverRandomHistories) {
  std::mt19937_64 random(5);
  const auto below = [&](int64_t bound) { return static_cast<int64_t>(random() % static_cast<uint64_t>(bound)); };
  for (int trial = 0; trial < 3000; ++trial) {
    const int64_t rows = below(400);
    const Uneven uneven = below(2) == 0 ? Uneven::kDrop : Uneven::kRepeat;
    std::map<int64_t, int> times;
    std::vector<EpochPhase> history;
    const int64_t phases = 1 + below(5);
    for (int64_t p = 0; p < phases; ++p) {
      const bool is_last = p + 1 == phases;
      const RowRanges left = LeftOfEpoch(rows, history, uneven);
      EpochPhase phase{1 + below(9), is_last ? rows + 1 : below(40), {}};
      const bool is_together = below(2) == 0;
      for (int64_t rank = 0; rank < phase.world_size; ++rank) {
        const RowRanges share = ShareOf(left, rank, phase.world_size, uneven);
        ASSERT_EQ(CountRows(share), ShareRows(CountRows(left), phase.world_size, uneven));
        RowRanges taken = {{0, std::min(CountRows(share), phase.rows)}};
        if (!is_together && !is_last) {
          taken.clear();
          for (int64_t row = 0; row < CountRows(share); ++row) {
            if (below(2) == 0) Append(&taken, {row, row + 1});
          }
          phase.taken.push_back(taken);
        }
        for (const RowRange& range : taken) {
          for (int64_t row : RowsOf(Slice(share, range.begin, range.end))) ++times[row];
        }
      }
      history.push_back(phase);
    }
    const int64_t missing = rows - static_cast<int64_t>(times.size());
    EXPECT_LT(missing, uneven == Uneven::kDrop ? history.back().world_size : 1) << trial;
    EXPECT_EQ(missing, CountRows(LeftOfEpoch(rows, history, uneven))) << trial;
    if (uneven == Uneven::kDrop) {
      for (const auto& [row, count] : times) ASSERT_EQ(count, 1) << "row " << row << " in trial " << trial;
    }
  }
}

// So that a history may join equal world sizes, and saving changes nothing.
TEST(ElasticTest, TheSameWorldSizeGoesOnAsIfNothingHadHappened) {
  std::mt19937_64 random(6);
  for (int trial = 0; trial < 1000; ++trial) {
    const auto rows = static_cast<int64_t>(random() % 300);
    const auto world_size = static_cast<int64_t>(1 + random() % 8);
    const auto had = static_cast<int64_t>(random() % 60);
    const RowRanges left = LeftOfEpoch(rows, std::vector<EpochPhase>{{world_size, had, {}}}, Uneven::kDrop);
    for (int64_t rank = 0; rank < world_size; ++rank) {
      const RowRanges share = ShareOf({{0, rows}}, rank, world_size, Uneven::kDrop);
      EXPECT_EQ(RowsOf(ShareOf(left, rank, world_size, Uneven::kDrop)), RowsOf(Without(share, {{0, had}})));
    }
  }
}

}  // namespace
}  // namespace penstock

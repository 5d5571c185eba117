#include "plan/window_cursor.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock {
namespace {

std::vector<Window> WindowsOf(const ShufflePlan& plan, const EpochRun& run) {
  WindowCursor cursor(plan, run);
  std::vector<Window> windows;
  while (auto window = cursor.Next()) windows.push_back(*window);
  EXPECT_FALSE(cursor.Next());
  return windows;
}

TEST(WindowCursorTest, WholeEpochsInWindowsOfWhichTheLastIsShort) {
  const ShufflePlan plan{7, 10, 25};
  const auto windows = WindowsOf(plan, EpochRun(25, {}, 3, 2));
  ASSERT_EQ(windows.size(), 6);
  for (size_t i = 0; i < windows.size(); ++i) {
    EXPECT_EQ(windows[i].key.seed, 7);
    EXPECT_EQ(windows[i].key.epoch, i < 3 ? 3 : 4);
    EXPECT_EQ(windows[i].number, i % 3);
    EXPECT_EQ(windows[i].begin_row, static_cast<int64_t>(i % 3) * 10);
    EXPECT_EQ(windows[i].rows, i % 3 == 2 ? 5 : 10);
    EXPECT_EQ(windows[i].wanted, (RowRanges{{0, windows[i].rows}}));
  }
  EXPECT_EQ(WindowCursor::RowsOf(plan, EpochRun(25, {}, 3, 2), 1), (RowRanges{{0, 25}}));
}

// Of a run whose end shows when it is there: the window that it goes on in is whole, its front is not wanted.
TEST(WindowCursorTest, WindowsWithoutAnEndFromARowOn) {
  WindowCursor cursor({7, 10, kUnknownRows}, EpochRun(3, 24));
  for (uint32_t number = 2; number < 5; ++number) {
    const auto window = cursor.Next();
    ASSERT_TRUE(window);
    EXPECT_EQ(window->key.epoch, 3);
    EXPECT_EQ(window->number, number);
    EXPECT_EQ(window->begin_row, number * 10);
    EXPECT_EQ(window->rows, 10);
    EXPECT_EQ(window->wanted, (RowRanges{{number == 2 ? 4 : 0, 10}}));
  }
}

// Where what is mixed is made of the rows, the rows are read as they are divided.
TEST(WindowCursorTest, WithoutWindowsTheRowsAreThoseOfTheRun) {
  const EpochRun run(40, {1, 3, Uneven::kDrop}, 0, 1);
  EXPECT_EQ(WindowCursor::RowsOf({0, 0, 40}, run, 0), (RowRanges{{13, 26}}));
}

// A rank reads whole windows, of which it wants a part.
TEST(WindowCursorTest, ARankWantsPartsOfTheWindowsAtItsSeams) {
  const ShufflePlan plan{0, 10, 40};
  const EpochRun run(40, {1, 3, Uneven::kDrop}, 0, 1);  // [13, 26).
  const auto windows = WindowsOf(plan, run);
  ASSERT_EQ(windows.size(), 2);
  EXPECT_EQ(windows[0].number, 1);
  EXPECT_EQ(windows[0].wanted, (RowRanges{{3, 10}}));
  EXPECT_EQ(windows[1].number, 2);
  EXPECT_EQ(windows[1].wanted, (RowRanges{{0, 6}}));
  EXPECT_EQ(WindowCursor::RowsOf(plan, run, 0), (RowRanges{{10, 30}}));
}

// Rows that come again at the end are another visit; parts of one window that follow each other are not.
TEST(WindowCursorTest, WindowsThatComeAgain) {
  const ShufflePlan plan{0, 10, 11};
  const EpochRun run(11, {3, 4, Uneven::kRepeat}, 0, 1);  // [9, 11), and row 0 again.
  const auto windows = WindowsOf(plan, run);
  ASSERT_EQ(windows.size(), 3);
  EXPECT_EQ(windows[0].wanted, (RowRanges{{9, 10}}));
  EXPECT_EQ(windows[1].wanted, (RowRanges{{0, 1}}));
  EXPECT_EQ(windows[2].number, 0);
  EXPECT_EQ(windows[2].wanted, (RowRanges{{0, 1}}));
  EXPECT_EQ(WindowCursor::RowsOf(plan, run, 0), (RowRanges{{0, 11}, {0, 10}}));

  EpochState state;
  state.history = {{1, 0, {{{0, 2}, {4, 6}, {8, 15}}}}};
  const auto rest = WindowsOf({0, 10, 30}, EpochRun::Resume(30, {}, state, 1).ValueOrDie());
  ASSERT_EQ(rest.size(), 3);
  EXPECT_EQ(rest[0].wanted, (RowRanges{{2, 4}, {6, 8}}));
  EXPECT_EQ(rest[1].wanted, (RowRanges{{5, 10}}));
  EXPECT_EQ(rest[2].wanted, (RowRanges{{0, 10}}));
}

}  // namespace
}  // namespace penstock

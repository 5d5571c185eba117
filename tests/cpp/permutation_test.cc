#include "plan/permutation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "plan/philox.h"

namespace penstock {
namespace {

// The known answers published with Random123 (kat_vectors).
TEST(PhiloxTest, GivesThePublishedNumbers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

std::vector<int64_t> AllOf(const Permutation& permutation) {
  std::vector<int64_t> all(static_cast<size_t>(permutation.size()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = permutation.At(static_cast<int64_t>(i));
  return all;
}

TEST(PermutationTest, HasEachValueOnceAndKnowsItsPosition) {
  for (int64_t size : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 100, 1000, 1023, 1024, 1025, 65'537}) {
    const Permutation permutation({7, 3}, size);
    std::vector<int64_t> all = AllOf(permutation);
    for (int64_t i = 0; i < size; ++i) ASSERT_EQ(permutation.PositionOf(all[static_cast<size_t>(i)]), i) << size;
    std::sort(all.begin(), all.end());
    for (int64_t i = 0; i < size; ++i) ASSERT_EQ(all[static_cast<size_t>(i)], i) << size;
  }
  const int64_t most = int64_t{1} << 62;
  const Permutation large({7, 3}, most);
  for (int64_t i : {int64_t{0}, int64_t{1}, most / 3, most - 1}) EXPECT_EQ(large.PositionOf(large.At(i)), i);
}

TEST(PermutationTest, IsAnotherForEachSeedAndEpoch) {
  const auto first = AllOf(Permutation({1, 0}, 1000));
  EXPECT_EQ(first, AllOf(Permutation({1, 0}, 1000)));
  EXPECT_NE(first, AllOf(Permutation({1, 1}, 1000)));
  EXPECT_NE(first, AllOf(Permutation({2, 0}, 1000)));
  EXPECT_NE(first, AllOf(Permutation({uint64_t{1} << 32 | 1, 0}, 1000)));
}

// Sum of squared deviations over the expected count: about the number of outcomes less one, with a standard deviation
// of the root of twice that.
template <typename Outcomes>
double ChiSquare(const Outcomes& counts, size_t outcomes, double draws) {
  const double expected = draws / static_cast<double>(outcomes);
  double sum = static_cast<double>(outcomes - counts.size()) * expected;
  for (const auto& [outcome, count] : counts) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

// Few row groups are the hard case of a Feistel network: every order must be as likely as every other.
TEST(PermutationTest, IsUniformOverAllOrdersOfFewRowGroups) {
  const std::map<int64_t, size_t> orders = {{2, 2}, {3, 6}, {4, 24}, {5, 120}};
  for (const auto& [size, outcomes] : orders) {
    std::map<std::vector<int64_t>, double> counts;
    constexpr int kDraws = 60'000;
    for (int draw = 0; draw < kDraws; ++draw) ++counts[AllOf(Permutation({static_cast<uint64_t>(draw), 5}, size))];
    const auto freedom = static_cast<double>(outcomes - 1);
    EXPECT_LT(ChiSquare(counts, outcomes, kDraws), freedom + 5 * std::sqrt(2 * freedom)) << size;
  }
}

// Where each value lands, over many epochs.
TEST(PermutationTest, PutsEachValueAnywhere) {
  constexpr int64_t kSize = 37;
  constexpr int kEpochs = 20'000;
  std::map<std::pair<int64_t, int64_t>, double> counts;
  for (uint32_t epoch = 0; epoch < kEpochs; ++epoch) {
    const Permutation permutation({11, epoch}, kSize);
    for (int64_t i = 0; i < kSize; ++i) ++counts[{i, permutation.At(i)}];
  }
  const double freedom = (kSize - 1) * (kSize - 1);
  EXPECT_LT(ChiSquare(counts, kSize * kSize, static_cast<double>(kSize) * kEpochs),
            freedom + 5 * std::sqrt(2 * freedom));
}

std::vector<uint32_t> Window(ShuffleKey key, uint32_t window, size_t rows) {
  std::vector<uint32_t> order(rows);
  ShuffleWindow(key, window, order);
  return order;
}

TEST(ShuffleWindowTest, HasEachRowOnce) {
  for (size_t rows : {0, 1, 2, 31, 32, 33, 34, 1000, 100'003}) {
    std::vector<uint32_t> order = Window({7, 3}, 1, rows);
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < rows; ++i) ASSERT_EQ(order[i], i);
  }
}

// The order is a promise to whoever resumes: it may not change from release to release, or from machine to machine.
TEST(ShuffleWindowTest, IsTheSameForEver) {
  EXPECT_EQ(Window({0, 0}, 0, 8), (std::vector<uint32_t>{0, 3, 1, 2, 7, 5, 4, 6}));
  EXPECT_EQ(AllOf(Permutation({0, 0}, 8)), (std::vector<int64_t>{1, 5, 6, 7, 3, 4, 2, 0}));
}

TEST(ShuffleWindowTest, IsAnotherForEachSeedEpochAndWindow) {
  const auto first = Window({1, 0}, 0, 1000);
  EXPECT_EQ(first, Window({1, 0}, 0, 1000));
  EXPECT_NE(first, Window({1, 0}, 1, 1000));
  EXPECT_NE(first, Window({1, 1}, 0, 1000));
  EXPECT_NE(first, Window({2, 0}, 0, 1000));
}

TEST(ShuffleWindowTest, IsUniformOverAllOrders) {
  std::map<std::vector<uint32_t>, double> counts;
  constexpr int kDraws = 60'000;
  for (uint32_t draw = 0; draw < kDraws; ++draw) ++counts[Window({3, 0}, draw, 5)];
  EXPECT_LT(ChiSquare(counts, 120, kDraws), 119 + 5 * std::sqrt(2 * 119.));
}

}  // namespace
}  // namespace penstock

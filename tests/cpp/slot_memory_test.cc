#include "memory/slot_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace penstock {
namespace {

constexpr int64_t kBytes = 5000;  // Not a whole page.

SlotMemory Take(SlotRegion& region) {
  auto memory = region.Take();
  EXPECT_TRUE(memory.ok()) << memory.status();
  return memory.ok() ? std::move(*memory) : SlotMemory();
}

TEST(SlotRegionTest, SlotsLieSideBySide) {
  const auto region = SlotRegion::Map(kBytes, 3);
  ASSERT_TRUE(region.ok()) << region.status();
  const SlotMemory first = Take(**region), second = Take(**region);
  EXPECT_EQ(second.data(), first.data() + first.bytes());
  EXPECT_GE(first.bytes(), kBytes);
}

TEST(SlotRegionTest, WhatIsGivenBackReadsAsZerosAgain) {
  const auto region = SlotRegion::Map(kBytes, 1);
  ASSERT_TRUE(region.ok()) << region.status();
  const uint8_t* at = nullptr;
  {
    const SlotMemory memory = Take(**region);
    at = memory.data();
    std::memset(memory.data(), 1, kBytes);
  }
  const SlotMemory again = Take(**region);
  EXPECT_EQ(again.data(), at);
  EXPECT_EQ(std::vector<uint8_t>(again.data(), again.data() + kBytes), std::vector<uint8_t>(kBytes));
}

TEST(SlotRegionTest, BeyondTheMostASlotHasItsOwnMapping) {
  const auto region = SlotRegion::Map(kBytes, 1);
  ASSERT_TRUE(region.ok()) << region.status();
  const SlotMemory first = Take(**region), second = Take(**region);
  std::memset(first.data(), 1, kBytes);
  std::memset(second.data(), 2, kBytes);
  EXPECT_EQ(first.data()[kBytes - 1], 1);
}

TEST(SlotRegionTest, ASlotKeepsItsRegion) {
  SlotMemory memory;
  {
    const auto region = SlotRegion::Map(kBytes, 2);
    ASSERT_TRUE(region.ok()) << region.status();
    memory = Take(**region);
  }
  std::memset(memory.data(), 1, kBytes);
  EXPECT_EQ(memory.data()[0], 1);
}

}  // namespace
}  // namespace penstock

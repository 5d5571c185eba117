#include "penstock/ledger.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "memory/reserved_pool.h"

namespace penstock {
namespace {

// The promise that the project makes: however threads interleave, what was taken stays within the budget, and all of it
// comes back.
TEST(LedgerTest, NeverExceedsBudgetUnderContention) {
  constexpr int64_t kBudgetBytes = 1000;
  Ledger ledger(kBudgetBytes);
  std::atomic<int64_t> live_bytes{0};
  std::atomic<bool> is_exceeded{false};
  {
    std::vector<std::jthread> workers;
    for (int w = 0; w < 8; ++w) {
      workers.emplace_back([&, w] {
        for (int i = 0; i < 2000; ++i) {
          const int64_t want = 1 + (w * 131 + i * 37) % kBudgetBytes;
          if (!ledger.TryAdd(Account::kDecode, want)) continue;
          if (live_bytes.fetch_add(want) + want > kBudgetBytes) is_exceeded = true;
          live_bytes.fetch_sub(want);
          ledger.Sub(Account::kDecode, want);
        }
      });
    }
  }
  EXPECT_FALSE(is_exceeded);
  const MemoryReport report = ledger.Report();
  EXPECT_GT(report.total.peak_bytes, 0);
  EXPECT_LE(report.total.peak_bytes, kBudgetBytes);
  EXPECT_EQ(report.total.current_bytes, 0);
  EXPECT_EQ(report.over_budget_bytes, 0);
}

TEST(LedgerTest, SetAsideIsOutOfReachOfTheOtherGroup) {
  Ledger ledger(100);
  ledger.SetAside({.slot_bytes = 40, .decode_bytes = 30});
  EXPECT_FALSE(ledger.TryAdd(Account::kDecode, 61));
  ASSERT_TRUE(ledger.TryAdd(Account::kDecode, 60));
  ASSERT_TRUE(ledger.TryAdd(Account::kSlots, 40));
  EXPECT_FALSE(ledger.TryAdd(Account::kSlots, 1));
  ledger.Sub(Account::kDecode, 60);
  EXPECT_EQ(ledger.FreeBytes(Account::kSlots), 30);  // The other 30 are for decoding.
  EXPECT_EQ(ledger.FreeBytes(Account::kDecode), 60);
}

TEST(LedgerTest, SlotsLeaveTheWindowsOfAShuffleTheirRoom) {
  Ledger ledger(100);
  ledger.SetAside({.slot_bytes = 20, .shuffle_bytes = 50});
  ASSERT_TRUE(ledger.TryAdd(Account::kShuffle, 10));
  EXPECT_EQ(ledger.FreeBytes(Account::kSlots), 50);
  ASSERT_TRUE(ledger.TryAdd(Account::kUser, 50));
  EXPECT_FALSE(ledger.TryAdd(Account::kSlots, 1));
  EXPECT_EQ(ledger.FreeBytes(Account::kShuffle), 40);
}

TEST(LedgerTest, MovingKeepsTheSum) {
  Ledger ledger(100);
  ASSERT_TRUE(ledger.TryAdd(Account::kSlots, 80));
  ledger.Move(Account::kSlots, Account::kUser, 80);
  const MemoryReport report = ledger.Report();
  EXPECT_EQ(report[Account::kSlots].current_bytes, 0);
  EXPECT_EQ(report[Account::kUser].current_bytes, 80);
  EXPECT_EQ(report.total.peak_bytes, 80);
}

TEST(LedgerTest, WhatOthersAllocatedShowsAsOverBudget) {
  Ledger ledger(100);
  ledger.Add(Account::kPython, 130);
  EXPECT_EQ(ledger.Report().over_budget_bytes, 30);
  EXPECT_FALSE(ledger.TryAdd(Account::kSlots, 1));
}

TEST(LedgerTest, WhatOthersAllocatedTakesNothingFromWhatIsSetAside) {
  Ledger ledger(100);
  ledger.SetAside({.slot_bytes = 40, .decode_bytes = 30, .metadata_bytes = 10});
  ledger.Add(Account::kPython, 200);
  EXPECT_EQ(ledger.FreeBytes(Account::kSlots), -140);  // The same group: its own excess.
  EXPECT_FALSE(ledger.TryAdd(Account::kSlots, 1));
  EXPECT_FALSE(ledger.TryAdd(Account::kDecode, 31));
  ASSERT_TRUE(ledger.TryAdd(Account::kDecode, 20));
  EXPECT_FALSE(ledger.TryAdd(Account::kBlocks, 11));
  EXPECT_TRUE(ledger.TryAdd(Account::kBlocks, 10));
  EXPECT_TRUE(ledger.TryAdd(Account::kMetadata, 10));
  EXPECT_EQ(ledger.Report().over_budget_bytes, 140);
}

TEST(ReservedPoolTest, RefusesWhatExceedsTheBudgetBeforeAllocating) {
  auto ledger = std::make_shared<Ledger>(1 << 20);
  auto pool = ReservedPool::TryMake(ledger, 1000);
  ASSERT_NE(pool, nullptr);
  uint8_t* data = nullptr;
  EXPECT_TRUE(pool->Allocate(2 << 20, 64, &data).IsOutOfMemory());
  EXPECT_GT(pool->refused_bytes(), 1 << 20);
  EXPECT_EQ(pool->bytes_allocated(), 0);
  EXPECT_EQ(ledger->Report()[Account::kDecode].peak_bytes, 1000);
}

TEST(ReservedPoolTest, GrowsBeyondItsPromiseAndGivesTheGrowthBack) {
  auto ledger = std::make_shared<Ledger>(1 << 20);
  auto pool = ReservedPool::TryMake(ledger, 1000);
  uint8_t* data = nullptr;
  ASSERT_TRUE(pool->Allocate(5000, 64, &data).ok());
  EXPECT_EQ(ledger->Report()[Account::kDecode].current_bytes, 5000);
  std::memset(data, 7, 5000);
  ASSERT_TRUE(pool->Reallocate(5000, 9000, 64, &data).ok());
  EXPECT_EQ(data[4999], 7);
  EXPECT_EQ(ledger->Report()[Account::kDecode].peak_bytes, 14000);  // While it moves, both copies exist.
  pool->Free(data, 9000, 64);
  EXPECT_EQ(ledger->Report()[Account::kDecode].current_bytes, 1000);
  pool.reset();
  EXPECT_EQ(ledger->Report().total.current_bytes, 0);
}

TEST(ReservedPoolTest, BlocksAreCountedOnce) {
  auto ledger = std::make_shared<Ledger>(1 << 20);
  auto pool = ReservedPool::TryMake(ledger, 4000);
  uint8_t* data = nullptr;
  ASSERT_TRUE(pool->Allocate(3000, 64, &data).ok());
  pool->MoveToBlocks(3000);
  EXPECT_EQ(ledger->Report()[Account::kBlocks].current_bytes, 3000);
  EXPECT_EQ(ledger->Report().total.current_bytes, 4000);
  pool->MoveFromBlocks(3000);
  pool->Free(data, 3000, 64);
  pool.reset();
  EXPECT_EQ(ledger->Report().total.current_bytes, 0);
}

// Arrow's own capped pool can be overshot by threads that allocate at once; this one cannot.
TEST(ReservedPoolTest, ThreadsCannotOvershootTheBudget) {
  constexpr int64_t kBudgetBytes = 1 << 20;
  auto ledger = std::make_shared<Ledger>(kBudgetBytes);
  auto pool = ReservedPool::TryMake(ledger, 0);
  std::atomic<int64_t> live_bytes{0};
  std::atomic<bool> is_exceeded{false};
  {
    std::vector<std::jthread> workers;
    for (int w = 0; w < 8; ++w) {
      workers.emplace_back([&, w] {
        for (int i = 0; i < 300; ++i) {
          const int64_t size = 1 + (w * 7919 + i * 104729) % (kBudgetBytes / 3);
          uint8_t* data = nullptr;
          if (!pool->Allocate(size, 64, &data).ok()) continue;
          if (live_bytes.fetch_add(size) + size > kBudgetBytes) is_exceeded = true;
          live_bytes.fetch_sub(size);
          pool->Free(data, size, 64);
        }
      });
    }
  }
  EXPECT_FALSE(is_exceeded);
  EXPECT_LE(ledger->Report().total.peak_bytes, kBudgetBytes);
  pool.reset();
  EXPECT_EQ(ledger->Report().total.current_bytes, 0);
}

}  // namespace
}  // namespace penstock

#include "source/range_reader.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <arrow/util/thread_pool.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace penstock {
namespace {

using arrow::io::ReadRange;

constexpr int64_t kMiB = int64_t{1} << 20;

std::vector<ReadRange> RangesOf(const FetchPlan& plan) {
  std::vector<ReadRange> ranges;
  for (const FetchPlan::Block& block : plan.blocks) ranges.push_back(block.range);
  return ranges;
}

TEST(FetchPlanTest, NearColumnsShareARequestAndLongOnesAreCut) {
  const int64_t hole = FetchPlan::kHoleBytes;
  const auto plan = FetchPlan::Of({{5 * kMiB, 100}, {0, 1000}, {1000 + hole, 500}, {6 * kMiB, 20 * kMiB}}, 64 * kMiB);
  EXPECT_TRUE(plan.is_whole);
  EXPECT_EQ(
      RangesOf(plan),
      (std::vector<ReadRange>{
          {0, 1500 + hole}, {5 * kMiB, 100}, {6 * kMiB, 8 * kMiB}, {14 * kMiB, 8 * kMiB}, {22 * kMiB, 4 * kMiB}}));
  EXPECT_EQ(plan.blocks[0].columns, 2);
  EXPECT_EQ(plan.blocks[3].columns, 1);
  EXPECT_GE(plan.bytes, 1500 + hole + 100 + 20 * kMiB);
  EXPECT_LT(plan.bytes, 1500 + hole + 100 + 20 * kMiB + 5 * 64);
}

TEST(FetchPlanTest, WhatDoesNotFitComesInStepsOrNotAtAll) {
  const std::vector<ReadRange> columns = {{0, 3 * kMiB}, {3 * kMiB, 1000}};
  const auto steps = FetchPlan::Of(columns, 2 * kMiB);
  EXPECT_FALSE(steps.is_whole);
  EXPECT_LE(steps.bytes, 2 * kMiB);
  ASSERT_EQ(steps.blocks.size(), 7U);  // Of half a MiB: two for each of two columns fit.
  EXPECT_EQ(steps.blocks[0].next, 1);
  EXPECT_EQ(steps.blocks[5].next, -1);
  EXPECT_TRUE(FetchPlan::Of(columns, 400 << 10).blocks.empty());
  EXPECT_TRUE(FetchPlan::Of(columns, -1).blocks.empty());
  EXPECT_TRUE(FetchPlan::Of({}, kMiB).blocks.empty());
  EXPECT_TRUE(FetchPlan::Of({{0, 100}, {50, 100}}, kMiB).blocks.empty()) << "damaged";
}

/// A file whose byte at i is i * 31, which counts and can be held up.
class FarFile : public arrow::io::RandomAccessFile {
 public:
  explicit FarFile(int64_t size) : bytes_(static_cast<size_t>(size), '\0') {
    for (int64_t i = 0; i < size; ++i) bytes_[static_cast<size_t>(i)] = static_cast<char>(Byte(i));
  }
  static uint8_t Byte(int64_t i) { return static_cast<uint8_t>(i * 31); }

  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t nbytes) override {
    ++requests;
    if (position == failing) return arrow::Status::IOError("no");
    while (is_held) std::this_thread::yield();
    return arrow::Buffer::FromString(bytes_.substr(static_cast<size_t>(position), static_cast<size_t>(nbytes)));
  }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t nbytes, void* out) override {
    ++direct;
    return static_cast<int64_t>(
        bytes_.copy(static_cast<char*>(out), static_cast<size_t>(nbytes), static_cast<size_t>(position)));
  }

  arrow::Status Close() override { return arrow::Status::OK(); }
  bool closed() const override { return false; }
  arrow::Result<int64_t> GetSize() override { return static_cast<int64_t>(bytes_.size()); }
  arrow::Result<int64_t> Tell() const override { return 0; }
  arrow::Status Seek(int64_t) override { return arrow::Status::OK(); }
  arrow::Result<int64_t> Read(int64_t, void*) override { return 0; }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t) override { return nullptr; }

  std::atomic<int> requests{0}, direct{0};
  std::atomic<bool> is_held{false};
  std::atomic<int64_t> failing{-1};

 private:
  std::string bytes_;
};

class RangeReaderTest : public testing::Test {
 protected:
  RangeReaderTest() {
    auto remote = std::make_shared<RemoteFile>();
    remote->check = [this] { return changed; };
    parquet.file = far;
    parquet.remote = std::move(remote);
  }

  std::shared_ptr<RangeReader> Open(FetchPlan plan, bool may_fetch_ahead, int64_t promise_bytes) {
    pool = ReservedPool::TryMake(ledger, promise_bytes);
    return std::make_shared<RangeReader>(parquet, std::move(plan), pool, may_fetch_ahead ? fetchers.get() : nullptr);
  }
  int64_t held() const { return ledger->Report().total.current_bytes; }

  // Reads a column as Parquet's buffered stream does.
  static arrow::Status ReadColumn(RangeReader& reader, const ReadRange& column, int64_t step) {
    std::vector<uint8_t> buffer(static_cast<size_t>(step));
    for (int64_t at = column.offset; at < column.offset + column.length; at += step) {
      const int64_t wanted = std::min(step, column.offset + column.length - at);
      ARROW_ASSIGN_OR_RAISE(const int64_t read, reader.ReadAt(at, wanted, buffer.data()));
      EXPECT_EQ(read, wanted);
      for (int64_t i = 0; i < read; ++i) {
        if (buffer[static_cast<size_t>(i)] != FarFile::Byte(at + i)) return arrow::Status::IOError("wrong at ", at + i);
      }
    }
    return arrow::Status::OK();
  }

  const std::shared_ptr<Ledger> ledger = std::make_shared<Ledger>(16 * kMiB);
  const std::shared_ptr<FarFile> far = std::make_shared<FarFile>(12 * kMiB);
  const std::shared_ptr<arrow::internal::ThreadPool> fetchers = *arrow::internal::ThreadPool::Make(4);
  arrow::Status changed;
  ParquetFile parquet;
  std::shared_ptr<ReservedPool> pool;
};

const std::vector<ReadRange> kColumns = {{100, 3 * kMiB}, {3 * kMiB + 200, kMiB}, {5 * kMiB, 5 * kMiB}};

TEST_F(RangeReaderTest, EachByteIsAskedForOnceAndFreedBehindTheLastReader) {
  for (const bool ahead : {false, true}) {
    for (const int64_t most : {16 * kMiB, 2 * kMiB}) {
      const auto plan = FetchPlan::Of(kColumns, most);
      const auto blocks = static_cast<int>(plan.blocks.size());
      far->requests = far->direct = 0;
      auto reader = Open(plan, ahead, plan.bytes);
      reader->Start();
      std::vector<std::thread> threads;
      for (const ReadRange& column : kColumns) {
        threads.emplace_back([&] { EXPECT_TRUE(ReadColumn(*reader, column, 60'000).ok()); });
      }
      for (auto& thread : threads) thread.join();
      EXPECT_EQ(far->requests, blocks);
      EXPECT_EQ(far->direct, 0);
      EXPECT_LE(ledger->Report().total.peak_bytes, 16 * kMiB);
      EXPECT_EQ(pool->bytes_allocated(), 0);
      if (plan.is_whole) {
        EXPECT_EQ(held(), 0) << "the promise goes with the bytes";
      }
      EXPECT_TRUE(ReadColumn(*reader, {5 * kMiB, 10}, 10).ok()) << "once more";
      reader.reset();
      pool.reset();
      EXPECT_EQ(held(), 0);
    }
  }
}

TEST_F(RangeReaderTest, WhatWasReadBeforeTheStartIsNotAskedForAgain) {
  const auto plan = FetchPlan::Of(kColumns, 16 * kMiB);
  auto reader = Open(plan, true, plan.bytes);
  for (const ReadRange& column : kColumns) ASSERT_TRUE(ReadColumn(*reader, column, kMiB).ok());
  reader->Start();
  fetchers->WaitForIdle();
  EXPECT_EQ(far->requests, static_cast<int>(plan.blocks.size()));
  EXPECT_EQ(pool->bytes_allocated(), 0);
}

TEST_F(RangeReaderTest, WithoutRoomItReadsDirectly) {
  ASSERT_TRUE(ledger->TryAdd(Account::kSlots, 15 * kMiB));
  auto reader = Open(FetchPlan::Of(kColumns, 16 * kMiB), true, 0);
  reader->Start();
  for (const ReadRange& column : kColumns) EXPECT_TRUE(ReadColumn(*reader, column, 60'000).ok());
  EXPECT_GT(far->direct, 100);
  reader.reset();
  pool.reset();
  EXPECT_EQ(held(), 15 * kMiB);
}

TEST_F(RangeReaderTest, ReadDirectlyFreesWhatWasFetched) {
  const auto plan = FetchPlan::Of(kColumns, 16 * kMiB);
  auto reader = Open(plan, true, plan.bytes);
  reader->Start();
  EXPECT_TRUE(ReadColumn(*reader, {100, 1000}, 1000).ok());
  reader->ReadDirectly();
  EXPECT_EQ(pool->bytes_allocated(), 0);
  EXPECT_TRUE(ReadColumn(*reader, {1100, 1000}, 1000).ok());
  EXPECT_EQ(far->direct, 1);
}

TEST_F(RangeReaderTest, AFailureIsTheReadersOfItsBlockAlone) {
  far->failing = 5 * kMiB;
  const auto plan = FetchPlan::Of(kColumns, 16 * kMiB);
  auto reader = Open(plan, true, plan.bytes);
  reader->Start();
  EXPECT_TRUE(ReadColumn(*reader, kColumns[0], 60'000).ok());
  EXPECT_EQ(ReadColumn(*reader, kColumns[2], 60'000).message(), "no");
  EXPECT_EQ(ReadColumn(*reader, kColumns[2], 60'000).message(), "no");
  EXPECT_TRUE(ReadColumn(*reader, {11 * kMiB, 10}, 10).ok()) << "not in the plan";
  changed = arrow::Status::IOError("changed");
  EXPECT_EQ(ReadColumn(*reader, {11 * kMiB, 10}, 10).message(), "changed");
}

TEST_F(RangeReaderTest, DeathWaitsForRequestsUnderWay) {
  far->is_held = true;
  const auto plan = FetchPlan::Of(kColumns, 16 * kMiB);
  auto reader = Open(plan, true, plan.bytes);
  reader->Start();
  while (far->requests == 0) std::this_thread::yield();
  std::thread release([&] { far->is_held = false; });
  reader.reset();
  pool.reset();
  EXPECT_EQ(held(), 0);
  release.join();
}

}  // namespace
}  // namespace penstock

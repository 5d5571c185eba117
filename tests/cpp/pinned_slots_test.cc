// Page-locked slots, with a stand-in for NVIDIA's driver.
#include "pipeline/pinned_slots.h"

#include <arrow/array/array_primitive.h>
#include <arrow/table.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "fake_cuda.h"
#include "penstock/custom_op.h"
#include "penstock/loader.h"
#include "pipeline/copy_gate.h"
#include "source_testing.h"

namespace penstock {
namespace {

using source_testing::Ints;
using source_testing::Strings;
using source_testing::TableOf;

constexpr int64_t kBatchRows = 150'000;  // Over 1 MiB: one batch is a slot.
constexpr int64_t kNumBatches = 6;

/// While it lives, the devices have work.
class BusyDevices {
 public:
  explicit BusyDevices(const FakeCuda& cuda) : cuda_(cuda) { cuda_.Set("is_busy", 1); }
  ~BusyDevices() { cuda_.Set("is_busy", 0); }

 private:
  const FakeCuda& cuda_;
};

/// Numbers as they are; those of batch 2 not before a lock was refused.
class UntilALockIsRefused final : public CustomOp {
 public:
  explicit UntilALockIsRefused(const FakeCuda& cuda) : cuda_(cuda) {}
  std::string name() const override { return "until_a_lock_is_refused"; }
  arrow::Result<Output> OutputFor(const arrow::Field&) const override { return Output{DType::kInt64, {}}; }
  arrow::Status Apply(const arrow::Array& rows, const RowKey&, uint8_t* out) const override {
    const int64_t* values = static_cast<const arrow::Int64Array&>(rows).raw_values();
    if (values[0] / kBatchRows == 2) cuda_.AwaitRefusal();
    std::copy(values, values + rows.length(), reinterpret_cast<int64_t*>(out));
    return arrow::Status::OK();
  }

 private:
  const FakeCuda& cuda_;
};

class PinnedSlotsTest : public ::testing::Test {
 protected:
  static LoaderOptions Options() {
    std::vector<int64_t> values(static_cast<size_t>(kNumBatches * kBatchRows));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int64_t>(i);
    LoaderOptions options;
    options.table = TableOf({{"x", Ints(values)}});
    options.batch_size = kBatchRows;
    options.num_workers = 2;
    options.prefetch_batches = 1;
    options.pin_memory = PinMemory::kRequired;
    return options;
  }

  // In which the caller waits long for batch 2, so that a slot is added for each of the others.
  LoaderOptions OptionsToGrow() const {
    LoaderOptions options = Options();
    std::vector<std::shared_ptr<arrow::Table>> batches;  // A chunk each: all of them can be worked on at once.
    for (int64_t i = 0; i < 2 * kNumBatches; ++i) {
      std::vector<int64_t> values(kBatchRows);
      for (int64_t row = 0; row < kBatchRows; ++row) values[static_cast<size_t>(row)] = i * kBatchRows + row;
      batches.push_back(TableOf({{"x", Ints(values)}}));
    }
    options.table = *arrow::ConcatenateTables(batches);
    options.transforms = {{"x", "x", {ops::Custom{std::make_shared<UntilALockIsRefused>(cuda_)}}}};
    options.prefetch_batches = -1;
    return options;
  }

  static std::unique_ptr<Loader> MakeLoader(LoaderOptions options) {
    auto loader = Loader::Make(std::move(options));
    EXPECT_TRUE(loader.ok()) << loader.status();
    return loader.ok() ? std::move(*loader) : nullptr;
  }

  static std::optional<Batch> Next(Loader& loader) {
    auto batch = loader.Next();
    EXPECT_TRUE(batch.ok()) << batch.status();
    return batch.ok() ? std::move(*batch) : std::nullopt;
  }

  static int64_t BytesCopied(const Loader& loader) {
    for (const StatsReport::Stage& stage : loader.Stats().stages) {
      if (stage.name == "transform") return stage.bytes;
    }
    return 0;
  }

  static const int64_t* Values(const Batch& batch) { return reinterpret_cast<const int64_t*>(batch.column(0).values); }

  // All rows of an epoch, sorted; every batch is page-locked or not, as expected.
  std::vector<int64_t> ReadEpoch(Loader& loader, bool is_locked = true) const {
    EXPECT_TRUE(loader.StartEpoch().ok());
    std::vector<int64_t> rows;
    while (auto batch = Next(loader)) {
      EXPECT_EQ(cuda_.IsLocked(Values(*batch)), is_locked);
      EXPECT_EQ(cuda_.IsLocked(Values(*batch) + batch->num_rows() - 1), is_locked);
      rows.insert(rows.end(), Values(*batch), Values(*batch) + batch->num_rows());
    }
    std::sort(rows.begin(), rows.end());
    return rows;
  }

  static std::vector<int64_t> AllRows() {
    std::vector<int64_t> rows(static_cast<size_t>(kNumBatches * kBatchRows));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
    return rows;
  }

  const FakeCuda cuda_;
};

// A slot is locked once, however many batches and epochs it serves; and unlocked once, before it is unmapped.
TEST_F(PinnedSlotsTest, EachSlotIsLockedOnce) {
  for (const int workers : {0, 2}) {
    for (const bool is_shuffled : {false, true}) {
      for (const bool waits_for_copies : {false, true}) {
        SCOPED_TRACE(testing::Message() << workers << is_shuffled << waits_for_copies);
        const FakeCuda cuda;
        LoaderOptions options = Options();
        options.num_workers = workers;
        options.shuffle = is_shuffled;
        options.shuffle_window_bytes = 16 << 20;
        options.waits_for_copies = waits_for_copies;
        auto loader = MakeLoader(std::move(options));
        ASSERT_NE(loader, nullptr);
        for (int epoch = 0; epoch < 4; ++epoch) EXPECT_EQ(ReadEpoch(*loader), AllRows());
        loader->EndEpoch();
        EXPECT_LE(cuda.Get("locks"), loader->Explain()->slots);
        EXPECT_EQ(cuda.Get("locks"), loader->Stats().slots_locked);
        EXPECT_EQ(loader->Memory()[Account::kSlots].current_bytes, cuda.Get("locked_bytes"));
        loader->Close();
        EXPECT_EQ(loader->Memory()[Account::kSlots].current_bytes, 0);
        loader.reset();
        cuda.ExpectAllIsGivenBack();
      }
    }
  }
}

// The consumer would wait for it, with the GIL where it is Python's. Also where slots are opened because it keeps some.
TEST_F(PinnedSlotsTest, TheConsumerLocksNothingWhereThereAreWorkers) {
  {
    auto loader = MakeLoader(Options());
    ASSERT_NE(loader, nullptr);
    ASSERT_TRUE(loader->StartEpoch().ok());
    std::vector<Batch> kept;
    while (auto batch = Next(*loader)) kept.push_back(std::move(*batch));
    EXPECT_EQ(cuda_.Get("locks"), kNumBatches);
    EXPECT_EQ(cuda_.Get("locks_here"), 0);
  }
  LoaderOptions options = Options();
  options.num_workers = 0;
  auto here = MakeLoader(std::move(options));
  ASSERT_NE(here, nullptr);
  ReadEpoch(*here);
  EXPECT_EQ(cuda_.Get("locks_here"), here->Stats().slots_locked);
}

TEST_F(PinnedSlotsTest, ABatchThatIsKeptStaysLocked) {
  auto loader = MakeLoader(Options());
  ASSERT_NE(loader, nullptr);
  ASSERT_TRUE(loader->StartEpoch().ok());
  auto batch = Next(*loader);
  ASSERT_TRUE(batch);
  loader->Close();
  EXPECT_EQ(cuda_.Get("locked_now"), 1);
  EXPECT_TRUE(cuda_.IsLocked(Values(*batch)));
  loader.reset();
  EXPECT_TRUE(cuda_.IsLocked(Values(*batch)));
  const int64_t waits = cuda_.Get("waits");
  batch.reset();
  EXPECT_EQ(cuda_.Get("waits"), waits + 1);  // A copy may still be reading it.
  cuda_.ExpectAllIsGivenBack();
}

// Slots that no worker has come round to map are given back.
TEST_F(PinnedSlotsTest, ClosedBeforeASlotIsMapped) {
  LoaderOptions options = Options();
  options.num_workers = 1;
  options.prefetch_batches = 2;
  auto loader = MakeLoader(std::move(options));
  ASSERT_NE(loader, nullptr);
  ASSERT_TRUE(loader->StartEpoch().ok());
  const int64_t num_open = loader->Explain()->slots - 1;  // Until the caller keeps some.
  while (BytesCopied(*loader) < num_open * kBatchRows * 8) std::this_thread::yield();
  cuda_.Set("is_locking_held", 1);
  std::vector<std::optional<Batch>> kept;
  for (int64_t i = 0; i < num_open; ++i) kept.push_back(Next(*loader));
  std::jthread closing([&] { loader->Close(); });
  while (!loader->is_closed()) std::this_thread::yield();
  cuda_.Set("is_locking_held", 0);
  closing.join();
  EXPECT_EQ(loader->Memory()[Account::kSlots].current_bytes, 0);
  kept.clear();
  loader.reset();
  cuda_.ExpectAllIsGivenBack();
}

// At the end of a process the driver may be the first to go.
TEST_F(PinnedSlotsTest, ADriverThatIsGoneIsNoMatter) {
  auto loader = MakeLoader(Options());
  ASSERT_NE(loader, nullptr);
  ASSERT_TRUE(loader->StartEpoch().ok());
  ASSERT_TRUE(Next(*loader));
  loader->EndEpoch();
  cuda_.Set("is_down", 1);
  loader.reset();
  cuda_.Set("is_down", 0);
  EXPECT_EQ(cuda_.Get("unlocks"), 0);
}

TEST_F(PinnedSlotsTest, WhatTheDriverRefusesIsAnErrorWhereItIsRequired) {
  for (const int workers : {0, 2}) {
    const FakeCuda cuda;
    LoaderOptions options = Options();
    options.num_workers = workers;
    auto loader = MakeLoader(std::move(options));
    ASSERT_NE(loader, nullptr);
    cuda.Set("refuse_from", cuda.Get("locks"));
    ASSERT_TRUE(loader->StartEpoch().ok());
    const auto batch = loader->Next();
    ASSERT_TRUE(batch.status().IsUnknownError()) << batch.status();
    const std::string message = batch.status().message();
    EXPECT_NE(message.find("a slot of 1.1 MiB cannot be page-locked"), std::string::npos) << message;
    EXPECT_NE(message.find("out of memory (CUDA_ERROR_OUT_OF_MEMORY, code 2)"), std::string::npos) << message;
    EXPECT_NE(message.find("leave pin_memory out"), std::string::npos) << message;
  }
}

// A slot more, for idle workers, is no need: who cannot have it goes on with those that there are.
TEST_F(PinnedSlotsTest, NoSlotIsAddedWhereTheDriverRefusesIt) {
  for (const int64_t added : {0, 2}) {
    SCOPED_TRACE(added);
    auto loader = MakeLoader(OptionsToGrow());
    ASSERT_NE(loader, nullptr);
    const int64_t most = loader->Explain()->slots + added;
    const FakeCuda cuda;
    cuda.Set("refuse_from", most);
    ASSERT_TRUE(loader->StartEpoch().ok());
    for (int64_t i = 0; i < 2 * kNumBatches; ++i) {
      const auto batch = Next(*loader);
      ASSERT_TRUE(batch) << i;
      EXPECT_EQ(Values(*batch)[0], i * kBatchRows);
      EXPECT_TRUE(cuda.IsLocked(Values(*batch)));
    }
    EXPECT_FALSE(Next(*loader));
    const StatsReport stats = loader->Stats();
    EXPECT_EQ(cuda.Get("refusals"), 1);  // Nor is it asked for again.
    EXPECT_EQ(stats.slots_locked, most);
    EXPECT_LE(stats.slots_open, most);
    EXPECT_NE(stats.ToString().find("cannot be page-locked"), std::string::npos) << stats.ToString();
    EXPECT_EQ(loader->PinRefusal(), "");  // All batches were locked.
    // The next epoch does with what was kept, and asks once more at the most.
    EXPECT_EQ(ReadEpoch(*loader).size(), static_cast<size_t>(2 * kNumBatches * kBatchRows));
    EXPECT_LE(cuda.Get("refusals"), 2);
    loader.reset();
    cuda.ExpectAllIsGivenBack();
  }
}

// What explain() tells is needed, whether workers or the caller come to want it.
TEST_F(PinnedSlotsTest, ASlotThatIsNeededIsStillAnError) {
  auto loader = MakeLoader(OptionsToGrow());
  ASSERT_NE(loader, nullptr);
  const int64_t slots = loader->Explain()->slots;
  cuda_.Set("refuse_from", slots - 1);
  ASSERT_TRUE(loader->StartEpoch().ok());
  arrow::Status status;
  while (status.ok()) {
    const auto batch = loader->Next();
    status = batch.status();
    ASSERT_TRUE(!status.ok() || *batch);
  }
  EXPECT_NE(status.message().find("cannot be page-locked"), std::string::npos) << status;
  // Who keeps batches is told why there is no other.
  loader = MakeLoader(Options());
  const FakeCuda cuda;
  cuda.Set("refuse_from", cuda.Get("locks") + loader->Explain()->slots);
  ASSERT_TRUE(loader->StartEpoch().ok());
  std::vector<Batch> kept;
  status = arrow::Status::OK();
  while (status.ok()) {
    auto batch = loader->Next();
    status = batch.status();
    if (!status.ok()) break;
    ASSERT_TRUE(*batch);
    kept.push_back(std::move(**batch));
  }
  EXPECT_NE(status.message().find("cannot be page-locked"), std::string::npos) << status;
  EXPECT_EQ(static_cast<int64_t>(kept.size()), loader->Explain()->slots);
}

TEST_F(PinnedSlotsTest, WherePossibleOtherSlotsStayAsTheyAre) {
  for (const int64_t granted : {0, 1}) {
    const FakeCuda cuda;
    LoaderOptions options = Options();
    options.pin_memory = PinMemory::kWherePossible;
    auto loader = MakeLoader(std::move(options));
    ASSERT_NE(loader, nullptr);
    cuda.Set("refuse_from", cuda.Get("locks") + granted);
    ASSERT_TRUE(loader->StartEpoch().ok());
    int64_t next_row = 0;
    while (auto batch = Next(*loader)) {
      EXPECT_EQ(Values(*batch)[0], next_row);
      next_row += batch->num_rows();
    }
    EXPECT_EQ(next_row, kNumBatches * kBatchRows);
    EXPECT_EQ(loader->Stats().slots_locked, granted);
    EXPECT_NE(loader->PinRefusal().find("out of memory"), std::string::npos);
    EXPECT_NE(loader->Stats().ToString().find("not page-locked"), std::string::npos);
    loader.reset();
    cuda.ExpectAllIsGivenBack();
  }
}

// Of columns whose rows vary in size, what is per row is locked; their values are not.
TEST_F(PinnedSlotsTest, TheFixedPartIsLocked) {
  LoaderOptions options;
  options.table = TableOf({{"x", Ints({1, 2, 3})}, {"text", Strings({"a", "bc", "def"})}});
  options.num_workers = 1;
  options.pin_memory = PinMemory::kRequired;
  auto loader = MakeLoader(std::move(options));
  ASSERT_NE(loader, nullptr);
  ASSERT_TRUE(loader->StartEpoch().ok());
  const auto batch = Next(*loader);
  ASSERT_TRUE(batch);
  EXPECT_TRUE(cuda_.IsLocked(batch->column(0).values));
  const auto text = batch->column(1).strands;
  ASSERT_EQ(text.size(), 2U);
  EXPECT_TRUE(cuda_.IsLocked(text[0]));   // Where texts begin.
  EXPECT_FALSE(cuda_.IsLocked(text[1]));  // What they are.
}

// The device of the thread that starts the epoch; else one that is in use: no context is made on any other.
TEST_F(PinnedSlotsTest, TheContextIsThatOfTheCallersDevice) {
  cuda_.Use(0);
  cuda_.Use(1);
  {
    auto loader = MakeLoader(Options());
    ASSERT_NE(loader, nullptr);
    EXPECT_EQ(cuda_.Get("retained"), 2);  // The caller's own.
    ReadEpoch(*loader);
    EXPECT_EQ(cuda_.Get("retained_1"), 2);
    EXPECT_EQ(cuda_.Get("retained"), 3);
  }
  cuda_.Leave(1);
  cuda_.Leave(0);
  cuda_.Use(1);
  std::jthread([&] {
    auto loader = MakeLoader(Options());
    ReadEpoch(*loader);
    EXPECT_EQ(cuda_.Get("retained_1"), 2);
    EXPECT_EQ(cuda_.Get("retained"), 2);
  }).join();
  cuda_.Leave(1);
  LoaderOptions options = Options();
  options.pin_device = 1;
  auto loader = MakeLoader(std::move(options));
  ReadEpoch(*loader);
  EXPECT_EQ(cuda_.Get("retained_1"), 1);
  loader.reset();
  cuda_.ExpectAllIsGivenBack();
  LoaderOptions wrong = Options();
  wrong.pin_device = 2;
  const arrow::Status status = Loader::Make(std::move(wrong)).status();
  EXPECT_TRUE(status.IsUnknownError()) << status;
  cuda_.Set("num_devices", 0);
  const arrow::Status none = Loader::Make(Options()).status();
  EXPECT_NE(none.message().find("finds no GPU"), std::string::npos) << none;
}

// A copy that was begun from a batch, and not waited for, still reads its slot when the batch dies.
TEST_F(PinnedSlotsTest, SlotsAreNotUsedAgainBeforeTheDevicesHaveReadThem) {
  auto loader = MakeLoader(Options());
  ASSERT_NE(loader, nullptr);
  ASSERT_TRUE(loader->StartEpoch().ok());
  std::optional<BusyDevices> busy(cuda_);
  std::vector<const int64_t*> dead;
  for (int64_t i = 0; i < 2; ++i) dead.push_back(Values(*Next(*loader)));
  // The consumer is no further ahead than that.
  bool timed_out = false;
  const auto none = loader->NextFor(std::chrono::milliseconds(20), &timed_out);
  ASSERT_TRUE(none.ok() && timed_out) << none.status();
  cuda_.AwaitWaits(1);
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_EQ(dead[static_cast<size_t>(i)][0], i * kBatchRows);
    EXPECT_EQ(dead[static_cast<size_t>(i)][kBatchRows - 1], (i + 1) * kBatchRows - 1);
  }
  busy.reset();
  for (int64_t i = 2; i < kNumBatches; ++i) EXPECT_EQ(Values(*Next(*loader))[0], i * kBatchRows);
}

// Who has let go of a batch is not told to do so because a device still reads it.
TEST_F(PinnedSlotsTest, ASlotThatADeviceReadsIsNotCalledKept) {
  LoaderOptions options = Options();
  options.memory_budget_bytes = int64_t{1} << 40;
  options.memory_budget_bytes = MakeLoader(options)->Explain()->least_budget_bytes;
  auto loader = MakeLoader(std::move(options));
  ASSERT_NE(loader, nullptr);
  ASSERT_TRUE(loader->StartEpoch().ok());
  std::optional<BusyDevices> busy(cuda_);
  Next(*loader);  // Dies at once.
  std::vector<std::optional<Batch>> kept;
  kept.push_back(Next(*loader));
  bool timed_out = false;
  while (!timed_out) {
    auto batch = loader->NextFor(std::chrono::milliseconds(20), &timed_out);
    ASSERT_TRUE(batch.ok()) << batch.status();
    if (!timed_out) kept.push_back(std::move(*batch));
  }
  busy.reset();
  EXPECT_EQ(Values(*Next(*loader))[0], static_cast<int64_t>(1 + kept.size()) * kBatchRows);
  // But to keep them all is still an error.
  while (true) {
    auto batch = loader->Next();
    if (!batch.ok()) {
      EXPECT_TRUE(batch.status().IsCapacityError()) << batch.status();
      break;
    }
    ASSERT_TRUE(*batch);
    kept.push_back(std::move(*batch));
  }
}

}  // namespace
}  // namespace penstock

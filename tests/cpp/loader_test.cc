#include "penstock/loader.h"

#include <arrow/compute/api_scalar.h>
#include <arrow/compute/expression.h>
#include <arrow/record_batch.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "source_testing.h"

namespace penstock {
namespace {

using source_testing::Ints;
using source_testing::Strings;
using source_testing::TableOf;
using source_testing::TempFolder;
using source_testing::WriteParquet;

std::vector<int64_t> Range(int64_t begin, int64_t end) {
  std::vector<int64_t> values(static_cast<size_t>(end - begin));
  for (size_t i = 0; i < values.size(); ++i) values[i] = begin + static_cast<int64_t>(i);
  return values;
}

/// Files of one column "x" that counts up over all of them, and "text" with "s<x mod 7>".
class LoaderTest : public ::testing::Test {
 protected:
  void WriteFiles(const std::vector<int64_t>& rows_per_file, int64_t row_group_rows) {
    int64_t next = 0;
    for (size_t i = 0; i < rows_per_file.size(); ++i) {
      const auto values = Range(next, next + rows_per_file[i]);
      next += rows_per_file[i];
      std::vector<std::string> texts;
      for (int64_t value : values) texts.push_back("s" + std::to_string(value % 7));
      const std::string path = folder_.File("part-" + std::to_string(1000 + i) + ".parquet");
      WriteParquet(path, *TableOf({{"x", Ints(values)}, {"text", Strings(texts)}}), row_group_rows);
      paths_.push_back(path);
    }
    num_rows_ = next;
  }

  LoaderOptions Options() const {
    LoaderOptions options;
    options.paths = paths_;
    options.columns = {"x"};
    options.num_workers = 2;
    return options;
  }

  static std::unique_ptr<Loader> MakeLoader(LoaderOptions options) {
    auto loader = Loader::Make(std::move(options));
    EXPECT_TRUE(loader.ok()) << loader.status();
    return loader.ok() ? std::move(*loader) : nullptr;
  }

  static void Append(const Batch& batch, std::vector<int64_t>* rows) {
    const auto* values = reinterpret_cast<const int64_t*>(batch.column(0).values);
    rows->insert(rows->end(), values, values + batch.num_rows());
  }

  /// One epoch's rows of "x"; checks batch sizes on the way.
  static std::vector<int64_t> ReadEpoch(Loader& loader) {
    EXPECT_TRUE(loader.StartEpoch().ok());
    std::vector<int64_t> rows;
    bool is_short_seen = false;
    while (true) {
      auto batch = loader.Next();
      EXPECT_TRUE(batch.ok()) << batch.status();
      if (!batch.ok() || !*batch) break;
      EXPECT_FALSE(is_short_seen) << "a short batch in mid-stream";
      is_short_seen = (*batch)->num_rows() < loader.options().batch_size;
      Append(**batch, &rows);
    }
    return rows;
  }

  static void ExpectOnlyUserAndMetadata(const Loader& loader, int64_t user_bytes = 0) {
    const MemoryReport memory = loader.Memory();
    EXPECT_EQ(memory[Account::kDecode].current_bytes, 0);
    EXPECT_EQ(memory[Account::kBlocks].current_bytes, 0);
    EXPECT_EQ(memory[Account::kSlots].current_bytes, 0);
    EXPECT_EQ(memory[Account::kUser].current_bytes, user_bytes);
    EXPECT_LE(memory.total.peak_bytes, memory.budget_bytes);
  }

  TempFolder folder_;
  std::vector<std::string> paths_;
  int64_t num_rows_ = 0;
};

// Every row exactly once, in order, exact batch sizes, whatever the shape of the files and the number of workers.
TEST_F(LoaderTest, EveryRowOnceInOrder) {
  WriteFiles({1, 0, 999, 5000, 17, 3000}, 700);
  for (int workers : {0, 1, 2, 4, 8}) {
    for (int64_t batch_size : {1, 7, 512, 1000, 100000}) {
      for (bool is_direct : {true, false}) {
        LoaderOptions options = Options();
        options.num_workers = workers;
        options.batch_size = batch_size;
        options.use_direct_decode = is_direct;
        options.memory_budget_bytes = 8 << 20;
        auto loader = MakeLoader(options);
        ASSERT_NE(loader, nullptr);
        EXPECT_EQ(ReadEpoch(*loader), Range(0, num_rows_)) << workers << " workers, batch " << batch_size;
        EXPECT_EQ(ReadEpoch(*loader).size(), static_cast<size_t>(num_rows_)) << "second epoch";
        EXPECT_EQ(*loader->NumBatches(), (num_rows_ + batch_size - 1) / batch_size);
        loader->EndEpoch();
        ExpectOnlyUserAndMetadata(*loader);
        loader->Close();
        EXPECT_EQ(loader->Memory().total.current_bytes, 0);
      }
    }
  }
}

// What lies in the slot in hand comes without Next(), the same rows in the same order; never from beyond the slot,
// before the first batch or after the end.
TEST_F(LoaderTest, BatchesAtHandAreThoseThatNextWouldGive) {
  WriteFiles({20000}, 700);
  LoaderOptions options = Options();
  options.batch_size = 10;
  options.memory_budget_bytes = 1 << 20;  // So that there are several slots.
  auto loader = MakeLoader(options);
  ASSERT_NE(loader, nullptr);
  const int64_t per_slot = loader->Explain()->batches_per_slot;
  ASSERT_GT(per_slot, 1);
  ASSERT_LT(per_slot, 2000);
  EXPECT_FALSE(loader->NextAtHand().has_value());
  ASSERT_TRUE(loader->StartEpoch().ok());
  EXPECT_FALSE(loader->NextAtHand().has_value());
  std::vector<int64_t> rows;
  while (true) {
    auto batch = loader->Next();
    ASSERT_TRUE(batch.ok()) << batch.status();
    if (!*batch) break;
    Append(**batch, &rows);
    int64_t at_hand = 0;
    while (auto further = loader->NextAtHand()) {
      Append(*further, &rows);
      ++at_hand;
    }
    EXPECT_EQ(at_hand, std::min(per_slot, (20000 - static_cast<int64_t>(rows.size())) / 10 + at_hand + 1) - 1);
  }
  EXPECT_FALSE(loader->NextAtHand().has_value());
  EXPECT_EQ(rows, Range(0, 20000));
  EXPECT_EQ(loader->Stats().batches, 2000);
}

TEST_F(LoaderTest, OutOfOrderGivesTheSameRows) {
  WriteFiles({20000}, 1000);
  LoaderOptions options = Options();
  options.in_order = false;
  options.batch_size = 64;
  options.num_workers = 4;
  options.transforms = {{"x", "x", {ops::Spin{.mean_us = 1, .sigma = 1.0}}}};
  auto loader = MakeLoader(options);
  auto rows = ReadEpoch(*loader);
  std::sort(rows.begin(), rows.end());
  EXPECT_EQ(rows, Range(0, num_rows_));
}

TEST_F(LoaderTest, LimitAndDropLast) {
  WriteFiles({1000, 1000}, 300);
  for (int64_t limit : {0, 1, 10, 300, 301, 1000, 1999, 5000}) {
    for (bool is_drop_last : {false, true}) {
      LoaderOptions options = Options();
      options.batch_size = 10;
      options.limit = limit;
      options.drop_last = is_drop_last;
      auto loader = MakeLoader(options);
      ASSERT_NE(loader, nullptr);
      int64_t expected = std::min<int64_t>(limit, num_rows_);
      if (is_drop_last) expected -= expected % 10;
      EXPECT_EQ(ReadEpoch(*loader), Range(0, expected)) << limit;
      EXPECT_EQ(*loader->NumBatches(), (expected + 9) / 10);
    }
  }
}

// A filter makes the plan a discovered one: rows are placed as their number becomes known, still in order and in full
// batches.
TEST_F(LoaderTest, FilterKeepsOrderAndBatchSizes) {
  WriteFiles({5000, 3000}, 500);
  namespace cp = arrow::compute;
  const auto filter = cp::greater_equal(cp::field_ref("x"), cp::literal(int64_t{1234}));
  for (int workers : {0, 1, 3}) {
    LoaderOptions options = Options();
    options.num_workers = workers;
    options.batch_size = 100;
    options.filter = std::make_shared<cp::Expression>(filter);
    auto loader = MakeLoader(options);
    ASSERT_NE(loader, nullptr);
    EXPECT_EQ(ReadEpoch(*loader), Range(1234, num_rows_));
    EXPECT_EQ(loader->Stats().row_groups_pruned, 2);
    EXPECT_TRUE(loader->NumBatches().status().IsTypeError());
    loader->EndEpoch();
    ExpectOnlyUserAndMetadata(*loader);
  }
}

TEST_F(LoaderTest, TransformsTurnStringsIntoNumbers) {
  WriteFiles({3000}, 500);
  LoaderOptions options = Options();
  options.columns = {"x", "text"};
  options.transforms = {
      {"text", "text", {ops::Lookup{Strings({"s0", "s1", "s2", "s3", "s4", "s5", "s6"}), std::nullopt}}}};
  for (bool is_direct : {true, false}) {
    options.use_direct_decode = is_direct;
    auto loader = MakeLoader(options);
    ASSERT_NE(loader, nullptr);
    ASSERT_TRUE(loader->StartEpoch().ok());
    int64_t row = 0;
    while (auto batch = *loader->Next()) {
      const auto* codes = reinterpret_cast<const int64_t*>(batch->column(1).values);
      for (int64_t i = 0; i < batch->num_rows(); ++i, ++row) ASSERT_EQ(codes[i], row % 7);
    }
    EXPECT_EQ(row, num_rows_);
  }
}

// Bytes stay counted until the holder lets go; the loader may be gone by then.
TEST_F(LoaderTest, BatchesOutliveTheLoaderAndStayCounted) {
  WriteFiles({5000}, 500);
  LoaderOptions options = Options();
  options.batch_size = 500;
  auto loader = MakeLoader(options);
  ASSERT_TRUE(loader->StartEpoch().ok());
  std::optional<Batch> kept = *loader->Next();
  ASSERT_TRUE(kept);
  loader->Close();
  EXPECT_GT(loader->Memory()[Account::kUser].current_bytes, 0);
  EXPECT_EQ(loader->Memory().total.current_bytes, loader->Memory()[Account::kUser].current_bytes);
  EXPECT_EQ(loader->held_batches(), 1);
  std::vector<int64_t> rows;
  Append(*kept, &rows);
  EXPECT_EQ(rows, Range(0, 500));
  kept.reset();
  EXPECT_EQ(loader->Memory().total.current_bytes, 0);
  EXPECT_EQ(loader->held_batches(), 0);
}

// Invariant 4: when only the caller could free memory, Next() says so at once, and goes on working when it did... in a
// new epoch.
TEST_F(LoaderTest, KeepingEveryBatchIsAnErrorThatCountsThem) {
  WriteFiles({200000}, 20000);
  for (int workers : {0, 2}) {
    LoaderOptions options = Options();
    options.num_workers = workers;
    options.batch_size = 16384;
    options.memory_budget_bytes = 2 << 20;
    auto loader = MakeLoader(options);
    ASSERT_NE(loader, nullptr);
    ASSERT_TRUE(loader->StartEpoch().ok());
    std::vector<Batch> kept;
    arrow::Status status;
    while (status.ok() && kept.size() < 100) {
      auto batch = loader->Next();
      status = batch.status();
      if (!status.ok()) break;
      ASSERT_TRUE(*batch) << "the budget was never used up";
      kept.push_back(**batch);
    }
    EXPECT_TRUE(status.IsCapacityError()) << status;
    EXPECT_CONTAINS(status.message(), std::to_string(kept.size()) + " batches are still held");
    std::vector<int64_t> rows;
    for (const Batch& batch : kept) Append(batch, &rows);
    EXPECT_EQ(rows, Range(0, static_cast<int64_t>(rows.size())));
    EXPECT_LE(loader->Memory().total.peak_bytes, options.memory_budget_bytes);
    kept.clear();
    EXPECT_EQ(ReadEpoch(*loader).size(), static_cast<size_t>(num_rows_));
  }
}

TEST_F(LoaderTest, ABudgetBelowTheLeastNamesTheLeast) {
  WriteFiles({200000}, 50000);
  LoaderOptions options = Options();
  options.batch_size = 10000;
  options.memory_budget_bytes = 10000;
  auto refused = Loader::Make(options);
  ASSERT_TRUE(refused.status().IsInvalid()) << refused.status();
  const std::string message = refused.status().message();
  EXPECT_CONTAINS(message, "the least that works here is ");
  const auto at = message.find("the least that works here is ") + std::strlen("the least that works here is ");
  // The number that it names works, and one byte less does not.
  options.memory_budget_bytes = std::stoll(message.substr(at)) - 1;
  EXPECT_TRUE(Loader::Make(options).status().IsInvalid());
  options.memory_budget_bytes += 1;
  auto loader = MakeLoader(options);
  ASSERT_NE(loader, nullptr);
  EXPECT_EQ(ReadEpoch(*loader), Range(0, num_rows_));
  EXPECT_LE(loader->Memory().total.peak_bytes, options.memory_budget_bytes);
}

// Leaving at any point joins the threads and gives everything back.
TEST_F(LoaderTest, EndingAnEpochAnywhereLeavesNothing) {
  WriteFiles({20000}, 1000);
  LoaderOptions options = Options();
  options.batch_size = 500;
  options.num_workers = 4;
  auto loader = MakeLoader(options);
  for (int taken = 0; taken < 40; ++taken) {
    ASSERT_TRUE(loader->StartEpoch().ok());
    for (int i = 0; i < taken; ++i) ASSERT_TRUE(*loader->Next());
    loader->EndEpoch();
    ExpectOnlyUserAndMetadata(*loader);
  }
}

TEST_F(LoaderTest, CloseFromAnotherThreadWakesNext) {
  WriteFiles({100000}, 1000);
  LoaderOptions options = Options();
  options.batch_size = 1000;
  options.transforms = {{"x", "x", {ops::Spin{.mean_us = 50}}}};
  auto loader = MakeLoader(options);
  ASSERT_TRUE(loader->StartEpoch().ok());
  ASSERT_TRUE((*loader->Next()).has_value());
  arrow::Status status;
  std::thread consumer([&] {
    while (status.ok()) {
      auto batch = loader->Next();
      status = batch.status();
      if (status.ok() && !*batch) break;
    }
  });
  loader->Close();
  consumer.join();
  EXPECT_TRUE(status.IsCancelled()) << status;
  EXPECT_EQ(loader->Memory().total.current_bytes, 0);
}

// An error comes once, in its place: what lies before it is delivered first.
TEST_F(LoaderTest, ErrorsNameThePlaceAndComeAfterTheRowsBefore) {
  WriteFiles({1000, 1000, 1000}, 100);
  std::string bytes = source_testing::ReadBytes(paths_[1]);
  source_testing::TempFolder elsewhere;
  LoaderOptions options = Options();
  options.batch_size = 100;
  options.memory_budget_bytes = 1 << 20;
  options.prefetch_batches = 1;
  auto loader = MakeLoader(options);
  ASSERT_NE(loader, nullptr);
  std::filesystem::resize_file(paths_[1], bytes.size() / 2);
  ASSERT_TRUE(loader->StartEpoch().ok());
  std::vector<int64_t> rows;
  arrow::Status status;
  while (status.ok()) {
    auto batch = loader->Next();
    status = batch.status();
    if (!status.ok() || !*batch) break;
    Append(**batch, &rows);
  }
  EXPECT_FALSE(status.ok());
  EXPECT_CONTAINS(status.message(), paths_[1]);
  EXPECT_EQ(rows, Range(0, static_cast<int64_t>(rows.size())));
  auto after = loader->Next();
  ASSERT_TRUE(after.ok()) << "raised twice";
  EXPECT_FALSE(after->has_value());
  loader->EndEpoch();
  ExpectOnlyUserAndMetadata(*loader);
}

// With skips_errors rows that do not convert, a row group whose rest is cut off and a file that is none are left out,
// whatever the workers; every other row stays in its batch.
TEST_F(LoaderTest, SkipsWhatIsBad) {
  WriteFiles({1000, 1000, 1000, 1000}, 250);
  std::ofstream(paths_[2], std::ios::trunc) << "PAR1 and no more";
  LoaderOptions options = Options();
  options.batch_size = 100;
  options.skips_errors = true;
  Transform transform;
  transform.output = transform.input = "text";
  transform.ops = {ops::Lookup{Strings({"s0", "s1", "s2", "s4", "s5", "s6"}), std::nullopt}};
  options.transforms = {transform};
  std::vector<int64_t> expected;
  for (int64_t x = 0; x < 4000; ++x) {
    if (x % 7 != 3 && x / 1000 != 2) expected.push_back(x);
  }
  for (const int workers : {0, 2, 4}) {
    options.num_workers = workers;
    auto loader = MakeLoader(options);
    ASSERT_NE(loader, nullptr);
    ASSERT_TRUE(loader->StartEpoch().ok());
    std::vector<int64_t> rows;
    while (true) {
      auto batch = loader->Next();
      ASSERT_TRUE(batch.ok()) << batch.status();
      if (!*batch) break;
      Append(**batch, &rows);
      EXPECT_EQ(rows.back() % 1000 / 100, (rows.back() - (*batch)->num_rows()) % 1000 / 100);
    }
    EXPECT_EQ(rows, expected);
    const StatsReport stats = loader->Stats();
    EXPECT_EQ(stats.skipped, 3000 - static_cast<int64_t>(expected.size()));
    EXPECT_EQ(stats.errors, stats.skipped + 1);
    loader->EndEpoch();
    ExpectOnlyUserAndMetadata(*loader);
  }
}

TEST_F(LoaderTest, PeakStaysWithinBudgetAndPrediction) {
  WriteFiles({60000, 60000}, 6000);
  for (int workers : {1, 2, 8}) {
    LoaderOptions options = Options();
    options.num_workers = workers;
    options.batch_size = 1000;
    options.prefetch_batches = 1;
    options.memory_budget_bytes = 4 << 20;
    auto loader = MakeLoader(options);
    ASSERT_NE(loader, nullptr);
    auto explanation = loader->Explain();
    ASSERT_TRUE(explanation.ok()) << explanation.status();
    EXPECT_EQ(ReadEpoch(*loader).size(), static_cast<size_t>(num_rows_));
    EXPECT_LE(loader->Memory().total.peak_bytes, explanation->predicted_peak_bytes);
    EXPECT_LE(explanation->least_budget_bytes, explanation->predicted_peak_bytes);
  }
}

// One slow row must not stop the others: slots grow by themselves while the caller waits.
TEST_F(LoaderTest, SlotsGrowWhileTheCallerWaitsForASlowRow) {
  WriteFiles({4000}, 4000);
  LoaderOptions options = Options();
  options.batch_size = 16;
  options.num_workers = 4;
  options.limit = 1600;
  options.memory_budget_bytes = 16 << 20;
  options.transforms = {
      {"x", "x", {ops::Spin{.mean_us = 20, .sigma = 0.1, .heavy_every = 400, .heavy_factor = 10000}}}};
  auto loader = MakeLoader(options);
  ASSERT_NE(loader, nullptr);
  EXPECT_EQ(ReadEpoch(*loader), Range(0, 1600));
  EXPECT_GT(loader->Stats().slots_grown, 0);
}

TEST_F(LoaderTest, ArrowLayoutExportsRecordBatches) {
  WriteFiles({1000}, 300);
  LoaderOptions options = Options();
  options.layout = Layout::kArrow;
  options.batch_size = 128;
  auto loader = MakeLoader(options);
  ASSERT_TRUE(loader->StartEpoch().ok());
  int64_t row = 0;
  while (auto batch = *loader->Next()) {
    auto record_batch = batch->ToRecordBatch();
    ASSERT_TRUE(record_batch.ok()) << record_batch.status();
    ASSERT_TRUE((*record_batch)->ValidateFull().ok());
    const auto& column = static_cast<const arrow::Int64Array&>(*(*record_batch)->column(0));
    for (int64_t i = 0; i < column.length(); ++i) ASSERT_EQ(column.Value(i), row++);
  }
  EXPECT_EQ(row, num_rows_);
}

}  // namespace
}  // namespace penstock

// Random data sets under budgets close to the least: every row once, in order, within the budget; or an error that
// says how much is missing.
#include <arrow/array/array_binary.h>
#include <arrow/array/array_nested.h>
#include <arrow/compute/api_scalar.h>
#include <arrow/compute/expression.h>
#include <arrow/record_batch.h>
#include <arrow/table.h>
#include <gtest/gtest.h>
#include <parquet/metadata.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <random>

#include "penstock/loader.h"
#include "source_testing.h"

namespace penstock {
namespace {

namespace cp = arrow::compute;
using source_testing::Ints;
using source_testing::Strings;
using source_testing::TableOf;
using source_testing::TempFolder;
using source_testing::WriteParquet;

using Random = std::mt19937_64;

int64_t Between(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

struct DataSet {
  std::vector<std::string> paths;
  int64_t num_rows = 0;
  int64_t longest_text = 0;
};

// The text of a row: its length tells nothing about those beside it.
std::string TextOf(const DataSet& data, int64_t row) {
  return std::string(static_cast<size_t>(row * 7919 % (data.longest_text + 1)), 'a') + std::to_string(row);
}

// "x" counts up over all files; "text" has strings of very different lengths.
DataSet WriteDataSet(const TempFolder& folder, Random& random) {
  DataSet data;
  const int64_t num_files = Between(random, 1, 4);
  data.longest_text = Between(random, 0, 3) == 0 ? 5000 : 40;
  for (int64_t i = 0; i < num_files; ++i) {
    std::vector<int64_t> values(static_cast<size_t>(Between(random, 0, 4000)));
    std::vector<std::string> texts;
    for (int64_t& value : values) {
      value = data.num_rows++;
      texts.push_back(TextOf(data, value));
    }
    data.paths.push_back(folder.File("file-" + std::to_string(i) + ".parquet"));
    parquet::WriterProperties::Builder properties;
    if (Between(random, 0, 1) == 0) properties.compression(arrow::Compression::ZSTD);
    if (Between(random, 0, 1) == 0) properties.disable_dictionary();
    properties.data_pagesize(Between(random, 1, 1 << 20));
    WriteParquet(data.paths.back(), *TableOf({{"x", Ints(values)}, {"text", Strings(texts)}}), Between(random, 1, 3000),
                 properties.build());
  }
  return data;
}

// The same rows as a stream of batches, read anew in each epoch. *most_bytes: what a batch takes at the most.
BatchReaderFactory StreamOf(const DataSet& data, Random& random, int64_t* most_bytes) {
  const int64_t most_rows = Between(random, 1, 3000);
  *most_bytes = 2 * most_rows * (data.longest_text + 64) + (int64_t{1} << 14);
  std::vector<std::shared_ptr<arrow::Table>> parts = {TableOf({{"x", Ints({})}, {"text", Strings({})}})};
  for (int64_t begin = 0; begin < data.num_rows; begin += most_rows) {
    std::vector<int64_t> values;
    std::vector<std::string> texts;
    for (int64_t row = begin; row < std::min(begin + most_rows, data.num_rows); ++row) {
      values.push_back(row);
      texts.push_back(TextOf(data, row));
    }
    parts.push_back(TableOf({{"x", Ints(values)}, {"text", Strings(texts)}}));
  }
  const auto table = arrow::ConcatenateTables(parts).ValueOrDie();
  return [table]() -> arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> {
    return std::make_shared<arrow::TableBatchReader>(table);
  };
}

LoaderOptions RandomOptions(const DataSet& data, Random& random) {
  LoaderOptions options;
  options.paths = data.paths;
  options.columns = {"x", "text"};
  // Numbers of fixed size, or text that varies in size.
  if (Between(random, 0, 1) == 0) {
    options.transforms = {{"text", "text", {ops::HashBucket{1000}}}};
  } else {
    options.layout = Layout::kArrow;
  }
  options.batch_size = Between(random, 1, 3000);
  options.num_workers = static_cast<int>(Between(random, 0, 5));
  options.prefetch_batches = static_cast<int>(Between(random, -1, 6));
  options.use_direct_decode = Between(random, 0, 1) == 0;
  return options;
}

// The least budget, as the refusal of a budget of one byte names it.
int64_t LeastBudget(LoaderOptions options) {
  options.memory_budget_bytes = 1;
  const auto refused = Loader::Make(options);
  const std::string message = refused.status().message();
  const std::string words = "the least that works here is ";
  const auto at = message.find(words);
  return at == std::string::npos ? -1 : std::atoll(message.c_str() + at + words.size());
}

// Of the rows whose numbers the first column has.
void ExpectTexts(const Batch& batch, const DataSet& data) {
  if (batch.schema()[1].varying == nullptr) return;
  const auto rows = batch.ToRecordBatch();
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_TRUE((*rows)->ValidateFull().ok());
  const auto& texts = static_cast<const arrow::LargeStringArray&>(*(*rows)->column(1));
  const auto* row_numbers = reinterpret_cast<const int64_t*>(batch.column(0).values);
  for (int64_t i = 0; i < texts.length(); ++i) ASSERT_EQ(texts.GetView(i), TextOf(data, row_numbers[i]));
}

// Pages are not in the footer: a budget close to the least may prove too small, but it must say so.
void ExpectRefusal(const arrow::Status& status) {
  ASSERT_TRUE(status.IsOutOfMemory()) << status;
  EXPECT_CONTAINS(status.message(), "raise memory_budget");
}

// At the end of a test.
void ExpectKeptToItsBudget(Loader& loader, int64_t budget_bytes) {
  loader.EndEpoch();
  const MemoryReport memory = loader.Memory();
  EXPECT_LE(memory.total.peak_bytes, budget_bytes);
  EXPECT_EQ(memory.over_budget_bytes, 0);
  loader.Close();
  EXPECT_EQ(loader.Memory().total.current_bytes, 0);
}

void ExpectOneEpoch(Loader& loader, const DataSet& data, int64_t first_row) {
  const arrow::Status started = loader.StartEpoch();
  if (!started.ok()) return ExpectRefusal(started);  // Of a footer that is larger than those before it.
  int64_t next = first_row;
  while (true) {
    auto batch = loader.Next();
    if (!batch.ok()) return ExpectRefusal(batch.status());
    if (!*batch) break;
    const auto* values = reinterpret_cast<const int64_t*>((*batch)->column(0).values);
    for (int64_t i = 0; i < (*batch)->num_rows(); ++i) ASSERT_EQ(values[i], next++);
    ExpectTexts(**batch, data);
  }
  EXPECT_EQ(next, data.num_rows);
}

// Runs `test` for some seeds, or for the one that the environment gives.
template <typename Test>
void ForSeeds(int num_seeds, const Test& test) {
  const char* given = std::getenv("PENSTOCK_TEST_SEED");
  const uint64_t first_seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 20240611;
  for (uint64_t seed = first_seed; seed < first_seed + (given != nullptr ? 1 : static_cast<uint64_t>(num_seeds));
       ++seed) {
    SCOPED_TRACE("PENSTOCK_TEST_SEED=" + std::to_string(seed));
    Random random(seed);
    test(random);
  }
}

TEST(LoaderStressTest, BudgetsCloseToTheLeast) {
  ForSeeds(60, [](Random& random) {
    TempFolder folder;
    const DataSet data = WriteDataSet(folder, random);
    LoaderOptions options = RandomOptions(data, random);
    int64_t first_row = 0;
    if (Between(random, 0, 2) == 0) {
      first_row = Between(random, 0, data.num_rows);
      options.filter = std::make_shared<cp::Expression>(cp::greater_equal(cp::field_ref("x"), cp::literal(first_row)));
    }
    const int64_t least = LeastBudget(options);
    ASSERT_GT(least, 0);
    options.memory_budget_bytes = Between(random, least, 3 * least);
    auto loader = Loader::Make(options);
    ASSERT_TRUE(loader.ok()) << loader.status();
    for (int epoch = 0; epoch < 2; ++epoch) ExpectOneEpoch(**loader, data, first_row);
    ExpectKeptToItsBudget(**loader, options.memory_budget_bytes);
  });
}

// Overwrites the second half of a column of some row groups: it cannot be read from some row on.
void Damage(const std::string& path, const std::string& column, Random& random) {
  const auto metadata = source_testing::Open(path).ValueOrDie()->metadata;
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  for (int i = 0; i < metadata->num_row_groups(); ++i) {
    if (Between(random, 0, 1) == 0) continue;
    const auto chunk = metadata->RowGroup(i)->ColumnChunk(metadata->schema()->ColumnIndex(column));
    const int64_t begin = chunk->has_dictionary_page() ? chunk->dictionary_page_offset() : chunk->data_page_offset();
    const int64_t size = chunk->total_compressed_size();
    file.seekp(begin + size - size / 2);
    file << std::string(static_cast<size_t>(size / 2), '\xff');
  }
}

// Short texts, and now and then a run of long ones: slots take much more than the footers let expect.
DataSet WriteUnevenTexts(const TempFolder& folder, Random& random) {
  DataSet data;
  data.paths = {folder.File("file.parquet")};
  std::vector<int64_t> values;
  std::vector<std::string> texts;
  while (data.num_rows < 4000) {
    const bool is_long = Between(random, 0, 3) == 0;
    const int64_t length = is_long ? Between(random, 1000, 10000) : Between(random, 0, 30);
    for (int64_t n = is_long ? Between(random, 1, 200) : Between(random, 1, 1000); n > 0; --n) {
      values.push_back(data.num_rows++);
      texts.emplace_back(static_cast<size_t>(length), 'a');
    }
  }
  parquet::WriterProperties::Builder properties;
  properties.disable_dictionary()->data_pagesize(Between(random, 1, 1 << 16));
  WriteParquet(data.paths[0], *TableOf({{"x", Ints(values)}, {"text", Strings(texts)}}), Between(random, 50, 1000),
               properties.build());
  return data;
}

// What reading passed over, after an epoch of a loader of its own; null where the budget was too small.
std::optional<StatsReport> ReadPassingOver(const LoaderOptions& options, std::vector<int64_t>* rows) {
  auto loader = Loader::Make(options);
  EXPECT_TRUE(loader.ok()) << loader.status();
  const arrow::Status started = (*loader)->StartEpoch();
  while (started.ok()) {
    auto batch = (*loader)->Next();
    if (!batch.ok()) {
      ExpectRefusal(batch.status());
      return std::nullopt;
    }
    if (!*batch) return (*loader)->Stats();
    const auto* values = reinterpret_cast<const int64_t*>((*batch)->column(0).values);
    rows->insert(rows->end(), values, values + (*batch)->num_rows());
  }
  ExpectRefusal(started);
  return std::nullopt;
}

// Where memory is short, what was decoded ahead is dropped and decoded again: what was passed over in it is counted
// once, as it is where memory is not short.
TEST(LoaderStressTest, WhatIsPassedOverIsCountedOnce) {
  ForSeeds(40, [](Random& random) {
    TempFolder folder;
    const DataSet data = WriteUnevenTexts(folder, random);
    for (const std::string& path : data.paths) Damage(path, "text", random);
    LoaderOptions options = RandomOptions(data, random);
    options.skips_errors = true;
    options.transforms.clear();
    options.layout = Layout::kArrow;
    options.batch_size = Between(random, 1, 100);
    options.filter = std::make_shared<cp::Expression>(cp::not_equal(
        cp::call("bit_wise_and", {cp::field_ref("x"), cp::literal(int64_t{3})}), cp::literal(int64_t{0})));
    const int64_t least = LeastBudget(options);
    ASSERT_GT(least, 0);
    std::vector<int64_t> expected, rows;
    options.memory_budget_bytes = int64_t{1} << 30;
    const auto with_room = ReadPassingOver(options, &expected);
    ASSERT_TRUE(with_room);
    options.memory_budget_bytes = Between(random, least, 2 * least);
    const auto without = ReadPassingOver(options, &rows);
    if (!without) return;
    EXPECT_EQ(rows, expected);
    EXPECT_EQ(without->errors, with_room->errors);
    EXPECT_EQ(without->rows_filtered, with_room->rows_filtered);
  });
}

// An epoch in whatever order, without `left_out` rows; broken off after `most_batches`, if that is not negative.
void ExpectShuffledEpoch(Loader& loader, const DataSet& data, int64_t left_out, int64_t most_batches) {
  const arrow::Status started = loader.StartEpoch();
  if (!started.ok()) return ExpectRefusal(started);  // Of a footer that is larger than those before it.
  std::vector<int64_t> rows;
  for (int64_t batches = 0; batches != most_batches; ++batches) {
    auto batch = loader.Next();
    if (!batch.ok()) return ExpectRefusal(batch.status());
    if (!*batch) break;
    const auto* values = reinterpret_cast<const int64_t*>((*batch)->column(0).values);
    rows.insert(rows.end(), values, values + (*batch)->num_rows());
    ExpectTexts(**batch, data);
  }
  std::sort(rows.begin(), rows.end());
  EXPECT_EQ(std::adjacent_find(rows.begin(), rows.end()), rows.end()) << "a row came twice";
  if (most_batches < 0) {
    EXPECT_EQ(std::ssize(rows), data.num_rows - left_out);
  }
}

TEST(LoaderStressTest, ShuffledWindowsOfAnySize) {
  ForSeeds(40, [](Random& random) {
    TempFolder folder;
    const DataSet data = WriteDataSet(folder, random);
    LoaderOptions options = RandomOptions(data, random);
    options.shuffle = true;
    options.seed = static_cast<uint64_t>(Between(random, 0, 1000));
    options.shuffle_window_bytes = int64_t{1} << Between(random, 14, 22);
    if (Between(random, 0, 2) == 0) options.shuffle_window_rows = Between(random, 1, 5000);
    int64_t most_bytes = 0;
    if (Between(random, 0, 1) == 0) {
      options.paths.clear();
      options.batches = StreamOf(data, random, &most_bytes);
    }
    int64_t left_out = 0;
    if (!options.transforms.empty() && Between(random, 0, 1) == 0) {
      // Every third text is known; rows of the others are lost.
      std::vector<std::string> known;
      for (int64_t row = 0; row < data.num_rows; row += 3) known.push_back(TextOf(data, row));
      options.transforms = {{"text", "text", {ops::Lookup{Strings(known), std::nullopt}}}};
      options.skips_errors = true;
      left_out = data.num_rows - std::ssize(known);
    }
    const int64_t least = LeastBudget(options);
    ASSERT_GT(least, 0);
    options.memory_budget_bytes = Between(random, least, 3 * least) + 4 * most_bytes;
    auto loader = Loader::Make(options);
    ASSERT_TRUE(loader.ok()) << loader.status();
    ExpectShuffledEpoch(**loader, data, left_out, -1);
    ExpectShuffledEpoch(**loader, data, left_out, Between(random, 0, 5));
    ExpectShuffledEpoch(**loader, data, left_out, -1);
    ExpectKeptToItsBudget(**loader, options.memory_budget_bytes);
  });
}

// Documents of very different lengths; "tokens" count up over all files. `num_rows` is the number of tokens.
DataSet WriteDocuments(const TempFolder& folder, Random& random) {
  DataSet data;
  const int64_t num_files = Between(random, 1, 3);
  for (int64_t i = 0; i < num_files; ++i) {
    std::vector<int64_t> tokens;
    std::vector<int32_t> offsets = {0};
    for (int64_t documents = Between(random, 0, 300); documents > 0; --documents) {
      for (int64_t n = Between(random, 0, 9) == 0 ? Between(random, 0, 3000) : Between(random, 0, 30); n > 0; --n) {
        tokens.push_back(data.num_rows++);
      }
      offsets.push_back(static_cast<int32_t>(tokens.size()));
    }
    const auto begins = source_testing::ArrayOf<arrow::Int32Builder>(offsets);
    const auto lists = arrow::ListArray::FromArrays(*begins, *Ints(tokens)).ValueOrDie();
    data.paths.push_back(folder.File("file-" + std::to_string(i) + ".parquet"));
    WriteParquet(data.paths.back(), *TableOf({{"tokens", lists}}), Between(random, 1, 300));
  }
  return data;
}

// Every token once, in whatever order, with positions that begin anew with each row and go on in it.
void ExpectPackedEpoch(Loader& loader, const DataSet& data, int64_t length, int64_t most_batches) {
  const arrow::Status started = loader.StartEpoch();
  if (!started.ok()) return ExpectRefusal(started);  // Of a footer that is larger than those before it.
  std::vector<int64_t> tokens;
  for (int64_t batches = 0; batches != most_batches; ++batches) {
    auto batch = loader.Next();
    if (!batch.ok()) return ExpectRefusal(batch.status());
    if (!*batch) break;
    const auto* values = reinterpret_cast<const int64_t*>((*batch)->column(0).values);
    const auto* positions = reinterpret_cast<const int32_t*>((*batch)->column(1).values);
    const int64_t items = (*batch)->num_rows() * length;
    int64_t segments = 0;
    for (int64_t i = 0; i < items; ++i) {
      const bool is_start = positions[i] == 0;
      ASSERT_TRUE(is_start || i % length != 0);
      ASSERT_TRUE(is_start || positions[i] == positions[i - 1] + 1);
      ASSERT_TRUE(is_start || values[i] == -1 || values[i] == values[i - 1] + 1);
      ASSERT_TRUE(!is_start || (*batch)->column(0).segments[segments++] == i);
      if (values[i] >= 0) tokens.push_back(values[i]);
    }
    ASSERT_EQ((*batch)->column(0).num_segments, segments);
  }
  std::sort(tokens.begin(), tokens.end());
  EXPECT_EQ(std::adjacent_find(tokens.begin(), tokens.end()), tokens.end()) << "a token came twice";
  if (most_batches < 0) {
    EXPECT_EQ(std::ssize(tokens), data.num_rows);
  }
}

TEST(LoaderStressTest, PackedDocumentsShuffledOrNot) {
  ForSeeds(40, [](Random& random) {
    TempFolder folder;
    const DataSet data = WriteDocuments(folder, random);
    const int64_t length = Between(random, 1, 300);
    LoaderOptions options;
    options.paths = data.paths;
    options.transforms = {{"tokens", "tokens", {ops::Pack{length, {-1, {}, {}}}}}};
    options.batch_size = Between(random, 1, 40);
    options.num_workers = static_cast<int>(Between(random, 0, 5));
    options.prefetch_batches = static_cast<int>(Between(random, -1, 6));
    options.shuffle = Between(random, 0, 3) != 0;
    options.shuffle_window_bytes = int64_t{1} << Between(random, 14, 20);
    const int64_t least = LeastBudget(options);
    ASSERT_GT(least, 0);
    options.memory_budget_bytes = Between(random, least, 3 * least);
    auto loader = Loader::Make(options);
    ASSERT_TRUE(loader.ok()) << loader.status();
    ExpectPackedEpoch(**loader, data, length, -1);
    ExpectPackedEpoch(**loader, data, length, Between(random, 0, 5));
    ExpectPackedEpoch(**loader, data, length, -1);
    ExpectKeptToItsBudget(**loader, options.memory_budget_bytes);
  });
}

}  // namespace
}  // namespace penstock

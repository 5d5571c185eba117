// Ranks, resume and epochs of a loader: which rows come, and where it says that one is.
#include <arrow/compute/expression.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <cstring>
#include <numeric>

#include "penstock/loader.h"
#include "source_testing.h"

namespace penstock {
namespace {

using source_testing::TempFolder;

// Files of 10, 25 and 7 row groups of nine rows; column "x" counts from 0.
constexpr int64_t kRows = (10 + 25 + 7) * 9;

/// While it lives the system refuses threads: no address space holds their stacks.
class NoThreads {
 public:
  NoThreads() {
    pthread_attr_t vast;
    EXPECT_EQ(pthread_getattr_default_np(&usual_), 0);
    EXPECT_EQ(pthread_attr_init(&vast), 0);
    EXPECT_EQ(pthread_attr_setstacksize(&vast, size_t{1} << 50), 0);
    EXPECT_EQ(pthread_setattr_default_np(&vast), 0);
    pthread_attr_destroy(&vast);
  }
  ~NoThreads() {
    EXPECT_EQ(pthread_setattr_default_np(&usual_), 0);
    pthread_attr_destroy(&usual_);
  }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  pthread_attr_t usual_;
};

class OrderTest : public testing::Test {
 protected:
  OrderTest() {
    int64_t next = 0;
    for (const auto& [name, groups] : std::vector<std::pair<std::string, int64_t>>{{"a", 10}, {"b", 25}, {"c", 7}}) {
      arrow::Int64Builder builder;
      for (int64_t i = 0; i < groups * 9; ++i) EXPECT_TRUE(builder.Append(next++).ok());
      const auto table = arrow::Table::Make(arrow::schema({arrow::field("x", arrow::int64(), false)}),
                                            {builder.Finish().ValueOrDie()});
      const auto out = arrow::io::FileOutputStream::Open(folder_.File(name + ".parquet")).ValueOrDie();
      EXPECT_TRUE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), out, 9).ok());
    }
    options_.paths = {folder_.path()};
    options_.batch_size = 8;
    options_.num_workers = 2;
  }

  std::unique_ptr<Loader> Make() { return Loader::Make(options_).ValueOrDie(); }

  static std::vector<int64_t> ValuesOf(const Batch& batch) {
    std::vector<int64_t> values(static_cast<size_t>(batch.num_rows()));
    std::memcpy(values.data(), batch.column(0).values, values.size() * sizeof(int64_t));
    return values;
  }
  // The next `batches` batches, or fewer at the end.
  static std::vector<std::vector<int64_t>> Take(Loader& loader, int64_t batches) {
    std::vector<std::vector<int64_t>> taken;
    while (static_cast<int64_t>(taken.size()) < batches) {
      auto batch = loader.Next();
      EXPECT_TRUE(batch.ok()) << batch.status();
      if (!batch.ok() || !*batch) break;
      taken.push_back(ValuesOf(**batch));
    }
    return taken;
  }
  static std::vector<std::vector<int64_t>> Rest(Loader& loader) { return Take(loader, 1 << 30); }
  std::vector<std::vector<int64_t>> Epoch(Loader& loader) {
    EXPECT_TRUE(loader.StartEpoch().ok());
    return Rest(loader);
  }
  static std::vector<int64_t> Flat(const std::vector<std::vector<int64_t>>& batches) {
    std::vector<int64_t> rows;
    for (const auto& batch : batches) rows.insert(rows.end(), batch.begin(), batch.end());
    return rows;
  }
  void Filter() {
    using namespace arrow::compute;
    options_.filter = std::make_shared<const Expression>(
        not_equal(call("bit_wise_and", {field_ref("x"), literal(int64_t{3})}), literal(int64_t{0})));
  }
  void ExpectResumesAnywhere();

  TempFolder folder_;
  LoaderOptions options_;
};

TEST_F(OrderTest, RanksPartitionTheEpochEvenly) {
  for (const int64_t world_size : {1, 2, 5, 11}) {
    options_.world_size = world_size;
    std::vector<int64_t> all;
    for (options_.rank = 0; options_.rank < world_size; ++options_.rank) {
      const auto loader = Make();
      const auto batches = Epoch(*loader);
      EXPECT_EQ(static_cast<int64_t>(Flat(batches).size()), kRows / world_size);
      EXPECT_EQ(static_cast<int64_t>(batches.size()), loader->NumBatches().ValueOrDie());
      EXPECT_EQ(loader->Stats().rows_dropped, kRows % world_size);
      for (int64_t row : Flat(batches)) all.push_back(row);
    }
    std::vector<int64_t> expected(static_cast<size_t>(kRows / world_size * world_size));
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(all, expected);
  }
}

TEST_F(OrderTest, RepeatGivesTheFirstRowsAgain) {
  options_.world_size = 5;
  options_.rank = 4;
  options_.uneven = Uneven::kRepeat;
  const auto rows = Flat(Epoch(*Make()));
  EXPECT_EQ(rows.size(), 76U);
  EXPECT_EQ(rows.front(), 304);
  EXPECT_EQ(rows[73], 377);
  EXPECT_EQ(rows[74], 0);
  EXPECT_EQ(rows[75], 1);
}

TEST_F(OrderTest, BadRanksAreRefused) {
  options_.world_size = 3;
  options_.rank = 3;
  EXPECT_TRUE(Loader::Make(options_).status().IsInvalid());
  options_.world_size = options_.rank = 0;
  EXPECT_TRUE(Loader::Make(options_).status().IsInvalid());
  options_.world_size = kRows + 1;
  const arrow::Status status = Make()->StartEpoch();
  EXPECT_TRUE(status.IsInvalid());
  EXPECT_NE(status.message().find("378 rows, fewer than the 379 ranks"), std::string::npos) << status;
}

void OrderTest::ExpectResumesAnywhere() {
  const auto whole = Epoch(*Make());
  const LoaderOptions options = options_;
  for (size_t had = 0; had <= whole.size(); had += 1 + had / 3) {
    const auto loader = Make();
    ASSERT_TRUE(loader->StartEpoch().ok());
    Take(*loader, static_cast<int64_t>(had));
    const EpochState state = loader->State().ValueOrDie();
    options_.num_workers = static_cast<int>(had % 4);
    options_.prefetch_batches = static_cast<int>(had % 3);
    const auto second = Make();
    ASSERT_TRUE(second->Resume({state}).ok());
    EXPECT_EQ(second->State().ValueOrDie().history, state.history);
    ASSERT_TRUE(second->StartEpoch().ok());
    const auto more = Take(*second, std::min<int64_t>(2, static_cast<int64_t>(whole.size() - had)));
    const EpochState later = second->State().ValueOrDie();
    const auto third = Make();
    ASSERT_TRUE(third->Resume({later}).ok());
    auto rest = Epoch(*third);
    rest.insert(rest.begin(), more.begin(), more.end());
    EXPECT_EQ(rest, std::vector(whole.begin() + static_cast<ptrdiff_t>(had), whole.end())) << "after " << had;
    options_ = options;
  }
}

TEST_F(OrderTest, ResumesAnywhere) { ExpectResumesAnywhere(); }

TEST_F(OrderTest, ResumesAnywhereOfARank) {
  options_.world_size = 3;
  options_.rank = 1;
  ExpectResumesAnywhere();
}

TEST_F(OrderTest, ResumesAnywhereWithAFilter) {
  Filter();
  ExpectResumesAnywhere();
}

TEST_F(OrderTest, ResumesAnywhereWithAFilterAndALimit) {
  Filter();
  options_.limit = 100;
  ExpectResumesAnywhere();
}

TEST_F(OrderTest, ResumesAnywhereOfABalancedRank) {
  Filter();
  options_.world_size = 3;
  options_.rank = 1;
  options_.balance = Balance::kRows;
  ExpectResumesAnywhere();
}

TEST_F(OrderTest, ResumesAnywhereInAStreamOfEpochs) {
  options_.epochs = 3;
  options_.world_size = 2;
  ExpectResumesAnywhere();
}

TEST_F(OrderTest, BalanceGivesRanksAsManyRowsThatPass) {
  Filter();
  options_.balance = Balance::kRows;
  const auto whole = Flat(Epoch(*Make()));
  options_.world_size = 4;
  std::vector<int64_t> all;
  for (options_.rank = 0; options_.rank < 4; ++options_.rank) {
    const auto loader = Make();
    const auto rows = Flat(Epoch(*loader));
    EXPECT_EQ(rows.size(), whole.size() / 4);
    EXPECT_EQ(loader->NumRows().ValueOrDie(), static_cast<int64_t>(whole.size() / 4));
    all.insert(all.end(), rows.begin(), rows.end());
  }
  EXPECT_EQ(all, std::vector(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(all.size())));
}

// Out of order: no batch twice, none missing.
TEST_F(OrderTest, ResumesOutOfOrder) {
  for (const bool has_filter : {false, true}) {
    if (has_filter) Filter();
    const auto whole = Epoch(*Make());
    options_.in_order = false;
    for (int64_t had = 0; had < 30; had += 3) {
      const auto loader = Make();
      ASSERT_TRUE(loader->StartEpoch().ok());
      auto all = Take(*loader, had);
      const auto second = Make();
      ASSERT_TRUE(second->Resume({loader->State().ValueOrDie()}).ok());
      for (auto& batch : Epoch(*second)) all.push_back(std::move(batch));
      std::sort(all.begin(), all.end());
      EXPECT_EQ(all, whole) << had;
    }
    options_.in_order = true;
  }
}

// Four ranks stop after seven steps, three go on for two, two read the rest.
TEST_F(OrderTest, ElasticReadsEachRowOnce) {
  std::vector<int64_t> all;
  EpochState state;
  const auto phase = [&](int64_t world_size, int64_t steps, bool is_first) {
    EpochState next;
    options_.world_size = world_size;
    for (options_.rank = 0; options_.rank < world_size; ++options_.rank) {
      const auto loader = Make();
      if (!is_first) {
        ASSERT_TRUE(loader->Resume({state}).ok());
      }
      ASSERT_TRUE(loader->StartEpoch().ok());
      for (int64_t row : Flat(Take(*loader, steps))) all.push_back(row);
      next = loader->State().ValueOrDie();
    }
    state = next;
  };
  phase(4, 7, true);
  phase(3, 2, false);
  phase(2, 1 << 20, false);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
  EXPECT_GE(static_cast<int64_t>(all.size()), kRows - 1);
}

// Ranks that are not at the same step need the states of all of them.
TEST_F(OrderTest, ElasticWithAFilterTakesEveryRanksState) {
  Filter();
  const auto whole = Flat(Epoch(*Make()));
  std::vector<int64_t> all;
  std::vector<EpochState> states;
  options_.world_size = 3;
  for (options_.rank = 0; options_.rank < 3; ++options_.rank) {
    const auto loader = Make();
    ASSERT_TRUE(loader->StartEpoch().ok());
    for (int64_t row : Flat(Take(*loader, 2 + options_.rank))) all.push_back(row);
    states.push_back(loader->State().ValueOrDie());
  }
  options_.world_size = 2;
  options_.rank = 0;
  EXPECT_TRUE(Make()->Resume({states[0]}).IsInvalid());
  for (options_.rank = 0; options_.rank < 2; ++options_.rank) {
    const auto loader = Make();
    ASSERT_TRUE(loader->Resume(states).ok());
    for (int64_t row : Flat(Epoch(*loader))) all.push_back(row);
  }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
  EXPECT_GE(all.size() + 1, whole.size());
}

TEST_F(OrderTest, EpochsFollowEachOther) {
  const auto loader = Make();
  EXPECT_EQ(loader->State().ValueOrDie().epoch, 0);
  ASSERT_TRUE(loader->StartEpoch().ok());
  Take(*loader, 1);
  EXPECT_EQ(loader->State().ValueOrDie().epoch, 0);
  loader->EndEpoch();
  EXPECT_EQ(loader->State().ValueOrDie().history.back().rows, 8);  // Broken off, and still the user's place.
  Epoch(*loader);
  EXPECT_EQ(loader->State().ValueOrDie().epoch, 2);
  ASSERT_TRUE(loader->SetEpoch(7).ok());
  EXPECT_EQ(loader->State().ValueOrDie().epoch, 7);
  EXPECT_TRUE(loader->SetEpoch(-1).IsInvalid());
}

// An iteration that could not start is the next one still: a new epoch...
TEST_F(OrderTest, AnEpochThatCannotStartIsTheNextOneStill) {
  options_.shuffle = true;
  const auto expected = Epoch(*Make());
  const auto loader = Make();
  {
    const NoThreads none;
    const arrow::Status status = loader->StartEpoch();
    EXPECT_CONTAINS(status.message(), "a thread cannot be started");
  }
  EXPECT_EQ(loader->State().ValueOrDie().epoch, 0);
  EXPECT_EQ(Epoch(*loader), expected);
  EXPECT_EQ(loader->State().ValueOrDie().epoch, 1);
}

// ... or the rest of one, also where the state has more than rows.
TEST_F(OrderTest, AResumeThatCannotStartIsTheNextOneStill) {
  const auto expect_rest = [&] {
    const auto loader = Make();
    ASSERT_TRUE(loader->StartEpoch().ok());
    Take(*loader, 3);
    const EpochState state = loader->State().ValueOrDie();
    const auto expected = Rest(*loader);

    const auto other = Make();
    ASSERT_TRUE(other->Resume({state}).ok());
    {
      const NoThreads none;
      EXPECT_FALSE(other->StartEpoch().ok());
      EXPECT_FALSE(other->StartEpoch().ok());
    }
    EXPECT_EQ(other->State().ValueOrDie().history, state.history);
    EXPECT_EQ(other->State().ValueOrDie().given_rows, state.given_rows);
    EXPECT_EQ(Epoch(*other), expected);
  };
  expect_rest();
  Filter();
  options_.limit = 100;
  expect_rest();
}

TEST_F(OrderTest, AStreamOfEpochsHasOneShortBatch) {
  options_.epochs = 3;
  const auto loader = Make();
  const auto batches = Epoch(*loader);
  EXPECT_EQ(static_cast<int64_t>(batches.size()), (3 * kRows + 7) / 8);
  const auto rows = Flat(batches);
  for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i], static_cast<int64_t>(i) % kRows);
}

// A share lies in some files; the others' data is not touched, nor that of other row groups.
TEST_F(OrderTest, ResumeReadsWhatIsLeft) {
  const auto read = [](Loader& loader) {
    for (const auto& stage : loader.Stats().stages) {
      if (stage.name == "read") return stage.bytes;
    }
    return int64_t{-1};
  };
  const auto fresh = Make();
  const int64_t opened = read(*fresh);
  Epoch(*fresh);
  const int64_t whole = read(*fresh) - opened;
  ASSERT_TRUE(fresh->StartEpoch().ok());
  Take(*fresh, 43);
  const auto loader = Make();
  ASSERT_TRUE(loader->Resume({fresh->State().ValueOrDie()}).ok());
  const int64_t before = read(*loader);
  EXPECT_EQ(Flat(Epoch(*loader)).size(), static_cast<size_t>(kRows) - 43 * 8);
  EXPECT_LT(read(*loader) - before, whole / 2);
  loader->Close();
  EXPECT_EQ(loader->Memory().total.current_bytes, 0);
}

TEST_F(OrderTest, OtherDataIsRefused) {
  const auto loader = Make();
  ASSERT_TRUE(loader->StartEpoch().ok());
  Take(*loader, 3);
  const EpochState state = loader->State().ValueOrDie();
  options_.batch_size = 4;
  EXPECT_NE(Make()->Resume({state}).message().find("batch_size was 8 and is 4"), std::string::npos);
  options_.batch_size = 8;
  options_.paths = {folder_.File("a.parquet")};
  EXPECT_NE(Make()->Resume({state}).message().find("the data differs"), std::string::npos);
}

}  // namespace
}  // namespace penstock

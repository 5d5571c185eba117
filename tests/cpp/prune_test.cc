#include "source/prune.h"

#include <arrow/array/array_primitive.h>
#include <arrow/array/util.h>
#include <arrow/compute/api_scalar.h>
#include <arrow/compute/exec.h>
#include <arrow/compute/expression.h>
#include <arrow/datum.h>
#include <arrow/filesystem/filesystem.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <parquet/metadata.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

#include "source/projection.h"
#include "source_testing.h"

namespace penstock {
namespace {

using namespace source_testing;  // NOLINT
namespace cp = arrow::compute;

constexpr int64_t kRows = 120;
constexpr int64_t kRowGroupRows = 6;

/// A random table whose row groups differ: some all null, some without nulls, some of one value, some of NaNs.
class RandomTable {
 public:
  explicit RandomTable(uint64_t seed) : random_(seed) {}

  std::shared_ptr<arrow::Table> Make() {
    return TableOf(
        {{"i32", Numbers<arrow::Int32Builder>([&](int v) { return v; })},
         {"i64", Numbers<arrow::Int64Builder>([&](int v) { return (int64_t{1} << 53) + v; })},
         {"u8", Numbers<arrow::UInt8Builder>([&](int v) { return static_cast<uint8_t>(250 + v); })},
         {"u32", Numbers<arrow::UInt32Builder>([&](int v) { return 0x7FFFFFFFU + static_cast<uint32_t>(v); })},
         {"f32", Numbers<arrow::FloatBuilder>([&](int v) { return static_cast<float>(Real(v)); })},
         {"f64", Numbers<arrow::DoubleBuilder>([&](int v) { return Real(v); })},
         {"b", Numbers<arrow::BooleanBuilder>([&](int v) { return v > 2; })},
         {"date", Numbers<arrow::Date32Builder>([&](int v) { return v; })},
         {"s", Numbers<arrow::StringBuilder>([&](int v) { return std::string(1, static_cast<char>('a' + v)); })}});
  }

  int Below(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  double Real(int v) {
    if (nan_percent_ > 0 && Below(100) < nan_percent_) return std::nan("");
    return v == 0 ? (Below(2) == 0 ? 0.0 : -0.0) : v;
  }

 private:
  template <typename Builder, typename Value>
  std::shared_ptr<arrow::Array> Numbers(Value value) {
    Builder builder;
    for (int64_t row = 0; row < kRows; row += kRowGroupRows) {
      const int base = Below(4), width = 1 + Below(3);
      const int null_percents[] = {0, 0, 40, 100};
      const int null_percent = null_percents[Below(4)];
      nan_percent_ = Below(3) == 0 ? (Below(3) == 0 ? 100 : 40) : 0;
      for (int64_t i = 0; i < kRowGroupRows; ++i) {
        const bool is_null = Below(100) < null_percent;
        EXPECT_TRUE((is_null ? builder.AppendNull() : builder.Append(value(base + Below(width)))).ok());
      }
    }
    return builder.Finish().ValueOrDie();
  }

  std::mt19937_64 random_;
  int nan_percent_ = 0;
};

/// A random filter over such a table and the partition column "p".
class RandomFilter {
 public:
  explicit RandomFilter(RandomTable* random) : random_(*random) {}

  cp::Expression Make(int depth) {
    switch (depth == 0 ? 9 : random_.Below(10)) {
      case 0:
      case 1:
        return cp::and_(Make(depth - 1), Make(depth - 1));
      case 2:
      case 3:
        return cp::or_(Make(depth - 1), Make(depth - 1));
      case 4:
      case 5:
        return cp::not_(Make(depth - 1));
      case 6:
        return cp::call("xor", {Make(depth - 1), Make(depth - 1)});
      default:
        return Leaf();
    }
  }

 private:
  struct Operand {
    cp::Expression column;
    cp::Expression literal;
  };

  Operand Pick() {
    const int v = random_.Below(6);
    switch (random_.Below(12)) {
      case 0:
        return {cp::field_ref("i32"), cp::literal(v)};
      case 1:
        return {cp::field_ref("i32"), cp::literal(v + 0.5)};
      case 2:
        return {cp::field_ref("i64"), cp::literal((int64_t{1} << 53) + v)};
      case 3:
        return {cp::field_ref("u8"), cp::literal(250 + v)};
      case 4:
        return {cp::field_ref("u32"), cp::literal(int64_t{0x7FFFFFFF} + v)};
      case 5:
        return {cp::field_ref("f32"), v == 5 ? cp::literal(std::nan("")) : cp::literal(v * 1.0)};
      case 6:
      case 7:
        return {cp::field_ref("f64"), v == 5 ? cp::literal(std::nan("")) : cp::literal(v * 1.0)};
      case 8:
        return {cp::field_ref("b"), cp::literal(v > 2)};
      case 9:
        return {cp::field_ref("date"), cp::literal(std::make_shared<arrow::Date32Scalar>(v))};
      case 10:
        return {cp::field_ref("s"), cp::literal(std::string(1, static_cast<char>('a' + v)))};
      default:
        return {cp::field_ref("p"), cp::literal(v)};
    }
  }

  cp::Expression Leaf() {
    auto [column, literal] = Pick();
    if (random_.Below(6) == 0) std::swap(column, literal);
    switch (random_.Below(12)) {
      case 0:
        return cp::is_valid(std::move(column));
      case 1:
        return cp::is_null(std::move(column), random_.Below(2) == 0);
      case 2:
        return cp::call("is_nan", {cp::field_ref("f64")});
      case 3:
        return cp::field_ref("b");
      case 4:
        return cp::greater(cp::call("divide", {cp::literal(1.0), cp::field_ref("f64")}), cp::literal(0.0));
      case 5:
        return cp::equal(cp::field_ref("f32"), cp::field_ref("f64"));
      case 6:
        return cp::call("is_in", {cp::field_ref("i32")},
                        cp::SetLookupOptions(ArrayOf<arrow::Int32Builder>(std::vector<int32_t>{random_.Below(6), 2})));
      case 7:
        return cp::equal(std::move(column), std::move(literal));
      case 8:
        return cp::not_equal(std::move(column), std::move(literal));
      case 9:
        return cp::less(std::move(column), std::move(literal));
      case 10:
        return cp::less_equal(std::move(column), std::move(literal));
      default:
        return random_.Below(2) == 0 ? cp::greater(std::move(column), std::move(literal))
                                     : cp::greater_equal(std::move(column), std::move(literal));
    }
  }

  RandomTable& random_;
};

/// Rows that the whole filter keeps, out of each row group, by evaluation.
std::vector<int64_t> MatchesPerRowGroup(const Projection& projection, const arrow::Table& table,
                                        const ParquetFile& file) {
  auto batch = table.CombineChunksToBatch().ValueOrDie();
  const int p = projection.dataset_schema->GetFieldIndex("p");
  batch = batch->AddColumn(p, "p", arrow::MakeArrayFromScalar(*file.entry.partition_values[0], kRows).ValueOrDie())
              .ValueOrDie();
  auto input = cp::MakeExecBatch(*projection.dataset_schema, batch).ValueOrDie();
  auto result = cp::ExecuteScalarExpression(*projection.filter, input).ValueOrDie();
  auto mask =
      result.is_scalar() ? arrow::MakeArrayFromScalar(*result.scalar(), kRows).ValueOrDie() : result.make_array();
  const auto& kept = static_cast<const arrow::BooleanArray&>(*mask);
  std::vector<int64_t> matches(kRows / kRowGroupRows);
  for (int64_t i = 0; i < kRows; ++i)
    matches[static_cast<size_t>(i / kRowGroupRows)] += kept.IsValid(i) && kept.Value(i);
  return matches;
}

struct Outcome {
  int pruned = 0, prunable = 0;
};

/// One random file and some random filters; whatever is pruned must have no match.
void CheckSeed(uint64_t seed, Outcome* outcome) {
  SCOPED_TRACE("seed " + std::to_string(seed) + "; set PENSTOCK_TEST_SEED to repeat");
  RandomTable random(seed);
  TempFolder folder;
  const char* partitions[] = {"p=2/a.parquet", "p=__HIVE_DEFAULT_PARTITION__/a.parquet"};
  const std::string path = folder.File(partitions[seed % 2]);
  folder.Write("p=3/zzz.parquet", "never opened: it makes p an integer");
  auto table = random.Make();
  parquet::WriterProperties::Builder writer;
  if (seed % 5 == 0) writer.disable_statistics("i32")->disable_statistics("f64");
  WriteParquet(path, *table, kRowGroupRows, writer.build());
  auto files = *ResolveFiles({folder.path()}, nullptr);
  const size_t place = files.files[0].path == path ? 0 : 1;
  auto file = *OpenParquet(*files.filesystem, files.files[place], nullptr);
  LoaderOptions options;
  options.columns = std::vector<std::string>{"i32"};
  options.layout = Layout::kArrow;
  RandomFilter filters(&random);
  for (int i = 0; i < 40; ++i) {
    options.filter = std::make_shared<cp::Expression>(filters.Make(3));
    SchemaSource source(files, *file);
    auto projection = MakeProjection(options, source, source_testing::DefaultPool());
    ASSERT_TRUE(projection.ok()) << projection.status();
    const std::vector<int64_t> matches = MatchesPerRowGroup(*projection, *table, *file);
    for (size_t g = 0; g < matches.size(); ++g) {
      const bool may_match = *MayMatch(*projection, *file, static_cast<int>(g));
      outcome->pruned += !may_match;
      outcome->prunable += matches[g] == 0;
      ASSERT_TRUE(may_match || matches[g] == 0)
          << matches[g] << " matching rows lost in row group " << g << " by " << options.filter->ToString();
    }
  }
}

// The promise: pruning never loses a row, whatever nulls, NaNs and missing statistics there are.
TEST(PruneTest, NeverDropsAMatchingRow) {
  const char* repeated = std::getenv("PENSTOCK_TEST_SEED");
  const uint64_t first = repeated != nullptr ? std::strtoull(repeated, nullptr, 10) : std::random_device{}();
  Outcome outcome;
  for (uint64_t seed = first; seed < first + (repeated != nullptr ? 1 : 60); ++seed) {
    CheckSeed(seed, &outcome);
    if (testing::Test::HasFatalFailure()) return;
  }
  RecordProperty("pruned", outcome.pruned);
  RecordProperty("prunable", outcome.prunable);
  if (repeated != nullptr) return;
  EXPECT_GT(outcome.pruned * 3, outcome.prunable) << "pruning has become weak";
}

/// A file with one row group for each of the given columns, and how many of them a filter leaves.
class PruneCase {
 public:
  explicit PruneCase(const Columns& columns, int64_t row_group_rows = 2) {
    WriteParquet(folder_.File("p=7/a.parquet"), *TableOf(columns), row_group_rows);
    files_ = *ResolveFiles({folder_.path()}, nullptr);
    file_ = *OpenParquet(*files_.filesystem, files_.files[0], nullptr);
  }

  std::vector<int> Left(cp::Expression filter) const {
    LoaderOptions options;
    options.layout = Layout::kArrow;
    options.filter = std::make_shared<cp::Expression>(std::move(filter));
    SchemaSource source(files_, *file_);
    auto projection = MakeProjection(options, source, source_testing::DefaultPool());
    EXPECT_TRUE(projection.ok()) << projection.status();
    std::vector<int> left;
    for (int g = 0; projection.ok() && g < file_->metadata->num_row_groups(); ++g) {
      if (*MayMatch(*projection, *file_, g)) left.push_back(g);
    }
    return left;
  }

 private:
  TempFolder folder_;
  FileSet files_;
  std::shared_ptr<ParquetFile> file_;
};

using Groups = std::vector<int>;

TEST(PruneTest, StatisticsAndPartitionsPrune) {
  PruneCase file({{"i", Ints({1, 2, 5, 6, 9, 9})}});
  EXPECT_EQ(file.Left(cp::greater(cp::field_ref("i"), cp::literal(4))), (Groups{1, 2}));
  EXPECT_EQ(file.Left(cp::not_equal(cp::field_ref("i"), cp::literal(9))), (Groups{0, 1}));
  EXPECT_EQ(file.Left(cp::equal(cp::field_ref("p"), cp::literal(8))), Groups{});
  EXPECT_EQ(file.Left(cp::equal(cp::field_ref("p"), cp::literal(7))), (Groups{0, 1, 2}));
  EXPECT_EQ(file.Left(cp::is_null(cp::field_ref("i"))), Groups{});
  // Dividing by a known zero is an error of the rows; looking ahead must not fail.
  PruneCase zeros({{"i", Ints({0, 0})}});
  EXPECT_EQ(zeros.Left(cp::greater(cp::call("divide", {cp::literal(1), cp::field_ref("i")}), cp::literal(0))),
            Groups{0});
}

TEST(PruneTest, NanRowsSurviveWhatOnlyTheyMatch) {
  const double nan = std::nan("");
  PruneCase file({{"f", ArrayOf<arrow::DoubleBuilder>(std::vector<double>{1, 1, 1, nan, nan, nan})}});
  const auto f = cp::field_ref("f");
  EXPECT_EQ(file.Left(cp::not_equal(f, cp::literal(1.0))), (Groups{0, 1, 2}));
  EXPECT_EQ(file.Left(cp::not_(cp::less(f, cp::literal(2.0)))), (Groups{0, 1, 2}));
  EXPECT_EQ(file.Left(cp::call("is_nan", {f})), (Groups{0, 1, 2}));
  EXPECT_EQ(file.Left(cp::greater(f, cp::literal(2.0))), Groups{2});  // NaNs only: no statistics.
}

}  // namespace
}  // namespace penstock

#include "source/projection.h"

#include <arrow/array/array_binary.h>
#include <arrow/array/array_dict.h>
#include <arrow/array/array_nested.h>
#include <arrow/array/builder_dict.h>
#include <arrow/compute/expression.h>
#include <arrow/filesystem/filesystem.h>
#include <arrow/scalar.h>
#include <parquet/metadata.h>

#include <variant>

#include "source/parquet_source.h"
#include "source/prune.h"
#include "source_testing.h"

namespace penstock {
namespace {

using namespace source_testing;  // NOLINT
namespace cp = arrow::compute;

/// Files a.parquet, b.parquet, ... of one folder, and what MakeProjection says of them.
class ProjectionTest : public testing::Test {
 protected:
  void Add(const Columns& columns, int64_t row_group_rows = 1 << 20,
           std::shared_ptr<parquet::WriterProperties> properties = parquet::default_writer_properties()) {
    const std::string name(1, static_cast<char>('a' + num_files_++));
    WriteParquet(folder_.File(prefix_ + name + ".parquet"), *TableOf(columns), row_group_rows, std::move(properties));
  }

  arrow::Result<Projection> Make() {
    ARROW_ASSIGN_OR_RAISE(files_, ResolveFiles({folder_.path()}, nullptr));
    ARROW_ASSIGN_OR_RAISE(first_, OpenParquet(*files_.filesystem, files_.files[0], nullptr));
    ARROW_ASSIGN_OR_RAISE(const auto source, MakeParquetSource(files_, &counters_));
    return MakeProjection(options_, *source, source_testing::DefaultPool());
  }
  std::string Error() {
    const arrow::Status status = Make().status();
    EXPECT_TRUE(status.IsInvalid()) << status;
    return status.message();
  }
  std::string FilterError(cp::Expression filter) {
    options_.filter = std::make_shared<cp::Expression>(std::move(filter));
    return Error();
  }
  /// The check of the second file against the projection of the first.
  std::string DriftError() {
    auto projection = Make();
    EXPECT_TRUE(projection.ok()) << projection.status();
    auto file = OpenParquet(*files_.filesystem, files_.files[1], nullptr);
    return CheckSchema(*projection, *(*file)->schema, "'" + (*file)->entry.path + "'").message();
  }
  std::vector<std::string> Vocabulary(const std::string& input) {
    auto projection = Make();
    EXPECT_TRUE(projection.ok()) << projection.status();
    std::vector<std::string> values;
    if (!projection.ok()) return values;
    for (const OutputColumn& output : projection->outputs) {
      if (output.input != input) continue;
      const auto& array = static_cast<const arrow::StringArray&>(*output.converter->field().vocabulary);
      for (int64_t i = 0; i < array.length(); ++i) values.push_back(array.GetString(i));
    }
    return values;
  }

  TempFolder folder_;
  std::string prefix_;
  int num_files_ = 0;
  LoaderOptions options_;
  FileSet files_;
  std::shared_ptr<ParquetFile> first_;
  IoCounters counters_;
};

std::vector<std::string> Names(const Projection& projection) {
  std::vector<std::string> names;
  for (const OutputColumn& output : projection.outputs) {
    names.push_back(output.converter->field().name + "<" + output.input);
  }
  return names;
}
using NameList = std::vector<std::string>;

std::shared_ptr<arrow::Array> Dictionary(const std::vector<std::string>& values, const std::vector<int32_t>& codes) {
  return arrow::DictionaryArray::FromArrays(ArrayOf<arrow::Int32Builder>(codes), Strings(values)).ValueOrDie();
}

TEST_F(ProjectionTest, AllColumnsThenPartitionsByDefault) {
  prefix_ = "y=1/";
  Add({{"b", Ints({1})}, {"y", Ints({7})}, {"a", Ints({1})}});
  auto projection = Make();
  ASSERT_TRUE(projection.ok()) << projection.status();
  EXPECT_EQ(Names(*projection), (NameList{"b<b", "a<a", "y<y"}));
  EXPECT_EQ(projection->dataset_schema->ToString(), "b: int64\na: int64\ny: int32");
  EXPECT_EQ(projection->outputs[0].partition_index, -1);
  EXPECT_EQ(projection->outputs[2].partition_index, 0);
}

TEST_F(ProjectionTest, TransformsTakeThePlaceOfTheirColumnOrComeLast) {
  Add({{"a", Ints({1})}, {"b", Ints({1})}, {"c", Ints({1})}});
  options_.columns = NameList{"c", "a", "new"};
  options_.transforms = {{"z", "b", {ops::Clip{}}}, {"c", "b", {ops::Clip{}}}, {"y", "a", {}}, {"new", "c", {}}};
  auto projection = Make();
  ASSERT_TRUE(projection.ok()) << projection.status();
  EXPECT_EQ(Names(*projection), (NameList{"c<b", "a<a", "new<c", "z<b", "y<a"}));
}

TEST_F(ProjectionTest, ErrorsNameNearMissesAndWhatThereIs) {
  Add({{"carrier", Ints({1})}, {"x", Ints({1})}});
  options_.columns = NameList{"carier"};
  EXPECT_CONTAINS(Error(), "column 'carier' is not in '" + folder_.path() +
                               "/a.parquet'; did you mean 'carrier'? Columns: carrier, x");
  options_.columns = NameList{"quite different"};
  EXPECT_CONTAINS(Error(), "a.parquet'. Columns: carrier, x");
  options_.columns = NameList{"x", "x"};
  EXPECT_CONTAINS(Error(), "the column 'x' is given twice in `columns`");
  options_.columns = NameList{};
  EXPECT_CONTAINS(Error(), "there is no column to load");
  options_.columns.reset();
  options_.transforms = {{"out", "CARRIER", {}}};
  EXPECT_CONTAINS(Error(), "the input of 'out': column 'CARRIER' is not in");
  options_.transforms = {{"x", "x", {}}, {"x", "x", {}}};
  EXPECT_CONTAINS(Error(), "the output 'x' is given twice");
  options_.transforms.clear();
  options_.nulls.fill["carrer"] = ops::FillNull{};
  EXPECT_CONTAINS(Error(), "there is no output column 'carrer'; did you mean 'carrier'?");
}

TEST_F(ProjectionTest, WideFilesListTwentyColumns) {
  Columns columns;
  for (int i = 0; i < 30; ++i) columns.emplace_back("column" + std::to_string(i), Ints({1}));
  Add(columns);
  options_.columns = NameList{"q"};
  EXPECT_CONTAINS(Error(), "column18, column19 ... (first 20 of 30)");
}

TEST_F(ProjectionTest, DuplicateNamesAreAnErrorOnlyWhereNeeded) {
  Add({{"a", Ints({1})}, {"d", Ints({1})}, {"d", Ints({2})}});
  EXPECT_CONTAINS(Error(), "the column 'd' occurs twice in the file; give `columns` without it");
  options_.columns = NameList{"d"};
  EXPECT_CONTAINS(Error(), "column 'd' occurs 2 times in");
  options_.columns = NameList{"a"};
  EXPECT_TRUE(Make().ok());
  EXPECT_CONTAINS(FilterError(cp::greater(cp::field_ref("d"), cp::literal(1))), "filter: column 'd' occurs 2 times");
}

TEST_F(ProjectionTest, FilterColumnsNeedNotBeLoaded) {
  prefix_ = "p=3/";
  Add({{"a", Ints({1})}, {"s", Strings({"x"})}, {"f", ArrayOf<arrow::FloatBuilder>(std::vector<float>{1})}});
  options_.columns = NameList{"a"};
  options_.filter = std::make_shared<cp::Expression>(
      cp::and_({cp::equal(cp::field_ref("f"), cp::literal(1)), cp::equal(cp::field_ref("s"), cp::literal("x")),
                cp::greater(cp::field_ref("p"), cp::literal(2)),
                cp::less(cp::field_ref(arrow::FieldRef(0)), cp::literal(2.5))}));
  auto projection = Make();
  ASSERT_TRUE(projection.ok()) << projection.status();
  ASSERT_EQ(projection->filter_fields.size(), 3U);
  EXPECT_EQ(projection->filter_fields[0]->name(), "a");
  EXPECT_EQ(projection->filter_fields[2]->name(), "f");
  EXPECT_TRUE(projection->filter->IsBound());
  EXPECT_TRUE(*MayMatch(*projection, *first_, 0));
}

TEST_F(ProjectionTest, FilterErrorsAreClear) {
  auto nested = arrow::StructArray::Make({Ints({1})}, {"inner"}).ValueOrDie();
  Add({{"a", Ints({1})}, {"s", Strings({"x"})}, {"n", nested}});
  options_.columns = NameList{"a"};
  EXPECT_CONTAINS(FilterError(cp::field_ref("a")), "is of type int64; a filter must be boolean");
  EXPECT_CONTAINS(FilterError(cp::equal(cp::field_ref("aa"), cp::literal(1))), "filter: column 'aa' is not in");
  EXPECT_CONTAINS(FilterError(cp::equal(cp::field_ref("s"), cp::literal(1))),
                  "does not fit the columns' types (s: string)");
  EXPECT_CONTAINS(FilterError(cp::is_valid(cp::field_ref(arrow::FieldRef("n", "inner")))),
                  "only top-level columns can be filtered on");
  EXPECT_CONTAINS(FilterError(cp::is_valid(cp::field_ref(arrow::FieldRef(9)))), "column number 9; there are 3");
  EXPECT_CONTAINS(FilterError(cp::Expression()), "empty expression");
  EXPECT_CONTAINS(FilterError(cp::call("no_such_function", {cp::field_ref("a")})), "no_such_function");
}

TEST_F(ProjectionTest, ColumnsAreMatchedByNameWhereverTheyStand) {
  Add({{"a", Ints({1})}, {"b", Ints({1})}, {"unused", Ints({1})}});
  Add({{"unused", Strings({"other type"})}, {"b", Ints({1})}, {"more", Ints({1})}, {"a", Ints({1})}});
  options_.columns = NameList{"a", "b"};
  EXPECT_EQ(DriftError(), "");
}

TEST_F(ProjectionTest, SchemaDriftNamesFileColumnAndBothTypes) {
  Add({{"a", Ints({1})}, {"count", Ints({1})}});
  Add({{"a", Strings({"x"})}, {"cuont", Ints({1})}});
  options_.columns = NameList{"a"};
  EXPECT_CONTAINS(DriftError(), "b.parquet': column 'a' is of type string here and int64 in the first file");
  options_.columns = NameList{"count"};
  EXPECT_CONTAINS(DriftError(),
                  "b.parquet': column 'count' is missing here; the first file has it, as int64 (there is 'cuont'");
}

TEST_F(ProjectionTest, FilterColumnsMustAgreeToo) {
  Add({{"a", Ints({1})}, {"f", Ints({1})}});
  Add({{"a", Ints({1})}});
  options_.columns = NameList{"a"};
  options_.filter = std::make_shared<cp::Expression>(cp::greater(cp::field_ref("f"), cp::literal(0)));
  EXPECT_CONTAINS(DriftError(), "column 'f' is missing here");
}

TEST_F(ProjectionTest, VocabularyIsTheUnionInOrderOfFirstAppearance) {
  Add({{"d", Dictionary({"x", "y", "z"}, {0, 1, 1, 2})}, {"i", Ints({1, 2, 3, 4})}}, 2);
  Add({{"d", Dictionary({"q", "y", ""}, {1, 0, 2})}, {"i", Ints({1, 2, 3})}});
  const NameList all = Vocabulary("d");
  EXPECT_EQ(all, (NameList{"x", "y", "z", "q", ""}));
}

TEST_F(ProjectionTest, VocabularyOfFullyEncodedChunksReadsDictionaryPagesOnly) {
  std::vector<int32_t> codes(200000);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<int32_t>((i * 2654435761U) >> 7) & 511;
  NameList values;
  for (int i = 0; i < 512; ++i) values.push_back("v" + std::to_string(i));
  Add({{"d", Dictionary(values, codes)}});
  EXPECT_EQ(Vocabulary("d").size(), 512U);
  const int64_t chunk_bytes = first_->metadata->RowGroup(0)->ColumnChunk(0)->total_compressed_size();
  EXPECT_GT(chunk_bytes, 200000);
  EXPECT_LT(counters_.bytes, chunk_bytes);  // A stream's buffer of 64 KiB and the footer.
}

TEST_F(ProjectionTest, VocabularyFallsBackToLookingThroughPlainPages) {
  Add({{"d", Dictionary({"x", "y"}, {1, 0, 1})}}, 1 << 20,
      parquet::WriterProperties::Builder().disable_dictionary()->build());
  // A dictionary that outgrows its page: the writer goes on with plain pages.
  NameList values;
  std::vector<int32_t> codes;
  for (int i = 0; i < 5000; ++i) {
    values.push_back("value number " + std::to_string(i));
    codes.push_back(i);
  }
  auto strings = Strings(values);
  Add({{"d", Dictionary(values, codes)}}, 1 << 20,
      parquet::WriterProperties::Builder().dictionary_pagesize_limit(1000)->data_pagesize(1000)->build());
  const NameList all = Vocabulary("d");
  ASSERT_EQ(all.size(), 5002U);
  EXPECT_EQ(all[0], "y");
  EXPECT_EQ(all[1], "x");
  EXPECT_EQ(all[2], values[0]);
  EXPECT_EQ(all[5001], values[4999]);
}

TEST_F(ProjectionTest, VocabularyOfNullsAndEmptyFiles) {
  arrow::StringDictionary32Builder builder;
  ASSERT_TRUE(builder.AppendNulls(3).ok());
  auto nulls = builder.Finish().ValueOrDie();
  Add({{"d", nulls}});
  Add({{"d", nulls->Slice(0, 0)}});
  Add({{"d", Dictionary({"x"}, {0})}});
  EXPECT_EQ(Vocabulary("d"), NameList{"x"});
}

TEST_F(ProjectionTest, VocabularyIsNotReadWhereAnOpConsumesIt) {
  Add({{"d", Dictionary({"x"}, {0})}});
  Add({{"d", Ints({1})}});  // Would be an error if it were read.
  options_.transforms = {{"d", "d", {ops::HashBucket{16}}}};
  auto projection = Make();
  ASSERT_TRUE(projection.ok()) << projection.status();
  options_.transforms.clear();
  EXPECT_CONTAINS(Error(), "b.parquet': column 'd' is of type int64 here and dictionary<");
}

}  // namespace
}  // namespace penstock

#include "batch/varying_column.h"

#include <arrow/array/concatenate.h>
#include <arrow/array/validate.h>
#include <arrow/compute/api_vector.h>
#include <arrow/compute/cast.h>
#include <arrow/compute/initialize.h>
#include <arrow/extension/uuid.h>
#include <arrow/extension/variable_shape_tensor.h>
#include <arrow/extension_type.h>
#include <gtest/gtest.h>

#include "varying_testing.h"

namespace penstock {
namespace {

using testing::ArrayPtr;
using testing::FakeSlot;
using testing::Json;
using testing::RandomJson;
using testing::TypePtr;

std::shared_ptr<const VaryingColumn> Column(const TypePtr& type, VaryingColumn::Options options = {},
                                            bool is_nullable = true) {
  return VaryingColumn::Make(*arrow::field("x", type, is_nullable), options).ValueOrDie();
}

std::vector<int64_t> CountOf(const VaryingColumn& column, const arrow::Array& array, int64_t begin, int64_t rows) {
  std::vector<int64_t> counts(static_cast<size_t>(column.num_domains()), -1);
  column.Count(array, begin, rows, counts.data());
  return counts;
}

/// Copies `array` in random cuts, in random order, to batches of random sizes; gives the batches' arrays.
arrow::ArrayVector RoundTrip(const std::shared_ptr<const VaryingColumn>& column, const arrow::Array& array,
                             RandomJson* random) {
  std::vector<int64_t> batch_rows;
  std::vector<std::vector<int64_t>> counts;
  for (int64_t row = 0; row < array.length();) {
    const int64_t rows = std::min(array.length() - row, random->Below(array.length() + 1));
    batch_rows.push_back(rows);
    counts.push_back(CountOf(*column, array, row, rows));
    row += rows;
  }
  const auto slot = std::make_shared<FakeSlot>(column, batch_rows, counts);

  struct Cut {
    size_t batch;
    int64_t begin, row, rows;
    std::vector<int64_t> before;
  };
  std::vector<Cut> cuts;
  int64_t begin = 0;
  for (size_t b = 0; b < batch_rows.size(); begin += batch_rows[b++]) {
    for (int64_t row = 0; row < batch_rows[b];) {
      const int64_t rows = 1 + random->Below(batch_rows[b] - row);
      cuts.push_back({b, begin + row, row, rows, CountOf(*column, array, begin, row)});
      row += rows;
    }
  }
  for (size_t i = cuts.size(); i > 1; --i)
    std::swap(cuts[i - 1], cuts[static_cast<size_t>(random->Below(static_cast<int64_t>(i)))]);
  for (Cut& cut : cuts) column->Copy(array, cut.begin, cut.rows, slot->At(cut.batch, cut.row, &cut.before));

  arrow::ArrayVector batches;
  for (size_t b = 0; b < batch_rows.size(); ++b) {
    batches.push_back(slot->Array(b).ValueOrDie());
    const auto status = batches.back()->ValidateFull();
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  return batches;
}

void ExpectRows(const arrow::ArrayVector& batches, const arrow::Array& expected) {
  int64_t row = 0;
  for (const ArrayPtr& batch : batches) {
    const ArrayPtr slice = expected.Slice(row, batch->length());
    ASSERT_TRUE(batch->Equals(*slice)) << batch->ToString() << "\nshould be\n" << slice->ToString();
    row += batch->length();
  }
  EXPECT_EQ(row, expected.length());
}

TypePtr NonNull(const TypePtr& type) { return arrow::list(arrow::field("item", type, false)); }

std::vector<TypePtr> Types() {
  using namespace arrow;  // NOLINT: the names of types
  const auto inner = struct_({field("a", utf8()), field("b", int16(), false), field("c", list(boolean()))});
  return {utf8(),
          large_utf8(),
          utf8_view(),
          binary(),
          large_binary(),
          binary_view(),
          fixed_size_binary(5),
          boolean(),
          null(),
          float64(),
          decimal128(9, 2),
          decimal256(50, 2),
          date64(),
          timestamp(TimeUnit::MICRO, "UTC"),
          month_interval(),
          day_time_interval(),
          month_day_nano_interval(),
          list(int32()),
          large_list(utf8()),
          list_view(float32()),
          large_list_view(utf8_view()),
          NonNull(int64()),
          list(list(list(utf8()))),
          inner,
          list(inner),
          struct_({field("s", inner), field("n", null())}),
          map(utf8(), list(int32())),
          list(map(int32(), utf8())),
          fixed_size_list(int32(), 3),
          fixed_size_list(utf8(), 2),
          list(fixed_size_list(boolean(), 5)),
          fixed_size_list(list(int8()), 0),
          list(null()),
          sparse_union({field("i", int32()), field("s", utf8())}),
          list(dense_union({field("i", int32()), field("s", list(utf8()))}, {5, 9})),
          list(dense_union({field("d", struct_({field("x", utf8_view())})), field("u", boolean())}))};
}

// What a batch shows is what came in, whatever the type, the cuts, their order and the source's offset.
TEST(VaryingColumn, CopiesWhatItIsGiven) {
  for (const TypePtr& type : Types()) {
    for (unsigned seed = 0; seed < 12; ++seed) {
      SCOPED_TRACE(type->ToString() + ", seed " + std::to_string(seed));
      RandomJson random(seed);
      const auto column = Column(type);
      const std::string json = random.Rows(*arrow::field("x", type), 1 + random.Below(150));
      ArrayPtr source = Json(type, json), expected = Json(column->type(), json);
      const int64_t from = random.Below(source->length());
      source = source->Slice(from);
      const ArrayPtr array = column->Normalize(source, arrow::default_memory_pool()).ValueOrDie();
      EXPECT_EQ(column->FindNull(*array, 0, array->length()), -1);
      ExpectRows(RoundTrip(column, *array, &random), *expected->Slice(from));
      if (HasFailure()) return;
    }
  }
}

// Layouts that have no offsets are decoded, also below lists.
TEST(VaryingColumn, DecodesDictionariesAndRunEnds) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  const auto dictionary = arrow::dictionary(arrow::int8(), arrow::utf8());
  const auto encoded = std::static_pointer_cast<arrow::Array>(std::make_shared<arrow::DictionaryArray>(
      dictionary, Json(arrow::int8(), "[1, null, 0, 1]"), Json(arrow::utf8(), R"(["no", "yes"])")));
  const auto lists = arrow::ListArray::FromArrays(*Json(arrow::int32(), "[0, 1, 1, 4]"), *encoded).ValueOrDie();
  RandomJson random(1);
  for (const auto& [source, json] :
       {std::pair<ArrayPtr, const char*>{encoded, R"(["yes", null, "no", "yes"])"},
        {lists, R"([["yes"], [], [null, "no", "yes"]])"},
        {arrow::compute::RunEndEncode(Json(arrow::utf8(), R"(["a", "a", null, "b"])")).ValueOrDie().make_array(),
         R"(["a", "a", null, "b"])"}}) {
    const auto column = Column(source->type());
    const ArrayPtr array = column->Normalize(source, arrow::default_memory_pool()).ValueOrDie();
    ExpectRows(RoundTrip(column, *array, &random), *Json(column->type(), json));
    const ArrayPtr tail = column->Normalize(source->Slice(1), arrow::default_memory_pool()).ValueOrDie();
    ExpectRows(RoundTrip(column, *tail, &random), *Json(column->type(), json)->Slice(1));
  }
}

// Plain layouts are not rewritten.
TEST(VaryingColumn, LeavesPlainLayoutsAsTheyAre) {
  for (const TypePtr& type : {arrow::utf8(), arrow::list(arrow::struct_({arrow::field("a", arrow::binary())})),
                              arrow::map(arrow::utf8(), arrow::int32())}) {
    const ArrayPtr source = Json(type, "[]");
    EXPECT_EQ(Column(type)->Normalize(source, arrow::default_memory_pool()).ValueOrDie(), source);
  }
}

TEST(VaryingColumn, RefusesAnArrayOfAnotherType) {
  const auto column = Column(arrow::list(arrow::struct_({arrow::field("a", arrow::int32())})));
  for (const TypePtr& other : {arrow::list(arrow::int32()), arrow::int32(),
                               arrow::list(arrow::struct_({arrow::field("a", arrow::int64())}))}) {
    const auto result = column->Normalize(Json(other, "[]"), arrow::default_memory_pool());
    EXPECT_TRUE(result.status().IsTypeError()) << result.status().ToString();
  }
}

// Extension types come back, over wide storage where they have such a form, else over their own.
TEST(VaryingColumn, GivesExtensionTypesBack) {
  RandomJson random(2);
  const auto tensor = std::make_shared<arrow::extension::VariableShapeTensorType>(arrow::float32(), 2);
  const std::string json = R"([{"data": [1, 2], "shape": [1, 2]}, null, {"data": [], "shape": [0, 7]}])";
  for (const auto& [type, text] :
       {std::pair<TypePtr, std::string>{tensor, json}, {arrow::extension::uuid(), R"(["0123456789abcdef", null])"}}) {
    const auto& extension = static_cast<const arrow::ExtensionType&>(*type);
    const ArrayPtr source = arrow::ExtensionType::WrapArray(type, Json(extension.storage_type(), text));
    const auto column = Column(type);
    EXPECT_TRUE(column->type()->Equals(*type)) << column->type()->ToString();
    const ArrayPtr array = column->Normalize(source, arrow::default_memory_pool()).ValueOrDie();
    ExpectRows(RoundTrip(column, *array, &random), *source);
  }
}

// Without masks, FindNull tells the first row with something missing, at whatever level.
TEST(VaryingColumn, FindsTheFirstRowWithANull) {
  VaryingColumn::Options strict;
  strict.has_masks = false;
  const auto pair = arrow::struct_({arrow::field("a", arrow::int32()), arrow::field("b", arrow::utf8())});
  struct Case {
    TypePtr type;
    std::string json;
    int64_t row;
  };
  for (const Case& c : {Case{arrow::utf8(), R"(["", "a", null])", 2}, Case{arrow::utf8(), R"(["", "a"])", -1},
                        Case{arrow::list(arrow::int32()), "[[], [1, 2], [], [3, null], null]", 3},
                        Case{arrow::list(arrow::list(arrow::utf8())), R"([[["a"], []], [[], null]])", 1},
                        Case{arrow::fixed_size_list(arrow::int32(), 2), "[[1, 2], [3, 4], [5, null]]", 2},
                        Case{arrow::list(pair), R"([[], [{"a": 1, "b": "x"}], [{"a": 1, "b": null}]])", 2},
                        Case{arrow::null(), "[null]", 0}}) {
    SCOPED_TRACE(c.type->ToString());
    const auto column = Column(c.type, strict);
    for (const Strand& strand : column->strands()) EXPECT_NE(strand.kind, Strand::Kind::kMask);
    const ArrayPtr array = Json(c.type, c.json);
    EXPECT_EQ(column->FindNull(*array, 0, array->length()), c.row);
    if (c.row > 0) {
      EXPECT_EQ(column->FindNull(*array, 1, array->length() - 1), c.row);
      EXPECT_EQ(column->FindNull(*array->Slice(1), 0, array->length() - 1), c.row - 1);
    }
  }
}

// A field that must not be null, below an element that is: no fault.
TEST(VaryingColumn, LooksForNoValueBelowANull) {
  const auto child = arrow::field("a", arrow::int32(), false);
  const ArrayPtr values = Json(arrow::int32(), "[1, null, 3, null]");
  const ArrayPtr structs =
      std::make_shared<arrow::StructArray>(arrow::struct_({child}), 4, arrow::ArrayVector{values},
                                           Json(arrow::boolean(), "[true, false, true, true]")->data()->buffers[1]);
  EXPECT_EQ(Column(structs->type())->FindNull(*structs, 0, 3), -1);
  EXPECT_EQ(Column(structs->type())->FindNull(*structs, 0, 4), 3);
}

// Tensors have decimals as float64 and dates as days.
TEST(VaryingColumn, AsTensorsHaveNumbers) {
  VaryingColumn::Options options;
  options.as_tensors = true;
  RandomJson random(3);
  for (const auto& [type, json, given] : {std::tuple{arrow::decimal128(9, 2), R"([["1.25", null]])", "[[1.25, null]]"},
                                          std::tuple{arrow::date64(), "[[86400000], null]", "[[1], null]"}}) {
    const auto column = Column(arrow::list(type), options);
    const ArrayPtr array = column->Normalize(Json(arrow::list(type), json), arrow::default_memory_pool()).ValueOrDie();
    ExpectRows(RoundTrip(column, *array, &random), *Json(column->type(), given));
  }
}

// A batch without rows is an array, too.
TEST(VaryingColumn, GivesBatchesWithoutRows) {
  const auto column = Column(arrow::map(arrow::utf8(), arrow::list(arrow::int32())));
  const auto slot =
      std::make_shared<FakeSlot>(column, std::vector<int64_t>{0}, std::vector<std::vector<int64_t>>{{0, 0, 0}});
  const ArrayPtr array = slot->Array(0).ValueOrDie();
  EXPECT_TRUE(array->ValidateFull().ok());
  EXPECT_EQ(array->length(), 0);
}

}  // namespace
}  // namespace penstock

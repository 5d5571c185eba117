#include <arrow/array/util.h>

#include "converter_testing.h"

namespace penstock {
namespace {

ArrayPtr Dictionary(const std::shared_ptr<arrow::DataType>& index, const std::string& indices, const ArrayPtr& values) {
  const auto type = arrow::dictionary(index, values->type());
  return arrow::DictionaryArray::FromArrays(type, Json(index, indices), values).ValueOrDie();
}

TEST(ConverterDictionaryTest, LocalDictionariesMapToOneVocabulary) {
  const auto type = arrow::dictionary(arrow::int8(), arrow::utf8());
  const auto vocabulary = Json(arrow::utf8(), R"(["a", "b", "c", "d"])");
  const auto converter = Made(type, {.nulls = Mask(), .vocabulary = vocabulary});
  EXPECT_EQ(converter->field().dtype, DType::kInt32);
  EXPECT_EQ(converter->field().vocabulary, vocabulary);
  const auto first = Dictionary(arrow::int8(), "[1, 0, null, 1, 2]", Json(arrow::utf8(), R"(["d", "b", "zz"])"));
  ExpectArray<int32_t>(*converter, *first->Slice(0, 4), {1, 3, 0, 1}, {0, 0, 1, 0});  // An unused "zz" does no harm.
  ExpectMessage(ArrayError(*converter, *first), "row 4: value 'zz' is not in the column's vocabulary");
  const auto second =
      Dictionary(arrow::uint64(), "[2, 1, 0]", Json(arrow::utf8(), R"(["no", "c", null, "a"])")->Slice(1));
  ExpectArray<int32_t>(*converter, *second, {0, 0, 2}, {0, 1, 0});
  const auto unused = Dictionary(arrow::int16(), "[null, null]", Json(arrow::utf8(), "[]"));
  ExpectArray<int32_t>(*converter, *unused, {0, 0}, {1, 1});
  const auto views = Dictionary(arrow::int16(), "[0]", Json(arrow::utf8_view(), R"(["c"])"));
  ExpectArray<int32_t>(*converter, *views, {2}, {0});
}

TEST(ConverterDictionaryTest, KeepsItsArrowTypeUnlessAnOpLooksAtTheValues) {
  const auto type = arrow::fixed_size_list(arrow::dictionary(arrow::int64(), arrow::utf8()), 2);
  const auto vocabulary = Json(arrow::large_utf8(), R"(["a", "b"])");
  const auto codes = Made(type, {.layout = Layout::kArrow, .vocabulary = vocabulary});
  const auto coded = arrow::fixed_size_list(arrow::dictionary(arrow::int32(), arrow::large_utf8()), 2);
  EXPECT_TRUE(codes->field().arrow_type->Equals(coded)) << codes->field().arrow_type->ToString();
  const auto hashed = Made(type, {.ops = {ops::HashBucket{9}}, .layout = Layout::kArrow});
  EXPECT_TRUE(hashed->field().arrow_type->Equals(arrow::fixed_size_list(arrow::int64(), 2)));
  EXPECT_EQ(hashed->field().vocabulary, nullptr);
}

TEST(ConverterDictionaryTest, FillsWithACodeOrAValue) {
  const auto array = Dictionary(arrow::int8(), "[0, null]", Json(arrow::utf8(), R"(["b"])"));
  const auto vocabulary = Json(arrow::utf8(), R"(["a", "b"])");
  for (const Setting& setting : {Setting{.ops = {Number(-1)}, .vocabulary = vocabulary},
                                 Setting{.nulls = Fill(Number(-1)), .vocabulary = vocabulary}}) {
    ExpectArray<int32_t>(*Made(array->type(), setting), *array, {1, -1});
  }
  for (const Setting& setting : {Setting{.ops = {Text("a")}, .vocabulary = vocabulary},
                                 Setting{.nulls = Fill(Text("a")), .vocabulary = vocabulary}}) {
    ExpectArray<int32_t>(*Made(array->type(), setting), *array, {1, 0});
  }
}

TEST(ConverterDictionaryTest, OfNumbersAndDates) {
  const auto dates = Json(arrow::date64(), "[86400000, 172800000]");
  const auto array = Dictionary(arrow::int8(), "[1, 1, 0]", dates);
  ExpectArray<int32_t>(*Made(array->type(), {.vocabulary = dates}), *array, {1, 1, 0});
  const auto floats = Json(arrow::float64(), "[0.5, -1]");
  const auto float_array = Dictionary(arrow::int8(), "[1, 0]", floats);
  ExpectArray<int32_t>(*Made(float_array->type(), {.vocabulary = floats}), *float_array, {1, 0});
  ExpectArray<float>(*Made(float_array->type(), {.ops = {ops::Cast{DType::kFloat32}}}), *float_array, {-1, 0.5f});
  const auto decimals = arrow::dictionary(arrow::int8(), arrow::decimal128(9, 1));
  ExpectRefused(decimals, {.vocabulary = Json(arrow::decimal128(9, 1), R"(["1.0"])")}, "use ps.ops.cast");
}

TEST(ConverterDictionaryTest, RefusesIndicesOutsideAndForeignTypes) {
  const auto vocabulary = Json(arrow::utf8(), R"(["a"])");
  const auto type = arrow::dictionary(arrow::int8(), arrow::utf8());
  const auto good = Dictionary(arrow::int8(), "[0]", vocabulary);
  auto data = Json(arrow::int8(), "[0, -1]")->data()->Copy();
  data->type = type;
  data->dictionary = vocabulary->data();
  const auto converter = Made(type, {.vocabulary = vocabulary});
  ExpectMessage(ArrayError(*converter, *arrow::MakeArray(data)), "a dictionary index is outside");
  EXPECT_TRUE(ArrayError(*converter, *Json(arrow::int8(), "[0]")).IsTypeError());
  EXPECT_TRUE(ArrayError(*Made(arrow::int32()), *Json(arrow::int64(), "[0]")).IsTypeError());
}

}  // namespace
}  // namespace penstock

#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/array/util.h>
#include <arrow/extension/fixed_shape_tensor.h>
#include <arrow/util/decimal.h>

#include <cmath>
#include <limits>
#include <random>

#include "converter_testing.h"

namespace penstock {
namespace {

// ---- Types -------------------------------------------------------------------------------------------------------

struct TypeCase {
  std::shared_ptr<arrow::DataType> type;
  DType tensor;
  DType arrow;
  std::shared_ptr<arrow::DataType> arrow_type;  // Null: the source's.
};

TEST(ConverterTypesTest, EachTypeHasItsFormInEachLayout) {
  const auto unit = arrow::TimeUnit::SECOND;
  const std::vector<TypeCase> cases = {
      {arrow::boolean(), DType::kBool, DType::kBool, nullptr},
      {arrow::int8(), DType::kInt8, DType::kInt8, nullptr},
      {arrow::uint16(), DType::kUInt16, DType::kUInt16, nullptr},
      {arrow::uint64(), DType::kUInt64, DType::kUInt64, nullptr},
      {arrow::float16(), DType::kFloat16, DType::kFloat16, nullptr},
      {arrow::float64(), DType::kFloat64, DType::kFloat64, nullptr},
      {arrow::date32(), DType::kInt32, DType::kInt32, nullptr},
      {arrow::date64(), DType::kInt32, DType::kInt64, nullptr},
      {arrow::time32(unit), DType::kInt32, DType::kInt32, nullptr},
      {arrow::time64(arrow::TimeUnit::NANO), DType::kInt64, DType::kInt64, nullptr},
      {arrow::timestamp(unit, "UTC"), DType::kInt64, DType::kInt64, nullptr},
      {arrow::duration(unit), DType::kInt64, DType::kInt64, nullptr},
      {arrow::decimal32(5, 2), DType::kFloat64, DType::kDecimal128, arrow::decimal128(5, 2)},
      {arrow::decimal64(12, 2), DType::kFloat64, DType::kDecimal128, arrow::decimal128(12, 2)},
      {arrow::decimal128(30, 2), DType::kFloat64, DType::kDecimal128, nullptr},
  };
  for (const TypeCase& expected : cases) {
    SCOPED_TRACE(expected.type->ToString());
    const auto tensor = Made(expected.type);
    EXPECT_EQ(tensor->field().dtype, expected.tensor);
    EXPECT_FALSE(tensor->field().has_mask);
    const auto arrow = Made(expected.type, {.layout = Layout::kArrow});
    EXPECT_EQ(arrow->field().dtype, expected.arrow);
    EXPECT_TRUE(arrow->field().has_mask);
    EXPECT_TRUE(arrow->field().arrow_type->Equals(expected.arrow_type ? expected.arrow_type : expected.type));
    EXPECT_TRUE(tensor->is_pure() && !tensor->is_dear());
  }
}

TEST(ConverterTypesTest, RefusesWhatHasNoForm) {
  const auto item = arrow::int32();
  ExpectRefused(arrow::utf8(), {},
                "strings have no tensor form; use ps.ops.hash_bucket or ps.ops.lookup, or ps.ops.cast");
  ExpectRefused(arrow::large_binary(), {}, "use ps.ops.hash_bucket");
  ExpectRefused(arrow::utf8_view(), {.layout = Layout::kArrow}, "ps.ops.lookup");
  ExpectRefused(arrow::fixed_size_binary(3), {}, "ps.ops.hash_bucket");
  ExpectRefused(arrow::list(item), {}, "ps.ops.pad_list(length)");
  ExpectRefused(arrow::map(item, item), {}, "no op takes maps");
  ExpectRefused(arrow::struct_({arrow::field("a", item)}), {}, "name one of their fields");
  ExpectRefused(arrow::null(), {}, "null");
  ExpectRefused(arrow::month_interval(), {}, "no tensor form");
  ExpectRefused(arrow::dense_union({arrow::field("a", item)}), {}, "no tensor form");
  ExpectRefused(arrow::decimal256(60, 2), {.layout = Layout::kArrow}, "decimal256");
  ExpectRefused(arrow::dictionary(arrow::int8(), arrow::utf8()), {}, "dictionary");
}

TEST(ConverterTypesTest, ConvertsNumbersAsTheyAre) {
  ExpectArray<int16_t>(*Made(arrow::int16()), *Json(arrow::int16(), "[1, -2, 3]"), {1, -2, 3});
  ExpectArray<double>(*Made(arrow::float64()), *Json(arrow::float64(), "[1.5, -2]"), {1.5, -2});
  ExpectArray<uint16_t>(*Made(arrow::float16()), *Json(arrow::float16(), "[1.0]"), {0x3C00});
  ExpectArray<int32_t>(*Made(arrow::date64()), *Json(arrow::date64(), "[86400000, -86400000]"), {1, -1});
  ExpectArray<int64_t>(*Made(arrow::date64(), {.layout = Layout::kArrow}), *Json(arrow::date64(), "[86400000]"),
                       {86400000}, {0});
  ExpectArray<int64_t>(*Made(arrow::int64()), *Json(arrow::int64(), "[]"), {});
}

TEST(ConverterTypesTest, ReadsBitsAtEveryOffset) {
  arrow::BooleanBuilder builder;
  std::vector<uint8_t> expected;
  for (int i = 0; i < 5000; ++i) {
    expected.push_back(i % 3 == 0 || i % 7 == 2);
    ASSERT_TRUE(builder.Append(expected.back() != 0).ok());
  }
  const auto array = builder.Finish().ValueOrDie();
  const auto converter = Made(arrow::boolean());
  for (const int64_t offset : {0, 1, 7, 8, 13, 2047, 4999}) {
    const auto slot = TryArray(*converter, *array->Slice(offset)).ValueOrDie();
    EXPECT_EQ(slot.values, std::vector<uint8_t>(expected.begin() + offset, expected.end())) << offset;
  }
}

TEST(ConverterTypesTest, TakesParquetsPhysicalForms) {
  const std::vector<int32_t> words = {1, -1, 300};
  const ValueSpan span{DType::kInt32, words.data(), nullptr, 3};
  const auto narrow = Made(arrow::int8());
  EXPECT_TRUE(narrow->is_identity());
  Slot bytes(*narrow, 3);
  ExpectMessage(narrow->Convert(span, 40, bytes.target), "row 42: value 300 does not fit int8");
  const auto wide = Made(arrow::uint32());
  Slot wide_slot(*wide, 3);
  ASSERT_TRUE(wide->Convert(span, 0, wide_slot.target).ok());
  EXPECT_EQ(wide_slot.As<uint32_t>(), (std::vector<uint32_t>{1, 0xFFFFFFFF, 300}));
  const auto date = Made(arrow::date64(), {.layout = Layout::kArrow});
  Slot date_slot(*date, 3);
  ASSERT_TRUE(date->Convert(span, 0, date_slot.target).ok());
  EXPECT_EQ(date_slot.As<int64_t>()[1], -86400000);
  EXPECT_TRUE(Made(arrow::float32())->Convert(span, 0, wide_slot.target).IsTypeError());
}

TEST(ConverterTypesTest, IdentityIsOnlyWhatNeedsNoTouch) {
  EXPECT_TRUE(Made(arrow::int64())->is_identity());
  EXPECT_TRUE(Made(arrow::fixed_size_list(arrow::float32(), 3), {.nulls = Mask()})->is_identity());
  EXPECT_TRUE(Made(arrow::decimal128(9, 1), {.layout = Layout::kArrow})->is_identity());
  EXPECT_FALSE(Made(arrow::decimal128(9, 1))->is_identity());
  EXPECT_FALSE(Made(arrow::decimal64(9, 1), {.layout = Layout::kArrow})->is_identity());
  EXPECT_FALSE(Made(arrow::date64())->is_identity());
  EXPECT_FALSE(Made(arrow::int64(), {.nulls = Fill(Number(1))})->is_identity());
  EXPECT_FALSE(Made(arrow::int64(), {.ops = {ops::Spin{}}})->is_identity());
}

TEST(ConverterDecimalTest, RoundsAsArrowDoes) {
  std::mt19937_64 random(7);
  std::vector<int64_t> values = {0, 1, -1, INT64_MAX, INT64_MIN, (1LL << 53) - 1, 1LL << 53, (1LL << 53) + 1};
  for (int i = 0; i < 4000; ++i) values.push_back(static_cast<int64_t>(random()) >> (random() % 64));
  for (const int32_t scale : {0, 1, 2, 7, 18, -3}) {
    const auto converter = Made(arrow::decimal64(18, scale));
    Slot slot(*converter, static_cast<int64_t>(values.size()));
    const ValueSpan span{DType::kInt64, values.data(), nullptr, static_cast<int64_t>(values.size())};
    ASSERT_TRUE(converter->Convert(span, 0, slot.target).ok());
    const auto got = slot.As<double>();
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(got[i], arrow::Decimal128(values[i]).ToDouble(scale)) << values[i] << " scale " << scale;
    }
  }
}

TEST(ConverterDecimalTest, EveryWidthGivesTheSame) {
  const std::string json = R"(["1.25", "-99999.01", "0.00"])";
  const std::vector<double> expected = {1.25, arrow::Decimal128(-9999901).ToDouble(2), 0};
  for (const auto& type : {arrow::decimal32(9, 2), arrow::decimal64(9, 2), arrow::decimal128(9, 2),
                           arrow::decimal256(9, 2), arrow::decimal256(60, 2)}) {
    ExpectArray<double>(*Made(type), *Json(type, json), expected);
  }
  const auto huge = Json(arrow::decimal256(60, 2), R"(["12345678901234567890123456789012345678901234567890.12"])");
  ExpectArray<double>(*Made(huge->type()), *huge, {1.2345678901234567e49});
  const auto wide = Made(arrow::decimal32(9, 2), {.nulls = Fill(Number(0.5)), .layout = Layout::kArrow});
  ExpectArray<int64_t>(*wide, *Json(arrow::decimal32(9, 2), R"(["-1.25", null])"), {-125, -1, 50, 0});
  const uint8_t big_endian[] = {0xFF, 0x83};
  const BytesView view{2, big_endian};
  Slot slot(*wide, 1);
  ASSERT_TRUE(wide->Convert({DType::kBytes, &view, nullptr, 1}, 0, slot.target).ok());
  EXPECT_EQ(slot.As<int64_t>(), (std::vector<int64_t>{-125, -1}));
}

// ---- Lists and extension types -----------------------------------------------------------------------------------

TEST(ConverterListTest, NestedListsWithOffsetsAndNullsAtEachLevel) {
  const auto type = arrow::fixed_size_list(arrow::fixed_size_list(arrow::int16(), 2), 2);
  const auto array = Json(type, "[[[9,9],[9,9]], [[1,2],[3,null]], null, [null,[5,6]], [[7,8],[9,10]]]");
  const auto converter = Made(type, {.nulls = Mask()});
  EXPECT_EQ(converter->field().shape, (std::vector<int64_t>{2, 2}));
  ExpectArray<int16_t>(*converter, *array->Slice(1), {1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 5, 6, 7, 8, 9, 10},
                       {0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0});
  ExpectMessage(ArrayError(*Made(type), *array), "row 1 is null");
  const auto arrow = Made(type, {.layout = Layout::kArrow});
  EXPECT_TRUE(arrow->field().arrow_type->Equals(type));
  ExpectMessage(ArrayError(*arrow, *array), "row 2: a whole list is null");
  EXPECT_TRUE(ArrayError(*arrow, *array->Slice(0, 2)).ok());
  const auto filled = Made(type, {.nulls = Fill(Number(-1)), .layout = Layout::kArrow});
  ExpectArray<int16_t>(*filled, *array->Slice(2, 1), {-1, -1, -1, -1});
}

TEST(ConverterListTest, EmptyAndLongLists) {
  const auto empty = arrow::fixed_size_list(arrow::int16(), 0);
  ExpectArray<int16_t>(*Made(empty), *Json(empty, "[[], [], null]"), {});
  constexpr int32_t kSize = 3000;  // One row is longer than a strip.
  arrow::Int32Builder builder;
  std::vector<int32_t> expected;
  for (int32_t i = 0; i < 3 * kSize; ++i) expected.push_back(i);
  ASSERT_TRUE(builder.AppendValues(expected).ok());
  const auto list = arrow::FixedSizeListArray::FromArrays(builder.Finish().ValueOrDie(), kSize).ValueOrDie();
  const auto converter = Made(list->type());
  ExpectArray<int32_t>(*converter, *list->Slice(1), std::vector<int32_t>(expected.begin() + kSize, expected.end()));
  const auto narrow = Made(list->type(), {.ops = {ops::Clip{0, 7000}, ops::Cast{DType::kInt16}}});
  EXPECT_TRUE(ArrayError(*narrow, *list).ok());
  const auto refused = Made(list->type(), {.ops = {ops::Cast{DType::kUInt8}}});
  ExpectMessage(ArrayError(*refused, *list->Slice(1)), "row 0: value 3000 does not fit uint8");
}

TEST(ConverterListTest, TensorsHaveTheirShape) {
  const auto type = arrow::extension::fixed_shape_tensor(arrow::float32(), {2, 3});
  const auto storage = Json(arrow::fixed_size_list(arrow::float32(), 6), "[[1,2,3,4,5,6]]");
  const auto array = arrow::ExtensionType::WrapArray(type, storage);
  const auto converter = Made(type, {.layout = Layout::kArrow});
  EXPECT_EQ(converter->field().shape, (std::vector<int64_t>{2, 3}));
  const auto rebuilt = arrow::fixed_size_list(arrow::fixed_size_list(arrow::float32(), 3), 2);
  EXPECT_TRUE(converter->field().arrow_type->Equals(rebuilt));
  ExpectArray<float>(*converter, *array, {1, 2, 3, 4, 5, 6}, {0, 0, 0, 0, 0, 0});
}

}  // namespace
}  // namespace penstock

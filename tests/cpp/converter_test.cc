#include "ops/converter.h"

#include <arrow/array.h>
#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/array/util.h>
#include <arrow/extension/fixed_shape_tensor.h>
#include <arrow/json/from_string.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/util/decimal.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "ops/hash.h"
#include "ops/spin.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the temporaries of designated initialisers for uninitialised.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace penstock {
namespace {

using arrow::json::ArrayFromJSONString;
using ConverterPtr = std::shared_ptr<const Converter>;
using ArrayPtr = std::shared_ptr<arrow::Array>;

ArrayPtr Json(const std::shared_ptr<arrow::DataType>& type, const std::string& json) {
  return ArrayFromJSONString(type, json).ValueOrDie();
}

/// What the tests vary when they make a converter.
struct Setting {
  std::vector<Op> ops = {};
  NullPolicy nulls = {};
  Layout layout = Layout::kTensor;
  ArrayPtr vocabulary = nullptr;
  bool is_nullable = true;
};

ops::FillNull Number(double value) { return {value, std::nullopt, std::nullopt}; }
ops::FillNull Text(std::string text) { return {0, std::move(text), std::nullopt}; }
ops::FillNull Integer(int64_t integer) { return {0, std::nullopt, integer}; }
NullPolicy Mask() { return {NullPolicy::Kind::kMask, {}}; }
NullPolicy Fill(ops::FillNull fill) { return {NullPolicy::Kind::kError, {{"x", std::move(fill)}}}; }

arrow::Result<ConverterPtr> TryMake(const std::shared_ptr<arrow::DataType>& type, const Setting& setting = {}) {
  return Converter::Make("x", *arrow::field("in", type, setting.is_nullable), setting.ops, setting.nulls,
                         setting.layout, setting.vocabulary);
}
ConverterPtr Made(const std::shared_ptr<arrow::DataType>& type, const Setting& setting = {}) {
  auto made = TryMake(type, setting);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : nullptr;
}

void ExpectMessage(const arrow::Status& status, const std::string& part) {
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
}
void ExpectRefused(const std::shared_ptr<arrow::DataType>& type, const Setting& setting, const std::string& part) {
  const auto status = TryMake(type, setting).status();
  ExpectMessage(status, "column 'x': ");
  ExpectMessage(status, part);
}

/// Slot memory with room for `elements`, filled with rubbish so that what is not written shows.
struct Slot {
  Slot(const Converter& converter, int64_t elements)
      : width(ByteWidth(converter.field().dtype)), values(elements * width + 16, 0xAB), mask(elements + 1, 0xAB) {
    target = {values.data(), converter.field().has_mask ? mask.data() : nullptr};
    values.resize(elements * width);
    mask.resize(target.mask != nullptr ? elements : 0);
  }
  int64_t width;
  std::vector<uint8_t> values;
  std::vector<uint8_t> mask;
  SlotTarget target;

  template <typename T>
  std::vector<T> As() const {
    std::vector<T> out(values.size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), values.data(), values.size());
    return out;
  }
};

arrow::Result<Slot> TryArray(const Converter& converter, const arrow::Array& array, int64_t offset = 0,
                             int64_t length = -1) {
  if (length < 0) length = array.length() - offset;
  Slot slot(converter, length * converter.field().items());
  ARROW_RETURN_NOT_OK(converter.ConvertArray(array, offset, length, 0, slot.target));
  return slot;
}

template <typename T>
void ExpectArray(const Converter& converter, const arrow::Array& array, const std::vector<T>& values,
                 const std::vector<uint8_t>& mask = {}) {
  auto slot = TryArray(converter, array);
  ASSERT_TRUE(slot.ok()) << slot.status();
  ASSERT_EQ(slot->As<T>().size(), values.size());
  const auto* expected = reinterpret_cast<const uint8_t*>(values.data());
  EXPECT_EQ(slot->values, std::vector<uint8_t>(expected, expected + slot->values.size())) << array.ToString();
  EXPECT_EQ(slot->mask, mask);
}

arrow::Status ArrayError(const Converter& converter, const arrow::Array& array) {
  return TryArray(converter, array).status();
}

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
  ExpectRefused(arrow::list(item), {}, "fixed-size lists");
  ExpectRefused(arrow::map(item, item), {}, "varying length");
  ExpectRefused(arrow::struct_({arrow::field("a", item)}), {}, "structs");
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

// ---- Nulls -------------------------------------------------------------------------------------------------------

TEST(ConverterNullsTest, PolicyDecides) {
  const auto array = Json(arrow::int32(), "[1, null, 3]");
  ExpectMessage(ArrayError(*Made(arrow::int32()), *array),
                "row 1 is null; use ps.ops.fill_null, nulls=\"mask\" or nulls={\"x\": value}");
  ExpectArray<int32_t>(*Made(arrow::int32(), {.nulls = Mask()}), *array, {1, 0, 3}, {0, 1, 0});
  ExpectArray<int32_t>(*Made(arrow::int32(), {.layout = Layout::kArrow}), *array, {1, 0, 3}, {0, 1, 0});
  ExpectArray<int32_t>(*Made(arrow::int32(), {.nulls = Fill(Number(-7))}), *array, {1, -7, 3});
  const auto first = Made(arrow::int32(), {.nulls = Mask(), .is_nullable = false});
  EXPECT_FALSE(first->field().has_mask);
  ExpectMessage(ArrayError(*first, *array), "row 1 is null, but the first file has no nulls here");
  ExpectArray<int32_t>(*Made(arrow::int32(), {.nulls = Mask()}), *array->Slice(2), {3}, {0});
}

TEST(ConverterNullsTest, FillGoesThroughTheRestOfTheChain) {
  const auto array = Json(arrow::int32(), "[1, null]");
  ExpectArray<float>(*Made(arrow::int32(), {.ops = {Number(5), ops::Scale{1, 2}}}), *array, {0, 2});
  ExpectArray<float>(*Made(arrow::int32(), {.ops = {ops::Scale{1, 2}, Number(5)}}), *array, {0, 5});
  // The first fill wins; the policy comes last.
  const Setting both{.ops = {Number(1)}, .nulls = Fill(Number(9))};
  ExpectArray<int32_t>(*Made(arrow::int32(), both), *array, {1, 1});
  const auto words = Json(arrow::utf8(), R"(["b", null])");
  const ops::Lookup lookup{Json(arrow::utf8(), R"(["a", "b"])"), std::nullopt};
  ExpectArray<int64_t>(*Made(arrow::utf8(), {.ops = {lookup}, .nulls = Fill(Text("a"))}), *words, {1, 0});
  ExpectArray<int64_t>(*Made(arrow::utf8(), {.ops = {lookup}, .nulls = Fill(Number(-1))}), *words, {1, -1});
  ExpectRefused(arrow::utf8(), {.ops = {Text("z"), lookup}}, "fill_null: value 'z' is not in");
  ExpectRefused(arrow::utf8(), {.ops = {Number(1), lookup}}, "give text");
  ExpectRefused(arrow::int8(), {.ops = {Number(1.5)}}, "fill_null: value 1.5 does not fit int8");
  ExpectRefused(arrow::int8(), {.ops = {Integer(128)}}, "value 128 does not fit int8");
  ExpectRefused(arrow::boolean(), {.nulls = Fill(Number(2))}, "does not fit bool");
  ExpectRefused(arrow::int8(), {.nulls = Fill(Text("a"))}, "give a number");
  const int64_t big = (int64_t{1} << 60) + 1;
  ExpectArray<int64_t>(*Made(arrow::int64(), {.nulls = Fill(Integer(big))}), *Json(arrow::int64(), "[null]"), {big});
}

TEST(ConverterNullsTest, MissingValuesNeverFail) {
  const std::vector<int32_t> values = {5, 1 << 20, 6};
  const std::vector<uint8_t> valid = {1, 0, 1};
  const auto converter = Made(arrow::int32(), {.ops = {ops::Cast{DType::kInt8}}, .nulls = Mask()});
  Slot slot(*converter, 3);
  ASSERT_TRUE(converter->Convert({DType::kInt32, values.data(), valid.data(), 3}, 0, slot.target).ok());
  EXPECT_EQ(slot.values, (std::vector<uint8_t>{5, 0, 6}));
  const auto strict = Made(arrow::int32(), {.ops = {ops::Cast{DType::kInt8}}});
  const std::vector<int32_t> bad = {999, 0, 6};  // The first row that is wrong in any way is reported.
  ExpectMessage(strict->Convert({DType::kInt32, bad.data(), valid.data(), 3}, 0, slot.target), "row 0: value 999");
}

TEST(ConverterNullsTest, ConstantsOfPartitionColumns) {
  const auto converter = Made(arrow::int32(), {.nulls = Mask()});
  Slot slot(*converter, 3);
  ASSERT_TRUE(converter->ConvertConstant(arrow::Int32Scalar(4), 3, slot.target).ok());
  EXPECT_EQ(slot.As<int32_t>(), (std::vector<int32_t>{4, 4, 4}));
  ASSERT_TRUE(converter->ConvertConstant(*arrow::MakeNullScalar(arrow::int32()), 3, slot.target).ok());
  EXPECT_EQ(slot.As<int32_t>(), (std::vector<int32_t>{0, 0, 0}));
  EXPECT_EQ(slot.mask, (std::vector<uint8_t>{1, 1, 1}));
  ExpectMessage(Made(arrow::int32())->ConvertConstant(*arrow::MakeNullScalar(arrow::int32()), 1, slot.target), "null");
}

// ---- Ops ---------------------------------------------------------------------------------------------------------

void ExpectCastError(const ArrayPtr& array, DType to, const std::string& part) {
  ExpectMessage(ArrayError(*Made(array->type(), {.ops = {ops::Cast{to}}}), *array), part);
}

TEST(ConverterCastTest, ChecksNumbers) {
  ExpectCastError(Json(arrow::int32(), "[1, 300]"), DType::kInt8, "row 1: value 300 does not fit int8");
  ExpectCastError(Json(arrow::int64(), "[-1]"), DType::kUInt64, "value -1 does not fit uint64");
  ExpectCastError(Json(arrow::float64(), "[1.5]"), DType::kInt32, "value 1.5 does not fit int32");
  ExpectCastError(Json(arrow::float64(), "[NaN]"), DType::kInt32, "value nan does not fit int32");
  ExpectCastError(Json(arrow::float64(), "[9223372036854775808]"), DType::kInt64, "does not fit int64");
  ExpectCastError(Json(arrow::float64(), "[1e39]"), DType::kFloat32, "value 1e+39 does not fit float32");
  ExpectCastError(Json(arrow::float32(), "[65520]"), DType::kFloat16, "does not fit float16");
  ExpectCastError(Json(arrow::int32(), "[2]"), DType::kBool, "value 2 does not fit bool");
  const auto to = [](DType type) { return Setting{.ops = {ops::Cast{type}}}; };
  const float inf = std::numeric_limits<float>::infinity();
  ExpectArray<float>(*Made(arrow::float64(), to(DType::kFloat32)), *Json(arrow::float64(), "[0.1, -Inf]"),
                     {0.1f, -inf});
  ExpectArray<float>(*Made(arrow::int64(), to(DType::kFloat32)), *Json(arrow::int64(), "[16777217]"), {16777216});
  ExpectArray<int32_t>(*Made(arrow::boolean(), to(DType::kInt32)), *Json(arrow::boolean(), "[true, false]"), {1, 0});
  ExpectArray<uint8_t>(*Made(arrow::float32(), to(DType::kBool)), *Json(arrow::float32(), "[1, 0]"), {1, 0});
  ExpectArray<float>(*Made(arrow::float16(), to(DType::kFloat32)), *Json(arrow::float16(), "[0.5]"), {0.5f});
  ExpectArray<int8_t>(*Made(arrow::float64(), to(DType::kInt8)), *Json(arrow::float64(), "[-128, 127]"), {-128, 127});
  ExpectRefused(arrow::int8(), to(DType::kBytes), "cast");
}

TEST(ConverterCastTest, ParsesStringsWhole) {
  const Setting to_int{.ops = {ops::Cast{DType::kInt32}}};
  const Setting to_float{.ops = {ops::Cast{DType::kFloat32}}};
  for (const auto& type : {arrow::utf8(), arrow::large_utf8(), arrow::utf8_view(), arrow::binary(),
                           arrow::large_binary(), arrow::binary_view()}) {
    const auto array = Json(type, R"(["7", "-12", "000000000000000000000042"])");
    ExpectArray<int32_t>(*Made(type, to_int), *array, {7, -12, 42});
    ExpectArray<int32_t>(*Made(type, to_int), *array->Slice(1, 2), {-12, 42});
  }
  const auto text = [](const std::string& json) { return Json(arrow::utf8(), json); };
  ExpectArray<float>(*Made(arrow::utf8(), to_float), *text(R"(["1e-60", "-2.5"])"), {0.0f, -2.5f});
  ExpectCastError(text(R"(["7x"])"), DType::kInt32, "row 0: value '7x' cannot be read as int32");
  ExpectCastError(text(R"([""])"), DType::kFloat64, "value '' cannot be read as float64");
  ExpectCastError(text(R"(["300"])"), DType::kUInt8, "value '300' does not fit uint8");
  ExpectCastError(text(R"(["1e300"])"), DType::kFloat32, "value '1e300' does not fit float32");
  std::string umlauts;
  for (int i = 0; i < 50; ++i) umlauts += "\u00e4";
  std::string shortened = umlauts.substr(0, 80);
  ExpectCastError(text("[\"" + umlauts + "\"]"), DType::kInt8, "value '" + shortened + "'... cannot");
  arrow::BinaryBuilder builder;
  ASSERT_TRUE(builder.Append("a\xff").ok());
  ExpectCastError(builder.Finish().ValueOrDie(), DType::kInt8, "value 'a\\xff' cannot");
}

TEST(ConverterHashTest, IsXxHash64) {
  EXPECT_EQ(Hash64(std::string_view("")), 0xEF46DB3751D8E999u);
  EXPECT_EQ(Hash64(std::string_view("a")), 0xD24EC4F1A98C6E5Bu);
  EXPECT_EQ(Hash64(int64_t{0x61}), Hash64(std::string_view("a\0\0\0\0\0\0\0", 8)));
  const int64_t buckets = 1000;
  const auto bucket = [&](auto value) { return static_cast<int64_t>(Hash64(value) % buckets); };
  const Setting setting{.ops = {ops::HashBucket{buckets}}};
  ExpectArray<int64_t>(*Made(arrow::utf8(), setting), *Json(arrow::utf8(), R"(["", "a"])"),
                       {bucket(std::string_view("")), bucket(std::string_view("a"))});
  ExpectArray<int64_t>(*Made(arrow::int8(), setting), *Json(arrow::int8(), "[-5]"), {bucket(int64_t{-5})});
  ExpectArray<int64_t>(*Made(arrow::boolean(), setting), *Json(arrow::boolean(), "[true]"), {bucket(int64_t{1})});
  ExpectRefused(arrow::int8(), {.ops = {ops::HashBucket{0}}}, "hash_bucket: buckets must be at least 1");
  ExpectRefused(arrow::float32(), setting, "hash_bucket takes integers");
}

TEST(ConverterLookupTest, FindsPositions) {
  const auto words = Json(arrow::large_utf8(), R"(["no", "b", "c", "d"])")->Slice(1);
  const Setting strict{.ops = {ops::Lookup{words, std::nullopt}}};
  const auto array = Json(arrow::utf8(), R"(["d", "b", "zz"])");
  const auto converter = Made(arrow::utf8(), strict);
  EXPECT_EQ(converter->field().vocabulary, words);
  ExpectArray<int64_t>(*converter, *array->Slice(0, 2), {2, 0});
  ExpectMessage(ArrayError(*converter, *array), "row 2: value 'zz' is not in the vocabulary");
  ExpectArray<int64_t>(*Made(arrow::utf8(), {.ops = {ops::Lookup{words, -1}}}), *array, {2, 0, -1});
  const ops::Lookup numbers{Json(arrow::uint64(), "[5, 18446744073709551615]"), -1};
  ExpectArray<int64_t>(*Made(arrow::int8(), {.ops = {numbers}}), *Json(arrow::int8(), "[-1, 5]"), {-1, 0});
  ExpectArray<int64_t>(*Made(arrow::uint64(), {.ops = {numbers}}), *Json(arrow::uint64(), "[18446744073709551615]"),
                       {1});
  const auto with = [](const ArrayPtr& vocabulary) { return Setting{.ops = {ops::Lookup{vocabulary, -1}}}; };
  ExpectRefused(arrow::utf8(), with(nullptr), "vocabulary is empty");
  ExpectRefused(arrow::utf8(), with(Json(arrow::utf8(), "[]")), "vocabulary is empty");
  ExpectRefused(arrow::utf8(), with(Json(arrow::utf8(), R"(["a", "a"])")), "value 'a' is in the vocabulary twice");
  ExpectRefused(arrow::utf8(), with(Json(arrow::utf8(), R"(["a", null])")), "null");
  ExpectRefused(arrow::utf8(), with(Json(arrow::int8(), "[1]")), "does not go with strings");
  ExpectRefused(arrow::int8(), with(words), "does not go with int8 values");
  ExpectRefused(arrow::float32(), with(Json(arrow::int8(), "[1]")), "lookup takes");
}

TEST(ConverterArithmeticTest, ScalesAndClips) {
  const Setting scale{.ops = {ops::Scale{1, 2}}};
  ExpectArray<float>(*Made(arrow::uint8(), scale), *Json(arrow::uint8(), "[2, 255]"), {0.5f, 127});
  ExpectArray<double>(*Made(arrow::int64(), scale), *Json(arrow::int64(), "[2]"), {0.5});
  ExpectArray<double>(*Made(arrow::decimal64(9, 1), scale), *Json(arrow::decimal64(9, 1), R"(["2.0"])"), {0.5});
  EXPECT_EQ(Made(arrow::float16(), scale)->field().dtype, DType::kFloat32);
  const auto plain = Made(arrow::decimal64(9, 1), {.ops = scale.ops, .layout = Layout::kArrow});
  EXPECT_TRUE(plain->field().arrow_type->Equals(arrow::float64()));
  ExpectRefused(arrow::int8(), {.ops = {ops::Scale{0, 0}}}, "scale: ");
  ExpectRefused(arrow::utf8(), scale, "scale takes numbers, not strings; use ps.ops.cast first");

  ExpectArray<int8_t>(*Made(arrow::int8(), {.ops = {ops::Clip{-0.5, 2.5}}}), *Json(arrow::int8(), "[-9, 1, 9]"),
                      {0, 1, 2});
  const auto clipped = TryArray(*Made(arrow::float64(), {.ops = {ops::Clip{std::nullopt, 2}}}),
                                *Json(arrow::float64(), "[NaN, 3, -1e300]"))
                           .ValueOrDie()
                           .As<double>();
  EXPECT_TRUE(std::isnan(clipped[0]));
  EXPECT_EQ(clipped[1], 2);
  EXPECT_EQ(clipped[2], -1e300);
  ExpectArray<uint8_t>(*Made(arrow::uint8(), {.ops = {ops::Clip{-5, 1e9}}}), *Json(arrow::uint8(), "[7]"), {7});
  ExpectRefused(arrow::int8(), {.ops = {ops::Clip{2, 1}}}, "clip: lower 2 is above upper 1");
  ExpectRefused(arrow::int8(), {.ops = {ops::Clip{0.2, 0.8}}}, "clip: no int8 lies between");
  ExpectRefused(arrow::int8(), {.ops = {ops::Clip{300, std::nullopt}}}, "clip: bound 300 does not fit int8");
  ExpectRefused(arrow::utf8(), {.ops = {ops::Clip{0, 1}}}, "clip takes numbers");
  ExpectRefused(arrow::boolean(), {.ops = {ops::Clip{0, 1}}}, "clip takes numbers");
}

TEST(ConverterSpinTest, CostsTheSameEveryTimeAndTheMeanOnAverage) {
  const auto spinner = Spinner::Make({.mean_us = 100, .sigma = 0.5}).ValueOrDie();
  double total = 0;
  for (int64_t row = 0; row < 20000; ++row) total += spinner.RowMicros(row);
  EXPECT_NEAR(total / 20000, 100, 3);
  EXPECT_EQ(spinner.RowMicros(5), Spinner::Make({}).ValueOrDie().RowMicros(5));
  const auto heavy = Spinner::Make({.sigma = 0, .heavy_every = 10}).ValueOrDie();
  double heavy_total = 0;
  for (int64_t row = 0; row < 20000; ++row) heavy_total += heavy.RowMicros(row);
  EXPECT_NEAR(heavy_total / 20000, 100 * (0.9 + 0.1 * 100), 100);
  const auto converter = Made(arrow::int8(), {.ops = {ops::Spin{.mean_us = 1000, .sigma = 0}}});
  EXPECT_TRUE(converter->is_dear() && !converter->is_pure());
  const auto start = std::chrono::steady_clock::now();
  ExpectArray<int8_t>(*converter, *Json(arrow::int8(), "[1, 2, 3]"), {1, 2, 3});
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::microseconds(2999));
  uint8_t table[1];
  EXPECT_FALSE(converter->ConvertDictionary({DType::kInt8, table, nullptr, 1}, table));
  ExpectRefused(arrow::int8(), {.ops = {ops::Spin{.mean_us = -1}}}, "spin");
}

// ---- Dictionaries ------------------------------------------------------------------------------------------------

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
  ExpectMessage(ArrayError(*converter, *first), "row 4: value 'zz' is not in the data set's vocabulary");
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

// ---- All ways give the same --------------------------------------------------------------------------------------

class RandomCase {
 public:
  explicit RandomCase(uint64_t seed) : random_(seed) {
    const std::vector<std::shared_ptr<arrow::DataType>> types = {arrow::int8(),
                                                                 arrow::int32(),
                                                                 arrow::int64(),
                                                                 arrow::uint64(),
                                                                 arrow::float32(),
                                                                 arrow::float64(),
                                                                 arrow::float16(),
                                                                 arrow::utf8(),
                                                                 arrow::decimal128(20, 3),
                                                                 arrow::timestamp(arrow::TimeUnit::MILLI)};
    type = types[Below(types.size())];
    distinct = DistinctValues(1 + static_cast<int64_t>(Below(40)));
    const auto length = static_cast<int64_t>(Below(3) == 0 ? Below(6000) : Below(100));
    const bool has_nulls = Below(2) == 0;
    for (int64_t i = 0; i < length; ++i) {
      valid.push_back(!has_nulls || Below(5) != 0);
      indices.push_back(static_cast<int32_t>(Below(static_cast<uint64_t>(distinct->length()))));
    }
    setting.ops = Ops();
    if (Below(3) == 0) setting.nulls = Mask();
    if (Below(4) == 0) setting.nulls = Fill(Number(3));
    if (Below(3) == 0) setting.layout = Layout::kArrow;
  }

  /// The rows, after `lead` rows of padding that is sliced away.
  ArrayPtr Plain(int64_t lead) const {
    auto builder = arrow::MakeBuilder(type).ValueOrDie();
    EXPECT_TRUE(builder->AppendNulls(lead).ok());
    for (size_t i = 0; i < indices.size(); ++i) {
      EXPECT_TRUE(
          (valid[i] ? builder->AppendArraySlice(*distinct->data(), indices[i], 1) : builder->AppendNull()).ok());
    }
    return builder->Finish().ValueOrDie()->Slice(lead);
  }

  ArrayPtr Coded() const {
    arrow::Int32Builder builder;
    EXPECT_TRUE(builder.AppendValues(indices.data(), static_cast<int64_t>(indices.size()), valid.data()).ok());
    const auto dictionary_type = arrow::dictionary(arrow::int32(), type);
    return arrow::DictionaryArray::FromArrays(dictionary_type, builder.Finish().ValueOrDie(), distinct).ValueOrDie();
  }

  std::shared_ptr<arrow::DataType> type;
  ArrayPtr distinct;
  std::vector<int32_t> indices;
  std::vector<uint8_t> valid;
  Setting setting;

 private:
  uint64_t Below(uint64_t end) { return random_() % end; }

  ArrayPtr DistinctValues(int64_t n) {
    std::string json = "[";
    for (int64_t i = 0; i < n; ++i) {
      const std::string number = std::to_string(Below(8) == 0 ? Below(100000) % (type->byte_width() == 1 ? 128 : 50000)
                                                              : static_cast<uint64_t>(i));
      const bool is_text = type->id() == arrow::Type::STRING;
      const bool is_decimal = type->id() == arrow::Type::DECIMAL128;
      json += (i > 0 ? "," : "") + (is_text ? "\"" + number + "\"" : is_decimal ? "\"" + number + ".125\"" : number);
    }
    return Json(type, json + "]");
  }

  std::vector<Op> Ops() {
    std::vector<Op> ops;
    const bool is_text = type->id() == arrow::Type::STRING;
    if (is_text && Below(2) == 0) return {ops::HashBucket{static_cast<int64_t>(1 + Below(1000))}};
    if (is_text) ops.push_back(ops::Cast{Below(2) == 0 ? DType::kInt32 : DType::kFloat64});
    for (uint64_t more = Below(4); more > 0; --more) {
      switch (Below(5)) {
        case 0:
          ops.push_back(ops::Cast{static_cast<DType>(Below(12))});
          break;
        case 1:
          ops.push_back(ops::Scale{1.5, 2});
          break;
        case 2:
          ops.push_back(ops::Clip{2, 60});
          break;
        case 3:
          ops.push_back(Number(1));
          break;
        default:
          ops.push_back(ops::HashBucket{97});
      }
    }
    return ops;
  }

  std::mt19937_64 random_;
};

/// An array's values as Convert takes them; `views` keeps the strings.
ValueSpan SpanOf(const arrow::Array& array, std::vector<BytesView>* views) {
  if (array.type_id() == arrow::Type::STRING) {
    const auto& strings = static_cast<const arrow::StringArray&>(array);
    for (int64_t i = 0; i < array.length(); ++i) {
      const auto view = strings.GetView(i);
      views->push_back({static_cast<uint32_t>(view.size()), reinterpret_cast<const uint8_t*>(view.data())});
    }
    return {DType::kBytes, views->data(), nullptr, array.length()};
  }
  const std::map<arrow::Type::type, DType> forms = {
      {arrow::Type::INT8, DType::kInt8},          {arrow::Type::INT32, DType::kInt32},
      {arrow::Type::INT64, DType::kInt64},        {arrow::Type::UINT64, DType::kUInt64},
      {arrow::Type::FLOAT, DType::kFloat32},      {arrow::Type::DOUBLE, DType::kFloat64},
      {arrow::Type::HALF_FLOAT, DType::kFloat16}, {arrow::Type::DECIMAL128, DType::kDecimal128},
      {arrow::Type::TIMESTAMP, DType::kInt64}};
  const DType form = forms.at(array.type_id());
  const uint8_t* values = array.data()->buffers[1]->data() + array.offset() * ByteWidth(form);
  return {form, values, nullptr, array.length()};
}

void ExpectSame(const arrow::Status& status, const Slot& slot, const arrow::Status& other, const Slot& other_slot) {
  ASSERT_EQ(status.message(), other.message());
  if (!status.ok()) return;
  EXPECT_EQ(slot.values, other_slot.values);
  EXPECT_EQ(slot.mask, other_slot.mask);
}

// Returns whether the chain was one that can be made.
bool CheckAllWays(uint64_t seed) {
  const RandomCase random(seed);
  const auto made = TryMake(random.type, random.setting);
  if (!made.ok()) {
    ExpectMessage(made.status(), "column 'x': ");
    return false;
  }
  const Converter& converter = **made;
  const auto length = static_cast<int64_t>(random.indices.size());
  const auto plain = random.Plain(static_cast<int64_t>(seed % 11));
  std::vector<BytesView> views;
  ValueSpan span = SpanOf(*plain, &views);
  span.valid = plain->null_count() > 0 ? random.valid.data() : nullptr;
  Slot direct(converter, length);
  const auto status = converter.Convert(span, 0, direct.target);
  Slot array(converter, length);
  ExpectSame(status, direct, converter.ConvertArray(*plain, 0, length, 0, array.target), array);
  Slot coded(converter, length);
  ExpectSame(status, direct, converter.ConvertArray(*random.Coded(), 0, length, 0, coded.target), coded);

  views.clear();
  std::vector<uint8_t> table(static_cast<size_t>(random.distinct->length()) * 16);
  if (converter.ConvertDictionary(SpanOf(*random.distinct, &views), table.data())) {
    Slot gathered(converter, length);
    const auto gather = converter.Gather(table.data(), random.indices.data(), span.valid, length, 0, gathered.target);
    ExpectSame(status, direct, gather, gathered);
  }
  return true;
}

TEST(ConverterPropertyTest, AllWaysGiveTheSame) {
  int made = 0;
  for (uint64_t seed = 1; seed <= 1500 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    made += CheckAllWays(seed);
  }
  EXPECT_GT(made, 500);
}

}  // namespace
}  // namespace penstock

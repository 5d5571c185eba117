#include <arrow/array/builder_binary.h>
#include <arrow/scalar.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "converter_testing.h"
#include "ops/hash.h"
#include "ops/spin.h"

namespace penstock {
namespace {

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

}  // namespace
}  // namespace penstock

#include <arrow/array/array_nested.h>
#include <arrow/array/util.h>

#include <limits>
#include <random>

#include "converter_testing.h"

namespace penstock {
namespace {

ops::PadList Pad(int64_t length) { return {.length = length}; }

// The same lists in every layout.
std::vector<ArrayPtr> EveryLayout(const std::shared_ptr<arrow::DataType>& item, const std::string& json) {
  return {Json(arrow::list(item), json), Json(arrow::large_list(item), json), Json(arrow::list_view(item), json),
          Json(arrow::large_list_view(item), json)};
}

TEST(PadListTest, PadsEveryLayout) {
  for (const auto& array : EveryLayout(arrow::int16(), "[[1, 2], [], [3, 4, 5], [6]]")) {
    SCOPED_TRACE(array->type()->ToString());
    const auto converter = Made(array->type(), {.ops = {Pad(3)}});
    EXPECT_EQ(converter->field().shape, std::vector<int64_t>{3});
    EXPECT_TRUE(converter->takes_arrays_only() && !converter->is_identity());
    ExpectArray<int16_t>(*converter, *array, {1, 2, 0, 0, 0, 0, 3, 4, 5, 6, 0, 0});
    ExpectArray<int16_t>(*converter, *array->Slice(2, 1), {3, 4, 5});
    auto part = TryArray(*converter, *array->Slice(1), 1, 2);
    EXPECT_EQ(part->As<int16_t>(), (std::vector<int16_t>{3, 4, 5, 6, 0, 0}));
    auto left = Pad(3);
    left.side = ops::Side::kLeft;
    left.value = Number(-1);
    ExpectArray<int16_t>(*Made(array->type(), {.ops = {left}}), *array, {-1, 1, 2, -1, -1, -1, 3, 4, 5, -1, -1, 6});
  }
}

TEST(PadListTest, ListsThatShareItemsOrStandInAnotherOrder) {
  const auto lists =
      arrow::ListViewArray::FromArrays(*Json(arrow::int32(), "[2, 0, 0]"), *Json(arrow::int32(), "[2, 3, 0]"),
                                       *Json(arrow::int32(), "[1, 2, 3, 4]"))
          .ValueOrDie();
  ExpectArray<int32_t>(*Made(lists->type(), {.ops = {Pad(3)}}), *lists, {3, 4, 0, 1, 2, 3, 0, 0, 0});
}

TEST(PadListTest, LongerListsAreAnErrorOrCut) {
  for (const auto& array : EveryLayout(arrow::int8(), "[[1], [1, 2, 3]]")) {
    ExpectMessage(ArrayError(*Made(array->type(), {.ops = {Pad(2)}}), *array),
                  "row 1: a list of 3 items is longer than");
    ExpectMessage(ArrayError(*Made(array->type(), {.ops = {Pad(2)}}), *array), "truncate=True");
    auto cut = Pad(2);
    cut.truncate = ops::Side::kRight;
    ExpectArray<int8_t>(*Made(array->type(), {.ops = {cut}}), *array, {1, 0, 1, 2});
    cut.truncate = ops::Side::kLeft;
    ExpectArray<int8_t>(*Made(array->type(), {.ops = {cut}}), *array, {1, 0, 2, 3});
  }
}

TEST(PadListTest, ItemsThatAreCutAreNotLookedAt) {
  auto cut = Pad(1);
  cut.truncate = ops::Side::kRight;
  const auto array = Json(arrow::list(arrow::int32()), "[[1, 300], [2, null]]");
  ExpectArray<int8_t>(*Made(array->type(), {.ops = {cut, ops::Cast{DType::kInt8}}}), *array, {1, 2});
}

TEST(PadListTest, PaddingGoesThroughTheOpsBehindIt) {
  const auto array = Json(arrow::list(arrow::int32()), "[[10], [30, 50]]");
  auto pad = Pad(2);
  pad.value = Number(4);
  ExpectArray<float>(*Made(array->type(), {.ops = {pad, ops::Scale{2, 4}}}), *array, {2, 0.5, 7, 12});
  ExpectArray<float>(*Made(array->type(), {.ops = {ops::Scale{2, 4}, pad}}), *array, {2, 4, 7, 12});
  pad.value = Number(300);
  ExpectRefused(array->type(), {.ops = {pad, ops::Cast{DType::kInt8}}}, "pad_list: value 300 does not fit int8");
  ExpectRefused(array->type(), {.ops = {ops::Cast{DType::kInt8}, pad}}, "pad_list: value 300 does not fit int8");
}

TEST(PadListTest, StringsBecomeNumbersFirst) {
  const auto words = Json(arrow::utf8(), R"(["a", "b"])");
  const auto array = Json(arrow::list(arrow::utf8()), R"([["b", "a", "zz"], []])");
  ExpectArray<int64_t>(*Made(array->type(), {.ops = {ops::Lookup{words, 7}, Pad(4)}}), *array,
                       {1, 0, 7, 0, 0, 0, 0, 0});
  ExpectRefused(array->type(), {.ops = {Pad(4)}}, "put ps.ops.hash_bucket or ps.ops.lookup in front");
  ExpectRefused(array->type(), {.ops = {Pad(4), ops::Lookup{words, 7}}}, "in front");
  const auto coded =
      arrow::ListArray::FromArrays(*Json(arrow::int32(), "[0, 2, 3]"),
                                   *arrow::DictionaryArray::FromArrays(arrow::dictionary(arrow::int8(), arrow::utf8()),
                                                                       Json(arrow::int8(), "[1, 0, 1]"), words)
                                        .ValueOrDie())
          .ValueOrDie();
  ExpectArray<int64_t>(*Made(coded->type(), {.ops = {ops::Lookup{words, {}}, Pad(2)}}), *coded, {1, 0, 1, 0});
}

TEST(PadListTest, FixedSizeListsWithinLists) {
  const auto type = arrow::list(arrow::fixed_size_list(arrow::float32(), 2));
  const auto array = Json(type, "[[[1, 2]], [[3, 4], [5, 6]], []]")->Slice(1);
  const auto converter = Made(type, {.ops = {Pad(2)}, .layout = Layout::kArrow});
  EXPECT_EQ(converter->field().shape, (std::vector<int64_t>{2, 2}));
  const auto expected = arrow::fixed_size_list(arrow::fixed_size_list(arrow::float32(), 2), 2);
  EXPECT_TRUE(converter->field().arrow_type->Equals(expected)) << converter->field().arrow_type->ToString();
  ExpectArray<float>(*converter, *array, {3, 4, 5, 6, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0});
}

TEST(PadListTest, AMissingListIsMissingItems) {
  const auto array = Json(arrow::list(arrow::int32()), "[[1, null], null, [2]]");
  ExpectMessage(ArrayError(*Made(array->type(), {.ops = {Pad(2)}}), *array), "row 0 is null");
  ExpectMessage(ArrayError(*Made(array->type(), {.ops = {Pad(2)}}), *array->Slice(1)), "row 0 is null");
  const std::vector<int32_t> values = {1, 0, 0, 0, 2, 0};
  const std::vector<uint8_t> mask = {0, 1, 1, 1, 0, 0};
  ExpectArray(*Made(array->type(), {.ops = {Pad(2)}, .nulls = Mask()}), *array, values, mask);
  ExpectArray(*Made(array->type(), {.ops = {Pad(2)}, .layout = Layout::kArrow}), *array, values, mask);
  const std::vector<int32_t> filled = {1, 9, 9, 9, 2, 0};
  ExpectArray(*Made(array->type(), {.ops = {Pad(2), Number(9)}, .nulls = Mask()}), *array, filled);
  ExpectArray(*Made(array->type(), {.ops = {Number(9), Pad(2)}, .nulls = Mask()}), *array, filled);
  ExpectArray(*Made(array->type(), {.ops = {Pad(2)}, .nulls = Fill(Number(9))}), *array, filled);
}

TEST(PadListTest, WhetherThereIsAMaskFollowsFromBothLevels) {
  const auto items = [](bool is_nullable) { return arrow::list(arrow::field("item", arrow::int8(), is_nullable)); };
  const auto has_mask = [&](bool items_nullable, bool lists_nullable) {
    return Made(items(items_nullable), {.ops = {Pad(1)}, .nulls = Mask(), .is_nullable = lists_nullable})
        ->field()
        .has_mask;
  };
  EXPECT_FALSE(has_mask(false, false));
  EXPECT_TRUE(has_mask(true, false));
  EXPECT_TRUE(has_mask(false, true));
}

TEST(PadListTest, RefusesWhatItCannotTake) {
  const auto lists = arrow::list(arrow::int8());
  ExpectRefused(arrow::int8(), {.ops = {Pad(2)}}, "pad_list takes a column of lists, not int8");
  ExpectRefused(arrow::fixed_size_list(arrow::int8(), 3), {.ops = {Pad(2)}}, "of one length already");
  ExpectRefused(lists, {.ops = {Pad(0)}}, "a length of 0");
  ExpectRefused(lists, {.ops = {Pad(int64_t{1} << 31)}}, "a length of 2147483648");
  ExpectRefused(lists, {.ops = {Pad(2), Pad(2)}}, "given twice");
  ExpectRefused(arrow::list(lists), {.ops = {Pad(2)}}, "list<item: int8>");
  auto text = Pad(2);
  text.value = Text("x");
  ExpectRefused(lists, {.ops = {text}}, "pad_list: 'x' is text");
  ExpectMessage(ArrayError(*Made(lists, {.ops = {Pad(2)}}), *Json(arrow::int8(), "[1]")), "where lists were promised");
  EXPECT_TRUE(ArrayError(*Made(lists, {.ops = {Pad(2)}}), *Json(arrow::list(arrow::int16()), "[[1]]")).IsTypeError());
}

// Lists of any length, on any side, against the plainest way of doing it; some longer than a strip.
TEST(PadListTest, AgreesWithDoingItByHand) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    const auto length = static_cast<int64_t>(1 + random() % (round % 10 == 0 ? 5000 : 20));
    auto pad = Pad(length);
    pad.value = Number(-7);
    pad.side = random() % 2 == 0 ? ops::Side::kLeft : ops::Side::kRight;
    pad.truncate = random() % 2 == 0 ? ops::Side::kLeft : ops::Side::kRight;
    std::string json = "[";
    std::vector<int32_t> expected;
    for (int row = 0, next = 0; row < 20; ++row) {
      std::vector<int32_t> list(random() % static_cast<uint64_t>(2 * length + 1));
      for (int32_t& item : list) item = next++;
      json += row > 0 ? ",[" : "[";
      for (size_t i = 0; i < list.size(); ++i) json += (i > 0 ? "," : "") + std::to_string(list[i]);
      json += "]";
      const auto excess = std::max<int64_t>(0, static_cast<int64_t>(list.size()) - length);
      const auto begin = list.begin() + (pad.truncate == ops::Side::kLeft ? excess : 0);
      std::vector<int32_t> kept(begin, begin + static_cast<int64_t>(list.size()) - excess);
      const auto padding = static_cast<size_t>(length) - kept.size();
      kept.insert(pad.side == ops::Side::kLeft ? kept.begin() : kept.end(), padding, -7);
      expected.insert(expected.end(), kept.begin(), kept.end());
    }
    const auto array = Json(arrow::list(arrow::int32()), json + "]");
    ExpectArray(*Made(array->type(), {.ops = {pad}}), *array, expected);
  }
}

TEST(ListLengthTest, CountsItemsOfEveryLayout) {
  for (const auto& array : EveryLayout(arrow::utf8(), R"([["a", "b"], [], [null]])")) {
    const auto converter = Made(array->type(), {.ops = {ops::ListLength{}}});
    EXPECT_EQ(converter->field().dtype, DType::kInt64);
    EXPECT_TRUE(converter->field().shape.empty());
    ExpectArray<int64_t>(*converter, *array, {2, 0, 1});
    ExpectArray<int64_t>(*converter, *array->Slice(2), {1});
    ExpectArray<int8_t>(*Made(array->type(), {.ops = {ops::ListLength{}, ops::Clip{1, {}}, ops::Cast{DType::kInt8}}}),
                        *array, {2, 1, 1});
  }
}

TEST(ListLengthTest, AMissingListHasAMissingLength) {
  const auto array = Json(arrow::list(arrow::int8()), "[[1], null]");
  ExpectMessage(ArrayError(*Made(array->type(), {.ops = {ops::ListLength{}}}), *array), "row 1 is null");
  ExpectArray<int64_t>(*Made(array->type(), {.ops = {ops::ListLength{}}, .nulls = Mask()}), *array, {1, 0}, {0, 1});
  ExpectArray<int64_t>(*Made(array->type(), {.ops = {ops::ListLength{}, Number(0)}}), *array, {1, 0});
}

TEST(ListLengthTest, RefusesWhatIsNoListAndOtherPlaces) {
  ExpectRefused(arrow::utf8(), {.ops = {ops::ListLength{}}}, "list_length takes a column of lists, not string");
  ExpectRefused(arrow::list(arrow::int8()), {.ops = {ops::Clip{0, 1}, ops::ListLength{}}}, "must be the first op");
  ExpectRefused(arrow::list(arrow::int8()), {.ops = {Pad(1), ops::ListLength{}}}, "must be the first op");
}

TEST(ListLengthTest, LongArrays) {
  std::string json = "[";
  std::vector<int64_t> expected;
  for (int64_t row = 0; row < 5000; ++row) {
    json += row == 0 ? "[" : ",[";
    for (int64_t i = 0; i < row % 3; ++i) json += i == 0 ? "1" : ",1";
    json += "]";
    expected.push_back(row % 3);
  }
  const auto array = Json(arrow::list(arrow::int8()), json + "]");
  ExpectArray(*Made(array->type(), {.ops = {ops::ListLength{}}}), *array, expected);
}

}  // namespace
}  // namespace penstock

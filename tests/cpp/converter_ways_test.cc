#include <arrow/array/builder_primitive.h>
#include <arrow/array/util.h>

#include <map>
#include <random>

#include "converter_testing.h"

namespace penstock {
namespace {

/// Whichever way values take, the same comes out.

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

#include "penstock/custom_op.h"

#include <arrow/array/builder_binary.h>
#include <arrow/scalar.h>

#include "converter_testing.h"

namespace penstock {
namespace {

/// (length of the string or -1, number of its row) of each row; an error for "bad".
class LengthAndRow final : public CustomOp {
 public:
  explicit LengthAndRow(bool is_dear = false, bool names_row = true) : is_dear_(is_dear), names_row_(names_row) {}

  std::string name() const override { return "length_and_row"; }
  arrow::Result<Output> OutputFor(const arrow::Field& input) const override {
    if (input.type()->id() != arrow::Type::STRING) return arrow::Status::TypeError("takes strings");
    return Output{DType::kInt32, {2}};
  }
  arrow::Status Apply(const arrow::Array& rows, const RowKey& key, uint8_t* out) const override {
    const auto& strings = static_cast<const arrow::StringArray&>(rows);
    auto* values = reinterpret_cast<int32_t*>(out);
    for (int64_t i = 0; i < rows.length(); ++i) {
      const bool is_bad = strings.IsValid(i) && strings.GetView(i) == "bad";
      const auto error = arrow::Status::Invalid("not good");
      if (is_bad) return names_row_ ? RowError(i, error) : error;
      values[2 * i] = strings.IsNull(i) ? -1 : static_cast<int32_t>(strings.GetView(i).size());
      values[2 * i + 1] = static_cast<int32_t>(key.row(i));
    }
    return arrow::Status::OK();
  }
  bool is_dear() const override { return is_dear_; }

 private:
  const bool is_dear_, names_row_;
};

ops::Custom Custom(bool is_dear = false, bool names_row = true) {
  return {std::make_shared<LengthAndRow>(is_dear, names_row)};
}

TEST(CustomOpTest, GetsRowsAsTheyAreWithTheirNumbers) {
  const auto array = Json(arrow::utf8(), R"(["x", "abc", null, ""])");
  const auto converter = Made(arrow::utf8(), {.ops = {Custom()}, .nulls = Mask()});
  EXPECT_EQ(converter->field().dtype, DType::kInt32);
  EXPECT_EQ(converter->field().shape, std::vector<int64_t>{2});
  EXPECT_FALSE(converter->field().has_mask);
  EXPECT_TRUE(converter->field().arrow_type->Equals(arrow::fixed_size_list(arrow::int32(), 2)));
  EXPECT_TRUE(converter->takes_arrays_only() && !converter->is_identity() && !converter->is_dear());
  EXPECT_TRUE(Made(arrow::utf8(), {.ops = {Custom(true)}})->is_dear());
  Slot slot(*converter, 6);
  ASSERT_TRUE(converter->ConvertArray(*array, 1, 3, 40, slot.target).ok());
  EXPECT_EQ(slot.As<int32_t>(), (std::vector<int32_t>{3, 40, -1, 41, 0, 42}));
  const int64_t numbers[] = {5, 90, 91};
  ASSERT_TRUE(converter->ConvertArray(*array, 1, 3, RowKey{5, numbers}, slot.target).ok());
  EXPECT_EQ(slot.As<int32_t>(), (std::vector<int32_t>{3, 5, -1, 90, 0, 91}));
}

TEST(CustomOpTest, NativeOpsFollow) {
  // More rows than go into one call.
  arrow::StringBuilder builder;
  std::vector<float> expected;
  for (int row = 0; row < 20000; ++row) {
    ASSERT_TRUE(builder.Append(std::string(static_cast<size_t>(row % 5), 'x')).ok());
    expected.push_back(static_cast<float>(row % 5) / 2);
    expected.push_back(static_cast<float>(std::min(row, 9000)) / 2);
  }
  const auto array = builder.Finish().ValueOrDie();
  const auto converter = Made(arrow::utf8(), {.ops = {Custom(), ops::Clip{{}, 9000}, ops::Scale{0, 2}}});
  ExpectArray(*converter, *array, expected);
  const auto narrow = Made(arrow::utf8(), {.ops = {Custom(), ops::Cast{DType::kInt8}}});
  ExpectMessage(ArrayError(*narrow, *array), "row 128: value 128 does not fit int8");
}

TEST(CustomOpTest, ErrorsSayWhichRowAndWhichOp) {
  const auto array = Json(arrow::utf8(), R"(["x", "y", "bad"])");
  ExpectMessage(ArrayError(*Made(arrow::utf8(), {.ops = {Custom()}}), *array), "row 2: length_and_row: not good");
  const auto vague = Made(arrow::utf8(), {.ops = {Custom(false, false)}});
  ExpectMessage(ArrayError(*vague, *array), "rows 0 to 2: length_and_row: not good");
  ExpectMessage(ArrayError(*vague, *array->Slice(2)), "row 0: length_and_row: not good");
  const int64_t numbers[] = {5, 90, 91};
  Slot slot(*vague, 6);
  ExpectMessage(vague->ConvertArray(*array, 0, 3, RowKey{5, numbers}, slot.target), "rows 5 to 91: ");
}

TEST(CustomOpTest, PartitionColumnsAreConvertedOnce) {
  const auto converter = Made(arrow::utf8(), {.ops = {Custom()}});
  Slot slot(*converter, 4);
  ASSERT_TRUE(converter->ConvertConstant(arrow::StringScalar("abcd"), 2, slot.target).ok());
  EXPECT_EQ(slot.As<int32_t>(), (std::vector<int32_t>{4, 0, 4, 0}));
  ASSERT_TRUE(converter->ConvertConstant(*arrow::MakeNullScalar(arrow::utf8()), 2, slot.target).ok());
  EXPECT_EQ(slot.As<int32_t>(), (std::vector<int32_t>{-1, 0, -1, 0}));
}

/// Gives what it is told to give.
class Promise final : public CustomOp {
 public:
  explicit Promise(Output output) : output_(std::move(output)) {}
  std::string name() const override { return "promise"; }
  arrow::Result<Output> OutputFor(const arrow::Field&) const override { return output_; }
  arrow::Status Apply(const arrow::Array&, const RowKey&, uint8_t*) const override { return arrow::Status::OK(); }

 private:
  const Output output_;
};

TEST(CustomOpTest, IsRefusedWhereItMakesNoSense) {
  const auto promise = [](DType dtype, std::vector<int64_t> shape) {
    return Setting{.ops = {ops::Custom{std::make_shared<Promise>(CustomOp::Output{dtype, std::move(shape)})}}};
  };
  ExpectRefused(arrow::int8(), {.ops = {Custom()}}, "length_and_row: takes strings");
  ExpectRefused(arrow::utf8(), {.ops = {ops::Cast{DType::kInt8}, Custom()}}, "it must be the first op");
  ExpectRefused(arrow::utf8(), {.ops = {Custom(), Custom()}}, "it must be the first op");
  ExpectRefused(arrow::utf8(), {.ops = {ops::Custom{nullptr}}}, "null");
  ExpectRefused(arrow::utf8(), promise(DType::kBytes, {}), "promise: an op gives numbers, not bytes");
  ExpectRefused(arrow::utf8(), promise(DType::kInt8, {3, 0}), "promise: an extent of 0");
  // Structs and lists, which have no other rule, are taken as they are.
  EXPECT_NE(Made(arrow::struct_({arrow::field("a", arrow::int8())}), promise(DType::kInt8, {2, 3})), nullptr);
  EXPECT_TRUE(ArrayError(*Made(arrow::utf8(), {.ops = {Custom()}}), *Json(arrow::int8(), "[1]")).IsTypeError());
}

TEST(CustomOpTest, ASharedObjectThatIsNoneSaysSo) {
  EXPECT_TRUE(LoadCustomOp("/no/such/op.so", "make").status().IsIOError());
  ExpectMessage(LoadCustomOp("libm.so.6", "no_such_op").status(), "exports no op 'no_such_op'");
}

}  // namespace
}  // namespace penstock

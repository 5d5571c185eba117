// An op of one's own, in C++: how many words a text has. Built into a shared object, used from Python:
//   g++ -std=c++20 -O2 -shared -fPIC -I /where/penstock/is/include -isystem "$PYARROW/include" count_words.cc \
//       -o count_words.so -L "$PYARROW" -l:libarrow.so.2600     # PYARROW=.../site-packages/pyarrow
//   ps.Loader(..., transforms={"words": ps.col("text") | ps.ops.native("./count_words.so", "count_words",
//   separator=",")})
#include <arrow/array/array_binary.h>
#include <arrow/type.h>
#include <penstock/custom_op.h>

#include <algorithm>

using penstock::CustomOpParams, penstock::DType, penstock::RowKey;

class CountWords final : public penstock::CustomOp {
 public:
  explicit CountWords(char separator) : separator_(separator) {}
  std::string name() const override { return "count_words"; }

  arrow::Result<Output> OutputFor(const arrow::Field& input) const override {
    if (input.type()->id() == arrow::Type::STRING) return Output{DType::kInt32, {}};
    return arrow::Status::TypeError("count_words is for texts, not for ", input.type()->ToString());
  }

  arrow::Status Apply(const arrow::Array& rows, const RowKey&, uint8_t* out) const override {
    const auto& texts = static_cast<const arrow::StringArray&>(rows);
    for (int64_t i = 0; i < texts.length(); ++i) {
      if (texts.IsNull(i)) return penstock::RowError(i, arrow::Status::Invalid("the text is missing"));
      const std::string_view text = texts.GetView(i);
      reinterpret_cast<int32_t*>(out)[i] = static_cast<int32_t>(std::ranges::count(text, separator_)) + 1;
    }
    return arrow::Status::OK();
  }

 private:
  const char separator_;
};

arrow::Result<std::shared_ptr<const penstock::CustomOp>> Make(const CustomOpParams& params) {
  const auto found = params.find("separator");
  if (found == params.end()) return std::make_shared<const CountWords>(' ');
  if (found->second.size() != 1) return arrow::Status::Invalid("a separator is one character");
  return std::make_shared<const CountWords>(found->second[0]);
}

PENSTOCK_EXPORT_OP(count_words, Make)

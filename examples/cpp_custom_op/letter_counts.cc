// An op of one's own: how often each letter from a to z occurs in a string, as int32 of shape (26,).
#include <arrow/array.h>
#include <penstock/custom_op.h>

#include <algorithm>

class LetterCounts final : public penstock::CustomOp {
 public:
  explicit LetterCounts(bool ignores_case) : ignores_case_(ignores_case) {}

  std::string name() const override { return "letter_counts"; }

  arrow::Result<Output> OutputFor(const arrow::Field& input) const override {
    if (input.type()->id() == arrow::Type::STRING) return Output{penstock::DType::kInt32, {26}};
    return arrow::Status::TypeError("takes a column of strings, not ", input.type()->ToString());
  }

  arrow::Status Apply(const arrow::Array& rows, const penstock::RowKey&, uint8_t* out) const override {
    const auto& strings = static_cast<const arrow::StringArray&>(rows);
    auto* counts = reinterpret_cast<int32_t*>(out);
    std::fill_n(counts, 26 * rows.length(), 0);
    for (int64_t row = 0; row < rows.length(); ++row, counts += 26) {
      if (strings.IsNull(row)) return penstock::RowError(row, arrow::Status::Invalid("there is no string"));
      for (char c : strings.GetView(row)) {
        if (ignores_case_ && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
        if (c >= 'a' && c <= 'z') ++counts[c - 'a'];
      }
    }
    return arrow::Status::OK();
  }

 private:
  const bool ignores_case_;
};

arrow::Result<std::shared_ptr<const penstock::CustomOp>> MakeLetterCounts(const penstock::CustomOpParams& params) {
  const auto found = params.find("ignore_case");
  return std::make_shared<const LetterCounts>(found != params.end() && found->second == "true");
}

PENSTOCK_EXPORT_OP(letter_counts, MakeLetterCounts)

#include <arrow/type.h>
#include <arrow/util/decimal.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "ops/kernels.h"
#include "ops/message.h"

namespace penstock {
namespace {

constexpr int64_t kMillisPerDay = 86'400'000;
// Beyond it a double does not hold every integer, and Arrow splits whole and fraction.
constexpr int64_t kMostPrecise = (int64_t{1} << 53) - 1;

int64_t FloorDivide(int64_t value, int64_t by) { return value / by - (value % by < 0); }

// Big-endian two's complement, `size` in 1..8.
int64_t SmallFromBigEndian(const uint8_t* bytes, uint32_t size) {
  uint64_t bits = (bytes[0] & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (uint32_t i = 0; i < size; ++i) bits = (bits << 8) | bytes[i];
  return static_cast<int64_t>(bits);
}

bool FitsInt64(Decimal value) { return value.high == (static_cast<int64_t>(value.low) >> 63); }

/// Unscaled to double exactly as arrow::Decimal128::ToDouble does it, but fast where the value is small.
class ToDouble {
 public:
  explicit ToDouble(int32_t scale) : scale_(scale), factor_(arrow::Decimal128(1).ToDouble(scale)) {}

  double operator()(int32_t value) const { return static_cast<double>(value) * factor_; }

  double operator()(int64_t value) const {
    const bool is_precise = value <= kMostPrecise && value >= -kMostPrecise;
    if (is_precise || scale_ <= 0) return static_cast<double>(value) * factor_;
    return arrow::Decimal128(value).ToDouble(scale_);
  }

  double operator()(Decimal value) const {
    if (FitsInt64(value)) return (*this)(static_cast<int64_t>(value.low));
    return arrow::Decimal128(value.high, value.low).ToDouble(scale_);
  }

  bool FromBytes(BytesView value, double* out) const {
    if (value.size == 0 || value.size > 32) return false;
    if (value.size <= 8) {
      *out = (*this)(SmallFromBigEndian(value.data, value.size));
      return true;
    }
    const auto wide = arrow::Decimal256::FromBigEndian(value.data, static_cast<int32_t>(value.size));
    if (!wide.ok()) return false;
    *out = FromWide(*wide);
    return true;
  }

 private:
  // Narrowed where it fits, so that the result does not depend on the width in which the source stored it.
  double FromWide(const arrow::Decimal256& value) const {
    const std::array<uint64_t, 4> words = value.little_endian_array();
    const uint64_t sign = (words[1] >> 63) != 0 ? ~uint64_t{0} : 0;
    if (words[2] != sign || words[3] != sign) return value.ToDouble(scale_);
    return (*this)(Decimal{words[0], static_cast<int64_t>(words[1])});
  }

  int32_t scale_;
  double factor_;  // 10^-scale
};

std::string BadBytes(BytesView value) { return "a decimal of " + std::to_string(value.size) + " bytes cannot be read"; }

template <typename T>
struct DecimalToDoubleFn {
  using In = T;
  using Out = double;

  ToDouble to_double;

  bool Apply(In value, Out* out) const {
    if constexpr (std::is_same_v<T, BytesView>) {
      return to_double.FromBytes(value, out);
    } else {
      *out = to_double(value);
      return true;
    }
  }
  std::string Complaint(In value) const {
    if constexpr (std::is_same_v<T, BytesView>) return BadBytes(value);
    return {};
  }
};

template <typename T>
struct DecimalWidenFn {
  using In = T;
  using Out = Decimal;

  bool Apply(In value, Out* out) const {
    if constexpr (std::is_same_v<T, BytesView>) {
      const auto decimal = arrow::Decimal128::FromBigEndian(value.data, static_cast<int32_t>(value.size));
      if (!decimal.ok()) return false;
      *out = {decimal->low_bits(), decimal->high_bits()};
    } else {
      const int64_t wide = value;
      *out = {static_cast<uint64_t>(wide), wide >> 63};
    }
    return true;
  }
  std::string Complaint(In value) const {
    if constexpr (std::is_same_v<T, BytesView>) return BadBytes(value);
    return {};
  }
};

struct MillisToDaysFn {
  using In = int64_t;
  using Out = int32_t;
  bool Apply(In value, Out* out) const {
    const int64_t days = FloorDivide(value, kMillisPerDay);
    *out = static_cast<int32_t>(days);
    return *out == days;
  }
  std::string Complaint(In value) const { return "date of " + std::to_string(value) + " ms is out of range"; }
};

struct DaysToMillisFn {
  using In = int32_t;
  using Out = int64_t;
  bool Apply(In value, Out* out) const {
    *out = value * kMillisPerDay;
    return true;
  }
  std::string Complaint(In) const { return {}; }
};

}  // namespace

std::unique_ptr<Kernel> MakeDecimalToDouble(DType from, int32_t scale) {
  const ToDouble to_double(scale);
  if (from == DType::kInt32) return MakeKernel(DecimalToDoubleFn<int32_t>{to_double});
  if (from == DType::kInt64) return MakeKernel(DecimalToDoubleFn<int64_t>{to_double});
  if (from == DType::kDecimal128) return MakeKernel(DecimalToDoubleFn<Decimal>{to_double});
  return MakeKernel(DecimalToDoubleFn<BytesView>{to_double});
}

std::unique_ptr<Kernel> MakeDecimalWiden(DType from) {
  if (from == DType::kInt32) return MakeKernel(DecimalWidenFn<int32_t>{});
  if (from == DType::kInt64) return MakeKernel(DecimalWidenFn<int64_t>{});
  return MakeKernel(DecimalWidenFn<BytesView>{});
}

arrow::Status EncodeDecimalFill(const ops::FillNull& fill, const arrow::DataType& type, void* out) {
  if (fill.text) return arrow::Status::TypeError("a column of ", type.ToString(), " takes a number, not text");
  const auto& decimal = static_cast<const arrow::DecimalType&>(type);
  auto encoded = fill.integer ? arrow::Decimal128(*fill.integer).Rescale(0, decimal.scale())
                              : arrow::Decimal128::FromReal(fill.value, decimal.precision(), decimal.scale());
  if (!encoded.ok() || !encoded->FitsInPrecision(decimal.precision())) {
    const std::string text = fill.integer ? FormatValue(*fill.integer) : FormatValue(fill.value);
    return arrow::Status::Invalid("value ", text, " does not fit ", type.ToString());
  }
  const Decimal words{encoded->low_bits(), encoded->high_bits()};
  std::memcpy(out, &words, sizeof words);
  return arrow::Status::OK();
}

std::unique_ptr<Kernel> MakeMillisToDays() { return MakeKernel(MillisToDaysFn{}); }
std::unique_ptr<Kernel> MakeDaysToMillis() { return MakeKernel(DaysToMillisFn{}); }

}  // namespace penstock

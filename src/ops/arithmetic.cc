#include <algorithm>
#include <cmath>

#include "ops/kernels.h"
#include "ops/message.h"

namespace penstock {
namespace {

template <typename From>
struct ScaleFn {
  using In = From;
  static constexpr bool kIsWide = sizeof(From) == 8;
  using Out = std::conditional_t<kIsWide, double, float>;

  double mean;
  double std;

  bool Apply(In value, Out* out) const {
    *out = static_cast<Out>((static_cast<double>(Arithmetic(value)) - mean) / std);
    return true;
  }
  std::string Complaint(In) const { return {}; }
};

template <typename T>
struct ClipFn {
  using In = T;
  using Out = T;
  using Bound = decltype(Arithmetic(T{}));

  Bound lower;
  Bound upper;

  bool Apply(In value, Out* out) const {
    // In this order of arguments NaN stays NaN.
    const Bound clipped = std::min(std::max(Arithmetic(value), lower), upper);
    if constexpr (std::is_same_v<T, Half>) {
      out->bits = arrow::util::Float16::FromFloat(clipped).bits();
    } else {
      *out = clipped;
    }
    return true;
  }
  std::string Complaint(In) const { return {}; }
};

template <typename T>
constexpr T Lowest() {
  if constexpr (std::is_floating_point_v<T>) return -std::numeric_limits<T>::infinity();
  return std::numeric_limits<T>::lowest();
}
template <typename T>
constexpr T Highest() {
  if constexpr (std::is_floating_point_v<T>) return std::numeric_limits<T>::infinity();
  return std::numeric_limits<T>::max();
}

arrow::Status BoundDoesNotFit(double bound, DType type) {
  return arrow::Status::Invalid("clip: bound ", FormatDouble(bound), " does not fit ", DTypeName(type),
                                "; use ps.ops.cast first");
}

// A bound as a value of the column's type. Beyond the type's range on the side where it clips nothing, it is no bound.
template <typename T>
arrow::Result<typename ClipFn<T>::Bound> LowerBound(std::optional<double> bound) {
  using Bound = typename ClipFn<T>::Bound;
  if (!bound || *bound <= static_cast<double>(Lowest<Bound>())) return Lowest<Bound>();
  T rounded{};
  if (!CastNumber(std::is_integral_v<Bound> ? std::ceil(*bound) : *bound, &rounded)) {
    if (*bound < 0) return Lowest<Bound>();
    return BoundDoesNotFit(*bound, DTypeOf<T>());
  }
  return Arithmetic(rounded);
}
template <typename T>
arrow::Result<typename ClipFn<T>::Bound> UpperBound(std::optional<double> bound) {
  using Bound = typename ClipFn<T>::Bound;
  if (!bound || *bound >= static_cast<double>(Highest<Bound>())) return Highest<Bound>();
  T rounded{};
  if (!CastNumber(std::is_integral_v<Bound> ? std::floor(*bound) : *bound, &rounded)) {
    if (*bound > 0) return Highest<Bound>();
    return BoundDoesNotFit(*bound, DTypeOf<T>());
  }
  return Arithmetic(rounded);
}

template <typename T>
KernelResult ClipOf(const ops::Clip& op) {
  ARROW_ASSIGN_OR_RAISE(const auto lower, LowerBound<T>(op.lower));
  ARROW_ASSIGN_OR_RAISE(const auto upper, UpperBound<T>(op.upper));
  if (lower > upper) {
    return arrow::Status::Invalid("clip: no ", DTypeName(DTypeOf<T>()), " lies between ", FormatDouble(*op.lower),
                                  " and ", FormatDouble(*op.upper));
  }
  return MakeKernel(ClipFn<T>{lower, upper});
}

arrow::Status CannotTake(const char* op, DType from) {
  const char* help = from == DType::kBytes ? "; use ps.ops.cast first" : "";
  return arrow::Status::TypeError(op, " takes numbers, not ", ValuesOf(from), help);
}

}  // namespace

KernelResult MakeScale(DType from, const ops::Scale& op) {
  if (!std::isfinite(op.mean) || !std::isfinite(op.std) || op.std == 0) {
    return arrow::Status::Invalid("scale: mean must be finite and std finite and not 0, not ", FormatDouble(op.mean),
                                  " and ", FormatDouble(op.std));
  }
  return VisitNumber(
      from, [&](auto in) -> KernelResult { return MakeKernel(ScaleFn<decltype(in)>{op.mean, op.std}); },
      [&]() -> KernelResult { return CannotTake("scale", from); });
}

KernelResult MakeClip(DType from, const ops::Clip& op) {
  const bool is_nan = (op.lower && std::isnan(*op.lower)) || (op.upper && std::isnan(*op.upper));
  if (is_nan) return arrow::Status::Invalid("clip: a bound is NaN");
  if (op.lower && op.upper && *op.lower > *op.upper) {
    return arrow::Status::Invalid("clip: lower ", FormatDouble(*op.lower), " is above upper ", FormatDouble(*op.upper));
  }
  return VisitNumber(
      from,
      [&](auto in) -> KernelResult {
        if constexpr (std::is_same_v<decltype(in), Bool>) {
          return CannotTake("clip", from);
        } else {
          return ClipOf<decltype(in)>(op);
        }
      },
      [&]() -> KernelResult { return CannotTake("clip", from); });
}

}  // namespace penstock

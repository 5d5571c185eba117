#include <charconv>
#include <string_view>

#include "ops/kernels.h"
#include "ops/message.h"

namespace penstock {
namespace {

template <typename From, typename To>
struct CastFn {
  using In = From;
  using Out = To;
  bool Apply(In value, Out* out) const { return CastNumber(value, out); }
  std::string Complaint(In value) const { return DoesNotFit(value, DTypeOf<Out>()); }
};

enum class Parsed { kWell, kNoNumber, kMisfit };

template <typename T>
Parsed ParseWhole(std::string_view text, T* out) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *out);
  if (error == std::errc::invalid_argument || stop != end) return Parsed::kNoNumber;
  return error == std::errc() ? Parsed::kWell : Parsed::kMisfit;
}

// from_chars calls a number too small for T out of range, too; through a wider type it becomes zero or a subnormal.
template <typename T>
Parsed ParseFloat(std::string_view text, T* out) {
  const Parsed parsed = ParseWhole(text, out);
  if (parsed != Parsed::kMisfit) return parsed;
  long double wide = 0;
  if (ParseWhole(text, &wide) != Parsed::kWell) return Parsed::kMisfit;
  *out = static_cast<T>(wide);
  return std::isinf(*out) ? Parsed::kMisfit : Parsed::kWell;
}

Parsed ParseBool(std::string_view text, Bool* out) {
  out->byte = text == "1" || text == "true";
  return out->byte || text == "0" || text == "false" ? Parsed::kWell : Parsed::kNoNumber;
}

template <typename To>
struct ParseFn {
  using In = BytesView;
  using Out = To;

  static Parsed Parse(In value, Out* out) {
    if constexpr (std::is_same_v<Out, Bool>) {
      return ParseBool(value.view(), out);
    } else if constexpr (std::is_same_v<Out, Half>) {
      double wide = 0;
      const Parsed parsed = ParseFloat(value.view(), &wide);
      if (parsed != Parsed::kWell) return parsed;
      return CastNumber(wide, out) ? Parsed::kWell : Parsed::kMisfit;
    } else if constexpr (std::is_floating_point_v<Out>) {
      return ParseFloat(value.view(), out);
    } else {
      return ParseWhole(value.view(), out);
    }
  }

  bool Apply(In value, Out* out) const { return Parse(value, out) == Parsed::kWell; }

  std::string Complaint(In value) const {
    Out ignored;
    if (Parse(value, &ignored) == Parsed::kMisfit) return DoesNotFit(value, DTypeOf<Out>());
    return "value " + FormatValue(value) + " cannot be read as " + std::string(DTypeName(DTypeOf<Out>()));
  }
};

template <typename To>
KernelResult CastTo(DType from) {
  if (from == DType::kBytes) return MakeKernel(ParseFn<To>{});
  return VisitNumber(
      from, [](auto in) -> KernelResult { return MakeKernel(CastFn<decltype(in), To>{}); },
      [&]() -> KernelResult { return arrow::Status::TypeError("cast cannot take ", ValuesOf(from)); });
}

template <typename T>
arrow::Status EncodeNumber(const ops::FillNull& fill, T* out) {
  const bool is_fit = fill.integer ? CastNumber(*fill.integer, out) : CastNumber(fill.value, out);
  if (is_fit) return arrow::Status::OK();
  const std::string text = fill.integer ? FormatValue(*fill.integer) : FormatValue(fill.value);
  return arrow::Status::Invalid("value ", text, " does not fit ", DTypeName(DTypeOf<T>()));
}

}  // namespace

KernelResult MakeCast(DType from, DType to) {
  return VisitNumber(
      to, [&](auto out) -> KernelResult { return CastTo<decltype(out)>(from); },
      [&]() -> KernelResult { return arrow::Status::Invalid("cast: ", DTypeName(to), " is not a number type"); });
}

arrow::Status EncodeFill(const ops::FillNull& fill, DType type, void* out) {
  if (fill.text) {
    return arrow::Status::TypeError(FormatBytesValue(*fill.text), " is text, but the column has ", ValuesOf(type),
                                    " there; give a number");
  }
  return VisitNumber(
      type, [&](auto element) { return EncodeNumber(fill, static_cast<decltype(element)*>(out)); },
      [&] { return arrow::Status::TypeError("the column has ", ValuesOf(type), " there; give text"); });
}

}  // namespace penstock

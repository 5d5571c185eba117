#pragma once

#include <string>
#include <string_view>

#include "ops/number.h"

namespace penstock {

/// A value for people: strings in quotes, at most 40 characters of them, always valid UTF-8.
std::string FormatBytesValue(std::string_view bytes);
std::string FormatDouble(double value);
std::string FormatFloat(float value);

template <typename T>
std::string FormatValue(T value) {
  if constexpr (std::is_same_v<T, BytesView>) {
    return FormatBytesValue(value.view());
  } else if constexpr (std::is_same_v<T, double>) {
    return FormatDouble(value);
  } else if constexpr (std::is_same_v<T, float> || std::is_same_v<T, Half>) {
    return FormatFloat(Arithmetic(value));
  } else {
    return std::to_string(Arithmetic(value));
  }
}

/// "value 300 does not fit int8"
template <typename T>
std::string DoesNotFit(T value, DType type) {
  return "value " + FormatValue(value) + " does not fit " + std::string(DTypeName(type));
}

/// "strings", "float32 values": what a column of this type holds, in a sentence.
std::string ValuesOf(DType type);

}  // namespace penstock

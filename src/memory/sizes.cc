#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "penstock/options.h"

namespace penstock {
namespace {

/// Bytes of a unit, in any case: "", "B"; "K", "KiB" = 1024; "KB" = 1000; and so on to "P". Not set: no unit.
std::optional<int64_t> UnitBytes(std::string_view unit) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  if (unit.empty() || (unit.size() == 1 && lower(unit[0]) == 'b')) return 1;
  constexpr std::string_view kPrefixes = "kmgtp";
  const size_t power = kPrefixes.find(lower(unit[0]));
  if (power == std::string_view::npos) return std::nullopt;
  const bool is_decimal = unit.size() == 2 && lower(unit[1]) == 'b';
  const bool is_binary = unit.size() == 1 || (unit.size() == 3 && lower(unit[1]) == 'i' && lower(unit[2]) == 'b');
  if (!is_decimal && !is_binary) return std::nullopt;
  int64_t bytes = 1;
  for (size_t i = 0; i <= power; ++i) bytes *= is_decimal ? 1000 : 1024;
  return bytes;
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// "1.5" x 1024; not set where it is no number, has a fraction of a byte as its unit, or is too large.
std::optional<int64_t> Multiply(std::string_view number, int64_t unit_bytes) {
  const char* end = number.data() + number.size();
  int64_t whole = 0;
  const auto parsed = std::from_chars(number.data(), end, whole);
  if (parsed.ec == std::errc() && parsed.ptr == end) {
    if (whole > std::numeric_limits<int64_t>::max() / unit_bytes) return std::nullopt;
    return whole * unit_bytes;
  }
  double fraction = 0;
  const auto real = std::from_chars(number.data(), end, fraction, std::chars_format::fixed);
  if (real.ec != std::errc() || real.ptr != end || unit_bytes == 1) return std::nullopt;
  const double bytes = std::round(fraction * static_cast<double>(unit_bytes));
  if (!(bytes < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(bytes);
}

}  // namespace

arrow::Result<int64_t> ParseBytes(std::string_view text) {
  const std::string_view trimmed = Trim(text);
  const size_t number_end = std::min(trimmed.find_first_not_of("0123456789."), trimmed.size());
  const std::string_view number = trimmed.substr(0, number_end);
  const std::optional<int64_t> unit_bytes = UnitBytes(Trim(trimmed.substr(number_end)));
  const std::optional<int64_t> bytes = number.empty() || !unit_bytes ? std::nullopt : Multiply(number, *unit_bytes);
  if (bytes) return *bytes;
  return arrow::Status::Invalid("'", text,
                                "' is not a size; write bytes (4096) or a number with a unit (256MiB, 1.5 GB)");
}

std::string FormatBytes(int64_t bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes > -1024 && bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.95 would be shown as 1024.0: it is 1.0 of the next unit.
  while (std::abs(value) >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  char shown[32];
  std::snprintf(shown, sizeof(shown), "%.1f %s", value, kUnits[unit]);
  return shown;
}

}  // namespace penstock

#include "source/text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace penstock::text {
namespace {

/// Bytes of the UTF-8 sequence at the front of `bytes`; 0 where there is no valid one.
size_t SequenceLength(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xC2 && lead < 0xE0   ? 2
                        : (lead & 0xF0) == 0xE0       ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
  if (length == 0 || bytes.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  const uint8_t second = at(1);
  const bool is_overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool is_beyond = (lead == 0xED && second >= 0xA0) || (lead == 0xF4 && second >= 0x90);
  return is_overlong || is_beyond ? 0 : length;
}

std::string Lower(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

/// Levenshtein distance.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string Hex(uint64_t value) {
  std::array<char, 17> digits;
  std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(value));
  return digits.data();
}

std::string ToValidUtf8(std::string_view bytes) {
  std::string valid;
  valid.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t length = SequenceLength(bytes);
    if (length == 0) {
      valid += "\xEF\xBF\xBD";
      bytes.remove_prefix(1);
    } else {
      valid += bytes.substr(0, length);
      bytes.remove_prefix(length);
    }
  }
  return valid;
}

std::string NearMiss(std::string_view name, const std::vector<std::string>& names) {
  constexpr size_t kLongestName = 64;  // Bounds the time for wide files.
  if (name.size() > kLongestName) return "";
  const std::string wanted = Lower(name);
  size_t best = std::max<size_t>(1, (wanted.size() + 1) / 3) + 1;
  std::string nearest;
  for (const std::string& candidate : names) {
    if (candidate.size() > kLongestName) continue;
    const size_t distance = EditDistance(wanted, Lower(candidate));
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string UnknownColumn(std::string_view name, std::string_view path, const std::vector<std::string>& names) {
  constexpr size_t kMostNames = 20;
  std::string message = "column " + Quoted(name) + " is not in " + Quoted(path);
  const std::string nearest = NearMiss(name, names);
  message += nearest.empty() ? "." : "; did you mean " + Quoted(nearest) + "?";
  message += " Columns: ";
  for (size_t i = 0; i < std::min(kMostNames, names.size()); ++i) {
    if (i > 0) message += ", ";
    message += ToValidUtf8(names[i]);
  }
  if (names.size() > kMostNames) message += " ... (first 20 of " + std::to_string(names.size()) + ")";
  return message;
}

}  // namespace penstock::text

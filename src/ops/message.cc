#include "ops/message.h"

#include <array>
#include <charconv>

namespace penstock {
namespace {

constexpr int kMostCharacters = 40;

// Bytes of the well-formed UTF-8 character at the front of `text` (not empty), or 0.
size_t CharacterBytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, beyond U+10FFFF.
  if ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F)) return 0;
  if ((lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F)) return 0;
  return size;
}

void AppendEscaped(uint8_t byte, std::string* out) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  *out += "\\x";
  *out += kDigits[byte >> 4];
  *out += kDigits[byte & 15];
}

template <typename T>
std::string FormatReal(T value) {
  std::array<char, 64> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  return std::string(buffer.data(), end);
}

}  // namespace

std::string FormatBytesValue(std::string_view bytes) {
  std::string out = "'";
  for (int characters = 0; !bytes.empty(); ++characters) {
    if (characters == kMostCharacters) return out + "'...";
    const size_t size = CharacterBytes(bytes);
    const auto lead = static_cast<uint8_t>(bytes[0]);
    if (size == 0 || lead < 0x20 || lead == 0x7F) {
      AppendEscaped(lead, &out);
      bytes.remove_prefix(1);
    } else {
      out += bytes.substr(0, size);
      bytes.remove_prefix(size);
    }
  }
  return out + "'";
}

std::string FormatDouble(double value) { return FormatReal(value); }
std::string FormatFloat(float value) { return FormatReal(value); }

std::string ValuesOf(DType type) {
  return type == DType::kBytes ? "strings" : std::string(DTypeName(type)) + " values";
}

}  // namespace penstock

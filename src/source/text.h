#pragma once

#include <arrow/status.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Text of error messages. What is read from files, and file names too, may be any bytes; messages are valid UTF-8.
namespace penstock::text {

/// `bytes` with each byte that is no part of valid UTF-8 replaced by U+FFFD.
std::string ToValidUtf8(std::string_view bytes);

/// True where `bytes` is valid UTF-8.
inline bool IsUtf8(std::string_view bytes) { return ToValidUtf8(bytes) == bytes; }

/// "'path'".
inline std::string Quoted(std::string_view name) { return "'" + ToValidUtf8(name) + "'"; }

/// `status` with "context: " in front of its message; its code and detail stay. The message becomes valid UTF-8.
inline arrow::Status WithContext(const arrow::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return status.WithMessage(ToValidUtf8(context), ": ", ToValidUtf8(status.message()));
}

/// The name in `names` that a person may have meant by `name`; empty where none is near.
std::string NearMiss(std::string_view name, const std::vector<std::string>& names);

/// "column 'carier' is not in 'path'; did you mean 'carrier'? Columns: a, b, c" (at most 20 of them).
std::string UnknownColumn(std::string_view name, std::string_view path, const std::vector<std::string>& names);

/// Sixteen digits.
std::string Hex(uint64_t value);

}  // namespace penstock::text

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock {

/// 64-bit xxHash (XXH64) with seed 0, of bytes or of the eight little-endian bytes of an integer.
uint64_t Hash64(std::string_view bytes);
uint64_t Hash64(int64_t value);

}  // namespace penstock

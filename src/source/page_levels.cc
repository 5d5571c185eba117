#include "source/page_levels.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace penstock {
namespace {

// Eight bits to eight bytes of 0 or 1: seven copies of the low seven bits, each a bit further up; the eighth apart.
uint64_t SpreadBits(uint8_t bits) {
  const auto low = static_cast<uint64_t>(bits & 0x7F);
  const auto high = static_cast<uint64_t>(bits >> 7);
  return (low * 0x02040810204081U & 0x0101010101010101U) | high << 56;
}

// Packed bits [first, first + n), least significant first. Returns how many are set.
int64_t UnpackBits(const uint8_t* packed, int64_t first, int64_t n, uint8_t* out) {
  int64_t present = 0;
  int64_t i = 0;
  const auto one = [&] {
    out[i] = packed[(first + i) / 8] >> ((first + i) % 8) & 1;
    present += out[i++];
  };
  while (i < n && (first + i) % 8 != 0) one();
  for (; i + 8 <= n; i += 8) {
    const uint8_t bits = packed[(first + i) / 8];
    const uint64_t bytes = SpreadBits(bits);
    std::memcpy(out + i, &bytes, sizeof(bytes));
    present += std::popcount(bits);
  }
  while (i < n) one();
  return present;
}

}  // namespace

arrow::Result<LevelReader::Stretch> LevelReader::Next(int64_t rows, uint8_t* valid) {
  if (bits_ != nullptr) return NextBits(rows, valid);
  if (const auto& run = runs_.Head(); run.packed == nullptr && run.value == 1 && run.length >= std::min(rows, kStrip)) {
    const int64_t all = std::min(rows, run.length);
    runs_.Take(all);
    return Stretch{all, all};
  }
  Stretch stretch;
  while (stretch.rows < std::min(rows, kStrip)) {
    const auto& run = runs_.Head();
    const int64_t part = std::min(std::min(rows, kStrip) - stretch.rows, run.length);
    if (part == 0) break;
    if (run.value > 1) return arrow::Status::IOError("a page has a level of ", run.value);
    if (run.packed != nullptr) {
      stretch.present += UnpackBits(run.packed, run.first, part, valid + stretch.rows);
    } else {
      std::memset(valid + stretch.rows, static_cast<int>(run.value), static_cast<size_t>(part));
      stretch.present += run.value * part;
    }
    stretch.rows += part;
    runs_.Take(part);
  }
  return stretch;
}

LevelReader::Stretch LevelReader::NextBits(int64_t rows, uint8_t* valid) {
  Stretch stretch;
  stretch.rows = std::min({rows, kStrip, bits_left_});
  for (int64_t i = 0; i < stretch.rows; ++i, ++bit_) {
    valid[i] = bits_[bit_ / 8] >> (7 - bit_ % 8) & 1;
    stretch.present += valid[i];
  }
  bits_left_ -= stretch.rows;
  return stretch;
}

}  // namespace penstock

#include "image/passes.h"

#include <algorithm>

namespace penstock::image {

#ifdef __x86_64__
const Passes& Avx2Passes();
#endif

namespace {

constexpr int kHalf = 1 << (Weights::kBits - 1);

int Weight(const int16_t* high, const int16_t* low, int64_t at) {
  return high[at] * (1 << Weights::kLowBits) + low[at];
}

uint8_t Shorten(int sum) { return static_cast<uint8_t>(std::min(sum >> Weights::kBits, 255)); }

template <int kBytes>
void Horizontal(const uint8_t* const rows[2], const Weights& weights, uint8_t* const out[2]) {
  for (int row = 0; row < 2; ++row) {
    for (int64_t x = 0; x < weights.length; ++x) {
      const uint8_t* from = rows[row] + int64_t{weights.first[x]} * kBytes;
      int sums[kBytes];
      std::fill(sums, sums + kBytes, kHalf);
      for (int tap = 0; tap < weights.taps; ++tap) {
        const int weight = Weight(weights.high, weights.low, x * weights.taps + tap);
        for (int c = 0; c < kBytes; ++c) sums[c] += from[tap * kBytes + c] * weight;
      }
      for (int c = 0; c < kBytes; ++c) out[row][x * kBytes + c] = Shorten(sums[c]);
    }
  }
}

void Vertical(const uint8_t* const* rows, const int16_t* high, const int16_t* low, int taps, int64_t bytes,
              uint8_t* out) {
  constexpr int64_t kStrip = 256;
  int sums[kStrip];
  for (int64_t begin = 0; begin < bytes; begin += kStrip) {
    const int64_t n = std::min(kStrip, bytes - begin);
    std::fill(sums, sums + n, kHalf);
    for (int tap = 0; tap < taps; ++tap) {
      const int weight = Weight(high, low, tap);
      const uint8_t* row = rows[tap] + begin;
      for (int64_t i = 0; i < n; ++i) sums[i] += row[i] * weight;
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = Shorten(sums[i]);
  }
}

void ToPlanes(const uint8_t* pixels, int64_t length, const float* scale, const float* offset, float* const planes[3]) {
  for (int c = 0; c < 3; ++c) {
    for (int64_t x = 0; x < length; ++x) {
      planes[c][x] = static_cast<float>(pixels[4 * x + c]) * scale[c] + offset[c];
    }
  }
}

}  // namespace

const Passes& PlainPasses() {
  static constexpr Passes kPasses{&Horizontal<4>, &Horizontal<1>, &Vertical, &ToPlanes};
  return kPasses;
}

const Passes& BestPasses() {
#ifdef __x86_64__
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return Avx2Passes();
#endif
  return PlainPasses();
}

}  // namespace penstock::image

// The inner loops for processors with AVX2, chosen at run time: this file is compiled for any x86-64.
#ifdef __x86_64__

#include <immintrin.h>

#include <cstring>

#include "image/passes.h"

#define PENSTOCK_AVX2 __attribute__((target("avx2")))

namespace penstock::image {
namespace {

/// Sums of products with both parts of the weights.
struct Sums {
  __m256i high, low;
};

PENSTOCK_AVX2 inline __m256i Pair(const int16_t* weights) {
  int32_t pair;
  std::memcpy(&pair, weights, sizeof pair);
  return _mm256_set1_epi32(pair);
}

PENSTOCK_AVX2 inline void Add(__m256i values, __m256i high, __m256i low, Sums* sums) {
  sums->high = _mm256_add_epi32(sums->high, _mm256_madd_epi16(values, high));
  sums->low = _mm256_add_epi32(sums->low, _mm256_madd_epi16(values, low));
}

PENSTOCK_AVX2 inline __m256i Shorten(const Sums& sums) {
  const __m256i half = _mm256_set1_epi32(1 << (Weights::kBits - 1));
  const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(sums.high, Weights::kLowBits), sums.low);
  return _mm256_srai_epi32(_mm256_add_epi32(sum, half), Weights::kBits);
}

PENSTOCK_AVX2 inline __m256i TwoRows(__m128i first, __m128i second) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
}

// A row in each half of the registers; two source pixels in each product.
PENSTOCK_AVX2 void Horizontal4(const uint8_t* const rows[2], const Weights& weights, uint8_t* const out[2]) {
  constexpr char z = -1;
  const __m256i front = _mm256_setr_epi8(0, z, 4, z, 1, z, 5, z, 2, z, 6, z, 3, z, 7, z,  //
                                         0, z, 4, z, 1, z, 5, z, 2, z, 6, z, 3, z, 7, z);
  const __m256i back = _mm256_setr_epi8(8, z, 12, z, 9, z, 13, z, 10, z, 14, z, 11, z, 15, z,  //
                                        8, z, 12, z, 9, z, 13, z, 10, z, 14, z, 11, z, 15, z);
  const int taps = weights.taps;
  const int16_t* high = weights.high;
  const int16_t* low = weights.low;
  for (int64_t x = 0; x < weights.length; x += 4) {
    __m256i pixels[4];
    for (int i = 0; i < 4; ++i, high += taps, low += taps) {
      const uint8_t* first = rows[0] + int64_t{weights.first[x + i]} * 4;
      const uint8_t* second = rows[1] + int64_t{weights.first[x + i]} * 4;
      Sums sums{_mm256_setzero_si256(), _mm256_setzero_si256()};
      int tap = 0;
      for (; tap + 4 <= taps; tap += 4) {
        const __m256i four = TwoRows(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first + 4 * tap)),
                                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(second + 4 * tap)));
        Add(_mm256_shuffle_epi8(four, front), Pair(high + tap), Pair(low + tap), &sums);
        Add(_mm256_shuffle_epi8(four, back), Pair(high + tap + 2), Pair(low + tap + 2), &sums);
      }
      if (tap < taps) {
        const __m256i two = TwoRows(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(first + 4 * tap)),
                                    _mm_loadl_epi64(reinterpret_cast<const __m128i*>(second + 4 * tap)));
        Add(_mm256_shuffle_epi8(two, front), Pair(high + tap), Pair(low + tap), &sums);
      }
      pixels[i] = Shorten(sums);
    }
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(pixels[0], pixels[1]),  //
                                              _mm256_packs_epi32(pixels[2], pixels[3]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out[0] + 4 * x), _mm256_castsi256_si128(bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out[1] + 4 * x), _mm256_extracti128_si256(bytes, 1));
  }
}

// Two rows in each product.
PENSTOCK_AVX2 void Vertical(const uint8_t* const* rows, const int16_t* high, const int16_t* low, int taps,
                            int64_t bytes, uint8_t* out) {
  for (int64_t at = 0; at < bytes; at += 16) {
    Sums left{_mm256_setzero_si256(), _mm256_setzero_si256()}, right = left;
    for (int tap = 0; tap < taps; tap += 2) {
      const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[tap] + at));
      const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[tap + 1] + at));
      const __m256i high_pair = Pair(high + tap), low_pair = Pair(low + tap);
      Add(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(first, second)), high_pair, low_pair, &left);
      Add(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(first, second)), high_pair, low_pair, &right);
    }
    // Packing works within halves: quarters 0 2 1 3 are in order.
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(Shorten(left), Shorten(right)), 0xD8);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi16(words, words), 0xD8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + at), _mm256_castsi256_si128(packed));
  }
}

// Product and sum are rounded one by one, as plain C++ does it: no fused instruction.
PENSTOCK_AVX2 inline void StoreFloats(__m256i values, float scale, float offset, float* out) {
  const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(values), _mm256_set1_ps(scale));
  _mm256_storeu_ps(out, _mm256_add_ps(product, _mm256_set1_ps(offset)));
}

PENSTOCK_AVX2 void ToPlanes(const uint8_t* pixels, int64_t length, const float* scale, const float* offset,
                            float* const planes[3]) {
  const __m256i byte = _mm256_set1_epi32(255);
  int64_t x = 0;
  for (; x + 8 <= length; x += 8) {
    const __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixels + 4 * x));
    StoreFloats(_mm256_and_si256(eight, byte), scale[0], offset[0], planes[0] + x);
    StoreFloats(_mm256_and_si256(_mm256_srli_epi32(eight, 8), byte), scale[1], offset[1], planes[1] + x);
    StoreFloats(_mm256_and_si256(_mm256_srli_epi32(eight, 16), byte), scale[2], offset[2], planes[2] + x);
  }
  if (x == length) return;
  float* const rest[3] = {planes[0] + x, planes[1] + x, planes[2] + x};
  PlainPasses().to_planes(pixels + 4 * x, length - x, scale, offset, rest);
}

}  // namespace

const Passes& Avx2Passes() {
  static const Passes kPasses{&Horizontal4, PlainPasses().horizontal1, &Vertical, &ToPlanes};
  return kPasses;
}

}  // namespace penstock::image

#endif

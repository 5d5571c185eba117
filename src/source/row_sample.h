#pragma once

#include <cstdint>

#include "penstock/options.h"

namespace penstock {

/// What tells the rows of one chunk apart from those of all others.
/// \param file       position of the file in the source.
/// \param begin_row  of the input in its file (streams: of the batch).
inline uint64_t SampleKey(const RowSample& sample, int64_t file, int64_t begin_row, int chunk);

/// The number in [0, 1) that decides where a row belongs: the row-th output of SplitMix64 (Steele, Lea and Flood 2014,
/// https://doi.org/10.1145/2660193.2660195) from `key`. Counter-based: any row at any time.
inline double SampleOf(uint64_t key, int64_t row);

inline bool IsInSample(const RowSample& sample, uint64_t key, int64_t row) {
  const double u = SampleOf(key, row);
  return sample.begin <= u && u < sample.end;
}

namespace internal {

inline constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;

inline uint64_t Mix64(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

}  // namespace internal

inline uint64_t SampleKey(const RowSample& sample, int64_t file, int64_t begin_row, int chunk) {
  uint64_t key = static_cast<uint64_t>(sample.seed);
  for (const int64_t part : {file, begin_row, int64_t{chunk}}) {
    key = internal::Mix64(key + internal::kGolden) ^ static_cast<uint64_t>(part);
  }
  return internal::Mix64(key + internal::kGolden);
}

inline double SampleOf(uint64_t key, int64_t row) {
  const uint64_t bits = internal::Mix64(key + (static_cast<uint64_t>(row) + 1) * internal::kGolden);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace penstock

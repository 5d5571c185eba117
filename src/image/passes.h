#pragma once

#include <cstdint>

#include "image/weights.h"

namespace penstock::image {

/// The inner loops, in as many versions as there are kinds of processor. All versions of a loop give the same bytes.
/// Lengths in bytes are rounded up to whole registers: rows have kRowRoom bytes behind their end, of any value.
struct Passes {
  static constexpr int64_t kRowRoom = 64;

  /// Two rows, each target a weighted sum of its source pixels; `rows` begin at the first pixel needed and may be read
  /// Weights::taps pixels beyond the last.
  void (*horizontal4)(const uint8_t* const rows[2], const Weights& weights,
                      uint8_t* const out[2]);  ///< 4 bytes a pixel.
  void (*horizontal1)(const uint8_t* const rows[2], const Weights& weights,
                      uint8_t* const out[2]);  ///< 1 byte a pixel.
  /// A weighted sum of `taps` rows of `bytes` bytes.
  void (*vertical)(const uint8_t* const* rows, const int16_t* high, const int16_t* low, int taps, int64_t bytes,
                   uint8_t* out);
  /// Four bytes a pixel to three planes of floats: value * scale[c] + offset[c].
  void (*to_planes)(const uint8_t* pixels, int64_t length, const float* scale, const float* offset,
                    float* const planes[3]);
};

/// Plain C++, for any processor.
const Passes& PlainPasses();
/// For the processor that this runs on.
const Passes& BestPasses();

}  // namespace penstock::image

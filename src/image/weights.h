#pragma once

#include <cstdint>

#include "image/arena.h"

namespace penstock::image {

/// Which source pixels go into each of a run of target pixels, along one axis, and with what weight: Pillow's
/// antialiased bilinear filter, in its fixed point (22 bits). A weight is high * 128 + low, so that both parts multiply
/// as 16-bit integers and the sum is what Pillow's is.
struct Weights {
  static constexpr int kBits = 22;
  static constexpr int kLowBits = 7;

  int64_t length = 0;  ///< Targets; a multiple of 4 (those on top repeat the last).
  int taps = 0;        ///< Of each target, some of weight 0 at its end; a multiple of 2.
  int64_t begin = 0;   ///< Source pixels that any target needs: [begin, end).
  int64_t end = 0;
  bool is_identity = false;  ///< Each target is one source pixel, in order.
  int32_t* first = nullptr;  ///< Per target, counted from `begin`.
  int16_t* high = nullptr;   ///< `taps` per target.
  int16_t* low = nullptr;

  /// Targets [target_begin, target_begin + targets) of `resized` ones that `source` pixels are resized to.
  /// \param is_reversed  the last target comes first (then `first` falls).
  /// \return false where the arena refuses.
  bool Make(int64_t source, int64_t resized, int64_t target_begin, int64_t targets, bool is_reversed, Arena* arena);
};

}  // namespace penstock::image

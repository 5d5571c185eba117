#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "image/passes.h"
#include "penstock/dtype.h"
#include "penstock/image.h"

namespace penstock::image {

/// How a pixel becomes what is stored, and where: dtype, normalisation and order.
///
/// Threads: immutable.
class Store {
 public:
  /// \param scale, offset  per channel, for floats: pixel * scale + offset.
  Store(DType dtype, Order order, std::vector<float> scale, std::vector<float> offset);

  DType dtype() const { return dtype_; }
  int channels() const { return static_cast<int>(scale_.size()); }
  Order order() const { return order_; }

  /// Where the pixels of an image of this size go.
  struct Target {
    void* out;
    int64_t width, height;
    bool is_transposed;         ///< Rows that come are columns.
    bool mirrors_x, mirrors_y;  ///< Columns, rows of the target.
  };
  /// The `index`-th row that comes; the pixels of a row are mirrored already where nothing is transposed. Four bytes a
  /// pixel for three channels, one for one.
  void Row(const Target& target, int64_t index, const uint8_t* pixels, const Passes& passes) const;

 private:
  /// Writes what `convert(channel, pixel)` makes of each.
  template <typename T, typename Convert>
  void Spread(const Target& target, int64_t index, const uint8_t* pixels, Convert convert) const;

  DType dtype_;
  Order order_;
  std::vector<float> scale_, offset_;
  // By channel and byte, whichever the dtype is.
  std::vector<uint16_t> halves_;
  std::vector<float> floats_;
};

}  // namespace penstock::image

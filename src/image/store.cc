#include "image/store.h"

#include <arrow/util/float16.h>

#include <utility>

namespace penstock::image {
namespace {

/// Positions in a target, in elements.
struct Strides {
  int64_t start, pixel, channel;
};

Strides StridesOf(const Store::Target& target, Order order, int channels, int64_t index) {
  const bool is_hwc = order == Order::kHWC;
  const int64_t x_step = is_hwc ? channels : 1;
  const int64_t y_step = target.width * x_step;
  const int64_t channel = is_hwc ? 1 : target.width * target.height;
  if (!target.is_transposed) {
    return {(target.mirrors_y ? target.height - 1 - index : index) * y_step, x_step, channel};
  }
  const int64_t x = target.mirrors_x ? target.width - 1 - index : index;
  if (!target.mirrors_y) return {x * x_step, y_step, channel};
  return {x * x_step + (target.height - 1) * y_step, -y_step, channel};
}

}  // namespace

Store::Store(DType dtype, Order order, std::vector<float> scale, std::vector<float> offset)
    : dtype_(dtype), order_(order), scale_(std::move(scale)), offset_(std::move(offset)) {
  for (size_t c = 0; c < scale_.size(); ++c) {
    for (int value = 0; value < 256; ++value) {
      // Two roundings, as in the loops that compute it.
      const volatile float product = static_cast<float>(value) * scale_[c];
      const float result = product + offset_[c];
      if (dtype_ == DType::kFloat16) halves_.push_back(arrow::util::Float16(result).bits());
      if (dtype_ == DType::kFloat32) floats_.push_back(result);
    }
  }
}

void Store::Row(const Target& target, int64_t index, const uint8_t* pixels, const Passes& passes) const {
  if (dtype_ == DType::kUInt8) {
    return Spread<uint8_t>(target, index, pixels, [](int, uint8_t pixel) { return pixel; });
  }
  if (dtype_ == DType::kFloat16) {
    return Spread<uint16_t>(target, index, pixels, [this](int c, uint8_t pixel) { return halves_[256 * c + pixel]; });
  }
  if (target.is_transposed || order_ == Order::kHWC || channels() == 1) {
    return Spread<float>(target, index, pixels, [this](int c, uint8_t pixel) { return floats_[256 * c + pixel]; });
  }
  const Strides strides = StridesOf(target, order_, channels(), index);
  float* first = static_cast<float*>(target.out) + strides.start;
  float* const planes[3] = {first, first + strides.channel, first + 2 * strides.channel};
  passes.to_planes(pixels, target.width, scale_.data(), offset_.data(), planes);
}

template <typename T, typename Convert>
void Store::Spread(const Target& target, int64_t index, const uint8_t* pixels, Convert convert) const {
  const Strides strides = StridesOf(target, order_, channels(), index);
  T* out = static_cast<T*>(target.out) + strides.start;
  const int64_t length = target.is_transposed ? target.height : target.width;
  if (channels() == 1) {
    for (int64_t i = 0; i < length; ++i) out[i * strides.pixel] = convert(0, pixels[i]);
  } else if (strides.pixel == 1) {  // Planes: the loops are simple enough for the compiler.
    for (int c = 0; c < 3; ++c) {
      T* plane = out + c * strides.channel;
      for (int64_t i = 0; i < length; ++i) plane[i] = convert(c, pixels[4 * i + c]);
    }
  } else {
    for (int64_t i = 0; i < length; ++i) {
      for (int c = 0; c < 3; ++c) out[i * strides.pixel + c * strides.channel] = convert(c, pixels[4 * i + c]);
    }
  }
}

}  // namespace penstock::image

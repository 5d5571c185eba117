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
      if (dtype_ == DType::kUInt8) bytes_.push_back(static_cast<uint8_t>(value));
      if (dtype_ == DType::kFloat16) halves_.push_back(arrow::util::Float16(result).bits());
      if (dtype_ == DType::kFloat32) floats_.push_back(result);
    }
  }
}

void Store::Row(const Target& target, int64_t index, const uint8_t* pixels, const Passes& passes) const {
  if (dtype_ == DType::kUInt8) return Spread(target, index, pixels, bytes_);
  if (dtype_ == DType::kFloat16) return Spread(target, index, pixels, halves_);
  if (target.is_transposed || order_ == Order::kHWC || channels() == 1) return Spread(target, index, pixels, floats_);
  const Strides strides = StridesOf(target, order_, channels(), index);
  float* first = static_cast<float*>(target.out) + strides.start;
  float* const planes[3] = {first, first + strides.channel, first + 2 * strides.channel};
  passes.to_planes(pixels, target.width, scale_.data(), offset_.data(), planes);
}

template <typename T>
void Store::Spread(const Target& target, int64_t index, const uint8_t* pixels, const std::vector<T>& table) const {
  const Strides strides = StridesOf(target, order_, channels(), index);
  T* out = static_cast<T*>(target.out) + strides.start;
  const int64_t length = target.is_transposed ? target.height : target.width;
  if (channels() == 1) {
    for (int64_t i = 0; i < length; ++i) out[i * strides.pixel] = table[pixels[i]];
    return;
  }
  for (int c = 0; c < 3; ++c) {
    const T* channel = table.data() + 256 * c;
    T* plane = out + c * strides.channel;
    for (int64_t i = 0; i < length; ++i) plane[i * strides.pixel] = channel[pixels[4 * i + c]];
  }
}

}  // namespace penstock::image

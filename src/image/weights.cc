#include "image/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace penstock::image {
namespace {

/// Pillow's arithmetic, step by step: the same roundings give the same weights.
struct Filter {
  Filter(int64_t source_pixels, int64_t resized)
      : source(source_pixels),
        scale(static_cast<double>(source_pixels) / static_cast<double>(resized)),
        support(std::max(scale, 1.0)) {}

  int64_t Begin(int64_t target) const {
    return std::max<int64_t>(0, static_cast<int64_t>(Center(target) - support + 0.5));
  }
  int64_t End(int64_t target) const {
    return std::min<int64_t>(source, static_cast<int64_t>(Center(target) + support + 0.5));
  }
  double Center(int64_t target) const { return (static_cast<double>(target) + 0.5) * scale; }
  double Weight(int64_t target, int64_t pixel) const {
    const double x = (static_cast<double>(pixel) - Center(target) + 0.5) * (1.0 / support);
    return std::max(0.0, 1.0 - std::abs(x));
  }

  int64_t source;
  double scale;
  double support;
};

}  // namespace

bool Weights::Make(int64_t source, int64_t resized, int64_t target_begin, int64_t targets, bool is_reversed,
                   Arena* arena) {
  const Filter filter(source, resized);
  const int64_t most_taps = static_cast<int64_t>(std::ceil(filter.support)) * 2 + 1;
  length = (targets + 3) / 4 * 4;
  first = arena->Array<int32_t>(length);
  double* exact = arena->Array<double>(most_taps);
  if (first == nullptr || exact == nullptr) return false;

  begin = filter.Begin(target_begin);
  end = filter.End(target_begin + targets - 1);
  int64_t widest = 1;
  for (int64_t t = target_begin; t < target_begin + targets; ++t) {
    widest = std::max(widest, filter.End(t) - filter.Begin(t));
  }
  taps = static_cast<int>((widest + 1) / 2 * 2);
  const auto entries = static_cast<size_t>(length * taps);
  high = arena->Array<int16_t>(length * taps);
  low = arena->Array<int16_t>(length * taps);
  if (high == nullptr || low == nullptr) return false;
  std::memset(high, 0, entries * sizeof *high);
  std::memset(low, 0, entries * sizeof *low);

  for (int64_t i = 0; i < length; ++i) {
    const int64_t nth = std::min(i, targets - 1);
    const int64_t target = target_begin + (is_reversed ? targets - 1 - nth : nth);
    const int64_t from = filter.Begin(target), count = filter.End(target) - from;
    double sum = 0;
    for (int64_t tap = 0; tap < count; ++tap) sum += exact[tap] = filter.Weight(target, from + tap);
    first[i] = static_cast<int32_t>(from - begin);
    for (int64_t tap = 0; tap < count; ++tap) {
      const double weight = sum != 0 ? exact[tap] / sum : exact[tap];
      const auto fixed = static_cast<int>(0.5 + weight * (1 << kBits));
      const int upper = std::min(fixed >> kLowBits, 32767);
      high[i * taps + tap] = static_cast<int16_t>(upper);
      low[i * taps + tap] = static_cast<int16_t>(fixed - (upper << kLowBits));
    }
  }
  is_identity = source == resized && !is_reversed;
  return true;
}

}  // namespace penstock::image

#pragma once

#include <arrow/memory_pool.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "penstock/image.h"

namespace penstock::image {

/// Gives memory full of one byte, so that whatever is read before it is written shows in the result; refuses what goes
/// beyond 64 MiB.
class PaintedPool final : public arrow::ProxyMemoryPool {
 public:
  explicit PaintedPool(uint8_t paint) : ProxyMemoryPool(arrow::default_memory_pool()), paint_(paint) {}

  using ProxyMemoryPool::Allocate;
  arrow::Status Allocate(int64_t size, int64_t alignment, uint8_t** out) override {
    if (bytes_allocated() + size > kLimitBytes) return arrow::Status::OutOfMemory("more than 64 MiB");
    ARROW_RETURN_NOT_OK(ProxyMemoryPool::Allocate(size, alignment, out));
    std::memset(*out, paint_, static_cast<size_t>(size));
    return arrow::Status::OK();
  }

 private:
  static constexpr int64_t kLimitBytes = int64_t{64} << 20;
  const uint8_t paint_;
};

/// Small plans that between them use every step, mode, dtype and order.
inline const std::vector<Plan>& PlansToTry() {
  static const std::vector<Plan> plans = [] {
    constexpr int64_t kMaxPixels = int64_t{1} << 20;
    const Decode rgb{Mode::kRGB, false, kMaxPixels}, gray{Mode::kL, false, kMaxPixels};
    const Decode turned{Mode::kRGB, true, kMaxPixels};
    const std::vector<std::vector<Step>> lists = {
        {rgb, RandomResizedCrop{24, 16}, RandomHorizontalFlip{}, Normalize{{0.5}, {0.25}}},
        {gray, RandomResizedCrop{16, 24}, ToFloat{DType::kFloat16}},
        {turned, Resize{20, 30}, RandomCrop{18, 18}, Order::kHWC},
        {rgb, CenterCrop{5, 3}},
        {gray, Resize{9, 0}, CenterCrop{9, 9}, Order::kHWC},
    };
    std::vector<Plan> made;
    for (const auto& steps : lists) made.push_back(Plan::Make(steps).ValueOrDie());
    return made;
  }();
  return plans;
}

/// What must hold for any bytes: every plan gives an image or an error, the same each time, and all memory is free
/// again. Sanitizers watch the rest.
/// \return what does not hold; empty where all is well.
inline std::string TryImage(std::span<const uint8_t> encoded) {
  // A copy of exactly this size: the sanitizer sees any byte that is read behind it.
  const std::vector<uint8_t> bytes(encoded.begin(), encoded.end());
  for (const Plan& plan : PlansToTry()) {
    size_t size = static_cast<size_t>(ByteWidth(plan.dtype()));
    for (const int64_t extent : plan.shape()) size *= static_cast<size_t>(extent);
    arrow::Status statuses[2];
    std::vector<uint8_t> outs[2];
    for (const int run : {0, 1}) {
      const uint8_t paint = run == 0 ? 0x00 : 0xA5;
      outs[run].assign(size, paint);
      PaintedPool pool(paint);
      statuses[run] = plan.Apply(bytes, 7, outs[run].data(), &pool);
      if (pool.bytes_allocated() != 0) return "memory was not given back";
    }
    if (statuses[0] != statuses[1]) return statuses[0].ToString() + " and then " + statuses[1].ToString();
    if (statuses[0].ok() && outs[0] != outs[1]) return "pixels that were never written";
    if (!statuses[0].ok() && !statuses[0].IsInvalid() && !statuses[0].IsOutOfMemory()) return statuses[0].ToString();
  }
  return "";
}

}  // namespace penstock::image

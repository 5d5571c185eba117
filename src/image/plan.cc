#include <arrow/memory_pool.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "image/arena.h"
#include "image/compiled.h"
#include "image/geometry.h"
#include "image/resample.h"

namespace penstock::image {
namespace {

/// Steps in the order in which they may come.
class Builder {
 public:
  arrow::Status Run(const std::vector<Step>& steps) {
    if (steps.empty() || !std::holds_alternative<Decode>(steps[0])) {
      return arrow::Status::Invalid("the first step on an image is decode");
    }
    for (const Step& step : steps) {
      ARROW_RETURN_NOT_OK(std::visit([&](const auto& description) { return Add(description); }, step));
    }
    if (width_ > 0) return arrow::Status::OK();
    return arrow::Status::Invalid(
        "the size of what comes out is not fixed; add resize((height, width)), center_crop, random_crop or "
        "random_resized_crop (images that have the size already pass unchanged)");
  }

  const Decode& decode() const { return *decode_; }
  std::vector<int64_t> Shape() const {
    const int64_t c = channels();
    return order_ == Order::kHWC ? std::vector{height_, width_, c} : std::vector{c, height_, width_};
  }
  Store MakeStore() const {
    std::vector<float> scale, offset;
    for (size_t c = 0; c < static_cast<size_t>(channels()); ++c) {
      const double mean = mean_.empty() ? 0 : mean_[mean_.size() == 1 ? 0 : c];
      const double std = std_.empty() ? 1 : std_[std_.size() == 1 ? 0 : c];
      scale.push_back(static_cast<float>(1 / (255 * std)));
      offset.push_back(static_cast<float>(-mean / std));
    }
    return {dtype_.value_or(DType::kUInt8), order_.value_or(Order::kCHW), std::move(scale), std::move(offset)};
  }

 private:
  int64_t channels() const { return decode_->mode == Mode::kRGB ? 3 : 1; }

  arrow::Status Add(const Decode& step) {
    if (decode_) return arrow::Status::Invalid("decode is given twice");
    if (step.max_pixels < 1) return arrow::Status::Invalid("decode: max_pixels must be at least 1");
    decode_ = step;
    return arrow::Status::OK();
  }
  arrow::Status Add(const Resize& step) {
    ARROW_RETURN_NOT_OK(CheckResize("resize"));
    if (step.width != 0) return SetSize("resize", step.height, step.width);
    ARROW_RETURN_NOT_OK(SetSize("resize", step.height, step.height));
    width_ = 0;
    return arrow::Status::OK();
  }
  arrow::Status Add(const CenterCrop& step) { return SetSize("center_crop", step.height, step.width); }
  arrow::Status Add(const RandomCrop& step) { return SetSize("random_crop", step.height, step.width); }
  arrow::Status Add(const RandomResizedCrop& step) {
    ARROW_RETURN_NOT_OK(CheckResize("random_resized_crop"));
    const auto is_range = [](const std::array<double, 2>& range) {
      return std::isfinite(range[1]) && 0 < range[0] && range[0] <= range[1];
    };
    if (!is_range(step.scale) || step.scale[1] > 1 || !is_range(step.ratio)) {
      return arrow::Status::Invalid(
          "random_resized_crop: scale is a range of parts of the area within (0, 1], ratio a range above 0");
    }
    return SetSize("random_resized_crop", step.height, step.width);
  }
  arrow::Status Add(const RandomHorizontalFlip& step) {
    ARROW_RETURN_NOT_OK(CheckPixels("random_horizontal_flip"));
    if (step.p >= 0 && step.p <= 1) return arrow::Status::OK();
    return arrow::Status::Invalid("random_horizontal_flip: p is a probability, got ", step.p);
  }
  arrow::Status Add(const ToFloat& step) {
    if (dtype_) return arrow::Status::Invalid("to_float: the pixels are floats already");
    if (step.dtype != DType::kFloat16 && step.dtype != DType::kFloat32) {
      return arrow::Status::Invalid("to_float: the type is float16 or float32, not ", DTypeName(step.dtype));
    }
    dtype_ = step.dtype;
    return arrow::Status::OK();
  }
  arrow::Status Add(const Normalize& step) {
    if (!mean_.empty()) return arrow::Status::Invalid("normalize is given twice");
    const auto fits = [&](size_t entries) { return entries == 1 || entries == static_cast<size_t>(channels()); };
    if (!fits(step.mean.size()) || !fits(step.std.size())) {
      return arrow::Status::Invalid("normalize: mean and std have one entry, or one for each of the ", channels(),
                                    " channels");
    }
    const auto is_good = [](double std) { return std::isfinite(std) && std != 0; };
    if (!std::ranges::all_of(step.std, is_good)) return arrow::Status::Invalid("normalize: std must not be 0");
    mean_ = step.mean;
    std_ = step.std;
    if (!dtype_) dtype_ = DType::kFloat32;
    return arrow::Status::OK();
  }
  arrow::Status Add(const Order& order) {
    if (order_) return arrow::Status::Invalid("layout is given twice");
    order_ = order;
    return arrow::Status::OK();
  }

  arrow::Status CheckPixels(const char* step) const {
    if (!dtype_ && !order_) return arrow::Status::OK();
    return arrow::Status::Invalid(step, " comes before to_float, normalize and layout");
  }
  arrow::Status CheckResize(const char* step) {
    if (!std::exchange(has_resize_, true)) return arrow::Status::OK();
    return arrow::Status::Invalid(step, ": an image is resized once, by resize or by random_resized_crop");
  }
  arrow::Status SetSize(const char* step, int64_t height, int64_t width) {
    ARROW_RETURN_NOT_OK(CheckPixels(step));
    constexpr int64_t kMost = 1 << 16;
    if (height < 1 || width < 1 || height > kMost || width > kMost) {
      return arrow::Status::Invalid(step, ": a size of ", height, " x ", width, " is not in [1, ", kMost, "]");
    }
    height_ = height;
    width_ = width;
    return arrow::Status::OK();
  }

  std::optional<Decode> decode_;
  std::optional<DType> dtype_;
  std::optional<Order> order_;
  std::vector<double> mean_, std_;
  bool has_resize_ = false;
  int64_t height_ = 0, width_ = 0;  // width_ 0: not fixed yet.
};

}  // namespace

arrow::Result<Plan> Plan::Make(std::vector<Step> steps) {
  Builder builder;
  ARROW_RETURN_NOT_OK(builder.Run(steps));
  return Plan(std::make_shared<const Compiled>(
      Compiled{std::move(steps), builder.decode(), builder.Shape(), builder.MakeStore()}));
}

DType Plan::dtype() const { return compiled_->store.dtype(); }
const std::vector<int64_t>& Plan::shape() const { return compiled_->shape; }

arrow::Status Plan::Apply(std::span<const uint8_t> encoded, const RowKey& key, void* out,
                          arrow::MemoryPool* pool) const {
  Arena arena(pool);
  return compiled_->Run(encoded, key, out, BestPasses(), &arena);
}

arrow::Result<std::vector<Drawn>> Plan::Draw(int64_t height, int64_t width, const RowKey& key) const {
  if (height < 1 || width < 1) return arrow::Status::Invalid("an image has at least one pixel");
  std::vector<Drawn> drawn;
  ARROW_RETURN_NOT_OK(Place(compiled_->steps, width, height, Draws(key), &drawn));
  return drawn;
}

arrow::Status Plan::Compiled::Run(std::span<const uint8_t> encoded, const RowKey& key, void* out, const Passes& passes,
                                  Arena* arena) const {
  ARROW_ASSIGN_OR_RAISE(const auto source, RowSource::Open(encoded, decode, arena));
  int64_t width = source->width(), height = source->height();
  if (SwapsSides(source->orientation())) std::swap(width, height);
  ARROW_ASSIGN_OR_RAISE(const Placement placement, Place(steps, width, height, Draws(key), nullptr));
  return Resample(source.get(), ToStored(placement, source->orientation(), width, height), store, out, passes, arena);
}

}  // namespace penstock::image

#include "image/geometry.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace penstock::image {
namespace {

// As Python rounds: halves to even.
int64_t Round(double value) { return static_cast<int64_t>(std::nearbyint(value)); }

/// Runs the steps on sizes.
class Placer {
 public:
  Placer(int64_t width, int64_t height, Draws draws, std::vector<Drawn>* drawn) : draws_(draws), drawn_(drawn) {
    placement_.box = placement_.window = {0, 0, width, height};
    placement_.resized_width = width;
    placement_.resized_height = height;
  }

  arrow::Status Run(size_t number, const Step& step) {
    number_ = number;
    draws_.StartStep(number);
    return std::visit([&](const auto& description) { return Add(description); }, step);
  }
  const Placement& placement() const { return placement_; }

 private:
  // Width and height as the next step sees them.
  int64_t width() const { return placement_.window.width; }
  int64_t height() const { return placement_.window.height; }

  arrow::Status Add(const Resize& step) {
    if (step.width > 0) return ResizeTo(step.height, step.width);
    // As torchvision does it.
    const int64_t shorter = std::min(width(), height()), longer = std::max(width(), height());
    const auto other = static_cast<int64_t>(static_cast<double>(step.height * longer) / static_cast<double>(shorter));
    return width() <= height() ? ResizeTo(other, step.height) : ResizeTo(step.height, other);
  }

  arrow::Status Add(const CenterCrop& step) {
    ARROW_RETURN_NOT_OK(CheckSize("center_crop", step.height, step.width));
    Crop({Round(static_cast<double>(width() - step.width) / 2), Round(static_cast<double>(height() - step.height) / 2),
          step.width, step.height});
    return arrow::Status::OK();
  }

  arrow::Status Add(const RandomCrop& step) {
    ARROW_RETURN_NOT_OK(CheckSize("random_crop", step.height, step.width));
    const int64_t top = draws_.Below(height() - step.height + 1);
    const int64_t left = draws_.Below(width() - step.width + 1);
    Record({left, top, step.width, step.height});
    Crop({left, top, step.width, step.height});
    return arrow::Status::OK();
  }

  arrow::Status Add(const RandomResizedCrop& step) {
    const Box box = DrawBox(step);
    Record(box);
    Crop(box);
    return ResizeTo(step.height, step.width);
  }

  arrow::Status Add(const RandomHorizontalFlip& step) {
    const bool is_flipped = draws_.Unit() < step.p;
    placement_.is_mirrored ^= is_flipped;
    if (drawn_ != nullptr) drawn_->push_back({.step = number_, .is_flipped = is_flipped});
    return arrow::Status::OK();
  }

  // What has nothing to do with geometry.
  template <typename Other>
  arrow::Status Add(const Other&) {
    return arrow::Status::OK();
  }

  arrow::Status CheckSize(const char* step, int64_t wanted_height, int64_t wanted_width) const {
    if (wanted_height <= height() && wanted_width <= width()) return arrow::Status::OK();
    return arrow::Status::Invalid(step, "(", wanted_height, ", ", wanted_width, "): the image has ", height(),
                                  " rows and ", width(), " columns; put a resize in front of it");
  }

  // As torchvision does it, with other random numbers.
  Box DrawBox(const RandomResizedCrop& step) {
    const auto area = static_cast<double>(width() * height());
    const double low = std::log(step.ratio[0]), high = std::log(step.ratio[1]);
    for (int attempt = 0; attempt < 10; ++attempt) {
      const double part = area * draws_.Between(step.scale[0], step.scale[1]);
      const double ratio = std::exp(draws_.Between(low, high));
      const double x = draws_.Unit(), y = draws_.Unit();
      const int64_t w = Round(std::sqrt(part * ratio)), h = Round(std::sqrt(part / ratio));
      if (w < 1 || h < 1 || w > width() || h > height()) continue;
      return {static_cast<int64_t>(x * static_cast<double>(width() - w + 1)),
              static_cast<int64_t>(y * static_cast<double>(height() - h + 1)), w, h};
    }
    const double ratio = static_cast<double>(width()) / static_cast<double>(height());
    int64_t w = width(), h = height();
    if (ratio < step.ratio[0]) h = Round(static_cast<double>(w) / step.ratio[0]);
    if (ratio > step.ratio[1]) w = Round(static_cast<double>(h) * step.ratio[1]);
    w = std::clamp<int64_t>(w, 1, width());
    h = std::clamp<int64_t>(h, 1, height());
    return {(width() - w) / 2, (height() - h) / 2, w, h};
  }

  void Record(const Box& box) {
    if (drawn_ != nullptr) drawn_->push_back({number_, box.top, box.left, box.height, box.width, false});
  }

  // A box of what the steps so far give.
  void Crop(Box box) {
    if (placement_.is_mirrored) box.left = width() - box.left - box.width;
    Box& window = placement_.window;
    window = {window.left + box.left, window.top + box.top, box.width, box.height};
    if (is_resized_) return;
    placement_.box = {placement_.box.left + box.left, placement_.box.top + box.top, box.width, box.height};
    window = {0, 0, box.width, box.height};
    placement_.resized_width = box.width;
    placement_.resized_height = box.height;
  }

  arrow::Status ResizeTo(int64_t to_height, int64_t to_width) {
    constexpr int64_t kMostExtent = 1 << 24;
    if (to_width < 1 || to_height < 1 || to_width > kMostExtent || to_height > kMostExtent) {
      return arrow::Status::Invalid("a resize of ", height(), " x ", width(), " pixels gives ", to_height, " x ",
                                    to_width);
    }
    is_resized_ = true;
    placement_.resized_width = to_width;
    placement_.resized_height = to_height;
    placement_.window = {0, 0, to_width, to_height};
    return arrow::Status::OK();
  }

  Draws draws_;
  std::vector<Drawn>* drawn_;
  size_t number_ = 0;
  bool is_resized_ = false;
  Placement placement_;
};

Box Transpose(const Box& box) { return {box.top, box.left, box.height, box.width}; }

}  // namespace

arrow::Result<Placement> Place(std::span<const Step> steps, int64_t width, int64_t height, Draws draws,
                               std::vector<Drawn>* drawn) {
  Placer placer(width, height, draws, drawn);
  for (size_t i = 0; i < steps.size(); ++i) ARROW_RETURN_NOT_OK(placer.Run(i, steps[i]));
  return placer.placement();
}

StoredPlacement ToStored(const Placement& placement, int orientation, int64_t width, int64_t height) {
  // What is seen is what is stored, transposed (5 to 8), then mirrored.
  const bool mirrors_x = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  const bool mirrors_y = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  StoredPlacement stored{placement, SwapsSides(orientation), mirrors_x != placement.is_mirrored, mirrors_y};
  Placement& p = stored.placement;
  p.is_mirrored = false;
  if (mirrors_x) {
    p.box.left = width - p.box.left - p.box.width;
    p.window.left = p.resized_width - p.window.left - p.window.width;
  }
  if (mirrors_y) {
    p.box.top = height - p.box.top - p.box.height;
    p.window.top = p.resized_height - p.window.top - p.window.height;
  }
  if (stored.is_transposed) {
    p.box = Transpose(p.box);
    p.window = Transpose(p.window);
    std::swap(p.resized_width, p.resized_height);
  }
  return stored;
}

}  // namespace penstock::image

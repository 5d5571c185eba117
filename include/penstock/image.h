#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "penstock/custom_op.h"
#include "penstock/dtype.h"

namespace penstock {

/// Photos to tensors: a list of steps, compiled into one pass over each image in which only what the crop needs is
/// decoded. Geometry is (height, width), boxes are in pixels of the image as the step sees it.
namespace image {

enum class Mode : uint8_t { kRGB, kL };

/// JPEG or PNG, told apart by their content; the first step. Gray, palette, 16-bit, CMYK and YCCK images become `mode`;
/// an alpha channel is dropped.
struct Decode {
  Mode mode = Mode::kRGB;
  bool use_orientation = false;     ///< Turns the image as its EXIF data says.
  int64_t max_pixels = 89'478'485;  ///< Larger images are refused before memory is taken for them.
};

/// To `height` x `width`, antialiased (bilinear, with a support that grows with the reduction), as Pillow does it.
/// Where `width` is 0, `height` is for the shorter side and the other keeps the ratio (rounded down).
struct Resize {
  int64_t height = 0;
  int64_t width = 0;
};

/// The middle; smaller images are an error.
struct CenterCrop {
  int64_t height = 0;
  int64_t width = 0;
};

/// A box of this size, drawn uniformly; smaller images are an error.
struct RandomCrop {
  int64_t height = 0;
  int64_t width = 0;
};

/// A box of a part of the area and an aspect ratio (width / height, its logarithm uniform) that are drawn, resized as
/// by Resize. After ten boxes that do not lie within the image: the middle, in the nearest ratio that is allowed.
struct RandomResizedCrop {
  int64_t height = 0;
  int64_t width = 0;
  std::array<double, 2> scale = {0.08, 1.0};
  std::array<double, 2> ratio = {3.0 / 4.0, 4.0 / 3.0};
};

/// Left and right change places with probability `p`.
struct RandomHorizontalFlip {
  double p = 0.5;
};

/// To floats in [0, 1].
struct ToFloat {
  DType dtype = DType::kFloat32;  ///< Or kFloat16.
};

/// (x - mean) / std per channel, on floats in [0, 1]; one entry for all channels or one for each. Makes floats
/// (float32) where no ToFloat did.
struct Normalize {
  std::vector<double> mean;
  std::vector<double> std;
};

/// The order of what comes out; without it kCHW.
enum class Order : uint8_t { kCHW, kHWC };

using Step = std::variant<Decode, Resize, CenterCrop, RandomCrop, RandomResizedCrop, RandomHorizontalFlip, ToFloat,
                          Normalize, Order>;

/// What was drawn for one random step and one image.
struct Drawn {
  size_t step = 0;                                   ///< Its place in the list.
  int64_t top = 0, left = 0, height = 0, width = 0;  ///< The box of a crop.
  bool is_flipped = false;                           ///< Of a flip.
};

/// Steps, compiled.
///
/// Ownership: immutable; copies share. Threads: every method may be called from any thread.
class Plan {
 public:
  /// \return Invalid where the steps make no sense in this order, or the size of what comes out is not fixed.
  [[nodiscard]] static arrow::Result<Plan> Make(std::vector<Step> steps);

  DType dtype() const;
  /// Of one image: three extents.
  const std::vector<int64_t>& shape() const;

  /// One image, written to `out` (every byte of shape() x dtype()).
  ///
  /// \param key   whose first row the image is; what is drawn follows from it.
  /// \param pool  for scratch memory: a few hundred kB for an image that is decoded row by row, all coefficients of a
  ///              progressive JPEG, all pixels of an interlaced PNG.
  /// \return Invalid where the bytes are no image, damaged where they are needed, too large or too small; what the pool
  ///         says where it refuses.
  [[nodiscard]] arrow::Status Apply(std::span<const uint8_t> encoded, const RowKey& key, void* out,
                                    arrow::MemoryPool* pool) const;

  /// What Apply() draws for the key's first row and an image of this size (after orientation), a random step each.
  [[nodiscard]] arrow::Result<std::vector<Drawn>> Draw(int64_t height, int64_t width, const RowKey& key) const;

 private:
  friend class Transform;
  struct Compiled;
  explicit Plan(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}

  std::shared_ptr<const Compiled> compiled_;
};

/// A plan as an op for a column of binary values (ops::Custom). A missing value is an error.
[[nodiscard]] std::shared_ptr<const CustomOp> MakeTransform(Plan plan);

}  // namespace image
}  // namespace penstock

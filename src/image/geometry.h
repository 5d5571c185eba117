#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <span>
#include <vector>

#include "image/draws.h"
#include "image/row_source.h"
#include "penstock/image.h"

namespace penstock::image {

/// What all geometric steps come to for one image: a box of the source, resized, and a window of that, perhaps
/// mirrored.
struct Placement {
  Box box;                                        ///< Of the source.
  int64_t resized_width = 0, resized_height = 0;  ///< Of the box; its own size where nothing resizes.
  Box window;                                     ///< Of the resized box: what comes out.
  bool is_mirrored = false;                       ///< Left and right, of what comes out.
};

/// \param drawn  gets an entry for each random step; may be null.
/// \return Invalid where the image is too small for a crop.
arrow::Result<Placement> Place(std::span<const Step> steps, int64_t width, int64_t height, Draws draws,
                               std::vector<Drawn>* drawn);

/// A placement in an image as it is stored, where Place() saw it turned by its orientation.
struct StoredPlacement {
  Placement placement;         ///< Not mirrored; `window` is transposed where is_transposed.
  bool is_transposed = false;  ///< Rows of the window are columns of what comes out.
  bool mirrors_x = false;      ///< What comes out: left and right...
  bool mirrors_y = false;      ///< ... and top and bottom change places (after transposing).
};

/// Orientations 5 to 8 swap the sides.
constexpr bool SwapsSides(int orientation) { return orientation >= 5; }

/// \param width, height  of the image after orientation.
StoredPlacement ToStored(const Placement& placement, int orientation, int64_t width, int64_t height);

}  // namespace penstock::image

#pragma once

#include <arrow/status.h>

#include "image/geometry.h"
#include "image/passes.h"
#include "image/row_source.h"
#include "image/store.h"

namespace penstock::image {

/// Decodes what a placement needs of an image, resamples it row by row (along one axis, then the other, rounding to
/// bytes in between, in Pillow's order) and stores it. Holds as many rows as go into one.
///
/// \param out  has the size of the placement's window, after transposing.
arrow::Status Resample(RowSource* source, const StoredPlacement& stored, const Store& store, void* out,
                       const Passes& passes, Arena* arena);

}  // namespace penstock::image

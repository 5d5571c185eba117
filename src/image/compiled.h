#pragma once

#include <span>
#include <vector>

#include "image/arena.h"
#include "image/passes.h"
#include "image/store.h"
#include "penstock/image.h"

namespace penstock::image {

/// What a plan is, whoever holds it.
struct Plan::Compiled {
  std::vector<Step> steps;
  Decode decode;
  std::vector<int64_t> shape;
  Store store;

  /// As Plan::Apply(); the arena is not reset.
  arrow::Status Run(std::span<const uint8_t> encoded, const RowKey& key, void* out, const Passes& passes,
                    Arena* arena) const;
};

}  // namespace penstock::image

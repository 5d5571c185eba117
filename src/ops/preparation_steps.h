#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/preparation.h"

namespace penstock {

/// Lists of the given extents, outermost first, as fixed-size lists; -1: stays a list. \param is_flat  the source has
/// one level of lists, of as many items as all extents make.
std::shared_ptr<const Preparation::Step> ListsToFixed(std::vector<int64_t> extents, bool is_flat);
/// struct<data: list<T>, shape: list of integers> to struct<data: large_list<T>, shape: fixed_size_list<int64>[ndim]>,
/// shapes checked.
std::shared_ptr<const Preparation::Step> CheckTensors(int ndim);

}  // namespace penstock

#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "penstock/ops.h"

namespace penstock {

/// What a chain's kernels get to see of a source column.
struct Intake {
  enum class Kind {
    kElements,     ///< Its elements.
    kListItems,    ///< The items of its lists; each list fills outer_shape.
    kListLengths,  ///< How many items its lists have.
    kCustom,       ///< What an op of the user's made of its rows.
  };
  Kind kind = Kind::kElements;
  std::shared_ptr<arrow::Field> element;  ///< Type and nullability of that.
  std::vector<int64_t> outer_shape;       ///< Extents in front of those that `element` has.
  std::shared_ptr<const CustomOp> custom;
  size_t ops_done = 0;  ///< Ops at the front of the chain that this stands for.
};

/// \return TypeError where the column is none that the ops take, Invalid where an op's settings make no sense.
arrow::Result<Intake> MakeIntake(const arrow::Field& input, const std::vector<Op>& ops);

}  // namespace penstock

#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ops/intake.h"
#include "ops/kernels.h"
#include "ops/spin.h"
#include "ops/type_rule.h"
#include "penstock/options.h"

namespace penstock {

/// One element of any type.
struct alignas(16) Element {
  std::array<uint8_t, 16> bytes{};
};

/// Type rule and ops, compiled: kernels for the values that are present, and what a missing one becomes. As a fill
/// value goes through the rest of the chain when the chain is compiled, running it needs no step for nulls in between.
struct Chain {
  Intake intake;
  TypeRule rule;                                       ///< Of intake.element.
  std::vector<std::shared_ptr<const Kernel>> kernels;  ///< After rule.decoder().
  DType dtype = DType::kInt64;                         ///< What comes out.
  std::optional<Element> fill;                         ///< Set: missing elements become this.
  std::optional<ops::PadList> pad_list;
  bool is_packed = false;
  Element pad;  ///< What an item that is put in for padding (pad_list, pack) becomes.
  std::vector<Spinner> spinners;
  std::vector<int64_t> shape;                   ///< Of what comes out for a row.
  std::shared_ptr<arrow::DataType> arrow_type;  ///< Of what comes out, as a whole column.
  std::shared_ptr<arrow::Array> vocabulary;     ///< What the codes that come out stand for.
  bool is_coded = false;                        ///< A dictionary column that stays one.
  bool is_form_kept = false;                    ///< No ops, layout kArrow: the output has the source's Arrow type.
};

/// \param policy_fill  NullPolicy::fill of this column; may be null.
/// \return Invalid / TypeError whose message names the op, but not the column.
arrow::Result<Chain> MakeChain(const arrow::Field& input, const std::vector<Op>& ops, const ops::FillNull* policy_fill,
                               Layout layout, std::shared_ptr<arrow::Array> vocabulary);

}  // namespace penstock

#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ops/kernels.h"
#include "penstock/dtype.h"

namespace penstock {

constexpr int kDTypeCount = 14;

/// How values come out of one physical form: as they are, through a kernel, or not at all.
struct Decoder {
  bool is_accepted = false;
  std::shared_ptr<const Kernel> kernel;  ///< Null: as they are.
};

/// A source column's type, taken apart.
struct TypeRule {
  std::shared_ptr<arrow::DataType>
      leaf;                         ///< Of one element: storage of extension types; for dictionaries, of their values.
  std::vector<int64_t> list_sizes;  ///< Of the fixed-size lists around it, outermost first.
  std::vector<int64_t> shape;       ///< The same, but a fixed-shape tensor's one list has several extents.
  bool is_dictionary = false;
  bool is_nullable = false;                   ///< At any level.
  DType natural = DType::kInt64;              ///< What the decoders give: what the first op sees.
  std::array<Decoder, kDTypeCount> decoders;  ///< By the span's DType.

  const Decoder& decoder(DType type) const { return decoders[static_cast<size_t>(type)]; }
};

/// The form in which Arrow holds a type's values (one without lists, dictionary and extension); nothing where no rule
/// exists for it.
std::optional<DType> PhysicalType(const arrow::DataType& type);

/// The storage of (nested) extension types; other types as they are.
std::shared_ptr<arrow::DataType> StorageType(std::shared_ptr<arrow::DataType> type);

/// \param keeps_form  true: no value changes but in width (decimals stay decimals, date64 stays milliseconds), as
/// format "arrow" and
///                    dictionary codes want it; false: the tensor form, which is also what ops see.
/// \return TypeError where no rule exists, naming the remedy.
arrow::Result<TypeRule> MakeTypeRule(const arrow::Field& input, bool keeps_form);

/// The Arrow type of the numbers themselves: int32() for kInt32.
std::shared_ptr<arrow::DataType> PlainType(DType type);

/// The lists of `source` (a column's type) around another leaf type.
std::shared_ptr<arrow::DataType> WithLeaf(const std::shared_ptr<arrow::DataType>& source,
                                          std::shared_ptr<arrow::DataType> leaf);

}  // namespace penstock

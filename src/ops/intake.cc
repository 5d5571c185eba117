#include "ops/intake.h"

#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/checked_cast.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "ops/type_rule.h"
#include "penstock/custom_op.h"

namespace penstock {
namespace {

using arrow::internal::checked_cast;

// Extents are those of Arrow's fixed-size lists.
constexpr int64_t kMostExtent = std::numeric_limits<int32_t>::max();

arrow::Status CheckIsList(const char* op, const arrow::DataType& type) {
  if (arrow::is_var_length_list_like(type)) return arrow::Status::OK();
  const bool is_fixed = type.id() == arrow::Type::FIXED_SIZE_LIST;
  return arrow::Status::TypeError(op, " takes a column of lists, not ", type.ToString(),
                                  is_fixed ? ", whose lists are of one length already" : "");
}

arrow::Result<Intake> OfListItems(const arrow::Field& input, const ops::PadList& op) {
  const auto type = StorageType(input.type());
  ARROW_RETURN_NOT_OK(CheckIsList("pad_list", *type));
  if (op.length < 1 || op.length > kMostExtent) {
    return arrow::Status::Invalid("pad_list: a length of ", op.length, " is not in [1, ", kMostExtent, "]");
  }
  const auto& items = *checked_cast<const arrow::BaseListType&>(*type).value_field();
  Intake intake;
  intake.kind = Intake::Kind::kListItems;
  intake.element = arrow::field(input.name(), items.type(), input.nullable() || items.nullable());
  intake.outer_shape = {op.length};
  return intake;
}

// The items themselves: whoever reads the column puts them in the place of its rows.
arrow::Result<Intake> OfPackedItems(const arrow::Field& input, const ops::Pack& op) {
  const auto type = StorageType(input.type());
  ARROW_RETURN_NOT_OK(CheckIsList("pack", *type));
  if (op.length < 1 || op.length > kMostExtent) {
    return arrow::Status::Invalid("pack: a length of ", op.length, " is not in [1, ", kMostExtent, "]");
  }
  const auto& items = *checked_cast<const arrow::BaseListType&>(*type).value_field();
  Intake intake;
  intake.element = arrow::field(input.name(), items.type(), items.nullable());
  return intake;
}

arrow::Result<Intake> OfListLengths(const arrow::Field& input) {
  ARROW_RETURN_NOT_OK(CheckIsList("list_length", *StorageType(input.type())));
  Intake intake;
  intake.kind = Intake::Kind::kListLengths;
  intake.element = arrow::field(input.name(), arrow::int64(), input.nullable());
  intake.ops_done = 1;
  return intake;
}

arrow::Result<Intake> OfCustom(const arrow::Field& input, const ops::Custom& op) {
  if (op.op == nullptr) return arrow::Status::Invalid("a custom op is null");
  auto output = op.op->OutputFor(input);
  if (!output.ok()) return output.status().WithMessage(op.op->name(), ": ", output.status().message());
  if (output->dtype == DType::kBytes || output->dtype == DType::kDecimal128) {
    return arrow::Status::TypeError(op.op->name(), ": an op gives numbers, not ", DTypeName(output->dtype));
  }
  for (int64_t extent : output->shape) {
    if (extent >= 1 && extent <= kMostExtent) continue;
    return arrow::Status::Invalid(op.op->name(), ": an extent of ", extent, " is not in [1, ", kMostExtent, "]");
  }
  Intake intake;
  intake.kind = Intake::Kind::kCustom;
  intake.element = arrow::field(input.name(), PlainType(output->dtype), /*nullable=*/false);
  intake.outer_shape = std::move(output->shape);
  intake.custom = op.op;
  intake.ops_done = 1;
  return intake;
}

// Ops on whole rows of the source cannot come behind others, and one alone says what becomes of lists.
arrow::Status CheckPlaces(const std::vector<Op>& ops) {
  const auto has_pack = std::ranges::any_of(ops, [](const Op& op) { return std::holds_alternative<ops::Pack>(op); });
  for (const Op& op : ops) {
    if (!has_pack || std::holds_alternative<ops::Pack>(op)) continue;
    const char* other = std::holds_alternative<ops::PadList>(op)      ? "pad_list"
                        : std::holds_alternative<ops::ListLength>(op) ? "list_length"
                        : std::holds_alternative<ops::Custom>(op)     ? "an op of your own"
                                                                      : nullptr;
    if (other == nullptr) continue;
    return arrow::Status::Invalid("pack takes the lists as they are in the file: ", other,
                                  " cannot be in one chain with it");
  }
  for (size_t i = 1; i < ops.size(); ++i) {
    const auto* custom = std::get_if<ops::Custom>(&ops[i]);
    if (custom == nullptr && !std::holds_alternative<ops::ListLength>(ops[i])) continue;
    const bool has_name = custom != nullptr && custom->op != nullptr;
    return arrow::Status::Invalid(has_name ? custom->op->name() : "list_length",
                                  " takes the column as it is in the file: it must be the first op");
  }
  return arrow::Status::OK();
}

}  // namespace

arrow::Result<Intake> MakeIntake(const arrow::Field& input, const std::vector<Op>& ops) {
  ARROW_RETURN_NOT_OK(CheckPlaces(ops));
  if (!ops.empty()) {
    if (const auto* custom = std::get_if<ops::Custom>(&ops[0])) return OfCustom(input, *custom);
    if (std::holds_alternative<ops::ListLength>(ops[0])) return OfListLengths(input);
  }
  const auto pad_list =
      std::ranges::find_if(ops, [](const Op& op) { return std::holds_alternative<ops::PadList>(op); });
  if (pad_list != ops.end()) return OfListItems(input, std::get<ops::PadList>(*pad_list));
  const auto pack = std::ranges::find_if(ops, [](const Op& op) { return std::holds_alternative<ops::Pack>(op); });
  if (pack != ops.end()) return OfPackedItems(input, std::get<ops::Pack>(*pack));
  Intake intake;
  intake.element = arrow::field(input.name(), input.type(), input.nullable());
  return intake;
}

}  // namespace penstock

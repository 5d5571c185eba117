// Lists of numbers as flat arrays.
#include <arrow/type.h>

#include <utility>

#include "batch/varying_node.h"
#include "ops/type_rule.h"
#include "penstock/batch.h"

namespace penstock {
namespace {

using NodeForm = VaryingNode::Form;

std::string Numbered(const std::string& name, int level) {
  return level == 0 ? name : name + "_" + std::to_string(level);
}

}  // namespace

std::optional<RaggedForm> RaggedFormOf(const VaryingNode& root) {
  RaggedForm form;
  const VaryingNode* node = &root;
  int outer_mask = -1;
  if (root.form == NodeForm::kStruct) {
    const bool is_tensor = root.children.size() == 2 && root.children[0].form == NodeForm::kList &&
                           root.children[1].form == NodeForm::kFixedList &&
                           root.children[1].children[0].form == NodeForm::kFixed;
    if (!is_tensor) return std::nullopt;
    form.extents = root.children[1].children[0].values;
    outer_mask = root.mask;
    node = root.children.data();
  }
  if (node->form != NodeForm::kList) return std::nullopt;
  for (; node->form == NodeForm::kList; node = node->children.data()) {
    const bool is_rows = form.levels.empty() && outer_mask >= 0;
    form.levels.push_back({node->domain, node->offsets, is_rows ? outer_mask : node->mask});
    form.domain = node->items;
    if (node->children.size() != 1) return std::nullopt;
  }
  for (; node->form == NodeForm::kFixedList; node = node->children.data()) form.shape.push_back(node->width);
  if (node->form != NodeForm::kFixed && node->form != NodeForm::kBool) return std::nullopt;
  const auto dtype = PhysicalType(*StorageType(node->type));
  if (!dtype || *dtype == DType::kBytes || *dtype == DType::kDecimal128) return std::nullopt;
  form.dtype = *dtype;
  form.values = node->values;
  form.mask = node->mask;
  return form;
}

Ragged Batch::RaggedColumn(int i) const {
  const Column& data = column(i);
  const auto form = (*schema_)[static_cast<size_t>(i)].varying->ragged();
  const auto length_of = [&](int domain) {
    return domain == 0 ? num_rows_ : data.counts[static_cast<size_t>(domain) - 1];
  };
  const auto strand = [&](int index) { return index < 0 ? nullptr : data.strands[static_cast<size_t>(index)]; };
  Ragged ragged;
  for (const RaggedForm::Level& level : form->levels) {
    ragged.levels.push_back(
        {reinterpret_cast<int64_t*>(strand(level.offsets)), strand(level.mask), length_of(level.domain)});
  }
  ragged.values = strand(form->values);
  ragged.mask = strand(form->mask);
  ragged.num_values = length_of(form->domain);
  ragged.extents = reinterpret_cast<int64_t*>(strand(form->extents));
  return ragged;
}

std::string OffsetsName(const Field& field, int level) { return Numbered(field.name + "_offsets", level); }
std::string MaskName(const Field& field, int level) { return Numbered(field.name + "_mask", level); }
std::string ShapeName(const Field& field) { return field.name + "_shape"; }

std::vector<std::string> ArrayNames(const Field& field) {
  std::vector<std::string> names{field.name};
  if (field.form == Form::kDense && field.has_mask) names.push_back(MaskName(field));
  if (field.has_segments) names.push_back(OffsetsName(field, 0));
  if (field.form != Form::kRagged) return names;
  const auto levels = static_cast<int>(field.level_masks.size()) - 1;
  for (int level = 0; level <= levels; ++level) {
    if (level < levels) names.push_back(OffsetsName(field, level));
    if (field.level_masks[static_cast<size_t>(level)]) names.push_back(MaskName(field, level));
  }
  if (field.tensor_ndim > 0) names.push_back(ShapeName(field));
  return names;
}

}  // namespace penstock

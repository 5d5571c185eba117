#include "pipeline/explain.h"

#include <arrow/type.h>

#include <algorithm>
#include <string>
#include <utility>

#include "memory/scratch_pool.h"

namespace penstock {
namespace {

std::string TypeOf(const Field& field) {
  if (field.form == Form::kArrow) return field.arrow_type->ToString();
  std::string type(DTypeName(field.dtype));
  for (const int64_t extent : field.shape) type += "[" + std::to_string(extent) + "]";
  if (field.form == Form::kRagged) type += field.tensor_ndim > 0 ? " tensors of varying shape" : " lists";
  return type;
}

int64_t ScratchBytes(const BudgetTerms& terms) {
  const auto& outputs = terms.projection->outputs;
  const bool has_scratch =
      std::any_of(outputs.begin(), outputs.end(), [](const OutputColumn& output) { return output.is_dear(); });
  return has_scratch ? std::max(1, terms.options->num_workers) * ScratchPool::kAlwaysBytes : 0;
}

}  // namespace

Explanation ExplainDivision(const BudgetTerms& terms, const BudgetDivision& division, const Survey& survey) {
  const LoaderOptions& options = *terms.options;
  Explanation explanation;
  explanation.files = terms.source->num_files();
  explanation.row_groups = survey.chunks;
  explanation.batch_bytes = division.sizing.batch_bytes;
  explanation.batches_per_slot = division.sizing.batches_per_slot;
  explanation.slot_bytes = SlotBytes(*division.layout, survey);
  explanation.slots = division.sizing.all_slots();
  explanation.chunk_bytes = survey.most_chunk_bytes;
  if (options.pin_memory != PinMemory::kNo) {
    explanation.locked_bytes = explanation.slots * division.layout->bytes();
  }
  explanation.metadata_bytes = terms.metadata_bytes + survey.window_input_bytes;
  explanation.shuffle_window_rows = division.shuffle.sizing.window_rows;
  explanation.shuffle_bytes = division.shuffle.bytes;
  explanation.memory_budget_bytes = options.memory_budget_bytes;
  explanation.least_budget_bytes = LeastBudget::Of(terms, survey, division.shuffle).bytes();
  explanation.predicted_peak_bytes =
      std::min(options.memory_budget_bytes, explanation.metadata_bytes + explanation.shuffle_bytes +
                                                explanation.slots * explanation.slot_bytes + survey.window_chunk_bytes +
                                                ScratchBytes(terms));
  explanation.may_grow = division.sizing.may_grow && options.num_workers > 0 && !options.shuffle;
  explanation.num_workers = options.num_workers;
  for (size_t i = 0; i < terms.schema->size(); ++i) {
    const Field& field = (*terms.schema)[i];
    explanation.columns.push_back(
        {field.name, TypeOf(field), field.source_type->ToString(), survey.ways[i], SlotLayout::BatchBytes({field}, 1)});
  }
  return explanation;
}

}  // namespace penstock

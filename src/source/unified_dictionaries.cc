#include "source/unified_dictionaries.h"

#include <arrow/device.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>

#include "source/text.h"

namespace penstock {

arrow::Result<UnifiedDictionaries> UnifiedDictionaries::Make(const arrow::FieldVector& fields,
                                                             arrow::MemoryPool* pool) {
  UnifiedDictionaries unified;
  for (const auto& field : fields) {
    const auto& type = static_cast<const arrow::DictionaryType&>(*field->type());
    auto unifier = arrow::DictionaryUnifier::Make(type.value_type(), pool);
    if (!unifier.ok()) return text::WithContext(unifier.status(), "column " + text::Quoted(field->name()));
    unified.unifiers_.emplace_back(field->name(), std::move(*unifier));
  }
  return unified;
}

arrow::Status UnifiedDictionaries::Add(const arrow::RecordBatch& batch) {
  for (auto& [name, unifier] : unifiers_) {
    const auto column = batch.GetColumnByName(name);
    if (column == nullptr || column->type_id() != arrow::Type::DICTIONARY) continue;  // The schema's check will say so.
    const auto& dictionary = static_cast<const arrow::DictionaryArray&>(*column).dictionary();
    arrow::Status added = dictionary->ValidateFull();
    if (added.ok()) added = unifier->Unify(*dictionary);
    ARROW_RETURN_NOT_OK(text::WithContext(added, "column " + text::Quoted(name) + ": its dictionary"));
  }
  return arrow::Status::OK();
}

arrow::Result<Vocabularies> UnifiedDictionaries::Finish() {
  Vocabularies values;
  for (auto& [name, unifier] : unifiers_) {
    std::shared_ptr<arrow::Array> unified;
    ARROW_RETURN_NOT_OK(unifier->GetResultWithIndexType(arrow::int32(), &unified));
    ARROW_ASSIGN_OR_RAISE(values[name], unified->CopyTo(arrow::default_cpu_memory_manager()));
  }
  return values;
}

}  // namespace penstock

#pragma once

#include <arrow/array/array_dict.h>
#include <arrow/result.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "source/source.h"

namespace penstock {

/// The dictionaries of some columns, each made one: every value once, in order of first appearance.
class UnifiedDictionaries {
 public:
  /// \param fields  of dictionary type.
  static arrow::Result<UnifiedDictionaries> Make(const arrow::FieldVector& fields, arrow::MemoryPool* pool);

  /// Adds the dictionaries of a batch's columns, validated first. Errors name the column.
  arrow::Status Add(const arrow::RecordBatch& batch);
  /// The values, in memory that outlives the pool.
  arrow::Result<Vocabularies> Finish();

 private:
  std::vector<std::pair<std::string, std::unique_ptr<arrow::DictionaryUnifier>>> unifiers_;
};

}  // namespace penstock

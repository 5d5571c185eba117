#include "source/source.h"

#include <arrow/type.h>

#include <set>
#include <utility>

#include "source/parquet_source.h"

namespace penstock {

void Source::SetSchema(const arrow::Schema& own, const arrow::FieldVector& partition_fields, std::string name) {
  std::set<std::string> partitions;
  for (const auto& field : partition_fields) partitions.insert(field->name());
  arrow::FieldVector fields;
  for (const auto& field : own.fields()) {
    if (!partitions.contains(field->name())) fields.push_back(field);
  }
  fields.insert(fields.end(), partition_fields.begin(), partition_fields.end());
  schema_ = arrow::schema(std::move(fields));
  num_partitions_ = static_cast<int>(partition_fields.size());
  name_ = std::move(name);
}

arrow::Result<std::unique_ptr<Source>> MakeSource(const LoaderOptions& options, IoCounters* counters) {
  ARROW_ASSIGN_OR_RAISE(FileSet files, ResolveFiles(options.paths, options.filesystem));
  return MakeParquetSource(std::move(files), counters);
}

}  // namespace penstock

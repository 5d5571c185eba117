#include "source/source.h"

#include <arrow/type.h>

#include <set>
#include <utility>

#include "source/batch_input.h"
#include "source/file_kind.h"
#include "source/file_sources.h"
#include "source/parquet_source.h"

namespace penstock {

arrow::Status InputSequence::Skip(int64_t inputs) {
  for (int64_t i = 0; i < inputs; ++i) {
    ARROW_ASSIGN_OR_RAISE(const auto input, Next());
    if (input == nullptr) break;
  }
  return arrow::Status::OK();
}

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
  const int given = (options.table != nullptr) + (options.batches != nullptr) + !options.paths.empty();
  if (given > 1) return arrow::Status::Invalid("give one of `paths`, `table` and `batches`");
  if (options.table != nullptr) return MakeTableSource(options.table);
  if (options.batches != nullptr) return MakeStreamSource(options.batches, options.is_one_shot);
  ARROW_ASSIGN_OR_RAISE(FileSet files, ResolveFiles(options.paths, options.filesystem));
  if (options.partitions != nullptr) ARROW_RETURN_NOT_OK(SetPartitions(*options.partitions, &files));
  arrow::Status refused;
  if (KindOfName(files.files.front().path) == FileKind::kParquet) {
    auto parquet = MakeParquetSource(files, counters);
    if (!parquet.status().IsInvalid()) return parquet;
    refused = parquet.status();  // What is no Parquet may still be something else.
  }
  ARROW_ASSIGN_OR_RAISE(const FileKind kind, KindOf(*files.filesystem, files.files.front(), counters));
  switch (kind) {
    case FileKind::kIpcFile:
      return MakeIpcSource(std::move(files), counters);
    case FileKind::kIpcStream:
    case FileKind::kCsv:
    case FileKind::kTsv:
    case FileKind::kJson:
      return MakeStreamedFilesSource(std::move(files), kind, options.columns.has_value(), counters);
    case FileKind::kParquet:
    case FileKind::kUnknown:  // The error says what it is not.
      break;
  }
  ARROW_RETURN_NOT_OK(refused);
  return MakeParquetSource(std::move(files), counters);
}

}  // namespace penstock

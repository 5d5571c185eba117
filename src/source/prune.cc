#include "source/prune.h"

#include <arrow/dataset/file_parquet.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>
#include <parquet/statistics.h>

#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>

#include "source/projection.h"
#include "source/text.h"

namespace penstock {
namespace {

using arrow::compute::Expression;

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  for (std::string_view candidate : names) {
    if (name == candidate) return true;
  }
  return false;
}

/// True for a reference to column `name`, under any number of casts to floating point types (which keep a NaN).
bool IsColumn(const Expression& expression, const std::string& name) {
  const Expression* inner = &expression;
  while (const Expression::Call* call = inner->call()) {
    if (call->function_name != "cast" || !arrow::is_floating(call->type.id())) return false;
    inner = &call->arguments[0];
  }
  const arrow::FieldRef* ref = inner->field_ref();
  return ref != nullptr && *ref->name() == name;
}

/// True where NaNs in column `name` cannot make `filter` true where the bounds of the other values say that it is
/// false.
///
/// Statistics leave NaNs out, so "1 <= x <= 5" does not hold for them. It still serves where x stands only in
/// comparisons that NaN makes false, joined by "and" and "or": the bounds then turn a comparison to true or keep it
/// false, either way it is no less true than for a NaN. Below a "not", in "!=", arithmetic and other functions it does
/// not.
bool IsSafeForNan(const Expression& filter, const std::string& name, bool is_positive) {
  const Expression::Call* call = filter.call();
  if (call == nullptr) return filter.field_ref() == nullptr || *filter.field_ref()->name() != name;
  const bool is_junction = is_positive && IsOneOf(call->function_name, {"and_kleene", "or_kleene", "and", "or"});
  const bool is_comparison = is_positive && IsOneOf(call->function_name, {"equal", "less", "less_equal", "greater",
                                                                          "greater_equal", "is_valid"});
  for (const Expression& argument : call->arguments) {
    if (is_comparison && IsColumn(argument, name)) continue;
    if (!IsSafeForNan(argument, name, is_junction)) return false;
  }
  return true;
}

/// The statistics of a flat top-level column; null where there are none, or the name is not unique.
std::shared_ptr<parquet::Statistics> StatisticsOf(const parquet::FileMetaData& metadata, int row_group,
                                                  const std::string& name) {
  const parquet::schema::GroupNode& root = *metadata.schema()->group_node();
  int found = -1;
  for (int i = 0; i < root.field_count(); ++i) {
    if (root.field(i)->name() != name) continue;
    if (found >= 0) return nullptr;
    found = i;
  }
  if (found < 0 || !root.field(found)->is_primitive() || root.field(found)->is_repeated()) return nullptr;
  const int column = metadata.schema()->ColumnIndex(*root.field(found));
  if (column < 0) return nullptr;
  const auto chunk = metadata.RowGroup(row_group)->ColumnChunk(column);
  return chunk->is_stats_set() ? chunk->statistics() : nullptr;
}

/// What a row group's statistics promise of all its rows; not set: nothing.
std::optional<Expression> StatisticsPromise(const Expression& filter, const arrow::Field& field,
                                            const parquet::FileMetaData& metadata, int row_group) {
  const auto statistics = StatisticsOf(metadata, row_group, field.name());
  if (statistics == nullptr) return std::nullopt;
  const bool is_all_null = statistics->num_values() == 0;
  if (is_all_null && !statistics->HasNullCount()) return std::nullopt;
  if (!is_all_null && arrow::is_floating(field.type()->id()) && !IsSafeForNan(filter, field.name(), true)) {
    return std::nullopt;
  }
  return arrow::dataset::ParquetFileFragment::EvaluateStatisticsAsExpression(field, *statistics);
}

Expression PartitionPromise(const std::string& name, const std::shared_ptr<arrow::Scalar>& value) {
  Expression column = arrow::compute::field_ref(arrow::FieldRef(name));
  if (!value->is_valid) return arrow::compute::is_null(std::move(column));
  return arrow::compute::equal(std::move(column), arrow::compute::literal(value));
}

/// Partition fields stand at the end of the data set's schema, in the order of the entry's values.
std::vector<Expression> PartitionPromises(const Projection& projection, const arrow::ScalarVector& values) {
  std::vector<Expression> promises;
  const int first = projection.dataset_schema->num_fields() - static_cast<int>(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    promises.push_back(
        PartitionPromise(projection.dataset_schema->field(first + static_cast<int>(i))->name(), values[i]));
  }
  return promises;
}

arrow::Result<bool> IsSatisfiable(const Expression& filter, const std::vector<Expression>& promises) {
  // A filter that cannot be evaluated (1 / 0) is an error of the rows, if they are ever met; not of looking ahead.
  auto simplified = arrow::compute::SimplifyWithGuarantee(filter, arrow::compute::and_(promises));
  return !simplified.ok() || simplified->IsSatisfiable();
}

arrow::Result<bool> MayMatchUnnamed(const Projection& projection, const ParquetFile& file, int row_group) {
  const Expression& filter = *projection.filter;
  std::vector<Expression> promises = PartitionPromises(projection, file.entry.partition_values);
  const arrow::Status read = CatchParquet([&] {
    for (const auto& field : projection.filter_fields) {
      auto promise = StatisticsPromise(filter, *field, *file.metadata, row_group);
      if (promise) promises.push_back(std::move(*promise));
    }
    return arrow::Status::OK();
  });
  ARROW_RETURN_NOT_OK(read);
  return IsSatisfiable(filter, promises);
}

}  // namespace

arrow::Result<bool> MayMatch(const Projection& projection, const ParquetFile& file, int row_group) {
  if (projection.filter == nullptr) return true;
  if (file.metadata->RowGroup(row_group)->num_rows() == 0) return false;
  auto may_match = MayMatchUnnamed(projection, file, row_group);
  if (may_match.ok()) return may_match;
  return text::WithContext(may_match.status(),
                           text::Quoted(file.entry.path) + ", row group " + std::to_string(row_group));
}

arrow::Result<bool> MayMatch(const Projection& projection, const arrow::ScalarVector& partition_values) {
  if (projection.filter == nullptr || partition_values.empty()) return true;
  return IsSatisfiable(*projection.filter, PartitionPromises(projection, partition_values));
}

}  // namespace penstock

#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ops/converter.h"
#include "penstock/options.h"
#include "source/file_set.h"
#include "source/parquet_file.h"

namespace penstock {

/// One output column, resolved against the data set's schema (that of its first file).
struct OutputColumn {
  std::string input;                          ///< Source column.
  std::shared_ptr<arrow::Field> input_field;  ///< Its field in the first file, or the partition field.
  int partition_index = -1;                   ///< >= 0: a hive partition column; constant in each file.
  std::shared_ptr<const Converter> converter;
};

/// What is read and what becomes of it; the same for all files.
///
/// The rule for files whose schemas differ: columns are matched by name, wherever they stand; columns that are not
/// needed may differ or be missing; a needed column must have the same type as in the first file (nullability may
/// differ, and metadata), otherwise the error names the file, the column, both types.
struct Projection {
  std::vector<OutputColumn> outputs;
  std::vector<std::shared_ptr<arrow::Field>>
      filter_fields;  ///< Source columns (not partition columns) that the filter uses.
  std::shared_ptr<const arrow::compute::Expression>
      filter;                                     ///< Bound to the data set schema plus partition fields; null: none.
  std::shared_ptr<arrow::Schema> dataset_schema;  ///< First file's columns, then partition fields (a partition field
                                                  ///< wins over a file column of the same name).
};

/// Resolves columns, transforms (an output's transform wins over a plain column of that name; transform outputs come at
/// the place of the column of that name, or after the plain columns in the order given; a transform's input need not be
/// in `columns`), filter and null policy against the first file. Reads the vocabularies of dictionary columns that no
/// op consumes (all row groups of all files: dictionary pages alone where a column chunk is fully dictionary-encoded),
/// values in order of first appearance by file and row group.
/// \return Invalid for unknown columns (naming near misses and listing what there is), for a filter on an unknown
/// column, of a non-boolean type or that compares types that do not compare,
///         for duplicate outputs; Converter::Make's errors.
arrow::Result<Projection> MakeProjection(const LoaderOptions& options, const FileSet& files, const ParquetFile& first,
                                         arrow::MemoryPool* pool, IoCounters* counters);

/// Checks `file` against the projection (see the rule above).
arrow::Status CheckSchema(const Projection& projection, const ParquetFile& file);

/// False where the filter cannot be true for any row of the row group, by its statistics and the file's partition
/// values. True without a filter.
arrow::Result<bool> MayMatch(const Projection& projection, const ParquetFile& file, int row_group);

}  // namespace penstock

#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ops/converter.h"
#include "ops/packing.h"
#include "ops/preparation.h"
#include "penstock/options.h"
#include "source/column_path.h"

namespace penstock {

class Source;

/// One output column, resolved against the data set's schema (that of its first file).
struct OutputColumn {
  std::string input;                          ///< Source column.
  std::vector<std::string> fields;            ///< From that inwards through structs; empty: the column itself.
  std::shared_ptr<arrow::Field> input_field;  ///< In the first file, or the partition field. Named `input`.
  int partition_index = -1;                   ///< >= 0: a hive partition column; constant in each file.
  enum class Identity : uint8_t { kNone, kRowId, kFile, kPosition } identity = Identity::kNone;
  Preparation preparation;                     ///< Of the arrays that a PieceReader gives.
  Field field;                                 ///< What comes out.
  std::shared_ptr<const Converter> converter;  ///< Null where rows vary in size (Field::varying).
  bool refuses_missing_lists = false;          ///< Of a column that is packed.

  /// True where its values are in the data; others are made from what is known about the rows.
  bool is_read() const { return partition_index < 0 && identity == Identity::kNone; }
  /// True where those are written to slots as they are. Else they come as arrays: partition columns of strings, too.
  bool is_constant() const { return !is_read() && field.varying == nullptr; }
  ColumnPath path() const { return {input, fields}; }
  /// What a PieceReader gave in the form that `converter` or Field::varying takes, with memory from `pool` where it is
  /// not the same.
  arrow::Result<std::shared_ptr<arrow::Array>> Prepare(std::shared_ptr<arrow::Array> array,
                                                       arrow::MemoryPool* pool) const;
  bool is_dear() const { return converter != nullptr && converter->is_dear(); }
};

/// What is read and what becomes of it; the same for all files.
///
/// The rule for files whose schemas differ: columns are matched by name, wherever they stand; columns that are not
/// needed may differ or be missing; a needed column must have the same type as in the first file (nullability may
/// differ, metadata, and the layout of strings and lists: see HaveSameValues; PieceReaders give that of the first
/// file), otherwise the error names the file, the column, both types.
struct Projection {
  std::vector<OutputColumn> outputs;
  std::vector<std::shared_ptr<arrow::Field>>
      filter_fields;  ///< Source columns (not partition columns) that the filter uses.
  std::shared_ptr<const arrow::compute::Expression>
      filter;  ///< Bound to the data set schema plus partition fields; null: none.
  std::optional<RowSample> sample;
  Packing packing;
  std::shared_ptr<arrow::Schema> dataset_schema;  ///< First file's columns, then partition fields (a partition field
                                                  ///< wins over a file column of the same name).
  const char* first_input = "the first file";     ///< That it is of, for errors.

  /// True where rows are left out, so that how many come out of a chunk shows when it is read.
  bool selects_rows() const { return filter != nullptr || sample.has_value(); }
  /// True where how many rows come out of a chunk shows when it is read.
  bool discovers_rows() const { return selects_rows() || packing.is_any(); }
};

/// Dotted names are fields of structs; with Layout::kTensor a struct stands for all its fields ("s.a", "s.b"). Columns
/// that have no fixed size become Arrow arrays or, with Layout::kTensor, lists of numbers flat arrays.
///
/// Resolves columns, transforms (an output's transform wins over a plain column of that name; transform outputs come at
/// the place of the column of that name, or after the plain columns in the order given; a transform's input need not be
/// in `columns`), filter and null policy against the source's schema. Reads the vocabularies of dictionary columns that
/// no op consumes. Where columns are packed, the column of positions follows the first of them.
/// \return Invalid for unknown columns (naming near misses and listing what there is), for a filter on an unknown
/// column, of a non-boolean type or that compares types that do not compare,
///         for duplicate outputs; Converter::Make's errors.
arrow::Result<Projection> MakeProjection(const LoaderOptions& options, Source& source,
                                         const std::shared_ptr<arrow::MemoryPool>& pool);

/// Checks an input's schema against the projection (see the rule above). Errors start with "input: ".
arrow::Status CheckSchema(const Projection& projection, const arrow::Schema& schema, const std::string& input);
/// The same for one column. \param first_input  see Projection.
arrow::Status CheckColumn(const arrow::Schema& schema, const std::string& input, const arrow::Field& field,
                          const char* first_input = "the first file");

/// The source columns that `outputs` and the filter need, each once.
std::vector<std::string> NeededColumns(const Projection& projection, const std::vector<int>& outputs);
/// The same for a source that can read fields of structs by themselves.
std::vector<ColumnPath> NeededPaths(const Projection& projection, const std::vector<int>& outputs);

}  // namespace penstock

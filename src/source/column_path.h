#pragma once

#include <arrow/type_fwd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace penstock {

/// A source column, or a field within its structs.
struct ColumnPath {
  std::string column;
  std::vector<std::string> fields;  ///< From the column inwards; empty: the column itself.

  /// "column.field.field"
  std::string ToString() const;
  bool operator==(const ColumnPath&) const = default;
};

/// What a dotted name means: the column of that name, else a field of a struct (or of structs in lists). Columns that
/// occur twice are not looked into. \return nullopt where there is none.
std::optional<ColumnPath> FindPath(const arrow::Schema& schema, const std::string& name);

/// The names of a field's innermost fields, structs and lists of structs taken apart: "s.a", "s.b.c"; itself where it
/// is no such thing.
std::vector<std::string> LeafNames(const arrow::Field& field);

/// Names as LeafNames() gives them, for all columns; a column of that name wins over a field.
std::vector<std::string> LeafNames(const arrow::Schema& schema);

}  // namespace penstock

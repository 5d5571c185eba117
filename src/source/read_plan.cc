#include "source/read_plan.h"

#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <parquet/arrow/schema.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include <algorithm>
#include <memory>

#include "source/bytes_column.h"
#include "source/list_column.h"
#include "source/row_group_reader.h"

namespace penstock {
namespace {

using arrow::Type;

bool IsStringLike(Type::type id) {
  return id == Type::STRING || id == Type::BINARY || id == Type::LARGE_STRING || id == Type::LARGE_BINARY ||
         id == Type::STRING_VIEW || id == Type::BINARY_VIEW;
}

// True where the stored values mean the same under both types, so that what Arrow would do on top (name a time zone,
// choose a layout of strings, make a dictionary) does not show in a slot.
bool MeansTheSame(const arrow::DataType& plain, const arrow::DataType& asked) {
  if (plain.Equals(asked)) return true;
  if (IsStringLike(plain.id())) {
    const bool is_dictionary = asked.id() == Type::DICTIONARY;
    return IsStringLike(is_dictionary ? static_cast<const arrow::DictionaryType&>(asked).value_type()->id()
                                      : asked.id());
  }
  if (plain.id() == Type::TIMESTAMP && asked.id() == Type::TIMESTAMP) {
    return static_cast<const arrow::TimestampType&>(plain).unit() ==
           static_cast<const arrow::TimestampType&>(asked).unit();
  }
  return plain.id() == Type::INT64 && asked.id() == Type::DURATION;
}

bool IsFlat(const parquet::ColumnDescriptor& leaf) {
  return leaf.max_repetition_level() == 0 && leaf.max_definition_level() <= 1 && leaf.path()->ToDotVector().size() == 1;
}

std::optional<DType> Int32Form(Type::type id) {
  switch (id) {
    case Type::INT8:
    case Type::INT16:
    case Type::INT32:
    case Type::UINT8:
    case Type::UINT16:
    case Type::DATE32:
    case Type::TIME32:
    case Type::DECIMAL32:
    case Type::DECIMAL64:
    case Type::DECIMAL128:
      return DType::kInt32;
    case Type::UINT32:
      return DType::kUInt32;
    default:
      return std::nullopt;
  }
}

std::optional<DType> Int64Form(Type::type id) {
  switch (id) {
    case Type::INT64:
    case Type::TIMESTAMP:
    case Type::TIME64:
    case Type::DURATION:
    case Type::DECIMAL64:
    case Type::DECIMAL128:
      return DType::kInt64;
    case Type::UINT64:
      return DType::kUInt64;
    default:
      return std::nullopt;
  }
}

std::optional<DType> BytesForm(const arrow::DataType& type) {
  if (type.id() == Type::DICTIONARY) return BytesForm(*static_cast<const arrow::DictionaryType&>(type).value_type());
  if (IsStringLike(type.id()) || type.id() == Type::DECIMAL128) return DType::kBytes;
  return std::nullopt;
}

// The file's schema as it is without the Arrow schema that a writer may have put beside it.
arrow::Result<std::shared_ptr<arrow::Schema>> PlainSchema(const ParquetFile& file) {
  std::shared_ptr<arrow::Schema> schema;
  ARROW_RETURN_NOT_OK(CatchParquet([&] {
    return parquet::arrow::FromParquetSchema(file.metadata->schema(), parquet::default_arrow_reader_properties(),
                                             &schema);
  }));
  return schema;
}

bool CanDecodeDirectly(const OutputColumn& output, const ParquetFile& file, const arrow::Schema& plain) {
  if (output.converter == nullptr || output.is_dear() || output.converter->takes_arrays_only()) return false;
  if (!output.preparation.is_empty()) return false;
  const int field = file.schema->GetFieldIndex(output.input);
  const std::vector<int> leaves = LeavesOf(file, output.path());
  if (leaves.size() != 1 || field >= plain.num_fields()) return false;
  const parquet::ColumnDescriptor& leaf = *file.metadata->schema()->Column(leaves[0]);
  const arrow::DataType& type = *file.schema->field(field)->type();
  return IsFlat(leaf) && MeansTheSame(*plain.field(field)->type(), type) && DirectForm(leaf, type).has_value();
}

}  // namespace

namespace {

/// The node of a field below `node`, lists passed through; null where it is not found.
const parquet::schema::Node* NodeOf(const parquet::schema::Node* node, const std::string& field) {
  while (node->is_group()) {
    const auto& group = static_cast<const parquet::schema::GroupNode&>(*node);
    const bool is_list = node->converted_type() == parquet::ConvertedType::LIST ||
                         (node->logical_type() != nullptr && node->logical_type()->is_list());
    if (!is_list) {
      const int index = group.FieldIndex(field);
      return index < 0 ? nullptr : group.field(index).get();
    }
    node = group.field(0).get();
    const bool has_element =
        node->is_group() && static_cast<const parquet::schema::GroupNode&>(*node).field_count() == 1;
    if (has_element) node = static_cast<const parquet::schema::GroupNode&>(*node).field(0).get();
  }
  return nullptr;
}

bool IsBelow(const parquet::schema::Node* leaf, const parquet::schema::Node* node) {
  while (leaf != nullptr && leaf != node) leaf = leaf->parent();
  return leaf == node;
}

}  // namespace

std::vector<int> LeavesOf(const ParquetFile& file, const ColumnPath& path) {
  const int column = file.schema->GetFieldIndex(path.column);
  std::vector<int> leaves;
  if (column < 0) return leaves;
  const parquet::SchemaDescriptor& schema = *file.metadata->schema();
  const parquet::schema::Node* root = schema.group_node()->field(column).get();
  const parquet::schema::Node* node = root;
  for (const std::string& field : path.fields) {
    node = NodeOf(node, field);
    if (node == nullptr) break;
  }
  // Lists as old writers made them: the whole column is read then.
  if (node == nullptr) node = root;
  for (int leaf = 0; leaf < schema.num_columns(); ++leaf) {
    if (IsBelow(schema.Column(leaf)->schema_node().get(), node)) leaves.push_back(leaf);
  }
  return leaves;
}

std::shared_ptr<arrow::Field> ListField(const ParquetFile& file, int row_group, const ColumnPath& path) {
  const std::shared_ptr<arrow::Field> field = file.schema->GetFieldByName(path.column);
  if (field == nullptr || !path.fields.empty() || !arrow::is_list_like(field->type()->id())) return nullptr;
  const std::vector<int> leaves = LeavesOf(file, path);
  return leaves.size() == 1 && list_column::Takes(file, row_group, *field, leaves[0]) ? field : nullptr;
}

std::shared_ptr<arrow::Field> BytesField(const Projection& projection, const ParquetFile& file,
                                         const ColumnPath& path) {
  const std::shared_ptr<arrow::Field> field = file.schema->GetFieldByName(path.column);
  if (field == nullptr || !path.fields.empty() || !IsStringLike(field->type()->id())) return nullptr;
  const std::vector<int> leaves = LeavesOf(file, path);
  if (leaves.size() != 1 || !bytes_column::Takes(file, *field, leaves[0])) return nullptr;
  const Type::type id = field->type()->id();
  if (!arrow::is_binary_view_like(id)) return field;
  const auto& filtered = projection.filter_fields;
  const bool is_filtered =
      std::any_of(filtered.begin(), filtered.end(), [&](const auto& needed) { return needed->name() == path.column; });
  const bool is_copied = std::all_of(projection.outputs.begin(), projection.outputs.end(), [&](const OutputColumn& o) {
    return !(o.path() == path) || (o.field.varying != nullptr && o.preparation.is_empty());
  });
  if (is_filtered || !is_copied) return nullptr;
  return field->WithType(id == Type::STRING_VIEW ? arrow::large_utf8() : arrow::large_binary());
}

std::optional<DType> DirectForm(const parquet::ColumnDescriptor& leaf, const arrow::DataType& type) {
  switch (leaf.physical_type()) {
    case parquet::Type::BOOLEAN:
      return type.id() == Type::BOOL ? std::optional(DType::kBool) : std::nullopt;
    case parquet::Type::INT32:
      return Int32Form(type.id());
    case parquet::Type::INT64:
      return Int64Form(type.id());
    case parquet::Type::FLOAT:
      return type.id() == Type::FLOAT ? std::optional(DType::kFloat32) : std::nullopt;
    case parquet::Type::DOUBLE:
      return type.id() == Type::DOUBLE ? std::optional(DType::kFloat64) : std::nullopt;
    case parquet::Type::BYTE_ARRAY:
      return BytesForm(type);
    case parquet::Type::FIXED_LEN_BYTE_ARRAY:
      if (type.id() == Type::HALF_FLOAT && leaf.type_length() == 2) return DType::kFloat16;
      return type.id() == Type::DECIMAL128 ? std::optional(DType::kBytes) : std::nullopt;
    default:
      return std::nullopt;
  }
}

int64_t NumDirectReaders(int64_t columns, int64_t rows) {
  // Below so many elements a row group is not worth sharing; above, readers are few enough to be found quickly.
  constexpr int64_t kCellsPerReader = 16 * 1024;
  constexpr int64_t kMostReaders = 16;
  const int64_t by_cells =
      rows / kCellsPerReader >= kMostReaders ? kMostReaders : (rows * columns + kCellsPerReader - 1) / kCellsPerReader;
  return std::min({columns, by_cells, kMostReaders});
}

int64_t StreamBufferBytes(const ParquetFile& file, int row_group, const std::vector<int>& leaves) {
  int64_t largest = 0;
  const auto metadata = file.metadata->RowGroup(row_group);
  for (int leaf : leaves) largest = std::max(largest, metadata->ColumnChunk(leaf)->total_compressed_size());
  // At least what Parquet peeks at to find a page header.
  return std::clamp<int64_t>(largest, parquet::kDefaultBufferSize, kStreamBufferBytes);
}

arrow::Status InColumn(const arrow::Status& status, const ParquetFile& file, int row_group, const std::string& column) {
  if (status.ok()) return status;
  const std::string where = column.empty() ? "" : ", column '" + column + "'";
  return status.WithMessage("'", file.entry.path, "', row group ", row_group, where, ": ", status.message());
}

ReadPlan MakeReadPlan(const Projection& projection, const ParquetFile& file, bool use_direct_decode) {
  ReadPlan plan;
  plan.use_direct_decode = use_direct_decode;
  const bool may_be_direct = use_direct_decode && !projection.discovers_rows();
  // A schema that cannot be had without its metadata: everything through Arrow, which has read it before.
  const auto plain = may_be_direct ? PlainSchema(file) : arrow::Status::Cancelled("");
  for (int i = 0; i < static_cast<int>(projection.outputs.size()); ++i) {
    const OutputColumn& output = projection.outputs[static_cast<size_t>(i)];
    if (output.is_constant()) {
      plan.constant.push_back(i);
    } else if (output.is_read() && plain.ok() && CanDecodeDirectly(output, file, **plain)) {
      plan.direct.push_back(i);
    } else {
      plan.through_arrow.push_back(i);
    }
  }
  return plan;
}

}  // namespace penstock

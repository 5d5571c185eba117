#include "source/column_path.h"

#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/key_value_metadata.h>

#include <utility>

namespace penstock {
namespace {

using arrow::Type;

/// The struct of a struct, or of lists of structs; null for all other types.
const arrow::StructType* StructIn(const arrow::DataType& type) {
  const arrow::DataType* at = &type;
  while (arrow::is_var_length_list_like(at->id()) && at->id() != Type::MAP) at = at->field(0)->type().get();
  return at->id() == Type::STRUCT ? static_cast<const arrow::StructType*>(at) : nullptr;
}

bool FindField(const arrow::DataType& type, const std::string& name, std::vector<std::string>* fields) {
  const arrow::StructType* fields_of = StructIn(type);
  if (fields_of == nullptr) return false;
  if (fields_of->GetFieldIndex(name) >= 0) {
    fields->push_back(name);
    return true;
  }
  for (size_t dot = name.rfind('.'); dot != std::string::npos && dot > 0; dot = name.rfind('.', dot - 1)) {
    const int index = fields_of->GetFieldIndex(name.substr(0, dot));
    if (index < 0) continue;
    fields->push_back(name.substr(0, dot));
    if (FindField(*fields_of->field(index)->type(), name.substr(dot + 1), fields)) return true;
    fields->pop_back();
  }
  return false;
}

void AddLeafNames(const std::string& name, const arrow::Field& field, std::vector<std::string>* names) {
  const arrow::StructType* fields_of = StructIn(*field.type());
  // The storage of an extension type that this process does not know means something as a whole.
  const bool is_storage = field.metadata() != nullptr && field.metadata()->Contains("ARROW:extension:name");
  if (fields_of == nullptr || fields_of->num_fields() == 0 || is_storage) {
    names->push_back(name);
    return;
  }
  for (const auto& child : fields_of->fields()) AddLeafNames(name + "." + child->name(), *child, names);
}

}  // namespace

std::string ColumnPath::ToString() const {
  std::string text = column;
  for (const std::string& field : fields) text += "." + field;
  return text;
}

std::optional<ColumnPath> FindPath(const arrow::Schema& schema, const std::string& name) {
  if (schema.GetFieldIndex(name) >= 0) return ColumnPath{name, {}};
  for (size_t dot = name.rfind('.'); dot != std::string::npos && dot > 0; dot = name.rfind('.', dot - 1)) {
    const int index = schema.GetFieldIndex(name.substr(0, dot));
    if (index < 0) continue;
    ColumnPath path{name.substr(0, dot), {}};
    if (FindField(*schema.field(index)->type(), name.substr(dot + 1), &path.fields)) return path;
  }
  return std::nullopt;
}

std::vector<std::string> LeafNames(const arrow::Field& field) {
  std::vector<std::string> names;
  AddLeafNames(field.name(), field, &names);
  return names;
}

std::vector<std::string> LeafNames(const arrow::Schema& schema) {
  std::vector<std::string> names;
  for (const auto& field : schema.fields()) {
    for (std::string& name : LeafNames(*field)) {
      const bool is_shadowed = name != field->name() && !schema.GetAllFieldIndices(name).empty();
      if (!is_shadowed) names.push_back(std::move(name));
    }
  }
  return names;
}

}  // namespace penstock

#include <arrow/compute/initialize.h>
#include <arrow/type.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "source/prune.h"
#include "source/text.h"

namespace penstock {
namespace {

using arrow::compute::Expression;

arrow::Status InitializeCompute() {
  static std::once_flag once;
  static arrow::Status status;
  std::call_once(once, [] { status = arrow::compute::Initialize(); });
  return status;
}

/// The name of the top-level column that `ref` means.
arrow::Result<std::string> ColumnName(const arrow::FieldRef& ref, const arrow::Schema& schema,
                                      const std::string& path) {
  if (ref.IsNested()) {
    return arrow::Status::Invalid("the filter refers to ", ref.ToDotPath(),
                                  ", a field inside a column; only top-level columns can be filtered on");
  }
  if (const arrow::FieldPath* position = ref.field_path()) {
    const int i = position->indices().empty() ? -1 : position->indices()[0];
    if (i >= 0 && i < schema.num_fields()) return schema.field(i)->name();
    return arrow::Status::Invalid("the filter refers to column number ", i, "; there are ", schema.num_fields());
  }
  const auto fields = schema.GetAllFieldIndices(*ref.name());
  if (fields.empty()) {
    return arrow::Status::Invalid("filter: ", text::UnknownColumn(*ref.name(), path, schema.field_names()));
  }
  if (fields.size() > 1) {
    return arrow::Status::Invalid("filter: column ", text::Quoted(*ref.name()), " occurs ", fields.size(), " times in ",
                                  text::Quoted(path), "; it cannot be told which is meant");
  }
  return *ref.name();
}

/// A fresh, unbound copy whose columns are all meant by name (statistics are attached by name).
class Renamer {
 public:
  Renamer(const arrow::Schema& schema, const std::string& path) : schema_(schema), path_(path) {}

  arrow::Result<Expression> Copy(const Expression& expression) {
    if (!expression.is_valid()) return arrow::Status::Invalid("the filter is an empty expression");
    if (const arrow::FieldRef* ref = expression.field_ref()) {
      ARROW_ASSIGN_OR_RAISE(std::string name, ColumnName(*ref, schema_, path_));
      names_.insert(name);
      return arrow::compute::field_ref(arrow::FieldRef(std::move(name)));
    }
    const Expression::Call* call = expression.call();
    if (call == nullptr) return expression;
    std::vector<Expression> arguments;
    for (const Expression& argument : call->arguments) {
      ARROW_ASSIGN_OR_RAISE(Expression copy, Copy(argument));
      arguments.push_back(std::move(copy));
    }
    return arrow::compute::call(call->function_name, std::move(arguments), call->options);
  }

  std::vector<std::string> NamesInSchemaOrder() const {
    std::vector<std::string> ordered;
    for (const auto& field : schema_.fields()) {
      if (names_.contains(field->name())) ordered.push_back(field->name());
    }
    return ordered;
  }

 private:
  const arrow::Schema& schema_;
  const std::string& path_;
  std::set<std::string> names_;
};

/// "a: int64, b: string", for messages.
std::string TypesOf(const std::vector<std::string>& names, const arrow::Schema& schema) {
  std::string text;
  for (const std::string& name : names) {
    if (!text.empty()) text += ", ";
    text += name + ": " + schema.GetFieldByName(name)->type()->ToString();
  }
  return text;
}

}  // namespace

arrow::Result<std::shared_ptr<const Expression>> BindFilter(const Expression& filter, const arrow::Schema& schema,
                                                            const std::string& path, std::vector<std::string>* names) {
  ARROW_RETURN_NOT_OK(InitializeCompute());
  Renamer renamer(schema, path);
  ARROW_ASSIGN_OR_RAISE(Expression unbound, renamer.Copy(filter));
  *names = renamer.NamesInSchemaOrder();
  const std::string shown = text::ToValidUtf8(unbound.ToString());
  auto bound = unbound.Bind(schema);
  if (!bound.ok()) {
    return arrow::Status::Invalid("the filter ", shown, " does not fit the columns' types (", TypesOf(*names, schema),
                                  "): ", text::ToValidUtf8(bound.status().message()), "; cast one of the sides");
  }
  if (bound->type() == nullptr || bound->type()->id() != arrow::Type::BOOL) {
    return arrow::Status::Invalid("the filter ", shown, " is of type ",
                                  bound->type() == nullptr ? "null" : bound->type()->ToString(),
                                  "; a filter must be boolean, for example a comparison");
  }
  if (!bound->IsScalarExpression()) {
    return arrow::Status::Invalid("the filter ", shown, " has a function that does not work row by row");
  }
  return std::make_shared<const Expression>(std::move(*bound));
}

}  // namespace penstock

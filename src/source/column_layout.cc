#include "source/column_layout.h"

#include <arrow/array/array_base.h>
#include <arrow/compute/cast.h>
#include <arrow/compute/exec.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>

namespace penstock {
namespace {

using arrow::DataType;
using arrow::Type;

bool IsText(const DataType& type) { return arrow::is_string(type.id()) || type.id() == Type::STRING_VIEW; }

bool IsBinary(const DataType& type) { return arrow::is_binary(type.id()) || type.id() == Type::BINARY_VIEW; }

bool IsList(const DataType& type) { return type.id() == Type::LIST || type.id() == Type::LARGE_LIST; }

bool HaveSameFields(const DataType& a, const DataType& b) {
  if (a.num_fields() != b.num_fields()) return false;
  for (int i = 0; i < a.num_fields(); ++i) {
    if (a.id() == Type::STRUCT && a.field(i)->name() != b.field(i)->name()) return false;
    if (a.field(i)->nullable() != b.field(i)->nullable()) return false;
    if (!HaveSameValues(*a.field(i)->type(), *b.field(i)->type())) return false;
  }
  return true;
}

}  // namespace

bool HaveSameValues(const DataType& a, const DataType& b) {
  if (a.Equals(b)) return true;
  if ((IsText(a) && IsText(b)) || (IsBinary(a) && IsBinary(b))) return true;
  const bool is_nested = (IsList(a) && IsList(b)) || (a.id() == Type::STRUCT && b.id() == Type::STRUCT);
  return is_nested && HaveSameFields(a, b);
}

arrow::Result<std::shared_ptr<arrow::Array>> InLayoutOf(const std::shared_ptr<DataType>& type,
                                                        std::shared_ptr<arrow::Array> array, arrow::MemoryPool* pool) {
  if (array->type()->Equals(*type)) return array;
  arrow::compute::ExecContext context(pool);
  context.set_use_threads(false);
  return arrow::compute::Cast(*array, type, arrow::compute::CastOptions::Safe(), &context);
}

}  // namespace penstock

#include "ops/flatten.h"

#include <arrow/array/array_nested.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>
#include <arrow/util/checked_cast.h>

namespace penstock {

using arrow::internal::checked_cast;

arrow::Result<std::shared_ptr<arrow::Array>> FlattenLists(const arrow::Array& lists, arrow::MemoryPool* pool) {
  switch (lists.type_id()) {
    case arrow::Type::EXTENSION:
      return FlattenLists(*checked_cast<const arrow::ExtensionArray&>(lists).storage(), pool);
    case arrow::Type::LIST:
      return checked_cast<const arrow::ListArray&>(lists).Flatten(pool);
    case arrow::Type::LARGE_LIST:
      return checked_cast<const arrow::LargeListArray&>(lists).Flatten(pool);
    case arrow::Type::LIST_VIEW:
      return checked_cast<const arrow::ListViewArray&>(lists).Flatten(pool);
    case arrow::Type::LARGE_LIST_VIEW:
      return checked_cast<const arrow::LargeListViewArray&>(lists).Flatten(pool);
    default:
      return arrow::Status::TypeError("an array of ", lists.type()->ToString(), " came where lists were promised");
  }
}

}  // namespace penstock

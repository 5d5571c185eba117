#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <memory>

namespace penstock {

/// The items of lists in any layout, one after the other, in the order of the lists; of missing lists none. A slice of
/// the array's items where they lie so, else a copy with memory from `pool`.
/// \param lists  list, large_list or a view of these, or an extension type of one.
arrow::Result<std::shared_ptr<arrow::Array>> FlattenLists(const arrow::Array& lists, arrow::MemoryPool* pool);

}  // namespace penstock

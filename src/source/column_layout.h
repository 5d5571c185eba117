#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <memory>

namespace penstock {

/// True where two types have the same values and may differ in how arrays hold them: strings and
/// binary with offsets of 32 or 64 bits or as views, lists with offsets of 32 or 64 bits, also in one another and in
/// structs.
bool HaveSameValues(const arrow::DataType& a, const arrow::DataType& b);

/// `array` in the layout of `type`, with memory from `pool` where it has another one.
/// \return Invalid where a list or text is too long for offsets of 32 bits.
arrow::Result<std::shared_ptr<arrow::Array>> InLayoutOf(const std::shared_ptr<arrow::DataType>& type,
                                                        std::shared_ptr<arrow::Array> array, arrow::MemoryPool* pool);

}  // namespace penstock

#include "ops/list_reader.h"

#include <arrow/type.h>
#include <arrow/util/bit_util.h>

#include "ops/type_rule.h"

namespace penstock {
namespace {

const uint8_t* BufferOf(const arrow::ArrayData& data, size_t i) {
  return data.buffers.size() > i && data.buffers[i] != nullptr ? data.buffers[i]->data() : nullptr;
}

template <typename Offset>
ListReader::List FromOffsets(const uint8_t* data, int64_t position) {
  const auto* offsets = reinterpret_cast<const Offset*>(data) + position;
  return {offsets[0], offsets[1] - offsets[0]};
}

template <typename Offset>
ListReader::List FromViews(const uint8_t* offsets, const uint8_t* sizes, int64_t position) {
  return {reinterpret_cast<const Offset*>(offsets)[position], reinterpret_cast<const Offset*>(sizes)[position]};
}

}  // namespace

arrow::Result<ListReader> ListReader::Open(const arrow::ArrayData& array) {
  ListReader reader;
  switch (StorageType(array.type)->id()) {
    case arrow::Type::LIST:
    case arrow::Type::MAP:
      reader.layout_ = Layout::kOffsets32;
      break;
    case arrow::Type::LARGE_LIST:
      reader.layout_ = Layout::kOffsets64;
      break;
    case arrow::Type::LIST_VIEW:
      reader.layout_ = Layout::kViews32;
      break;
    case arrow::Type::LARGE_LIST_VIEW:
      reader.layout_ = Layout::kViews64;
      break;
    default:
      return arrow::Status::TypeError("an array of ", array.type->ToString(), " came where lists were promised");
  }
  reader.base_ = array.offset;
  reader.bitmap_ = array.MayHaveNulls() ? BufferOf(array, 0) : nullptr;
  reader.offsets_ = BufferOf(array, 1);
  reader.sizes_ = BufferOf(array, 2);
  reader.items_ = array.child_data[0].get();
  return reader;
}

ListReader::List ListReader::At(int64_t row) const {
  const int64_t position = base_ + row;
  // What the buffers say of a missing list may be anything.
  if (bitmap_ != nullptr && !arrow::bit_util::GetBit(bitmap_, position)) return {0, 0, true};
  switch (layout_) {
    case Layout::kOffsets32:
      return FromOffsets<int32_t>(offsets_, position);
    case Layout::kOffsets64:
      return FromOffsets<int64_t>(offsets_, position);
    case Layout::kViews32:
      return FromViews<int32_t>(offsets_, sizes_, position);
    case Layout::kViews64:
      return FromViews<int64_t>(offsets_, sizes_, position);
  }
  return {};
}

}  // namespace penstock

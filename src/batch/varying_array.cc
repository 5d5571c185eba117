// A batch's strands as an Arrow array.
#include <arrow/extension_type.h>
#include <arrow/type.h>

#include <cstring>
#include <limits>
#include <utility>

#include "batch/slot_buffer.h"
#include "batch/varying_node.h"

namespace penstock {
namespace {

using arrow::ArrayData;
using BufferPtr = std::shared_ptr<arrow::Buffer>;
using NodeForm = VaryingNode::Form;

int64_t NarrowInPlace(uint8_t* offsets, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    int64_t wide = 0;
    std::memcpy(&wide, offsets + i * 8, 8);
    const auto narrow = static_cast<int32_t>(wide);
    std::memcpy(offsets + i * 4, &narrow, 4);
  }
  return n * 4;
}

class ArrayMaker {
 public:
  ArrayMaker(uint8_t* const* strands, int64_t rows, const int64_t* counts, const std::shared_ptr<void>& hold)
      : strands_(strands), rows_(rows), counts_(counts), hold_(hold) {}

  arrow::Result<std::shared_ptr<ArrayData>> Make(const VaryingNode& node) {
    const int64_t length = LengthOf(node.domain);
    if (node.form == NodeForm::kNull) return ArrayData::Make(node.type, length, {nullptr}, length);
    int64_t null_count = 0;
    std::vector<BufferPtr> buffers{Validity(node, length, &null_count)};
    if (node.offsets >= 0) {
      ARROW_ASSIGN_OR_RAISE(auto offsets, Offsets(node, length));
      buffers.push_back(std::move(offsets));
    }
    if (node.values >= 0) buffers.push_back(Values(node, length));
    auto data = ArrayData::Make(node.type, length, std::move(buffers), null_count);
    for (const VaryingNode& child : node.children) {
      ARROW_ASSIGN_OR_RAISE(auto child_data, Make(child));
      data->child_data.push_back(std::move(child_data));
    }
    return data;
  }

 private:
  int64_t LengthOf(int domain) const { return domain == 0 ? rows_ : counts_[domain - 1]; }

  BufferPtr Buffer(int strand, int64_t bytes) const {
    return std::make_shared<SlotBuffer>(strands_[strand], bytes, hold_);
  }

  BufferPtr Validity(const VaryingNode& node, int64_t length, int64_t* null_count) const {
    if (node.mask < 0) return nullptr;
    *null_count = length - PackBitsInPlace(strands_[node.mask], length, 1);
    return *null_count == 0 ? nullptr : Buffer(node.mask, (length + 7) / 8);
  }

  arrow::Result<BufferPtr> Offsets(const VaryingNode& node, int64_t length) const {
    if (!node.is_narrow) return Buffer(node.offsets, (length + 1) * 8);
    const int64_t items = LengthOf(node.items);
    if (items > std::numeric_limits<int32_t>::max()) {
      return arrow::Status::CapacityError("a batch has ", items, " items where ", node.type->ToString(),
                                          " counts to 2147483647; use a smaller batch_size");
    }
    return Buffer(node.offsets, NarrowInPlace(strands_[node.offsets], length + 1));
  }

  BufferPtr Values(const VaryingNode& node, int64_t length) const {
    if (node.form == NodeForm::kBytes) return Buffer(node.values, LengthOf(node.items));
    if (node.form != NodeForm::kBool)
      return Buffer(node.values, length * (node.form == NodeForm::kFixed ? node.width : 1));
    PackBitsInPlace(strands_[node.values], length, 0);
    return Buffer(node.values, (length + 7) / 8);
  }

  uint8_t* const* strands_;
  const int64_t rows_;
  const int64_t* counts_;
  const std::shared_ptr<void>& hold_;
};

}  // namespace

arrow::Result<std::shared_ptr<ArrayData>> VaryingArray(const VaryingNode& node, uint8_t* const* strands, int64_t rows,
                                                       const int64_t* counts, const std::shared_ptr<void>& hold) {
  return ArrayMaker(strands, rows, counts, hold).Make(node);
}

}  // namespace penstock

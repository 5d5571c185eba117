// Where something is missing that has no mask.
#include <arrow/type.h>
#include <arrow/util/bit_util.h>
#include <arrow/util/bitmap_ops.h>

#include <algorithm>

#include "batch/varying_node.h"

namespace penstock {
namespace {

using arrow::ArrayData;
using NodeForm = VaryingNode::Form;

// How far behind element `at` the first cleared bit is, or -1.
int64_t FirstCleared(const uint8_t* bits, int64_t at, int64_t n) {
  constexpr int64_t kStep = 1024;
  for (int64_t done = 0; done < n; done += kStep) {
    const int64_t step = std::min(kStep, n - done);
    if (arrow::internal::CountSetBits(bits, at + done, step) == step) continue;
    for (int64_t i = done; i < done + step; ++i) {
      if (!arrow::bit_util::GetBit(bits, at + i)) return i;
    }
  }
  return -1;
}

template <typename Offset>
int64_t OwnerOf(const ArrayData& data, int64_t at, int64_t n, int64_t item) {
  const Offset* offsets = reinterpret_cast<const Offset*>(data.buffers[1]->data()) + at;
  return std::upper_bound(offsets, offsets + n + 1, item) - offsets - 1;
}

int64_t EarlierOf(int64_t a, int64_t b) { return a < 0 ? b : b < 0 ? a : std::min(a, b); }

/// Items of elements [begin, begin + n) of `data` in its children, and whose item one is.
struct Items {
  const VaryingNode& node;
  const ArrayData& data;
  int64_t at;
  int64_t n;

  ItemRange range() const {
    if (node.form == NodeForm::kList) return ItemsOf(data, at - data.offset, n);
    if (node.form == NodeForm::kFixedList) return {at * node.width, (at + n) * node.width};
    return {at, at + n};
  }
  int64_t OwnerOfItem(int64_t item) const {
    if (node.form == NodeForm::kFixedList) return item / node.width - at;
    if (node.form != NodeForm::kList) return item - at;
    return HasWideOffsets(data) ? OwnerOf<int64_t>(data, at, n, item) : OwnerOf<int32_t>(data, at, n, item);
  }
};

// Below an element that is missing itself nothing counts as missing, nor in the children of a union that are not its
// own.
bool IsLive(const VaryingNode& node, const ArrayData& data, size_t child, int64_t at) {
  if (node.form == NodeForm::kUnion) {
    const auto& type = static_cast<const arrow::UnionType&>(*data.type);
    return reinterpret_cast<const int8_t*>(data.buffers[1]->data())[at] == type.type_codes()[child];
  }
  const bool has_bitmap = data.MayHaveNulls() && data.buffers[0] != nullptr;
  return !has_bitmap || arrow::bit_util::GetBit(data.buffers[0]->data(), at);
}

int64_t FindInChild(const Items& items, size_t child) {
  const ItemRange range = items.range();
  for (int64_t begin = range.begin; begin < range.end;) {
    const int64_t found =
        FindVaryingNull(items.node.children[child], *items.data.child_data[child], begin, range.end - begin);
    if (found < 0) return -1;
    const int64_t owner = items.OwnerOfItem(begin + found);
    if (IsLive(items.node, items.data, child, items.at + owner)) return owner;
    begin += found + 1;
  }
  return -1;
}

}  // namespace

int64_t FindVaryingNull(const VaryingNode& node, const ArrayData& data, int64_t begin, int64_t n) {
  const int64_t at = data.offset + begin;
  int64_t found = -1;
  if (n == 0) return found;
  if (node.form == NodeForm::kNull) return node.is_null_refused ? 0 : -1;
  const bool has_bitmap = node.form != NodeForm::kUnion && data.MayHaveNulls() && data.buffers[0] != nullptr;
  if (node.mask < 0 && has_bitmap) found = FirstCleared(data.buffers[0]->data(), at, n);
  const Items items{node, data, at, n};
  for (size_t i = 0; i < node.children.size(); ++i) found = EarlierOf(found, FindInChild(items, i));
  return found;
}

}  // namespace penstock

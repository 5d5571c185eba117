// Rows of normalised arrays: how many elements they have, and their way into a slot.
#include <arrow/type.h>
#include <arrow/type_traits.h>

#include <algorithm>
#include <cstring>

#include "batch/varying_node.h"
#include "ops/leaf_reader.h"

namespace penstock {
namespace {

using arrow::ArrayData;
using NodeForm = VaryingNode::Form;

const uint8_t* BufferOf(const ArrayData& data, size_t i) {
  return data.buffers.size() > i && data.buffers[i] != nullptr ? data.buffers[i]->data() : nullptr;
}

const uint8_t* Bitmap(const ArrayData& data) { return data.MayHaveNulls() ? BufferOf(data, 0) : nullptr; }

// Of domain `d`: the next element to write, and the batch's first.
int64_t NextOf(const VaryingColumn::Target& target, int d) { return d == 0 ? target.row : target.first[d - 1]; }
int64_t FirstOf(const VaryingColumn::Target& target, int d) {
  return d == 0 ? target.batch_row : target.batch_first[d - 1];
}

uint8_t* StrandAt(const VaryingColumn::Target& target, int strand, int64_t element, int64_t width) {
  return target.strands[strand] + element * width;
}

void CopyMask(const ArrayData& data, int64_t at, int64_t n, uint8_t* out) {
  const uint8_t* bits = Bitmap(data);
  if (bits == nullptr) {
    std::memset(out, 0, static_cast<size_t>(n));
    return;
  }
  SpreadBits(bits, at, n, out);
  for (int64_t i = 0; i < n; ++i) out[i] ^= 1;
}

template <typename Offset>
void CopyOffsets(const uint8_t* buffer, int64_t at, int64_t n, int64_t first_item, int64_t* out) {
  const Offset* from = reinterpret_cast<const Offset*>(buffer) + at;
  const int64_t shift = first_item - from[0];
  for (int64_t i = 0; i < n; ++i) out[i] = from[i + 1] + shift;
}

// Where the items of elements [begin, begin + n) of the node are in its child.
ItemRange ChildRange(const VaryingNode& node, const ArrayData& data, int64_t begin, int64_t n) {
  switch (node.form) {
    case NodeForm::kBytes:
    case NodeForm::kList:
      return ItemsOf(data, begin, n);
    case NodeForm::kFixedList:
      return {(data.offset + begin) * node.width, (data.offset + begin + n) * node.width};
    default:
      return {data.offset + begin, data.offset + begin + n};
  }
}

void CopyList(const VaryingNode& node, const ArrayData& data, int64_t at, int64_t n,
              const VaryingColumn::Target& target) {
  if (n == 0) return;
  auto* out =
      reinterpret_cast<int64_t*>(StrandAt(target, node.offsets, NextOf(target, node.domain) + target.batch + 1, 8));
  const int64_t first_item = NextOf(target, node.items) - FirstOf(target, node.items);
  if (HasWideOffsets(data)) {
    CopyOffsets<int64_t>(data.buffers[1]->data(), at, n, first_item, out);
  } else {
    CopyOffsets<int32_t>(data.buffers[1]->data(), at, n, first_item, out);
  }
}

void CopyValues(const VaryingNode& node, const ArrayData& data, int64_t at, int64_t n,
                const VaryingColumn::Target& target) {
  const size_t buffer = node.form == NodeForm::kBytes ? 2 : 1;
  const int domain = node.form == NodeForm::kBytes ? node.items : node.domain;
  const int64_t width = node.form == NodeForm::kFixed ? node.width : 1;
  const uint8_t* from = BufferOf(data, buffer);
  uint8_t* out = StrandAt(target, node.values, NextOf(target, domain), width);
  if (from == nullptr || n == 0) return;
  if (node.form == NodeForm::kBool) {
    SpreadBits(from, at, n, out);
  } else {
    std::memcpy(out, from + at * width, static_cast<size_t>(n * width));
  }
}

}  // namespace

bool HasWideOffsets(const ArrayData& data) {
  const auto id = data.type->id();
  return id == arrow::Type::LARGE_LIST || arrow::is_large_binary_like(id);
}

ItemRange ItemsOf(const ArrayData& data, int64_t begin, int64_t n) {
  if (n == 0) return {};
  const uint8_t* buffer = data.buffers[1]->data();
  const int64_t at = data.offset + begin;
  if (HasWideOffsets(data)) {
    const auto* offsets = reinterpret_cast<const int64_t*>(buffer);
    return {offsets[at], offsets[at + n]};
  }
  const auto* offsets = reinterpret_cast<const int32_t*>(buffer);
  return {offsets[at], offsets[at + n]};
}

void CountVarying(const VaryingNode& node, const ArrayData& data, int64_t begin, int64_t n, int64_t* counts) {
  const ItemRange items = ChildRange(node, data, begin, n);
  if (node.items > 0) counts[node.items - 1] = items.end - items.begin;
  for (size_t i = 0; i < node.children.size(); ++i) {
    CountVarying(node.children[i], *data.child_data[i], items.begin, items.end - items.begin, counts);
  }
}

void CopyVarying(const VaryingNode& node, const ArrayData& data, int64_t begin, int64_t n,
                 const VaryingColumn::Target& target) {
  const int64_t at = data.offset + begin;
  const ItemRange items = ChildRange(node, data, begin, n);
  if (node.mask >= 0 && n > 0) CopyMask(data, at, n, StrandAt(target, node.mask, NextOf(target, node.domain), 1));
  if (node.offsets >= 0) CopyList(node, data, at, n, target);
  if (node.form == NodeForm::kBytes) {
    CopyValues(node, data, items.begin, items.end - items.begin, target);
  } else if (node.values >= 0) {
    CopyValues(node, data, at, n, target);
  }
  for (size_t i = 0; i < node.children.size(); ++i) {
    CopyVarying(node.children[i], *data.child_data[i], items.begin, items.end - items.begin, target);
  }
}

}  // namespace penstock

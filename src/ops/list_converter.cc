#include <arrow/array/array_base.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "ops/compiled_converter.h"
#include "ops/gather.h"
#include "ops/list_reader.h"

namespace penstock {
namespace {

/// Lists to rows of one length: the items through the chain, then the padding.
class ListItemsConverter final : public CompiledConverter {
 public:
  using CompiledConverter::CompiledConverter;

  bool takes_arrays_only() const override { return true; }

  arrow::Status ConvertArray(const arrow::Array& array, int64_t offset, int64_t length, const RowKey& key,
                             SlotTarget target) const override {
    ARROW_ASSIGN_OR_RAISE(const ListReader lists, ListReader::Open(*array.data()));
    ARROW_ASSIGN_OR_RAISE(const LeafReader leaves, LeafReader::Open(lists.items()));
    ARROW_RETURN_NOT_OK(CheckArray(leaves));
    Spend(key, length);
    for (int64_t row = 0; row < length; ++row) {
      ARROW_RETURN_NOT_OK(ConvertList(lists.At(offset + row), leaves, row, key, Advance(target, row * items())));
    }
    return arrow::Status::OK();
  }

 private:
  arrow::Status ConvertList(const ListReader::List& list, const LeafReader& leaves, int64_t row, const RowKey& key,
                            SlotTarget target) const {
    const int64_t element = row * items();
    if (list.is_missing) return WriteMissing(items(), element, key, target);
    const ops::PadList& op = *chain().pad_list;
    if (list.size > op.length && !op.truncate) {
      return arrow::Status::Invalid("row ", key.row(row), ": a list of ", list.size,
                                    " items is longer than the length ", op.length,
                                    " of ps.ops.pad_list; use truncate=True to cut it, or a larger length");
    }
    const int64_t kept = std::min(list.size, op.length);
    const int64_t cut_in_front = op.truncate == ops::Side::kLeft ? list.size - kept : 0;
    const int64_t item = items() / op.length;  // Elements of one: more than one where it is a fixed-size list.
    const int64_t padding = (op.length - kept) * item;
    const int64_t begin = op.side == ops::Side::kLeft ? padding : 0;
    WritePadding(padding, Advance(target, op.side == ops::Side::kLeft ? 0 : kept * item));
    return ConvertLeaves(leaves, (list.begin + cut_in_front) * item, kept * item, element + begin, key, nullptr,
                         Advance(target, begin));
  }

  void WritePadding(int64_t n, SlotTarget target) const {
    FillAll(width(), chain().pad.bytes.data(), n, target.values);
    if (target.mask != nullptr) std::memset(target.mask, 0, static_cast<size_t>(n));
  }
};

/// Lists to their lengths, and those through the chain.
class ListLengthConverter final : public CompiledConverter {
 public:
  using CompiledConverter::CompiledConverter;

  bool takes_arrays_only() const override { return true; }

  arrow::Status ConvertArray(const arrow::Array& array, int64_t offset, int64_t length, const RowKey& key,
                             SlotTarget target) const override {
    ARROW_ASSIGN_OR_RAISE(const ListReader lists, ListReader::Open(*array.data()));
    Spend(key, length);
    LeafScratch& scratch = ThisThreadsScratch().leaf;
    auto* lengths = reinterpret_cast<int64_t*>(scratch.values);
    for (int64_t done = 0; done < length; done += kStrip) {
      const int64_t n = std::min(kStrip, length - done);
      for (int64_t i = 0; i < n; ++i) {
        const ListReader::List list = lists.At(offset + done + i);
        lengths[i] = list.size;
        scratch.valid[i] = !list.is_missing;
      }
      const ValueSpan span{DType::kInt64, lengths, scratch.valid, n};
      ARROW_RETURN_NOT_OK(ConvertSpan(span, done, key, Advance(target, done)));
    }
    return arrow::Status::OK();
  }
};

}  // namespace

std::shared_ptr<const Converter> MakeListItemsConverter(Field field, Chain chain, const NullPolicy& nulls,
                                                        Layout layout) {
  return std::make_shared<const ListItemsConverter>(std::move(field), std::move(chain), nulls, layout);
}

std::shared_ptr<const Converter> MakeListLengthConverter(Field field, Chain chain, const NullPolicy& nulls,
                                                         Layout layout) {
  return std::make_shared<const ListLengthConverter>(std::move(field), std::move(chain), nulls, layout);
}

}  // namespace penstock

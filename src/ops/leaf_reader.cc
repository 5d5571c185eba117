#include "ops/leaf_reader.h"

#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/binary_view_util.h>
#include <arrow/util/bit_util.h>
#include <arrow/util/checked_cast.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "ops/gather.h"

namespace penstock {
namespace {

using arrow::internal::checked_cast;

const uint8_t* Bitmap(const arrow::ArrayData& data) {
  return data.MayHaveNulls() && data.buffers[0] != nullptr ? data.buffers[0]->data() : nullptr;
}

const uint8_t* BufferOf(const arrow::ArrayData& data, size_t i) {
  return data.buffers.size() > i && data.buffers[i] != nullptr ? data.buffers[i]->data() : nullptr;
}

// False where one index is outside of [0, size).
template <typename Index>
bool NarrowIndices(const uint8_t* data, int64_t first, const uint8_t* valid, int64_t n, int64_t size, int32_t* out) {
  const Index* from = reinterpret_cast<const Index*>(data) + first;
  bool is_inside = true;
  for (int64_t i = 0; i < n; ++i) {
    const bool is_present = valid == nullptr || valid[i] != 0;
    const auto index = static_cast<uint64_t>(is_present ? from[i] : Index{0});
    is_inside &= !is_present || index < static_cast<uint64_t>(size);
    out[i] = static_cast<int32_t>(index);
  }
  return is_inside;
}

bool NarrowIndices(DType type, const uint8_t* data, int64_t first, const uint8_t* valid, int64_t n, int64_t size,
                   int32_t* out) {
  return VisitNumber(
      type,
      [&](auto element) {
        using Index = decltype(element);
        if constexpr (std::is_integral_v<Index>) {
          return NarrowIndices<Index>(data, first, valid, n, size, out);
        } else {
          return false;
        }
      },
      [] { return false; });
}

}  // namespace

void SpreadBits(const uint8_t* bits, int64_t offset, int64_t n, uint8_t* out) {
  const auto bit = [&](int64_t i) { return static_cast<uint8_t>((bits[i >> 3] >> (i & 7)) & 1); };
  int64_t i = 0;
  for (; i < n && ((offset + i) & 7) != 0; ++i) out[i] = bit(offset + i);
  for (; i + 8 <= n; i += 8) {
    // Byte k keeps bit k alone; adding 0x7f carries it to that byte's top.
    uint64_t spread = (bits[(offset + i) >> 3] * 0x0101010101010101u) & 0x8040201008040201u;
    spread = ((spread + 0x7F7F7F7F7F7F7F7Fu) >> 7) & 0x0101010101010101u;
    spread = arrow::bit_util::ToLittleEndian(spread);
    std::memcpy(out + i, &spread, sizeof spread);
  }
  for (; i < n; ++i) out[i] = bit(offset + i);
}

arrow::Result<LeafReader> LeafReader::Open(const arrow::ArrayData& array) {
  LeafReader reader;
  ARROW_RETURN_NOT_OK(reader.Descend(array));
  return reader;
}

arrow::Status LeafReader::Descend(const arrow::ArrayData& array) {
  const arrow::ArrayData* data = &array;
  int64_t base = array.offset;
  auto type = StorageType(array.type);
  while (type->id() == arrow::Type::FIXED_SIZE_LIST) {
    const int64_t size = checked_cast<const arrow::FixedSizeListType&>(*type).list_size();
    levels_.push_back({Bitmap(*data), base, size, 1});
    data = data->child_data[0].get();
    base = data->offset + base * size;
    type = StorageType(data->type);
  }
  int64_t stride = 1;
  for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) level->stride = stride *= level->size;
  base_ = base;
  leaf_type_ = std::move(type);
  return OpenLeaf(*data);
}

arrow::Status LeafReader::OpenLeaf(const arrow::ArrayData& leaf) {
  leaf_ = &leaf;
  length_ = leaf.length;
  bitmap_ = Bitmap(leaf);
  data_ = BufferOf(leaf, 1);
  if (leaf_type_->id() == arrow::Type::DICTIONARY) {
    ARROW_ASSIGN_OR_RAISE(LeafReader dictionary, Open(*leaf.dictionary));
    if (dictionary.is_nested() || dictionary.is_dictionary()) {
      return arrow::Status::TypeError(leaf_type_->ToString(), " has no rule");
    }
    type_ = *PhysicalType(*checked_cast<const arrow::DictionaryType&>(*leaf_type_).index_type());
    dictionary_ = std::make_shared<const LeafReader>(std::move(dictionary));
    return arrow::Status::OK();
  }
  const auto physical = PhysicalType(*leaf_type_);
  if (!physical) return arrow::Status::TypeError(leaf_type_->ToString(), " has no rule");
  type_ = *physical;
  const auto id = leaf_type_->id();
  width_ = ByteWidth(type_);
  if (type_ == DType::kBool) storage_ = Storage::kBits;
  if (arrow::is_binary_like(id)) storage_ = Storage::kOffsets32;
  if (arrow::is_large_binary_like(id)) storage_ = Storage::kOffsets64;
  if (arrow::is_binary_view_like(id)) storage_ = Storage::kViews;
  if (id == arrow::Type::DECIMAL256) storage_ = Storage::kDecimal256;
  if (id == arrow::Type::FIXED_SIZE_BINARY) {
    storage_ = Storage::kFixedBinary;
    width_ = checked_cast<const arrow::FixedSizeBinaryType&>(*leaf_type_).byte_width();
  }
  return arrow::Status::OK();
}

std::vector<int64_t> LeafReader::list_sizes() const {
  std::vector<int64_t> sizes;
  for (const Level& level : levels_) sizes.push_back(level.size);
  return sizes;
}

int64_t LeafReader::FindNullList(int64_t first, int64_t n) const {
  int64_t found = -1;
  for (const Level& level : levels_) {
    if (level.bitmap == nullptr) continue;
    for (int64_t i = first; i < first + n; i = (i / level.stride + 1) * level.stride) {
      if (arrow::bit_util::GetBit(level.bitmap, level.base + i / level.stride)) continue;
      found = found < 0 ? i - first : std::min(found, i - first);
      break;
    }
  }
  return found;
}

const uint8_t* LeafReader::ReadValid(int64_t first, int64_t n, uint8_t* valid) const {
  const bool has_list_nulls = std::ranges::any_of(levels_, [](const Level& level) { return level.bitmap != nullptr; });
  if (bitmap_ == nullptr && !has_list_nulls) return nullptr;
  if (bitmap_ != nullptr) {
    SpreadBits(bitmap_, base_ + first, n, valid);
  } else {
    std::memset(valid, 1, static_cast<size_t>(n));
  }
  for (const Level& level : levels_) {
    if (level.bitmap == nullptr) continue;
    for (int64_t i = first; i < first + n;) {
      const int64_t list = i / level.stride;
      const int64_t end = std::min((list + 1) * level.stride, first + n);
      if (!arrow::bit_util::GetBit(level.bitmap, level.base + list)) {
        std::memset(valid + (i - first), 0, static_cast<size_t>(end - i));
      }
      i = end;
    }
  }
  return std::memchr(valid, 0, static_cast<size_t>(n)) != nullptr ? valid : nullptr;
}

arrow::Result<ValueSpan> LeafReader::Read(int64_t first, int64_t n, LeafScratch* scratch) const {
  if (dictionary_ == nullptr) {
    const uint8_t* valid = ReadValid(first, n, scratch->valid);
    ARROW_ASSIGN_OR_RAISE(const void* values, ReadValues(first, nullptr, valid, n, scratch));
    return ValueSpan{type_, values, valid, n};
  }
  ARROW_ASSIGN_OR_RAISE(const ValueSpan rows, ReadIndices(first, n, scratch));
  ARROW_ASSIGN_OR_RAISE(const void* values, dictionary_->ReadValues(0, scratch->indices, rows.valid, n, scratch));
  return ValueSpan{dictionary_->type_, values, rows.valid, n};
}

arrow::Result<ValueSpan> LeafReader::ReadIndices(int64_t first, int64_t n, LeafScratch* scratch) const {
  const int64_t size = dictionary_->length_;
  const uint8_t* valid = ReadValid(first, n, scratch->valid);
  if (!NarrowIndices(type_, data_, base_ + first, valid, n, size, scratch->indices)) {
    return arrow::Status::Invalid("a dictionary index is outside of the dictionary of ", size, " values");
  }
  if (dictionary_->bitmap_ != nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const bool is_present = valid == nullptr || valid[i] != 0;
      const int64_t position = dictionary_->base_ + scratch->indices[i];
      scratch->valid[i] = is_present && arrow::bit_util::GetBit(dictionary_->bitmap_, position);
    }
    valid = std::memchr(scratch->valid, 0, static_cast<size_t>(n)) != nullptr ? scratch->valid : nullptr;
  }
  return ValueSpan{DType::kInt32, scratch->indices, valid, n};
}

arrow::Result<const void*> LeafReader::ReadValues(int64_t first, const int32_t* indices, const uint8_t* valid,
                                                  int64_t n, LeafScratch* scratch) const {
  auto* views = reinterpret_cast<BytesView*>(scratch->values);
  const int64_t start = base_ + first;
  switch (storage_) {
    case Storage::kFixed:
      if (indices == nullptr) return data_ + start * width_;
      GatherValues(width_, data_ + start * width_, indices, valid, nullptr, n, scratch->values);
      break;
    case Storage::kBits:
      if (indices == nullptr) SpreadBits(data_, start, n, scratch->values);
      for (int64_t i = 0; indices != nullptr && i < n; ++i) {
        const bool is_present = valid == nullptr || valid[i] != 0;
        scratch->values[i] = is_present && arrow::bit_util::GetBit(data_, start + indices[i]);
      }
      break;
    case Storage::kOffsets32:
      ARROW_RETURN_NOT_OK(ReadOffsets<int32_t>(start, indices, valid, n, views));
      break;
    case Storage::kOffsets64:
      ARROW_RETURN_NOT_OK(ReadOffsets<int64_t>(start, indices, valid, n, views));
      break;
    case Storage::kViews:
      ARROW_RETURN_NOT_OK(ReadViews(start, indices, valid, n, views));
      break;
    case Storage::kFixedBinary: {
      const auto at = [this](int64_t i) {
        return std::string_view(reinterpret_cast<const char*>(data_) + i * width_, static_cast<size_t>(width_));
      };
      ARROW_RETURN_NOT_OK(FillViews(at, start, indices, valid, n, views));
      break;
    }
    case Storage::kDecimal256:
      ReadDecimal256(start, indices, valid, n, scratch);
      break;
  }
  return scratch->values;
}

template <typename At>
arrow::Status LeafReader::FillViews(At at, int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n,
                                    BytesView* out) const {
  for (int64_t i = 0; i < n; ++i) {
    const bool is_present = valid == nullptr || valid[i] != 0;
    const std::string_view value = is_present ? at(first + (indices != nullptr ? indices[i] : i)) : std::string_view{};
    if (value.size() > std::numeric_limits<uint32_t>::max()) {
      return arrow::Status::Invalid("a value of ", value.size(), " bytes is larger than 4 GiB");
    }
    out[i] = {static_cast<uint32_t>(value.size()), reinterpret_cast<const uint8_t*>(value.data())};
  }
  return arrow::Status::OK();
}

template <typename Offset>
arrow::Status LeafReader::ReadOffsets(int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n,
                                      BytesView* out) const {
  const auto* offsets = reinterpret_cast<const Offset*>(data_);
  const char* chars = reinterpret_cast<const char*>(BufferOf(*leaf_, 2));
  const auto at = [&](int64_t i) {
    const Offset begin = offsets[i];
    const auto size = static_cast<size_t>(offsets[i + 1] - begin);
    return size == 0 ? std::string_view{} : std::string_view(chars + begin, size);
  };
  return FillViews(at, first, indices, valid, n, out);
}

arrow::Status LeafReader::ReadViews(int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n,
                                    BytesView* out) const {
  const auto* views = reinterpret_cast<const arrow::BinaryViewType::c_type*>(data_);
  const auto* buffers = leaf_->buffers.data() + 2;
  const auto at = [&](int64_t i) { return arrow::util::FromBinaryView(views[i], buffers); };
  return FillViews(at, first, indices, valid, n, out);
}

// As big-endian bytes, the form that Parquet has, too.
void LeafReader::ReadDecimal256(int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n,
                                LeafScratch* scratch) const {
  constexpr int64_t kWidth = 32;
  auto* views = reinterpret_cast<BytesView*>(scratch->values);
  for (int64_t i = 0; i < n; ++i) {
    uint8_t* bytes = scratch->wide + i * kWidth;
    views[i] = {kWidth, bytes};
    if (valid != nullptr && valid[i] == 0) continue;
    const uint8_t* value = data_ + (first + (indices != nullptr ? indices[i] : i)) * kWidth;
    std::reverse_copy(value, value + kWidth, bytes);
  }
}

}  // namespace penstock

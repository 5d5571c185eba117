#include "source/list_column.h"

#include <arrow/array/array_base.h>
#include <arrow/array/data.h>
#include <arrow/array/util.h>
#include <arrow/buffer.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "source/array_parts.h"
#include "source/chunk_pages.h"
#include "source/page_values.h"

namespace penstock::list_column {
namespace {

using arrow::Type;

constexpr int64_t kStrip = LevelReader::kStrip;

/// Levels of the next values of a page, some of which may have been used.
struct Strip {
  int64_t at = 0;
  int64_t end = 0;
  bool is_full = false;                 ///< All are items that are there; `definition` is not written.
  alignas(64) uint8_t goes_on[kStrip];  ///< 0: a row begins.
  alignas(64) uint32_t definition[kStrip];
};

/// Numbers of a chunk's pages, as the array has them.
class Items : public ChunkPages::Values {
 public:
  /// The next `items` items, at most kStrip, of which `present` are there: those with valid[i] != 0; all where it is
  /// null. Others become 0.
  virtual arrow::Status Read(int64_t items, int64_t present, const uint8_t* valid, uint8_t* out) = 0;
};

template <typename T>
using BitsOf = std::conditional_t<
    sizeof(T) == 8, uint64_t,
    std::conditional_t<sizeof(T) == 4, uint32_t, std::conditional_t<sizeof(T) == 2, uint16_t, uint8_t>>>;

/// \tparam P  Parquet's physical type. \tparam T  of an item in the array: P's own, or a narrower integer.
template <typename P, typename T>
class TypedItems final : public Items {
 public:
  using V = typename P::c_type;
  static constexpr bool kIsCopied = sizeof(T) == sizeof(V);
  static_assert(kStrip <= PageValues<P, V>::kStrip);

  TypedItems(const parquet::ColumnDescriptor* leaf, arrow::MemoryPool* pool) : values_(leaf, pool), pool_(pool) {}

  arrow::Status TakeDictionary(const parquet::DictionaryPage& page, std::shared_ptr<arrow::Buffer> /*kept*/) override {
    return values_.KeepDictionary(page.data(), page.size(), page.num_values());
  }

  arrow::Status OpenPage(const DataPageParts& page) override { return values_.Open(page); }

  arrow::Status Read(int64_t items, int64_t present, const uint8_t* valid, uint8_t* out) override {
    if (kIsCopied && valid == nullptr) return values_.Read(items, reinterpret_cast<V*>(out));
    if (dense_ == nullptr) {
      // Where the last items are missing, what stands behind the last value is looked at.
      ARROW_ASSIGN_OR_RAISE(dense_, arrow::AllocateBuffer(kStrip * int64_t{sizeof(V)}, pool_));
      std::memset(dense_->mutable_data(), 0, static_cast<size_t>(dense_->size()));
    }
    auto* dense = reinterpret_cast<V*>(dense_->mutable_data());
    ARROW_RETURN_NOT_OK(values_.Read(present, dense));
    if (valid == nullptr) {
      auto* to = reinterpret_cast<T*>(out);
      for (int64_t i = 0; i < items; ++i) to[i] = static_cast<T>(dense[i]);
      return arrow::Status::OK();
    }
    // Without a branch: which items are missing cannot be foretold.
    auto* to = reinterpret_cast<BitsOf<T>*>(out);
    for (int64_t i = 0; i < items; ++i) {
      const auto mask = static_cast<BitsOf<T>>(0 - valid[i]);
      to[i] = std::bit_cast<BitsOf<T>>(static_cast<T>(*dense)) & mask;
      dense += valid[i];
    }
    return arrow::Status::OK();
  }

 private:
  PageValues<P, V> values_;
  arrow::MemoryPool* const pool_;
  std::unique_ptr<arrow::Buffer> dense_;
};

template <typename P, typename T = typename P::c_type>
std::unique_ptr<Items> MakeTyped(const parquet::ColumnDescriptor* leaf, arrow::MemoryPool* pool) {
  return std::make_unique<TypedItems<P, T>>(leaf, pool);
}

std::unique_ptr<Items> MakeItems(Type::type item, const parquet::ColumnDescriptor* leaf, arrow::MemoryPool* pool) {
  switch (item) {
    case Type::INT8:
    case Type::UINT8:
      return MakeTyped<parquet::Int32Type, int8_t>(leaf, pool);
    case Type::INT16:
    case Type::UINT16:
      return MakeTyped<parquet::Int32Type, int16_t>(leaf, pool);
    case Type::INT32:
    case Type::UINT32:
      return MakeTyped<parquet::Int32Type>(leaf, pool);
    case Type::INT64:
    case Type::UINT64:
      return MakeTyped<parquet::Int64Type>(leaf, pool);
    case Type::FLOAT:
      return MakeTyped<parquet::FloatType>(leaf, pool);
    default:
      return MakeTyped<parquet::DoubleType>(leaf, pool);
  }
}

const arrow::DataType& ItemType(const arrow::Field& field) {
  return *static_cast<const arrow::BaseListType&>(*field.type()).value_type();
}

/// The array that is being made.
struct Lists {
  Lists(int64_t num_rows, arrow::MemoryPool* pool) : rows(num_rows), row_validity(pool), item_validity(pool) {}

  const int64_t rows;    ///< Wanted.
  int64_t row = 0;       ///< Rows that have begun.
  int64_t items = 0;     ///< Their items so far.
  bool is_done = false;  ///< The next row begins, and is not wanted.
  std::unique_ptr<arrow::Buffer> offsets;
  GrowingValues values;
  Validity row_validity;
  Validity item_validity;
};

class ListColumn final : public PieceColumn {
 public:
  ListColumn(const ParquetFile& file, int row_group, std::shared_ptr<arrow::Field> field, int leaf,
             arrow::MemoryPool* pool, int64_t buffer_bytes)
      : field_(std::move(field)),
        pool_(pool),
        leaf_(*file.metadata->schema()->Column(leaf)),
        num_rows_(file.metadata->RowGroup(row_group)->num_rows()),
        pages_(file, row_group, leaf, pool, buffer_bytes),
        row_items_(static_cast<double>(pages_.values_left()) / static_cast<double>(std::max<int64_t>(num_rows_, 1))),
        is_wide_(field_->type()->id() == Type::LARGE_LIST),
        width_(arrow::bit_width(ItemType(*field_).id()) / 8),
        list_level_(leaf_.schema_node()->is_optional() ? leaf_.max_definition_level() - 1
                                                       : leaf_.max_definition_level()),
        items_(MakeItems(ItemType(*field_).id(), &leaf_, pool)) {}

  arrow::Status Init() {
    ARROW_ASSIGN_OR_RAISE(strip_buffer_, arrow::AllocateBuffer(sizeof(Strip), pool_));
    strip_ = new (strip_buffer_->mutable_data()) Strip;
    return arrow::Status::OK();
  }

  const std::shared_ptr<arrow::Field>& field() const override { return field_; }

  arrow::Result<std::shared_ptr<arrow::Array>> Take(int64_t rows) override {
    Lists lists(rows, pool_);
    ARROW_ASSIGN_OR_RAISE(lists.offsets, arrow::AllocateBuffer((rows + 1) * OffsetBytes(), pool_));
    ARROW_ASSIGN_OR_RAISE(lists.values,
                          GrowingValues::For(rows, row_items_ * static_cast<double>(width_), &lender_, pool_));
    while (!lists.is_done) {
      if (strip_->at == strip_->end) {
        ARROW_ASSIGN_OR_RAISE(const bool is_more, NextStrip());
        if (!is_more) break;
      }
      ARROW_RETURN_NOT_OK(is_wide_ ? TakeStrip<int64_t>(&lists) : TakeStrip<int32_t>(&lists));
    }
    if (lists.row < rows) {
      return arrow::Status::IOError("the column chunk ends after ", taken_rows_ + lists.row, " of ", num_rows_,
                                    " rows");
    }
    taken_rows_ += rows;
    row_items_ = static_cast<double>(lists.items) / static_cast<double>(rows);
    return Finish(&lists);
  }

 private:
  int64_t OffsetBytes() const { return is_wide_ ? sizeof(int64_t) : sizeof(int32_t); }

  // False where the chunk ends.
  arrow::Result<bool> NextStrip() {
    if (page_.rows == 0) {
      ARROW_ASSIGN_OR_RAISE(const bool is_more, pages_.Next(items_.get(), &page_));
      if (!is_more) return false;
    }
    ARROW_ASSIGN_OR_RAISE(const auto stretch, page_.repetitions.Next(std::min(page_.rows, kStrip), strip_->goes_on));
    if (stretch.rows == 0) return arrow::Status::IOError("a page has fewer levels than values");
    strip_->at = 0;
    strip_->end = stretch.rows;
    if (stretch.present == stretch.rows) std::memset(strip_->goes_on, 1, static_cast<size_t>(stretch.rows));
    page_.rows -= stretch.rows;
    ARROW_RETURN_NOT_OK(ReadDefinitions());
    return true;
  }

  arrow::Status ReadDefinitions() {
    const auto highest = static_cast<uint32_t>(leaf_.max_definition_level());
    const int64_t n = strip_->end;
    const auto& run = page_.definitions.Head();
    strip_->is_full = run.packed == nullptr && run.value == highest && run.length >= n;
    if (strip_->is_full) {
      page_.definitions.Take(n);
      return arrow::Status::OK();
    }
    if (page_.definitions.Decode(n, strip_->definition) != n) {
      return arrow::Status::IOError("a page has fewer levels than values");
    }
    const uint32_t most = *std::max_element(strip_->definition, strip_->definition + n);
    if (most > highest) return arrow::Status::IOError("a page has a definition level of ", most);
    return arrow::Status::OK();
  }

  // Goes on with the rows by what is left of the strip, or by what is left of them.
  template <typename Offset>
  arrow::Status TakeStrip(Lists* lists) {
    if (lists->row == 0 && strip_->goes_on[strip_->at] != 0) {
      return arrow::Status::IOError("the column chunk begins within a list");
    }
    const int64_t begin = std::exchange(strip_->at, EndOfRows(*lists));
    if (!is_wide_ && lists->items + strip_->at - begin > std::numeric_limits<int32_t>::max()) {
      return arrow::Status::CapacityError("lists of more than 2^31 - 1 items together are in one piece");
    }
    lists->is_done = strip_->at < strip_->end;
    return strip_->is_full ? TakeFull<Offset>(begin, lists) : TakeAny<Offset>(begin, lists);
  }

  // Where, in the strip, the first row begins that is not wanted.
  int64_t EndOfRows(const Lists& lists) const {
    const uint8_t* goes_on = strip_->goes_on;
    int64_t wanted = lists.rows - lists.row;
    int64_t begun = strip_->end - strip_->at;
    for (int64_t level = strip_->at; level < strip_->end; ++level) begun -= goes_on[level];
    if (begun <= wanted) return strip_->end;
    int64_t level = strip_->at;
    while (goes_on[level] != 0 || wanted-- > 0) ++level;
    return level;
  }

  // In these two, an offset is written for every level, and stays where a row begins: no branch depends on the levels,
  // but where none of eight begins a row.
  template <typename Offset>
  arrow::Status TakeFull(int64_t begin, Lists* lists) {
    constexpr uint64_t kAllGoOn = 0x0101010101010101;
    const uint8_t* goes_on = strip_->goes_on;
    const int64_t end = strip_->at;
    auto* offset = lists->offsets->mutable_data_as<Offset>() + lists->row;
    auto item = static_cast<Offset>(lists->items);
    const auto take = [&](int64_t level) {
      *offset = item++;
      offset += 1 - goes_on[level];
    };
    int64_t level = begin;
    for (; level + 8 <= end; level += 8) {
      uint64_t eight = 0;
      std::memcpy(&eight, goes_on + level, sizeof(eight));
      if (eight == kAllGoOn) {
        item += 8;
        continue;
      }
      for (int64_t i = 0; i < 8; ++i) take(level + i);
    }
    for (; level < end; ++level) take(level);
    lists->row = offset - lists->offsets->data_as<Offset>();
    return ReadItems(end - begin, end - begin, nullptr, lists);
  }

  template <typename Offset>
  arrow::Status TakeAny(int64_t begin, Lists* lists) {
    uint8_t item_there[kStrip];
    uint8_t row_there[kStrip + 1];
    const auto highest = static_cast<uint32_t>(leaf_.max_definition_level());
    const auto list_level = static_cast<uint32_t>(list_level_);
    auto* offset = lists->offsets->mutable_data_as<Offset>() + lists->row;
    int64_t rows = 0;
    int64_t rows_there = 0;
    int64_t items = 0;
    int64_t items_there = 0;
    bool has_empty_within = false;
    for (int64_t level = begin; level < strip_->at; ++level) {
      const uint32_t definition = strip_->definition[level];
      const bool begins = strip_->goes_on[level] == 0;
      const bool is_item = definition >= list_level;
      // One below that of items is the level of a list without any; below it, where lists are optional, a missing one.
      const bool is_list = definition + 1 >= list_level;
      offset[rows] = static_cast<Offset>(lists->items + items);
      row_there[rows] = is_list;
      rows += begins;
      rows_there += begins && is_list;
      item_there[items] = definition == highest;
      items += is_item;
      items_there += definition == highest;
      has_empty_within |= !begins && !is_item;
    }
    if (has_empty_within) return arrow::Status::IOError("a page has an empty list within a list");
    if (rows_there < rows) ARROW_RETURN_NOT_OK(lists->row_validity.Mention(lists->row, row_there, rows));
    lists->row += rows;
    return ReadItems(items, items_there, item_there, lists);
  }

  arrow::Status ReadItems(int64_t items, int64_t present, const uint8_t* there, Lists* lists) {
    if (items == 0) return arrow::Status::OK();
    const int64_t left = strip_->end - strip_->at + page_.rows + pages_.values_left();
    ARROW_RETURN_NOT_OK(lists->values.Reserve((lists->items + items) * width_, left * width_));
    const uint8_t* valid = present == items ? nullptr : there;
    if (valid != nullptr) ARROW_RETURN_NOT_OK(lists->item_validity.Mention(lists->items, valid, items));
    ARROW_RETURN_NOT_OK(items_->Read(items, present, valid, lists->values.data() + lists->items * width_));
    lists->items += items;
    return arrow::Status::OK();
  }

  arrow::Result<std::shared_ptr<arrow::Array>> Finish(Lists* lists) {
    if (is_wide_) {
      lists->offsets->mutable_data_as<int64_t>()[lists->rows] = lists->items;
    } else {
      lists->offsets->mutable_data_as<int32_t>()[lists->rows] = static_cast<int32_t>(lists->items);
    }
    ARROW_ASSIGN_OR_RAISE(auto values, lists->values.Finish(lists->items * width_));
    ARROW_ASSIGN_OR_RAISE(auto item_bits, lists->item_validity.Finish(lists->items));
    ARROW_ASSIGN_OR_RAISE(auto row_bits, lists->row_validity.Finish(lists->rows));
    auto items = arrow::ArrayData::Make(static_cast<const arrow::BaseListType&>(*field_->type()).value_type(),
                                        lists->items, {item_bits.buffer, std::move(values)}, item_bits.missing);
    return arrow::MakeArray(arrow::ArrayData::Make(field_->type(), lists->rows,
                                                   {row_bits.buffer, std::move(lists->offsets)}, {std::move(items)},
                                                   row_bits.missing));
  }

  const std::shared_ptr<arrow::Field> field_;
  arrow::MemoryPool* const pool_;
  const parquet::ColumnDescriptor& leaf_;
  const int64_t num_rows_;
  ChunkPages pages_;
  double row_items_;  // Of a row: by the footer, then by the rows taken last.
  const bool is_wide_;
  const int64_t width_;       // Of an item.
  const int64_t list_level_;  // The definition level of an item, there or missing.
  const std::unique_ptr<Items> items_;
  BufferLender lender_;
  std::unique_ptr<arrow::Buffer> strip_buffer_;
  Strip* strip_ = nullptr;
  DataPageParts page_;  // Its rows: levels behind the strip.
  int64_t taken_rows_ = 0;
};

bool IsInteger(const parquet::ColumnDescriptor& leaf, int bits, bool is_signed) {
  const auto& logical = leaf.logical_type();
  if (logical == nullptr || logical->is_none()) {
    return leaf.converted_type() == parquet::ConvertedType::NONE && bits >= 32 && is_signed;
  }
  if (!logical->is_int()) return false;
  const auto& integer = static_cast<const parquet::IntLogicalType&>(*logical);
  return integer.bit_width() == bits && integer.is_signed() == is_signed;
}

// Whether the items are stored as what the array has of them.
bool IsStoredAs(const parquet::ColumnDescriptor& leaf, const arrow::DataType& type) {
  if (arrow::is_integer(type.id())) {
    const int bits = type.bit_width();
    const auto physical = bits == 64 ? parquet::Type::INT64 : parquet::Type::INT32;
    return leaf.physical_type() == physical && IsInteger(leaf, bits, arrow::is_signed_integer(type.id()));
  }
  if (type.id() == Type::FLOAT) return leaf.physical_type() == parquet::Type::FLOAT;
  return type.id() == Type::DOUBLE && leaf.physical_type() == parquet::Type::DOUBLE;
}

// group LIST { repeated group { item } }
bool HasThreeLevels(const parquet::ColumnDescriptor& leaf) {
  if (leaf.max_repetition_level() != 1 || leaf.path()->ToDotVector().size() != 3) return false;
  const parquet::schema::Node* middle = leaf.schema_node()->parent();
  const parquet::schema::Node* root = middle->parent();
  const bool is_list = root->converted_type() == parquet::ConvertedType::LIST ||
                       (root->logical_type() != nullptr && root->logical_type()->is_list());
  return is_list && middle->is_repeated() && !root->is_repeated() && !leaf.schema_node()->is_repeated() &&
         static_cast<const parquet::schema::GroupNode*>(middle)->field_count() == 1;
}

}  // namespace

bool Takes(const ParquetFile& file, int row_group, const arrow::Field& field, int leaf) {
  const Type::type id = field.type()->id();
  if (id != Type::LIST && id != Type::LARGE_LIST) return false;
  const parquet::ColumnDescriptor& descriptor = *file.metadata->schema()->Column(leaf);
  if (!HasThreeLevels(descriptor) || !IsStoredAs(descriptor, ItemType(field))) return false;
  const std::vector<parquet::Encoding::type> encodings =
      file.metadata->RowGroup(row_group)->ColumnChunk(leaf)->encodings();
  return std::find(encodings.begin(), encodings.end(), parquet::Encoding::BIT_PACKED) == encodings.end();
}

int64_t ArrayBytes(const ParquetFile& file, int row_group, const arrow::Field& field, int leaf, int64_t rows) {
  const auto group = file.metadata->RowGroup(row_group);
  const int64_t num_rows = std::max<int64_t>(group->num_rows(), 1);
  const int64_t levels = std::clamp<int64_t>(group->ColumnChunk(leaf)->num_values(), 0, int64_t{1} << 44);
  const double items =
      static_cast<double>(levels) * static_cast<double>(std::min(rows, num_rows)) / static_cast<double>(num_rows);
  // Bits of validity are there twice while they become more.
  constexpr double kValidity = 3.0 / 8;
  const double item_bytes = static_cast<double>(ItemType(field).bit_width()) / 8 + kValidity;
  const double row_bytes = sizeof(int64_t) + kValidity;
  // An eighth more than the footer says; rows differ, so that the piece at hand may have as much again.
  constexpr double kSpread = 1.25;
  constexpr int64_t kScratch = sizeof(Strip) + 2 * kStrip * int64_t{sizeof(int64_t)} + 1024;
  return static_cast<int64_t>(items * item_bytes * kSpread +
                              static_cast<double>(std::min(rows, num_rows)) * row_bytes) +
         kScratch;
}

arrow::Result<std::unique_ptr<PieceColumn>> Open(const ParquetFile& file, int row_group,
                                                 std::shared_ptr<arrow::Field> field, int leaf, arrow::MemoryPool* pool,
                                                 int64_t buffer_bytes) {
  auto column = std::make_unique<ListColumn>(file, row_group, std::move(field), leaf, pool, buffer_bytes);
  ARROW_RETURN_NOT_OK(column->Init());
  return column;
}

}  // namespace penstock::list_column

#include "source/direct_column.h"

#include <arrow/buffer.h>
#include <arrow/result.h>
#include <parquet/column_page.h>
#include <parquet/column_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "source/column_pages.h"
#include "source/data_page.h"
#include "source/page_values.h"
#include "source/read_plan.h"

namespace penstock {
namespace {

constexpr int64_t kStrip = Converter::kStrip;

// Puts dense values where their rows are. Without a branch: a missing row gets whatever stands next in `dense`, which
// is readable for `rows` elements.
template <typename V>
void Spread(const V* dense, const uint8_t* valid, int64_t rows, V* spaced) {
  for (int64_t i = 0; i < rows; ++i) {
    spaced[i] = *dense;
    dense += valid[i];
  }
}

// Of one element: its value twice, its index twice, whether it is there.
constexpr int64_t ScratchWidth(int64_t value_width) { return 2 * value_width + 2 * int64_t{sizeof(int32_t)} + 1; }

/// \tparam P  Parquet's physical type.
/// \tparam V  what its values are for the converter.
template <typename P, typename V>
class TypedColumn final : public DirectColumn {
 public:
  TypedColumn(const Source& source, DType form, std::shared_ptr<const Converter> converter)
      : source_(source),
        form_(form),
        converter_(std::move(converter)),
        slot_width_(ByteWidth(converter_->field().dtype)),
        is_in_place_(converter_->is_identity() && !std::is_same_v<V, BytesView> && slot_width_ == ByteWidth(form)),
        is_optional_(Descriptor(source)->max_definition_level() > 0),
        scratch_(reinterpret_cast<Scratch*>(source.scratch)),
        pages_(OpenColumnPages(*source.file, source.row_group, source.leaf,
                               MakeReaderProperties(source.pool, source.buffer_bytes))),
        values_(Descriptor(source), source.pool) {}

  arrow::Status Skip(int64_t rows) override {
    for (int64_t done = 0; done < rows;) {
      if (page_.rows == 0) ARROW_RETURN_NOT_OK(NextPage(done));
      if (page_.rows <= rows - done) {
        done += std::exchange(page_.rows, 0);
        continue;
      }
      ARROW_ASSIGN_OR_RAISE(const auto stretch, NextStretch(std::min(rows - done, kStrip)));
      ARROW_RETURN_NOT_OK(values_.Skip(stretch.present));
      done += stretch.rows;
    }
    return arrow::Status::OK();
  }

  arrow::Status Read(int64_t rows, int64_t first_row, SlotTarget target) override {
    for (int64_t done = 0; done < rows;) {
      const SlotTarget at{target.values + done * slot_width_, target.mask == nullptr ? nullptr : target.mask + done};
      const int64_t row = first_row + done;
      if (page_.rows == 0) ARROW_RETURN_NOT_OK(NextPage(row));
      const bool is_copied = is_in_place_ && values_.is_unlimited();
      const int64_t most = std::min(rows - done, is_copied ? page_.rows : kStrip);
      ARROW_ASSIGN_OR_RAISE(const auto stretch, NextStretch(most));
      ARROW_RETURN_NOT_OK(table_ != nullptr && values_.has_indices() ? Gather(stretch, row, at)
                                                                     : Convert(stretch, row, at));
      done += stretch.rows;
    }
    return arrow::Status::OK();
  }

 private:
  using Stretch = LevelReader::Stretch;

  struct Scratch {
    alignas(64) V dense[kStrip];
    alignas(64) V spaced[kStrip];
    alignas(64) int32_t dense_indices[kStrip];
    alignas(64) int32_t indices[kStrip];
    alignas(64) uint8_t valid[kStrip];
  };
  static_assert(sizeof(Scratch) == kStrip * ScratchWidth(sizeof(V)));

  static const parquet::ColumnDescriptor* Descriptor(const Source& source) {
    return source.file->metadata->schema()->Column(source.leaf);
  }

  // Goes on to the next page that has rows. `row`: reached so far, for the message.
  arrow::Status NextPage(int64_t row) {
    while (page_.rows == 0) {
      page_ = DataPageParts{};
      const std::shared_ptr<parquet::Page> page = pages_->NextPage();
      if (page == nullptr) {
        return arrow::Status::IOError("the column chunk ends after ", row, " of ", source_.num_rows, " rows");
      }
      if (page->type() == parquet::PageType::DICTIONARY_PAGE) {
        ARROW_RETURN_NOT_OK(TakeDictionary(static_cast<const parquet::DictionaryPage&>(*page)));
      } else if (page->type() == parquet::PageType::DATA_PAGE || page->type() == parquet::PageType::DATA_PAGE_V2) {
        ARROW_ASSIGN_OR_RAISE(page_, DataPageParts::Of(*page, *Descriptor(source_)));
        ARROW_RETURN_NOT_OK(values_.Open(page_));
        held_page_ = page;
      }
    }
    return arrow::Status::OK();
  }

  // Converts the chunk's dictionary, once. Where that does not pay or some value does not convert, its values are kept
  // as they are, and rows are converted one by one.
  arrow::Status TakeDictionary(const parquet::DictionaryPage& page) {
    if (std::exchange(has_dictionary_, true)) return arrow::Status::IOError("the column chunk has two dictionaries");
    if (page.encoding() != parquet::Encoding::PLAIN && page.encoding() != parquet::Encoding::PLAIN_DICTIONARY) {
      return arrow::Status::IOError("the dictionary has an unknown encoding");
    }
    const int64_t length = page.num_values();
    const int64_t table_bytes = length * slot_width_;
    const bool pays = length <= source_.num_rows && table_bytes <= kMaxTableBytes;
    if (is_in_place_ || (converter_->is_pure() && pays)) {
      std::unique_ptr<arrow::Buffer> views;
      ARROW_ASSIGN_OR_RAISE(const void* values, values_.PlainArray(page.data(), page.size(), length, &views));
      ARROW_ASSIGN_OR_RAISE(table_, arrow::AllocateBuffer(table_bytes, source_.pool));
      values_.SetDictionaryLength(length);
      if (converter_->ConvertDictionary({form_, values, nullptr, length}, table_->mutable_data())) {
        return arrow::Status::OK();
      }
      table_.reset();
    }
    return values_.KeepDictionary(page.data(), page.size(), length);
  }

  // The next rows of the page, at most `rows`, with their validity in the scratch where one is missing.
  arrow::Result<Stretch> NextStretch(int64_t rows) {
    rows = std::min(rows, page_.rows);
    Stretch stretch{rows, rows};
    if (is_optional_) {
      ARROW_ASSIGN_OR_RAISE(stretch, page_.levels.Next(rows, scratch_->valid));
      if (stretch.rows == 0) return arrow::Status::IOError("a page has fewer levels than rows");
    }
    page_.rows -= stretch.rows;
    return stretch;
  }

  // Null where nothing is missing.
  const uint8_t* Valid(Stretch stretch) const { return stretch.present == stretch.rows ? nullptr : scratch_->valid; }

  arrow::Status Gather(Stretch stretch, int64_t row, SlotTarget at) {
    const uint8_t* valid = Valid(stretch);
    ARROW_RETURN_NOT_OK(values_.ReadIndices(stretch.present, scratch_->dense_indices));
    const int32_t* indices = scratch_->dense_indices;
    if (valid != nullptr) {
      Spread(indices, valid, stretch.rows, scratch_->indices);
      indices = scratch_->indices;
    }
    return converter_->Gather(table_->data(), indices, valid, stretch.rows, row, at);
  }

  // Also for an identity where values are missing: what becomes of them is the converter's to say.
  arrow::Status Convert(Stretch stretch, int64_t row, SlotTarget at) {
    V* in_slot = is_in_place_ ? reinterpret_cast<V*>(at.values) : nullptr;
    const uint8_t* valid = Valid(stretch);
    if (valid == nullptr && is_in_place_) {
      ARROW_RETURN_NOT_OK(values_.Read(stretch.rows, in_slot));
      if (at.mask != nullptr) std::memset(at.mask, 0, static_cast<size_t>(stretch.rows));
      return arrow::Status::OK();
    }
    V* values = scratch_->dense;
    ARROW_RETURN_NOT_OK(values_.Read(stretch.present, values));
    if (valid != nullptr) {
      V* spaced = is_in_place_ ? in_slot : scratch_->spaced;
      Spread(values, valid, stretch.rows, spaced);
      values = spaced;
    }
    return converter_->Convert({form_, values, valid, stretch.rows}, row, at);
  }

  const Source source_;
  const DType form_;
  const std::shared_ptr<const Converter> converter_;
  const int64_t slot_width_;
  const bool is_in_place_;
  const bool is_optional_;
  Scratch* const scratch_;
  const std::unique_ptr<parquet::PageReader> pages_;
  std::shared_ptr<parquet::Page> held_page_;  // What page_ and values_ look at.
  DataPageParts page_;                        // Its rows: what is left of them.
  PageValues<P, V> values_;
  bool has_dictionary_ = false;
  std::unique_ptr<arrow::Buffer> table_;  // The dictionary as slot values; null: not converted.
};

template <typename P, typename V = typename P::c_type>
arrow::Result<std::unique_ptr<DirectColumn>> OpenTyped(const DirectColumn::Source& source, DType form,
                                                       std::shared_ptr<const Converter> converter) {
  return std::make_unique<TypedColumn<P, V>>(source, form, std::move(converter));
}

}  // namespace

int64_t DirectColumn::ScratchBytes(const parquet::ColumnDescriptor& leaf) {
  const bool is_viewed =
      leaf.physical_type() == parquet::Type::BYTE_ARRAY || leaf.physical_type() == parquet::Type::FIXED_LEN_BYTE_ARRAY;
  const int64_t width = is_viewed ? int64_t{sizeof(BytesView)} : parquet::GetTypeByteSize(leaf.physical_type());
  return kStrip * ScratchWidth(width);
}

arrow::Result<std::unique_ptr<DirectColumn>> DirectColumn::Make(const Source& source, DType form,
                                                                std::shared_ptr<const Converter> converter) {
  switch (source.file->metadata->schema()->Column(source.leaf)->physical_type()) {
    case parquet::Type::BOOLEAN:
      return OpenTyped<parquet::BooleanType>(source, form, std::move(converter));
    case parquet::Type::INT32:
      return OpenTyped<parquet::Int32Type>(source, form, std::move(converter));
    case parquet::Type::INT64:
      return OpenTyped<parquet::Int64Type>(source, form, std::move(converter));
    case parquet::Type::FLOAT:
      return OpenTyped<parquet::FloatType>(source, form, std::move(converter));
    case parquet::Type::DOUBLE:
      return OpenTyped<parquet::DoubleType>(source, form, std::move(converter));
    case parquet::Type::BYTE_ARRAY:
      return OpenTyped<parquet::ByteArrayType, BytesView>(source, form, std::move(converter));
    case parquet::Type::FIXED_LEN_BYTE_ARRAY:
      if (form == DType::kFloat16) return OpenTyped<parquet::FLBAType, uint16_t>(source, form, std::move(converter));
      return OpenTyped<parquet::FLBAType, BytesView>(source, form, std::move(converter));
    default:
      return arrow::Status::NotImplemented("values of this physical type are read through Arrow");
  }
}

}  // namespace penstock

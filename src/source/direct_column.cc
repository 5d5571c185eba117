#include "source/direct_column.h"

#include <arrow/buffer.h>
#include <arrow/result.h>
#include <parquet/column_reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#include "source/column_pages.h"
#include "source/read_plan.h"

namespace penstock {
namespace {

static_assert(sizeof(bool) == 1, "Parquet's bools are decoded straight into byte slots");
static_assert(sizeof(BytesView) == sizeof(parquet::ByteArray) &&
                  offsetof(BytesView, size) == offsetof(parquet::ByteArray, len) &&
                  offsetof(BytesView, data) == offsetof(parquet::ByteArray, ptr),
              "Parquet's byte arrays are handed to converters as they are");

constexpr int64_t kStrip = Converter::kStrip;

// One byte per row from definition levels of 0 or 1; returns how many are present.
int64_t LevelsToValid(const int16_t* levels, int64_t rows, uint8_t* valid) {
  int64_t present = 0;
  for (int64_t i = 0; i < rows; ++i) {
    valid[i] = levels[i] == 1 ? 1 : 0;
    present += valid[i];
  }
  return present;
}

// Puts dense values where their rows are. Without a branch: a missing row gets whatever stands next in `dense`, which
// is readable for `rows` elements.
template <typename V>
void Spread(const V* dense, const uint8_t* valid, int64_t rows, V* spaced) {
  for (int64_t i = 0; i < rows; ++i) {
    spaced[i] = *dense;
    dense += valid[i];
  }
}

template <typename T, typename V>
void FromFixedBytes(const T* from, int64_t length, int byte_width, V* to) {
  for (int64_t i = 0; i < length; ++i) {
    if constexpr (std::is_same_v<V, BytesView>) {
      to[i] = BytesView{static_cast<uint32_t>(byte_width), from[i].ptr};
    } else {
      std::memcpy(&to[i], from[i].ptr, sizeof(V));
    }
  }
}

/// \tparam P  Parquet's physical type.
/// \tparam V  what its values are for the converter.
template <typename P, typename V>
class TypedColumn final : public DirectColumn {
 public:
  using T = typename P::c_type;
  using Reader = parquet::TypedColumnReader<P>;
  static constexpr bool kIsFixedBytes = std::is_same_v<P, parquet::FLBAType>;
  static_assert(kIsFixedBytes || sizeof(T) == sizeof(V));

  TypedColumn(const Source& source, DType form, std::shared_ptr<const Converter> converter)
      : source_(source),
        form_(form),
        converter_(std::move(converter)),
        slot_width_(ByteWidth(converter_->field().dtype)),
        is_in_place_(converter_->is_identity() && std::is_arithmetic_v<T> && slot_width_ == ByteWidth(form)) {}

  arrow::Status Open() {
    // Identity columns gain nothing from the dictionary: Parquet's own gather writes straight into the slot.
    const bool may_gather = !is_in_place_ && converter_->is_pure();
    const auto chunk = source_.row_group->metadata()->ColumnChunk(source_.leaf);
    wants_table_ = may_gather && IsDictionaryEncoded(*chunk);
    auto reader = OpenColumnReader(*source_.file, source_.row_group, source_.leaf,
                                   MakeReaderProperties(source_.pool, source_.buffer_bytes));
    if (reader->type() != P::type_num) return arrow::Status::IOError("the column chunk is of another physical type");
    reader_ = std::static_pointer_cast<Reader>(std::move(reader));
    is_optional_ = reader_->descr()->max_definition_level() > 0;
    byte_width_ = reader_->descr()->type_length();
    if (!is_in_place_ || is_optional_) {
      ARROW_ASSIGN_OR_RAISE(scratch_buffer_, arrow::AllocateBuffer(sizeof(Scratch), source_.pool));
      scratch_ = reinterpret_cast<Scratch*>(scratch_buffer_->mutable_data());
    }
    return arrow::Status::OK();
  }

  arrow::Status Skip(int64_t rows) override {
    for (int64_t done = 0; done < rows;) {
      const int64_t skipped = reader_->Skip(rows - done);
      if (skipped <= 0) return EndsAfter(done);
      done += skipped;
    }
    return arrow::Status::OK();
  }

  arrow::Status Read(int64_t rows, int64_t first_row, SlotTarget target) override {
    if (wants_table_ && rows > 0) ARROW_RETURN_NOT_OK(MakeTable());
    for (int64_t done = 0; done < rows;) {
      const SlotTarget at{target.values + done * slot_width_, target.mask == nullptr ? nullptr : target.mask + done};
      const int64_t row = first_row + done;
      ARROW_ASSIGN_OR_RAISE(const int64_t read,
                            table_ != nullptr ? GatherStrip(rows - done, row, at) : ReadStrip(rows - done, row, at));
      if (read == 0) return EndsAfter(row);
      done += read;
    }
    return arrow::Status::OK();
  }

 private:
  struct Scratch {
    alignas(64) V dense[kStrip];
    alignas(64) V spaced[kStrip];
    alignas(64) T raw[kIsFixedBytes ? kStrip : 1];
    alignas(64) int32_t dense_indices[kStrip];
    alignas(64) int32_t indices[kStrip];
    alignas(64) int16_t levels[kStrip];
    alignas(64) uint8_t valid[kStrip];
  };

  arrow::Status EndsAfter(int64_t rows) const {
    return arrow::Status::IOError("the column chunk ends after ", rows, " of ", source_.num_rows, " rows");
  }

  // Converts the chunk's dictionary, once. Where that does not pay or some value does not convert, rows are converted
  // one by one.
  arrow::Status MakeTable() {
    wants_table_ = false;
    const T* dictionary = nullptr;
    int64_t ignored = 0;
    reader_->ReadBatchWithDictionary(0, scratch_->levels, nullptr, scratch_->dense_indices, &ignored, &dictionary,
                                     &table_length_);
    if (dictionary == nullptr || table_length_ < 0 || table_length_ > source_.num_rows ||
        table_length_ * slot_width_ > kMaxTableBytes) {
      return arrow::Status::OK();
    }
    std::unique_ptr<arrow::Buffer> values;  // Of fixed-size bytes.
    ValueSpan span{form_, dictionary, nullptr, table_length_};
    if constexpr (kIsFixedBytes) {
      ARROW_ASSIGN_OR_RAISE(values, arrow::AllocateBuffer(table_length_ * int64_t{sizeof(V)}, source_.pool));
      FromFixedBytes(dictionary, table_length_, byte_width_, reinterpret_cast<V*>(values->mutable_data()));
      span.values = values->data();
    }
    ARROW_ASSIGN_OR_RAISE(table_, arrow::AllocateBuffer(table_length_ * slot_width_, source_.pool));
    if (!converter_->ConvertDictionary(span, table_->mutable_data())) table_.reset();
    return arrow::Status::OK();
  }

  // The validity of a strip whose levels have just been read: null where nothing is missing.
  arrow::Result<const uint8_t*> Valid(int64_t rows, int64_t present) {
    if (present == rows) return nullptr;
    if (!is_optional_ || LevelsToValid(scratch_->levels, rows, scratch_->valid) != present) {
      return arrow::Status::IOError("a page has fewer values than its levels say");
    }
    return scratch_->valid;
  }

  arrow::Result<int64_t> GatherStrip(int64_t rows, int64_t row, SlotTarget at) {
    const T* dictionary = nullptr;
    int32_t length = 0;
    int64_t present = 0;
    const int64_t read =
        reader_->ReadBatchWithDictionary(std::min(rows, kStrip), is_optional_ ? scratch_->levels : nullptr, nullptr,
                                         scratch_->dense_indices, &present, &dictionary, &length);
    if (read == 0) return 0;
    // Parquet does not check indices that it hands out.
    uint32_t largest = 0;
    for (int64_t i = 0; i < present; ++i) {
      largest = std::max(largest, static_cast<uint32_t>(scratch_->dense_indices[i]));
    }
    if (present > 0 && largest >= static_cast<uint32_t>(table_length_)) {
      return arrow::Status::IOError("a page has a dictionary index beyond the dictionary's ", table_length_, " values");
    }
    ARROW_ASSIGN_OR_RAISE(const uint8_t* valid, Valid(read, present));
    const int32_t* indices = scratch_->dense_indices;
    if (valid != nullptr) {
      Spread(indices, valid, read, scratch_->indices);
      indices = scratch_->indices;
    }
    ARROW_RETURN_NOT_OK(converter_->Gather(table_->data(), indices, valid, read, row, at));
    return read;
  }

  // Decodes at most `rows` dense values to `dense`, and the levels of an optional column; no more than a strip where
  // they need scratch.
  int64_t ReadDense(int64_t rows, V* dense, int64_t* present) {
    int16_t* levels = is_optional_ ? scratch_->levels : nullptr;
    if constexpr (kIsFixedBytes) {
      const int64_t read = reader_->ReadBatch(std::min(rows, kStrip), levels, nullptr, scratch_->raw, present);
      FromFixedBytes(scratch_->raw, *present, byte_width_, dense);
      return read;
    } else {
      const int64_t most = is_in_place_ && !is_optional_ ? rows : std::min(rows, kStrip);
      return reader_->ReadBatch(most, levels, nullptr, reinterpret_cast<T*>(dense), present);
    }
  }

  // Values are converted before the next page is read: byte arrays point into the page.
  arrow::Result<int64_t> ReadStrip(int64_t rows, int64_t row, SlotTarget at) {
    V* dense = is_in_place_ ? reinterpret_cast<V*>(at.values) : scratch_->dense;
    int64_t present = 0;
    const int64_t read = ReadDense(rows, dense, &present);
    if (read == 0) return 0;
    ARROW_ASSIGN_OR_RAISE(const uint8_t* valid, Valid(read, present));
    if (valid == nullptr && is_in_place_) {
      if (at.mask != nullptr) std::memset(at.mask, 0, static_cast<size_t>(read));
      return read;
    }
    if (valid != nullptr) {
      Spread(dense, valid, read, scratch_->spaced);
      dense = scratch_->spaced;
    }
    // Also for an identity: what becomes of missing values is the converter's to say.
    ARROW_RETURN_NOT_OK(converter_->Convert({form_, dense, valid, read}, row, at));
    return read;
  }

  const Source source_;
  const DType form_;
  const std::shared_ptr<const Converter> converter_;
  const int64_t slot_width_;
  const bool is_in_place_;
  bool is_optional_ = false;
  bool wants_table_ = false;
  int byte_width_ = 0;
  std::shared_ptr<Reader> reader_;
  std::unique_ptr<arrow::Buffer> scratch_buffer_;
  Scratch* scratch_ = nullptr;
  std::unique_ptr<arrow::Buffer> table_;  // Null: rows are converted one by one.
  int32_t table_length_ = 0;
};

template <typename P, typename V = typename P::c_type>
arrow::Result<std::unique_ptr<DirectColumn>> OpenTyped(const DirectColumn::Source& source, DType form,
                                                       std::shared_ptr<const Converter> converter) {
  auto column = std::make_unique<TypedColumn<P, V>>(source, form, std::move(converter));
  ARROW_RETURN_NOT_OK(column->Open());
  return column;
}

}  // namespace

arrow::Result<std::unique_ptr<DirectColumn>> DirectColumn::Make(const Source& source, DType form,
                                                                std::shared_ptr<const Converter> converter) {
  switch (source.row_group->metadata()->schema()->Column(source.leaf)->physical_type()) {
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

#include "source/page_values.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace penstock {
namespace {

static_assert(sizeof(bool) == 1, "Parquet's bools are decoded straight into byte slots");
static_assert(sizeof(BytesView) == sizeof(parquet::ByteArray) &&
                  offsetof(BytesView, size) == offsetof(parquet::ByteArray, len) &&
                  offsetof(BytesView, data) == offsetof(parquet::ByteArray, ptr),
              "Parquet's byte arrays are handed to converters as they are");

constexpr int64_t kScratchWidth = sizeof(parquet::ByteArray);  // The widest of Parquet's values, and of indices.

arrow::Status TooFew() { return arrow::Status::IOError("a page has fewer values than its levels say"); }

bool IsWithin(const int32_t* indices, int64_t n, int64_t length) {
  // The sign of either is set where an index is out of bounds: a loop that compilers make vectors of.
  const auto last = static_cast<uint32_t>(length) - 1;
  uint32_t outside = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto index = static_cast<uint32_t>(indices[i]);
    outside |= index | (last - index);
  }
  return (outside >> 31) == 0;
}

}  // namespace

// Byte arrays with their length before them; out may be null. False where the data end too early.
template <typename P, typename V>
bool PageValues<P, V>::TakeBytes(const uint8_t** at, const uint8_t* end, int64_t n, BytesView* out) {
  for (int64_t i = 0; i < n; ++i) {
    uint32_t size = 0;
    if (end - *at < static_cast<int64_t>(sizeof(size))) return false;
    std::memcpy(&size, *at, sizeof(size));
    *at += sizeof(size);
    if (size > static_cast<uint64_t>(end - *at)) return false;
    if (out != nullptr) out[i] = BytesView{size, *at};
    *at += size;
  }
  return true;
}

template <typename P, typename V>
void PageValues<P, V>::ViewFixed(const uint8_t* data, int64_t width, int64_t n, BytesView* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = BytesView{static_cast<uint32_t>(width), data + i * width};
}

template <typename P, typename V>
arrow::Result<const void*> PageValues<P, V>::PlainArray(const uint8_t* data, int64_t size, int64_t count,
                                                        std::unique_ptr<arrow::Buffer>* views) const {
  const auto too_short = [&] {
    return arrow::Status::IOError("the dictionary says that it has ", count, " values, but is too short for them");
  };
  if (std::is_same_v<V, bool>) return arrow::Status::IOError("bools cannot have a dictionary");
  const int64_t least_width = kIsBytes && !kIsFixedBytes ? sizeof(uint32_t) : std::max<int64_t>(stored_width_, 1);
  if (count < 0 || count > size / least_width) return too_short();
  if constexpr (kIsBytes) {
    ARROW_ASSIGN_OR_RAISE(*views, arrow::AllocateBuffer(count * int64_t{sizeof(BytesView)}, pool_));
    auto* out = reinterpret_cast<BytesView*>((*views)->mutable_data());
    if constexpr (kIsFixedBytes) {
      ViewFixed(data, stored_width_, count, out);
    } else {
      if (!TakeBytes(&data, data + size, count, out)) return too_short();
    }
    return out;
  }
  return data;
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::KeepDictionary(const uint8_t* data, int64_t size, int64_t count) {
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> bytes, arrow::AllocateBuffer(size, pool_));
  if (size > 0) std::memcpy(bytes->mutable_data(), data, static_cast<size_t>(size));
  return KeepDictionary(std::move(bytes), count);
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::KeepDictionary(std::shared_ptr<arrow::Buffer> bytes, int64_t count) {
  std::unique_ptr<arrow::Buffer> views;
  ARROW_RETURN_NOT_OK(PlainArray(bytes->data(), bytes->size(), count, &views));
  dictionary_bytes_ = std::move(bytes);
  dictionary_ = kIsBytes ? std::shared_ptr<arrow::Buffer>(std::move(views)) : dictionary_bytes_;
  dictionary_length_ = count;
  return arrow::Status::OK();
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::Open(const DataPageParts& page) {
  switch (page.encoding) {
    case parquet::Encoding::RLE_DICTIONARY:
    case parquet::Encoding::PLAIN_DICTIONARY:
      return OpenIndices(page);
    case parquet::Encoding::PLAIN:
      if (std::is_same_v<V, bool>) return OpenOther(page);
      kind_ = Kind::kPlain;
      at_ = page.values;
      end_ = page.values + page.size;
      return arrow::Status::OK();
    default:
      return OpenOther(page);
  }
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::OpenIndices(const DataPageParts& page) {
  if (dictionary_length_ < 0) return arrow::Status::IOError("a page refers to a dictionary that is not there");
  kind_ = Kind::kIndices;
  runs_ = RunDecoder();
  if (page.size == 0) return arrow::Status::OK();  // As where all values are missing.
  const int bit_width = page.values[0];
  if (bit_width > 32) return arrow::Status::IOError("a page has dictionary indices of ", bit_width, " bits");
  runs_ = RunDecoder(page.values + 1, page.size - 1, bit_width);
  return arrow::Status::OK();
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::OpenOther(const DataPageParts& page) {
  kind_ = Kind::kOther;
  if (other_ == nullptr || other_->encoding() != page.encoding) {
    other_.reset();
    other_ = parquet::MakeTypedDecoder<P>(page.encoding, descriptor_, pool_);
    if (other_ == nullptr) return arrow::Status::IOError("a page's encoding does not fit its type");
  }
  other_->SetData(static_cast<int>(page.rows), page.values, static_cast<int>(page.size));
  return arrow::Status::OK();
}

template <typename P, typename V>
arrow::Result<uint8_t*> PageValues<P, V>::Scratch() {
  if (scratch_ == nullptr) {
    ARROW_ASSIGN_OR_RAISE(scratch_, arrow::AllocateBuffer(kStrip * kScratchWidth, pool_));
  }
  return scratch_->mutable_data();
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::Read(int64_t n, V* out) {
  if (kind_ == Kind::kPlain) return ReadPlain(n, out);
  if (kind_ == Kind::kOther) return ReadOther(n, out);
  ARROW_ASSIGN_OR_RAISE(uint8_t* scratch, Scratch());
  auto* indices = reinterpret_cast<int32_t*>(scratch);
  ARROW_RETURN_NOT_OK(ReadIndices(n, indices));
  const auto* values = reinterpret_cast<const V*>(dictionary_->data());
  for (int64_t i = 0; i < n; ++i) out[i] = values[indices[i]];
  return arrow::Status::OK();
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::ReadPlain(int64_t n, V* out) {
  if constexpr (kIsBytes && !kIsFixedBytes) {
    return TakeBytes(&at_, end_, n, out) ? arrow::Status::OK() : TooFew();
  } else {
    const int64_t bytes = n * stored_width_;
    if (bytes > end_ - at_) return TooFew();
    if constexpr (kIsBytes) {
      ViewFixed(at_, stored_width_, n, out);
    } else if (bytes > 0) {
      std::memcpy(out, at_, static_cast<size_t>(bytes));
    }
    at_ += bytes;
    return arrow::Status::OK();
  }
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::ReadOther(int64_t n, V* out) {
  const int count = static_cast<int>(n);
  if constexpr (!kIsFixedBytes) {
    return other_->Decode(reinterpret_cast<T*>(out), count) == count ? arrow::Status::OK() : TooFew();
  } else {
    ARROW_ASSIGN_OR_RAISE(uint8_t* scratch, Scratch());
    auto* values = reinterpret_cast<T*>(scratch);
    if (other_->Decode(values, count) != count) return TooFew();
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (kIsBytes) {
        ViewFixed(values[i].ptr, stored_width_, 1, out + i);
      } else {
        std::memcpy(&out[i], values[i].ptr, sizeof(V));
      }
    }
    return arrow::Status::OK();
  }
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::ReadIndices(int64_t n, int32_t* out) {
  if (n == 0) return arrow::Status::OK();
  if (runs_.Decode(n, reinterpret_cast<uint32_t*>(out)) != n) return TooFew();
  if (IsWithin(out, n, dictionary_length_)) return arrow::Status::OK();
  return arrow::Status::IOError("a page has a dictionary index beyond the dictionary's ", dictionary_length_,
                                " values");
}

template <typename P, typename V>
arrow::Status PageValues<P, V>::Skip(int64_t n) {
  if (kind_ == Kind::kIndices) return runs_.Skip(n) == n ? arrow::Status::OK() : TooFew();
  if (kind_ == Kind::kPlain && kIsBytes && !kIsFixedBytes) {
    return TakeBytes(&at_, end_, n, nullptr) ? arrow::Status::OK() : TooFew();
  }
  if (kind_ == Kind::kPlain) {
    if (n * stored_width_ > end_ - at_) return TooFew();
    at_ += n * stored_width_;
    return arrow::Status::OK();
  }
  ARROW_ASSIGN_OR_RAISE(uint8_t* scratch, Scratch());
  for (int64_t done = 0; done < n; done += kStrip) {
    const int count = static_cast<int>(std::min(kStrip, n - done));
    if (other_->Decode(reinterpret_cast<T*>(scratch), count) != count) return TooFew();
  }
  return arrow::Status::OK();
}

template class PageValues<parquet::BooleanType, bool>;
template class PageValues<parquet::Int32Type, int32_t>;
template class PageValues<parquet::Int64Type, int64_t>;
template class PageValues<parquet::FloatType, float>;
template class PageValues<parquet::DoubleType, double>;
template class PageValues<parquet::ByteArrayType, BytesView>;
template class PageValues<parquet::FLBAType, BytesView>;
template class PageValues<parquet::FLBAType, uint16_t>;

}  // namespace penstock

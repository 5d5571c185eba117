#pragma once

#include <arrow/buffer.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <parquet/encoding.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <cstdint>
#include <memory>
#include <type_traits>

#include "ops/converter.h"
#include "source/data_page.h"
#include "source/page_runs.h"

namespace penstock {

/// The values of a chunk's pages, without the missing ones: plain values and dictionary indices by own means, all other
/// encodings by Parquet's decoders.
///
/// \tparam P  Parquet's physical type.
/// \tparam V  what its values are for the converter; BytesView looks at the page, or at the dictionary kept here.
/// Ownership: views the page that was opened last; the pool must outlive it. Threads: one at a time.
/// Errors: IOError where a page is not what it says; Parquet's decoders throw (see CatchParquet).
template <typename P, typename V>
class PageValues {
 public:
  using T = typename P::c_type;
  static constexpr bool kIsBytes = std::is_same_v<V, BytesView>;
  static constexpr bool kIsFixedBytes = std::is_same_v<P, parquet::FLBAType>;
  static_assert(kIsFixedBytes || sizeof(T) == sizeof(V));
  /// The most that is read at once where values are not simply copied.
  static constexpr int64_t kStrip = Converter::kStrip;

  PageValues(const parquet::ColumnDescriptor* descriptor, arrow::MemoryPool* pool)
      : descriptor_(descriptor), pool_(pool), stored_width_(kIsFixedBytes ? descriptor->type_length() : sizeof(V)) {}

  /// `count` plain values at `data`, as an array of V: the bytes where they are, aligned or not, or for BytesView a
  /// buffer that is made here.
  arrow::Result<const void*> PlainArray(const uint8_t* data, int64_t size, int64_t count,
                                        std::unique_ptr<arrow::Buffer>* views) const;

  /// Copies a dictionary, so that Read() can look its values up.
  arrow::Status KeepDictionary(const uint8_t* data, int64_t size, int64_t count);
  /// The same without copying: whoever holds `bytes` does not see them change. For kIsBytes.
  arrow::Status KeepDictionary(std::shared_ptr<arrow::Buffer> bytes, int64_t count);
  /// Says how long the dictionary is to a reader that needs no values, only indices.
  void SetDictionaryLength(int64_t count) { dictionary_length_ = count; }

  /// Goes on to another page.
  arrow::Status Open(const DataPageParts& page);
  /// Whether the page holds indices.
  bool has_indices() const { return kind_ == Kind::kIndices; }
  /// Whether Read() takes more than kStrip values.
  bool is_unlimited() const { return kind_ == Kind::kPlain && !kIsBytes; }

  arrow::Status Read(int64_t n, V* out);
  /// The next `n` indices, all of them within the dictionary; has_indices() only.
  arrow::Status ReadIndices(int64_t n, int32_t* out);
  arrow::Status Skip(int64_t n);

 private:
  enum class Kind { kPlain, kIndices, kOther };

  static bool TakeBytes(const uint8_t** at, const uint8_t* end, int64_t n, BytesView* out);
  static void ViewFixed(const uint8_t* data, int64_t width, int64_t n, BytesView* out);

  arrow::Status OpenIndices(const DataPageParts& page);
  arrow::Status OpenOther(const DataPageParts& page);
  arrow::Status ReadPlain(int64_t n, V* out);
  arrow::Status ReadOther(int64_t n, V* out);
  arrow::Result<uint8_t*> Scratch();

  const parquet::ColumnDescriptor* const descriptor_;
  arrow::MemoryPool* const pool_;
  const int64_t stored_width_;  // Of a plain value that is no byte array of its own length.

  std::shared_ptr<arrow::Buffer> dictionary_;        // Of V.
  std::shared_ptr<arrow::Buffer> dictionary_bytes_;  // What its views look at.
  int64_t dictionary_length_ = -1;

  Kind kind_ = Kind::kPlain;
  const uint8_t* at_ = nullptr;  // Plain values.
  const uint8_t* end_ = nullptr;
  RunDecoder runs_;                                  // Indices.
  std::unique_ptr<parquet::TypedDecoder<P>> other_;  // Of the encoding met last.
  std::unique_ptr<arrow::Buffer> scratch_;
};

}  // namespace penstock

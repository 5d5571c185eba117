#pragma once

#include <arrow/array/data.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/converter.h"
#include "ops/type_rule.h"

namespace penstock {

/// Buffers that LeafReader::Read fills where an array's own will not do. One thread at a time.
struct LeafScratch {
  static constexpr int64_t kElements = Converter::kStrip;

  alignas(64) uint8_t values[kElements * 16];
  alignas(64) uint8_t wide[kElements * 32];  ///< Bytes of decimal256 values.
  alignas(64) uint8_t valid[kElements];
  alignas(64) int32_t indices[kElements];
};

/// The elements of an Arrow array as ValueSpans, strip by strip: lists, tensors, extension types, dictionaries and
/// offsets resolved. Elements are counted from the first element of the array's row 0.
///
/// Ownership: keeps no reference: the array must outlive the reader. Threads: immutable.
class LeafReader {
 public:
  /// TypeError where PhysicalType has no answer for the leaf.
  static arrow::Result<LeafReader> Open(const arrow::ArrayData& array);

  DType type() const { return dictionary_ ? dictionary_->type_ : type_; }
  const std::shared_ptr<arrow::DataType>& leaf_type() const {
    return dictionary_ ? dictionary_->leaf_type_ : leaf_type_;
  }
  bool is_nested() const { return !levels_.empty(); }
  bool is_dictionary() const { return dictionary_ != nullptr; }
  /// Of the fixed-size lists, outermost first.
  std::vector<int64_t> list_sizes() const;

  /// Elements [first, first + n), n <= LeafScratch::kElements. The span lives as long as the array and until `scratch`
  /// is used again. Its `valid` is null where none of them is missing.
  arrow::Result<ValueSpan> Read(int64_t first, int64_t n, LeafScratch* scratch) const;

  /// For dictionaries: the indices of these elements into the values of dictionary(); those of missing elements (a null
  /// value in the dictionary is one, too) are 0. Invalid where one is outside of the dictionary.
  arrow::Result<ValueSpan> ReadIndices(int64_t first, int64_t n, LeafScratch* scratch) const;
  const LeafReader& dictionary() const { return *dictionary_; }
  int64_t length() const { return length_; }

  /// The first of these elements that lies in a missing list, or -1.
  int64_t FindNullList(int64_t first, int64_t n) const;

 private:
  enum class Storage { kFixed, kBits, kOffsets32, kOffsets64, kViews, kFixedBinary, kDecimal256 };
  struct Level {
    const uint8_t* bitmap;  ///< Null: all present.
    int64_t base;           ///< Absolute position of the list that holds element 0.
    int64_t size;           ///< Of one list, in lists of the next level.
    int64_t stride;         ///< Leaf elements in one list.
  };

  arrow::Status Descend(const arrow::ArrayData& array);
  arrow::Status OpenLeaf(const arrow::ArrayData& leaf);
  const uint8_t* ReadValid(int64_t first, int64_t n, uint8_t* valid) const;
  /// Values at indices[i], or at first + i where `indices` is null; into `scratch` or straight from the array.
  arrow::Result<const void*> ReadValues(int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n,
                                        LeafScratch* scratch) const;
  template <typename At>
  arrow::Status FillViews(At at, int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n,
                          BytesView* out) const;
  template <typename Offset>
  arrow::Status ReadOffsets(int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n,
                            BytesView* out) const;
  arrow::Status ReadViews(int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n, BytesView* out) const;
  void ReadDecimal256(int64_t first, const int32_t* indices, const uint8_t* valid, int64_t n,
                      LeafScratch* scratch) const;

  std::vector<Level> levels_;
  std::shared_ptr<arrow::DataType> leaf_type_;
  const arrow::ArrayData* leaf_ = nullptr;
  const uint8_t* bitmap_ = nullptr;  ///< Of the leaf; null: all present.
  const uint8_t* data_ = nullptr;    ///< Its buffer of values, offsets or views.
  int64_t base_ = 0;                 ///< Absolute position of element 0 in the leaf's buffers.
  int64_t length_ = 0;               ///< Of the leaf.
  int64_t width_ = 0;                ///< Bytes of an element in data_.
  DType type_ = DType::kInt64;
  Storage storage_ = Storage::kFixed;
  std::shared_ptr<const LeafReader> dictionary_;
};

/// Bits to bytes of 0 or 1.
void SpreadBits(const uint8_t* bits, int64_t offset, int64_t n, uint8_t* out);

}  // namespace penstock

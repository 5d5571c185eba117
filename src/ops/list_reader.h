#pragma once

#include <arrow/array/data.h>
#include <arrow/result.h>

#include <cstdint>

namespace penstock {

/// The lists of an Arrow array: list, large_list, list_view, large_list_view or map; extension types resolved.
///
/// Ownership: keeps no reference: the array must outlive the reader. Threads: immutable.
class ListReader {
 public:
  struct List {
    int64_t begin = 0;  ///< Its first item, counted from the first of items().
    int64_t size = 0;   ///< Items; 0 for a missing list.
    bool is_missing = false;
  };

  /// TypeError where the array is none of these.
  static arrow::Result<ListReader> Open(const arrow::ArrayData& array);

  List At(int64_t row) const;
  const arrow::ArrayData& items() const { return *items_; }

 private:
  enum class Layout { kOffsets32, kOffsets64, kViews32, kViews64 };

  Layout layout_ = Layout::kOffsets32;
  int64_t base_ = 0;                 ///< Absolute position of row 0 in the buffers.
  const uint8_t* bitmap_ = nullptr;  ///< Null: all present.
  const uint8_t* offsets_ = nullptr;
  const uint8_t* sizes_ = nullptr;  ///< Of views.
  const arrow::ArrayData* items_ = nullptr;
};

}  // namespace penstock

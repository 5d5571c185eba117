#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ops/chain.h"
#include "ops/converter.h"
#include "ops/leaf_reader.h"

namespace penstock {

/// The Converter of columns whose elements are numbers or strings, and what all kinds of intake share: a chain run over
/// strips of elements.
class CompiledConverter : public Converter {
 public:
  CompiledConverter(Field field, Chain chain, const NullPolicy& nulls, Layout layout);

  bool takes_arrays_only() const override { return false; }
  bool is_identity() const override;
  bool is_pure() const override { return chain_.spinners.empty(); }
  bool is_dear() const override { return !chain_.spinners.empty(); }

  const uint8_t* padding() const override { return chain_.is_packed ? chain_.pad.bytes.data() : nullptr; }

  arrow::Status Convert(const ValueSpan& input, int64_t first_row, SlotTarget target) const override;
  arrow::Status ConvertArray(const arrow::Array& array, int64_t offset, int64_t length, const RowKey& key,
                             SlotTarget target) const override;
  bool ConvertDictionary(const ValueSpan& dictionary, uint8_t* table) const override;
  arrow::Status Gather(const uint8_t* table, const int32_t* indices, const uint8_t* valid, int64_t length,
                       int64_t first_row, SlotTarget target) const override;
  arrow::Status ConvertConstant(const arrow::Scalar& value, int64_t length, SlotTarget target) const override;
  bool Fill(int64_t length, SlotTarget target) const override;

 protected:
  /// The calling thread's buffers, about 260 KiB: made at its first conversion, freed with the thread.
  struct Scratch {
    static constexpr int64_t kTableBytes = 64 << 10;

    alignas(64) uint8_t steps[2][kStrip * 16];  ///< Between kernels, in turns.
    alignas(64) uint8_t aligned[kStrip * 16];   ///< Input that is not aligned for its type.
    alignas(64) uint8_t table[kTableBytes];     ///< A dictionary's values, converted.
    LeafScratch leaf;
  };
  static Scratch& ThisThreadsScratch();

  const Chain& chain() const { return chain_; }
  int64_t width() const { return width_; }
  int64_t items() const { return items_; }
  SlotTarget Advance(SlotTarget target, int64_t elements) const {
    return {target.values + elements * width_, target.mask == nullptr ? nullptr : target.mask + elements};
  }

  /// Pays for the Spins of these rows.
  void Spend(const RowKey& key, int64_t rows) const;
  /// The chain over a span. `element`: of the span's first, counted from the first row of `key`.
  arrow::Status ConvertSpan(const ValueSpan& span, int64_t element, const RowKey& key, SlotTarget target) const;
  /// TypeError where the reader's array is of another type than promised.
  arrow::Status CheckArray(const LeafReader& reader) const;
  /// The chain over leaves [first, first + n) of an array; `table` as TableOf() gives it, or null.
  arrow::Status ConvertLeaves(const LeafReader& reader, int64_t first, int64_t n, int64_t element, const RowKey& key,
                              const uint8_t* table, SlotTarget target) const;
  /// `n` missing elements.
  arrow::Status WriteMissing(int64_t n, int64_t element, const RowKey& key, SlotTarget target) const;
  /// Copies the first row to the `length` - 1 behind it.
  void RepeatRow(int64_t length, SlotTarget target) const;

 private:
  /// The first value that did not convert.
  struct Fault {
    int64_t position;
    std::string complaint;
  };

  const uint8_t* missing() const { return chain_.fill ? chain_.fill->bytes.data() : nullptr; }
  int64_t RowOf(int64_t element, const RowKey& key) const;
  arrow::Status CheckAccepted(DType type) const;
  arrow::Status NullError(int64_t element, const RowKey& key) const;
  std::optional<Fault> RunKernels(const ValueSpan& span, int64_t n, uint8_t* out) const;
  arrow::Status ConvertStrip(const ValueSpan& span, int64_t element, const RowKey& key, SlotTarget target) const;
  arrow::Status ConvertLeafStrip(const LeafReader& reader, int64_t first, int64_t n, int64_t element, const RowKey& key,
                                 const uint8_t* table, SlotTarget target) const;
  const uint8_t* TableOf(const LeafReader& reader, int64_t elements) const;

  Chain chain_;
  int64_t width_;  // Of an output element, in bytes.
  int64_t items_;  // Elements of a row.
  bool refuses_null_lists_ = false;
  bool fails_on_null_ = false;
  std::string null_advice_;
};

/// For Intake::Kind::kListItems and kListLengths.
std::shared_ptr<const Converter> MakeListItemsConverter(Field field, Chain chain, const NullPolicy& nulls,
                                                        Layout layout);
std::shared_ptr<const Converter> MakeListLengthConverter(Field field, Chain chain, const NullPolicy& nulls,
                                                         Layout layout);
/// For Intake::Kind::kCustom.
std::shared_ptr<const Converter> MakeCustomConverter(Field field, Chain chain, const NullPolicy& nulls, Layout layout);

}  // namespace penstock

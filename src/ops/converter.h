#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "penstock/custom_op.h"
#include "penstock/options.h"
#include "penstock/schema.h"

namespace penstock {

/// A run of values of one type that somebody else owns: the input of a Converter.
struct ValueSpan {
  DType type = DType::kInt64;      ///< Of `values`.
  const void* values = nullptr;    ///< `length` elements, dense (a missing element's value is anything).
  const uint8_t* valid = nullptr;  ///< One byte per element, 1 = present; null: all present.
  int64_t length = 0;              ///< Elements, not rows.
};

/// Where converted values go: element pointers into a slot.
struct SlotTarget {
  uint8_t* values = nullptr;
  uint8_t* mask = nullptr;  ///< One byte per element, 1 = missing; null where the field has no mask.
};

/// One output column's way from the source's type to its slot: type rule, transforms, null policy, compiled once.
///
/// Ownership: shared by all workers, immutable.
/// Threads:   every const method may be called from any thread; scratch memory is the calling thread's own (bounded:
///            a few buffers of kStrip elements; thread_local, freed with the thread).
class Converter {
 public:
  /// Elements that are converted in one go; bounds scratch memory.
  static constexpr int64_t kStrip = 2048;

  /// \param field_name    of the output column.
  /// \param input         Arrow type (and nullability) of the source column.
  /// \param ops           run left to right.
  /// \param vocabulary    for dictionary input that no op consumes: the whole data set's values, in code order; may be
  /// null otherwise.
  /// \return the converter, or Invalid / TypeError whose message starts with "column 'name': " and names the op that
  /// helps
  ///         (for example "column 'carrier': strings have no tensor form; use ps.ops.hash_bucket or ps.ops.lookup").
  static arrow::Result<std::shared_ptr<const Converter>> Make(const std::string& field_name, const arrow::Field& input,
                                                              const std::vector<Op>& ops, const NullPolicy& nulls,
                                                              Layout layout, std::shared_ptr<arrow::Array> vocabulary);
  virtual ~Converter() = default;

  const Field& field() const { return field_; }
  /// True where only ConvertArray() and ConvertConstant() may be called: lists, and ops of the user's own.
  virtual bool takes_arrays_only() const = 0;
  /// True where values of the source may be written to the slot as they are (same width, no ops, no checks besides
  /// nulls): a reader may then decode straight into SlotTarget::values and only expand for nulls. The reader must also
  /// check that its values come as field().dtype: the source's type may have other physical forms (an int8 column that
  /// Parquet gives as kInt32, a date64 that it gives as days). False where missing values are filled: only the
  /// converter knows with what.
  virtual bool is_identity() const = 0;
  /// True where converting each distinct value once and gathering gives the same as converting per row (no Spin in the
  /// chain).
  virtual bool is_pure() const = 0;
  /// True for chains whose rows are dear (Spin, CustomOp::is_dear()): rows are then cut into many small morsels.
  virtual bool is_dear() const = 0;

  /// Converts values in the source's *physical* form, as a Parquet column reader gives them, or as an Arrow array's
  /// buffers hold them:
  /// - ints, floats, bool (kBool bytes), kBytes as they are; half as kFloat16 (from FLBA(2));
  /// - date32/time32 as kInt32; date64/time64/timestamp/duration as kInt64, in the column's unit;
  /// - decimals as unscaled kInt32 or kInt64, as kDecimal128, or as kBytes (big-endian two's complement);
  /// - narrow integers also as kInt32 (Parquet's physical form of int8..uint16), which fit by the file's own promise
  /// (checked).
  /// - uint32 also as kInt32 and uint64 as kInt64, with the same bits; date64 also as kInt32 days, as Parquet stores
  /// it. `input.values` may be target.values itself where is_identity(). target.values is aligned for field().dtype. Of
  /// several bad rows the first is reported.
  /// \param first_row  of the span within its row group, for messages ("row 17") and for keyed ops.
  /// \return Invalid with a message that names row and value; context (file, row group, column) is the caller's to add.
  virtual arrow::Status Convert(const ValueSpan& input, int64_t first_row, SlotTarget target) const = 0;

  /// Converts rows [offset, offset + length) of an Arrow array of the input type (dictionary arrays, fixed-size lists
  /// nested or not, booleans as bits, all string layouts, dictionary indices of any width, sliced arrays with offsets;
  /// where takes_arrays_only(), whatever the first op takes).
  /// \param key  the rows' numbers in their row group.
  virtual arrow::Status ConvertArray(const arrow::Array& array, int64_t offset, int64_t length, const RowKey& key,
                                     SlotTarget target) const = 0;

  /// For dictionary-encoded pages: converts each of the `dictionary`'s values once into `table` (length * element width
  /// bytes). Returns false, and no error, where some value does not convert (it may be unused by any row): the caller
  /// then converts per row.
  virtual bool ConvertDictionary(const ValueSpan& dictionary, uint8_t* table) const = 0;
  /// Gathers rows from such a table. `indices` are within [0, table length) (the caller checked); where `valid` is
  /// given, `indices` has an entry for each element, and those of missing elements are anything. Applies the null
  /// policy.
  virtual arrow::Status Gather(const uint8_t* table, const int32_t* indices, const uint8_t* valid, int64_t length,
                               int64_t first_row, SlotTarget target) const = 0;

  /// Of a chain with ops::Pack: what an item that fills up the last row becomes, one element; else null.
  virtual const uint8_t* padding() const { return nullptr; }

  /// Fills `length` missing or present copies of a single value (hive partition columns).
  virtual arrow::Status ConvertConstant(const arrow::Scalar& value, int64_t length, SlotTarget target) const = 0;

  /// Writes the fill value that the column has for missing values to `length` rows; false where it has none.
  virtual bool Fill(int64_t length, SlotTarget target) const = 0;

 protected:
  Field field_;
};

}  // namespace penstock

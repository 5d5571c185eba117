#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "penstock/dtype.h"

namespace penstock {

/// One buffer of a column whose rows vary in size.
struct Strand {
  enum class Kind : uint8_t {
    kValues,   ///< `width` bytes per element; bools one byte each, 0 or 1.
    kOffsets,  ///< int64 per element, and one more in front of each batch's first.
    kMask,     ///< One byte per element, 1 = missing.
  };
  Kind kind = Kind::kValues;
  int domain = 0;  ///< What its elements are: 0 for rows, else what a list or string further up counts.
  int64_t width = 0;
};

/// How lists of numbers lie in strands, for Batch::RaggedColumn().
struct RaggedForm {
  struct Level {
    int domain = 0;
    int offsets = -1;  ///< Strands; a mask may be -1: none.
    int mask = -1;
  };
  std::vector<Level> levels;  ///< Outermost first.
  int domain = 0;             ///< What the innermost lists count.
  int values = -1;
  int mask = -1;
  DType dtype = DType::kInt64;
  std::vector<int64_t> shape;  ///< Of one element of `domain`: fixed-size lists around the numbers.
  int extents = -1;            ///< Strand of the shapes of variable-shape tensors; -1: they are none.
};

/// How a column whose rows vary in size (strings, binary, lists, structs and maps of them, nested at will) lies in a
/// slot, and how rows of Arrow arrays get there.
///
/// The type is taken apart into strands, as Arrow does it, with 64-bit offsets. Elements of domain 0 are rows: their
/// strands have a place in the fixed part of the slot. Each list and each string or binary opens a further domain (its
/// items, its bytes), whose strands lie in arenas of the slot, as long as the data turns out to be. Within a domain, a
/// batch's elements are contiguous and in row order; its offsets count from the batch's own first element. So a batch
/// is a set of Arrow buffers without copying.
///
/// Ownership: immutable, shared by all workers. Threads: any. Blocking: none.
class VaryingColumn {
 public:
  /// Batches begin at multiples of this many elements in every domain, so that all strands are aligned.
  static constexpr int64_t kAlignment = 8;

  struct Options {
    bool has_masks = true;    ///< False: nothing may be missing at any level; FindNull() tells where something is.
    bool as_tensors = false;  ///< Numbers as tensors have them: decimals as float64, date64 as days.
  };

  /// \param input  type and nullability of the source column.
  /// \return TypeError where the type has no such form, naming the remedy; the message does not name the column.
  static arrow::Result<std::shared_ptr<const VaryingColumn>> Make(const arrow::Field& input, const Options& options);
  static arrow::Result<std::shared_ptr<const VaryingColumn>> Make(const arrow::Field& input) { return Make(input, {}); }
  virtual ~VaryingColumn() = default;

  /// Of the arrays that Array() gives: large_string, large_binary, large_list, ... instead of narrower and view
  /// layouts; what dictionaries and run ends stand for; sparse unions. Maps, and extension types whose storage cannot
  /// be widened, keep their type.
  virtual const std::shared_ptr<arrow::DataType>& type() const = 0;
  virtual const std::vector<Strand>& strands() const = 0;
  /// Domains beside the rows: 1 .. num_domains(). May be 0 (a struct of numbers).
  virtual int num_domains() const = 0;

  /// Set for lists of numbers, and for struct<data: list of numbers, shape: fixed-size list>.
  virtual std::optional<RaggedForm> ragged() const = 0;

  /// The same rows in a form that Count(), FindNull() and Copy() take: layouts without offsets (views, run ends,
  /// dictionaries within nested types) are rewritten with memory from `pool`; others come back as they are. Call it
  /// where a block is decoded. \return TypeError where the array is of another type than Make() was told.
  virtual arrow::Result<std::shared_ptr<arrow::Array>> Normalize(std::shared_ptr<arrow::Array> array,
                                                                 arrow::MemoryPool* pool) const = 0;

  /// Elements of domain d that rows [begin, begin + rows) have, to counts[d - 1]. Costs a few reads, not a pass over
  /// rows.
  virtual void Count(const arrow::Array& array, int64_t begin, int64_t rows, int64_t* counts) const = 0;

  /// The first of rows [begin, begin + rows) with something missing, at any level, that has no mask; or -1. Such rows
  /// are the caller's to refuse before Copy(), which would take them for values. Costs nothing where there is no such
  /// level or nothing is missing.
  virtual int64_t FindNull(const arrow::Array& array, int64_t begin, int64_t rows) const = 0;

  /// Where rows of one batch go.
  struct Target {
    uint8_t* const* strands = nullptr;  ///< Element 0 of the slot in each strand.
    int64_t batch = 0;               ///< Number of the batch in its slot: offsets of element e are at e + batch (+ 1).
    int64_t row = 0;                 ///< Of the first row to write, in the slot.
    int64_t batch_row = 0;           ///< Of the batch's first row, in the slot.
    const int64_t* first = nullptr;  ///< [d - 1]: first element to write in domain d, in the slot.
    const int64_t* batch_first = nullptr;  ///< [d - 1]: the batch's first element in domain d.
  };
  /// Copies rows [begin, begin + rows) of a normalised array, all of one batch.
  virtual void Copy(const arrow::Array& array, int64_t begin, int64_t rows, const Target& target) const = 0;

  /// Where the target's batch begins in each strand, for Batch::Column. Writes the 0 in front of the batch's offsets:
  /// call it once, when all its rows are there.
  std::vector<uint8_t*> View(const Target& batch) const;

  /// A batch of `rows` rows as an Arrow array over the slot's memory. Packs bools and masks to bits, and offsets of
  /// types that want them narrow, in place: call it once.
  /// \param strands  from View(). \param counts  [d - 1]: the batch's elements in domain d. \param hold  keeps the
  /// slot.
  /// \return CapacityError where a type with 32-bit offsets (a map) has more than 2^31 - 1 elements in the batch.
  virtual arrow::Result<std::shared_ptr<arrow::Array>> Array(uint8_t* const* strands, int64_t rows,
                                                             const int64_t* counts,
                                                             const std::shared_ptr<void>& hold) const = 0;
};

}  // namespace penstock

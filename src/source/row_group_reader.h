#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "memory/reserved_pool.h"
#include "source/input.h"
#include "source/parquet_file.h"
#include "source/piece_reader.h"
#include "source/projection.h"

namespace penstock {

/// Decides per output, by file: direct for flat leaf columns whose physical and logical type Converter::Convert takes
/// as documented there; through Arrow for all others (nested, INT96, dear chains, dictionaries of odd types, where
/// Arrow's schema asks for another type than the Parquet schema by itself does). With a filter, or where
/// !use_direct_decode, everything (but partition columns) goes through Arrow.
ReadPlan MakeReadPlan(const Projection& projection, const ParquetFile& file, bool use_direct_decode);

/// Footer's word on the memory that decoding takes, in bytes. Footers can lie: these are promises to be reserved, not
/// bounds. For a direct column: stream buffer + one compressed and one decompressed page + dictionary, each at most the
/// chunk's size.
int64_t EstimateDirectBytes(const ParquetFile& file, int row_group, const Projection& projection,
                            const std::vector<int>& outputs);
/// For reading a piece of `rows` rows by a PieceReader: per-column stream and page buffers as above + the piece's
/// arrays (twice, where a filter copies).
int64_t EstimatePieceBytes(const ParquetFile& file, int row_group, const Projection& projection,
                           const std::vector<int>& outputs, int64_t rows, bool use_direct_decode);

/// Of all the row group's columns: their bytes before compression, or what the items of lists take as an array where
/// that is more (a mask of all ones is next to nothing in the file).
int64_t EstimateDecodedBytes(const ParquetFile& file, int row_group);

/// What the rows' values take beside what they take per row (see Input::ArenaBytes).
int64_t EstimateArenaBytes(const ParquetFile& file, int row_group, const Projection& projection);

/// See Input::MostItems().
int64_t MostItemsOf(const ParquetFile& file, int row_group, const Projection& projection);

/// Items of all lists of a column of lists of numbers, where the footer has counted them; nullopt otherwise.
std::optional<int64_t> NumItems(const ParquetFile& file, int row_group, const OutputColumn& output);

/// Where a reader writes one output column: row 0 of the slot's array.
struct SlotColumn {
  uint8_t* values = nullptr;
  uint8_t* mask = nullptr;  ///< Null where the field has no mask.
};

/// Decodes some columns of one row group, from its first row to its last, straight into slots, see DirectColumn.
///
/// Ownership: keeps the file and the pool alive. Threads: one at a time; may move between threads. Blocking: reads.
class DirectReader {
 public:
  /// \param outputs    positions in projection.outputs, all from ReadPlan::direct.
  /// \param skip_rows  rows at the front to pass over (a reader that was closed for want of memory is opened again
  /// where it stood).
  static arrow::Result<std::unique_ptr<DirectReader>> Open(std::shared_ptr<const ParquetFile> file, int row_group,
                                                           const Projection& projection, std::vector<int> outputs,
                                                           std::shared_ptr<ReservedPool> pool, int64_t skip_rows);
  virtual ~DirectReader() = default;

  /// Decodes the next `rows` rows into targets[i] (for outputs[i]) from row `slot_row` of the slot on.
  /// \return OutOfMemory where the pool refused: nothing is lost, open a new reader at the row where this call began.
  ///         Other errors start with "'path', row group g, column 'c': ". A column chunk with fewer values than the
  ///         footer says is IOError.
  virtual arrow::Status Read(int64_t rows, const std::vector<SlotColumn>& targets, int64_t slot_row) = 0;
};

/// A PieceReader of a row group.
/// \param piece_rows  rows to read at once, >= 1.
/// \param use_direct_decode  flat strings and lists of numbers are decoded by bytes_column.h and list_column.h; other
/// columns, and all where it is false, by Arrow's reader.
/// \param sample_key  of the row group (see SampleKey), where there is a sample.
arrow::Result<std::unique_ptr<PieceReader>> OpenRowGroupPieces(std::shared_ptr<const ParquetFile> file, int row_group,
                                                               const Projection& projection, std::vector<int> outputs,
                                                               std::shared_ptr<ReservedPool> pool, int64_t piece_rows,
                                                               int64_t skip_rows, bool use_direct_decode,
                                                               uint64_t sample_key = 0);

}  // namespace penstock

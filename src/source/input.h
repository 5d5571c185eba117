#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memory/reserved_pool.h"
#include "source/fetch_plan.h"
#include "source/piece_reader.h"
#include "source/projection.h"

namespace arrow::internal {
class Executor;
}

namespace penstock {

class DirectReader;
class RangeReader;

/// How the columns of an input are read: decoded straight into the slot, or through Arrow arrays.
struct ReadPlan {
  std::vector<int> direct;         ///< Outputs (positions in Projection::outputs) read by DirectReader.
  std::vector<int> through_arrow;  ///< Outputs read by PieceReader, as Arrow arrays.
  std::vector<int> constant;       ///< Partition columns.
  bool use_direct_decode = false;  ///< As the option; false: Arrow's reader makes all arrays.
};

/// How many DirectReaders share `columns` columns of `rows` rows: so many workers can decode them at once.
int64_t NumDirectReaders(int64_t columns, int64_t rows);

/// One thing that is open and has chunks: a Parquet file (its chunks are row groups), an Arrow file (record batches), a
/// table, one batch of a stream. Checked against the projection when it was opened; what it holds is charged to the
/// ledger from then until it dies.
///
/// Ownership: shared by the chunks that are read. Threads: every method may be called from any thread.
/// Blocking: the readers read, nothing else does.
class Input {
 public:
  virtual ~Input() = default;

  virtual int num_chunks() const = 0;
  virtual int64_t rows(int chunk) const = 0;
  /// For messages: "'path', row group 3".
  virtual std::string Where(int chunk) const = 0;
  const ReadPlan& read_plan() const { return read_plan_; }
  /// One per partition field of the data set, in its type.
  virtual const arrow::ScalarVector& partition_values() const = 0;
  /// Its file's position in the source; 0 where there are no files.
  int64_t file() const { return file_index_; }
  /// Rows of its file (or of the stream) that come before it.
  int64_t begin_row() const { return begin_row_; }
  /// Of the metadata: the same for the same data, wherever it lies. 0 where there is none.
  virtual uint64_t digest() const { return 0; }
  /// Charged as metadata, in bytes.
  virtual int64_t metadata_bytes() const { return 0; }
  /// Bytes that were charged when they were seen (what a user's iterable gave).
  virtual int64_t pulled_bytes() const { return 0; }
  /// False where the projection's filter cannot be true for any row of the chunk, by what is known without reading.
  virtual arrow::Result<bool> MayMatch(const Projection& projection, int chunk) const = 0;

  /// What is to be reserved for decoding; in bytes. Metadata can lie: these are promises, not bounds.
  /// DirectBytes: of all columns of ReadPlan::direct. PieceBytes: of reading ReadPlan::through_arrow with `rows` rows
  /// of pieces held. DecodedBytes: of all the chunk's rows as arrays.
  virtual int64_t DirectBytes(const Projection& projection, int chunk) const = 0;
  virtual int64_t PieceBytes(const Projection& projection, int chunk, int64_t rows) const = 0;
  virtual int64_t DecodedBytes(int chunk) const = 0;
  /// Of one column where the chunk lies; 0: not known.
  virtual int64_t StoredBytes(int chunk, const std::string& column) const = 0;

  /// Items of all lists of an output, where that is known without reading.
  virtual std::optional<int64_t> NumItems(const OutputColumn& /*output*/, int /*chunk*/) const { return std::nullopt; }

  /// What the chunk's rows take in the arenas of slots: columns of varying size, but for what they take per row.
  virtual int64_t ArenaBytes(const Projection& projection, int chunk) const = 0;

  /// The most items that the lists of a packed projection have; -1: not known before they are read.
  virtual int64_t MostItems(const Projection& /*projection*/, int /*chunk*/) const { return -1; }

  /// How the bytes of a chunk that are needed come from far away, in at most `most_bytes` of memory; no blocks where
  /// they are near. Fetch() carries it out, with requests made `ahead` where that is not null, and the chunk's readers
  /// are then opened from Through() of that.
  virtual FetchPlan PlanFetch(const Projection& /*projection*/, int /*chunk*/, int64_t /*most_bytes*/) const {
    return {};
  }
  virtual std::shared_ptr<RangeReader> Fetch(FetchPlan /*plan*/, std::shared_ptr<ReservedPool> /*pool*/,
                                             arrow::internal::Executor* /*ahead*/) const {
    return nullptr;
  }
  virtual std::shared_ptr<const Input> Through(std::shared_ptr<RangeReader> /*ranges*/) const { return nullptr; }

  /// A reader of some of ReadPlan::through_arrow; with a filter, of all.
  /// \param piece_rows  rows to read at once, >= 1.
  /// \param skip_rows   rows at the front to pass over (a reader that was closed for want of memory is opened again
  ///                    where it stood).
  virtual arrow::Result<std::unique_ptr<PieceReader>> OpenPieces(const Projection& projection, int chunk,
                                                                 std::vector<int> outputs,
                                                                 std::shared_ptr<ReservedPool> pool, int64_t piece_rows,
                                                                 int64_t skip_rows) const = 0;
  /// A reader of some of ReadPlan::direct.
  virtual arrow::Result<std::unique_ptr<DirectReader>> OpenDirect(const Projection& projection, int chunk,
                                                                  std::vector<int> outputs,
                                                                  std::shared_ptr<ReservedPool> pool,
                                                                  int64_t skip_rows) const = 0;

 protected:
  ReadPlan read_plan_;  ///< Constant once it is open, as what follows.
  int64_t file_index_ = 0;
  int64_t begin_row_ = 0;
};

/// The part of an input that is read as one: a row group, a record batch. Its rows [first_row, end_row) are wanted.
struct ChunkSpec {
  std::shared_ptr<const Input> input;
  int index = 0;
  int64_t rows = 0;  ///< Of the whole chunk, > 0.
  int64_t first_row = 0;
  int64_t end_row = rows;
  int64_t skip_items = 0;  ///< Of the first row, where lists are packed: that are not wanted.
  int64_t run_row = 0;     ///< Rows, before a filter, that come before in all that is read.
  int64_t file_row = 0;    ///< Rows of its file (or of the stream) that come before it.
  int64_t epoch = 0;       ///< In which it is read.

  std::string Where() const { return input->Where(index); }
};

}  // namespace penstock

#pragma once

#include <arrow/compute/type_fwd.h>
#include <arrow/filesystem/type_fwd.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/ops.h"

namespace penstock {

/// What becomes of missing values where no transform has filled them (FillNull).
struct NullPolicy {
  enum class Kind { kError, kMask };
  Kind otherwise = Kind::kError;              ///< For columns not in `fill`.
  std::map<std::string, ops::FillNull> fill;  ///< By output column.
};

/// How batches are laid out. kTensor: each type as torch and NumPy want it. kArrow: as Arrow wants it, nulls carried.
enum class Layout { kTensor, kArrow };

/// What becomes of the rows that do not divide by the number of ranks. kDrop: nobody gets them (counted in the stats).
/// kRepeat: the rows at the front of the epoch come again at its end, so that all ranks have as many.
enum class Uneven { kDrop, kRepeat };

/// With a filter or ops::Pack, by what ranks get as much. kNone: by rows read, so that the rows that pass may differ.
/// kRows: by rows that pass, or packed rows, which are counted first.
enum class Balance { kNone, kRows };

/// Whether slots are page-locked, for copies to a GPU. kWherePossible: where the driver refuses, they stay as they are,
/// and the statistics say so. kRequired: a refusal is an error, but of slots that are only added for idle workers.
enum class PinMemory { kNo, kWherePossible, kRequired };

/// A part of the rows, chosen by a number in [0, 1) that is drawn for each: those with begin <= number < end. Samples
/// with one seed whose bounds do not overlap have no row in common.
struct RowSample {
  int64_t seed = 0;
  double begin = 0;
  double end = 1;
};

/// Names for `columns` that stand for where a row comes from. kRowIdColumn: its position in its file (in the table; in
/// the stream), from 0, int64. kFileColumn: its file, as a code whose vocabulary is the list of paths, int32.
inline constexpr std::string_view kRowIdColumn = "__row_id__";
inline constexpr std::string_view kFileColumn = "__file__";

/// Gives a reader of the batches of one epoch. Called on the thread that starts the epoch; the reader is then asked by
/// one worker at a time. Schemas of single batches may differ as those of files may.
using BatchReaderFactory = std::function<arrow::Result<std::shared_ptr<arrow::RecordBatchReader>>()>;

/// Where rows come from: exactly one of `paths`, `table` and `batches`.
struct LoaderOptions {
  /// Files, folders (hive partitions become columns), glob patterns or one URI, in this order; a folder's and a
  /// pattern's files sorted by path.
  std::vector<std::string> paths;
  /// Null: the local file system, or what a URI names.
  std::shared_ptr<arrow::fs::FileSystem> filesystem;
  /// Partition columns of `paths`, one row per path (which must then be files); null: hive folders.
  std::shared_ptr<arrow::RecordBatch> partitions;

  /// The caller's: read in each epoch, not charged.
  std::shared_ptr<arrow::Table> table;

  /// Batches that are made one by one. Each is charged from when it is seen until its last row is copied; none is asked
  /// for while there is no room for one like the last.
  BatchReaderFactory batches;
  bool is_one_shot = false;  ///< `batches` can be called once: the loader has one epoch.

  int64_t batch_size = 1024;
  bool drop_last = false;
  std::optional<std::vector<std::string>> columns;           ///< Not set: all.
  std::shared_ptr<const arrow::compute::Expression> filter;  ///< Null: every row. Its columns need not be in `columns`.
  std::optional<RowSample> sample;                           ///< Not set: every row.
  std::vector<Transform> transforms;
  NullPolicy nulls;
  Layout layout = Layout::kTensor;

  /// Slots that batches are views of are locked in memory, through NVIDIA's driver, which is found at run time. Of
  /// columns whose rows vary in size, what is per row is; their values are not.
  PinMemory pin_memory = PinMemory::kNo;
  /// The GPU whose primary context is taken for that; -1: the one that is current on the thread that calls
  /// StartEpoch(), else the first that this process uses, else GPU 0. Slots are locked for all of them.
  int pin_device = -1;
  /// Who copies batches to a GPU waits for the end of each copy before letting go of the batch. False: a slot that
  /// comes back is not used again before the GPUs have done all that they had been given by then.
  bool waits_for_copies = false;

  int num_workers = -1;       ///< -1: the cores that this process may use; 0: all work on the caller's thread.
  int prefetch_batches = -1;  ///< Finished batches ahead; -1 ("auto"): one slot, and more where it helps.
  int64_t memory_budget_bytes = int64_t{1} << 30;
  bool in_order = true;
  std::optional<int64_t> limit;  ///< The most rows of an epoch.

  /// Batches that code between Next() and their consumer (Python's collate_fn) may hold, beside the consumer's own, >=
  /// 0. Memory for them is set aside, and the finished one among them counts as one of `prefetch_batches`.
  int collate_batches = 0;
  int collate_workers = 0;  ///< Threads that run that code; for the statistics.
  /// Whoever calls Next() is not the consumer: see Loader::ConsumerCalled().
  bool is_consumer_apart = false;
  /// Rank r of w gets the r-th of w consecutive parts of an epoch.
  int64_t rank = 0;
  int64_t world_size = 1;
  Uneven uneven = Uneven::kDrop;
  Balance balance = Balance::kNone;
  int64_t epochs = 1;  ///< Of one iteration: a batch may have rows of two.

  /// Another order in each epoch: row groups over the whole data set, rows within windows. With a filter, the rows that
  /// pass are counted first. Of a source that is read to be counted, such as a stream, only the rows within windows.
  bool shuffle = false;
  /// What an order follows from, beside the data and the number of the epoch.
  uint64_t seed = 0;
  /// Memory in which rows are mixed; half of it is filled while the other is emptied. Counted in whole pages: below
  /// 1 MiB it may take more.
  int64_t shuffle_window_bytes = int64_t{256} << 20;
  /// Rows of a window, whatever they take; 0: as many as shuffle_window_bytes has room for.
  int64_t shuffle_window_rows = 0;

  /// Rows whose values do not convert and row groups and files that cannot be read are left out, counted and named in
  /// the statistics, instead of ending the iteration. Other batches change only where nobody knows how many rows are
  /// missing: files, and row groups behind a filter (docs/order.md). Everything goes through Arrow arrays then,
  /// whatever use_direct_decode says.
  bool skips_errors = false;
  /// More errors than that in one iteration end it; -1: no limit.
  int64_t max_errors = -1;

  /// False: everything goes through Arrow arrays. Slower, with equal results; for tests and for ruling out a suspect.
  bool use_direct_decode = true;
};

/// "256MiB", "1.5 GB", "4096" -> bytes. Invalid where it is no size.
[[nodiscard]] arrow::Result<int64_t> ParseBytes(std::string_view text);
/// 268435456 -> "256.0 MiB".
[[nodiscard]] std::string FormatBytes(int64_t bytes);

/// Cores that this process may use: affinity and cgroup quota; >= 1.
[[nodiscard]] int AvailableCores();
/// Memory that this process may use: the cgroup's limit or the machine's memory.
[[nodiscard]] int64_t AvailableMemoryBytes();

}  // namespace penstock

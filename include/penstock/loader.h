#pragma once

#include <arrow/result.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "penstock/batch.h"
#include "penstock/options.h"
#include "penstock/schema.h"
#include "penstock/state.h"
#include "penstock/stats.h"

namespace penstock {

/// Streams batches of equal size from files, tables and streams, in order, within a memory budget.
///
///   LoaderOptions options;
///   options.paths = {"train/"};
///   ARROW_ASSIGN_OR_RAISE(auto loader, Loader::Make(std::move(options)));
///   ARROW_RETURN_NOT_OK(loader->StartEpoch());
///   while (true) {
///     ARROW_ASSIGN_OR_RAISE(std::optional<Batch> batch, loader->Next());
///     if (!batch) break;
///     Train(*batch);
///   }
///
/// Ownership: owns its worker threads; batches may outlive it.
/// Threads:   StartEpoch(), Next() and EndEpoch() from one thread at a time; Stats(), Memory() and Close() from any.
/// Blocking:  Make() and Explain() read footers; Next() waits for the workers; EndEpoch() and Close() join them.
/// Fork:      in a forked child every call is an error (threads do not survive a fork).
class Loader {
 public:
  /// Finds the files, reads the first footer, compiles the transforms, checks the budget; starts no thread.
  /// \return the loader, or Invalid (bad options, unknown columns, a budget below the least that works: the message
  /// gives the number), TypeError
  ///         (a column that has no tensor form), IOError (a file that is missing or is not Parquet).
  [[nodiscard]] static arrow::Result<std::unique_ptr<Loader>> Make(LoaderOptions options);
  virtual ~Loader() = default;

  /// Starts the next epoch (or `epochs` of them) from its first row, or from where Resume() said; ends one that is
  /// still open.
  [[nodiscard]] virtual arrow::Status StartEpoch() = 0;

  /// The next batch; nullopt at the end of the epoch. After an error the epoch is over and each further call gives
  /// nullopt.
  ///
  /// \return the batch, or
  ///   - CapacityError  if only the caller could free memory: it holds too many batches (see held_batches());
  ///   - Cancelled      if Close() was called meanwhile, or the process forked;
  ///   - IOError, Invalid, ... from reading and converting, naming file, row group, column.
  [[nodiscard]] virtual arrow::Result<std::optional<Batch>> Next() = 0;

  /// As Next(), but gives up after `timeout` with `*timed_out` set (for callers that must look after signals).
  [[nodiscard]] virtual arrow::Result<std::optional<Batch>> NextFor(std::chrono::nanoseconds timeout,
                                                                    bool* timed_out) = 0;

  /// As Next(), where that takes neither waiting nor work: a further batch of the slot that the last one came from;
  /// nullopt where there is none. For who makes something of several batches at once.
  [[nodiscard]] virtual std::optional<Batch> NextAtHand() = 0;

  /// Ends the epoch: stops and joins the workers. Idempotent.
  virtual void EndEpoch() = 0;
  /// Ends everything; batches in the caller's hand stay valid. Idempotent; may be called while another thread is in
  /// Next(), which then returns Cancelled.
  virtual void Close() = 0;
  virtual bool is_closed() const = 0;

  /// Where the caller is: the batches that it has got count, whatever is under way. Between two epochs: at the start of
  /// the next. Takes microseconds; may be called from any thread, at any time.
  /// \return the state, or Invalid for a source whose rows show when they are read (a stream).
  [[nodiscard]] virtual arrow::Result<EpochState> State() const = 0;
  /// Makes the next StartEpoch() go on from `states`: with exactly the batches that would have come. One state serves
  /// all ranks where they step together, also for another world size; else every rank needs the states of all.
  /// \return Invalid, naming what differs, where the state is not of this data or order. Opens all inputs once.
  [[nodiscard]] virtual arrow::Status Resume(std::vector<EpochState> states) = 0;
  /// Makes the next StartEpoch() begin epoch `epoch`, in [0, 2^32). A state of that epoch that was given to Resume()
  /// stands.
  [[nodiscard]] virtual arrow::Status SetEpoch(int64_t epoch) = 0;

  virtual const std::shared_ptr<const Schema>& schema() const = 0;
  /// Batches of one iteration. TypeError where the number is not known ahead (a filter or ops::Pack, unless it is
  /// balanced). Reads all footers the first time.
  [[nodiscard]] virtual arrow::Result<int64_t> NumBatches() = 0;
  [[nodiscard]] virtual arrow::Result<int64_t> NumRows() = 0;
  /// Reads all footers the first time.
  [[nodiscard]] virtual arrow::Result<Explanation> Explain() = 0;
  virtual StatsReport Stats() const = 0;
  virtual MemoryReport Memory() const = 0;
  /// With PinMemory::kWherePossible: why slots are not page-locked; empty where none was refused.
  virtual std::string PinRefusal() const = 0;
  /// Batches whose memory the caller still holds.
  virtual int64_t held_batches() const = 0;
  /// The options, with num_workers resolved.
  virtual const LoaderOptions& options() const = 0;

  /// Where the user's code makes something of a batch before the consumer gets it: to charge what it made.
  virtual const std::shared_ptr<Ledger>& ledger() const = 0;
  /// With LoaderOptions::is_consumer_apart these say, instead of Next(), when the consumer asked and what it got,
  /// which is what State() goes by.
  virtual void ConsumerCalled() = 0;
  /// \param rows  of what the consumer got; 0 at the end of the epoch, or where it got an error.
  virtual void ConsumerReturned(int64_t rows) = 0;
  /// Time that the user's code took for one batch; from any thread.
  virtual void AddUserCode(UserCode stage, int64_t busy_ns) = 0;
};

/// What `paths` hold, for people who have not yet decided how to read them.
struct FileSummary {
  struct Column {
    std::string name, type, physical_type;
    bool is_nullable = true;
    int64_t compressed_bytes = 0, uncompressed_bytes = 0;
    std::string codecs, encodings;
  };
  int64_t files = 0, row_groups = 0, rows = 0, size_bytes = 0;  ///< rows: -1 where only reading all data would tell.
  int64_t smallest_row_group_rows = 0, largest_row_group_rows = 0, largest_row_group_bytes = 0;
  std::vector<Column> columns;
};
/// Reads all footers; of text and Arrow streams the beginning of the first file.
[[nodiscard]] arrow::Result<FileSummary> Summarize(const std::vector<std::string>& paths,
                                                   std::shared_ptr<arrow::fs::FileSystem> filesystem = nullptr);

}  // namespace penstock

#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "penstock/ledger.h"
#include "penstock/mutex.h"
#include "penstock/options.h"
#include "penstock/state.h"
#include "plan/catalog.h"
#include "plan/epoch_run.h"
#include "plan/plan_cursor.h"
#include "source/source.h"

namespace penstock {

/// Which rows a loader reads in which epoch, and where its user is.
///
/// Ownership: of the loader; what it is made of must outlive it.
/// Threads:   every method may be called from any thread.
/// Blocking:  Init(), StartRun(), Resume() and NumRows() may open all inputs, and with balance = rows read the filter's
///            columns, or lists that are packed.
class Order {
 public:
  Order(const LoaderOptions* options, Source* source, const Projection* projection, std::shared_ptr<Ledger> ledger)
      : options_(options), source_(source), projection_(projection), ledger_(std::move(ledger)) {}

  /// Invalid where rank, world_size, epochs or balance make no sense, or the source cannot be divided.
  arrow::Status Init();
  /// The rows of a shuffle's window. Call before work starts.
  void SetWindow(int64_t rows) PENSTOCK_EXCLUDES(mu_);

  struct Start {
    PlanCursor cursor;
    std::optional<int64_t> limit;  ///< Of rows given, where the cursor does not see to it.
    int64_t skip_items = 0;        ///< Of the first row's items, that were given before (ops::Pack); the cursor knows.
    bool is_shuffled = false;      ///< What the cursor reads is to be mixed...
    WindowCursor windows;          ///< ... within these windows.
    int64_t rows = 0;              ///< Given; where it is shuffled. kUnknownRows: as many as come.
    EpochRun run;                  ///< For Began(), as what follows.
    int64_t given_rows = 0;
    int64_t times_asked = 0;
  };
  /// The next iteration: what Resume() asked for, or the next epoch. It stays the next one until Began().
  arrow::Result<Start> StartRun() PENSTOCK_EXCLUDES(mu_, catalog_mu_);
  /// Nothing can fail any more: the iteration is the present one, and what Resume() asked for is done with.
  void Began(const Start& start) PENSTOCK_EXCLUDES(mu_);

  /// A batch has left the scheduler, or `nullptr`: there are no more.
  void Took(const BatchOrigin* origin) PENSTOCK_EXCLUDES(mu_);
  /// The user has got the oldest batch that Took() told of and that it has not yet got.
  void Gave() PENSTOCK_EXCLUDES(mu_);
  /// The user has got the end of the iteration, or an error in place of a batch.
  void GaveEnd() PENSTOCK_EXCLUDES(mu_);

  /// See Loader.
  arrow::Result<EpochState> State() const PENSTOCK_EXCLUDES(mu_);
  arrow::Status Resume(std::vector<EpochState> states) PENSTOCK_EXCLUDES(mu_, catalog_mu_);
  arrow::Status SetEpoch(int64_t epoch) PENSTOCK_EXCLUDES(mu_);

  /// Whether an iteration reads anything but one whole epoch.
  bool is_divided() const {
    return PermutesChunks() || options_->world_size > 1 || options_->epochs > 1 ||
           (IsBalanced() && projection_->filter != nullptr) || CountsPackedRows();
  }
  /// Whether the rows of an iteration are known ahead.
  bool is_counted() const {
    return (!projection_->discovers_rows() || IsBalanced() || CountsPackedRows()) && source_->is_counted();
  }
  /// Rows of an iteration from its start; is_counted() only.
  arrow::Result<int64_t> NumRows() PENSTOCK_EXCLUDES(mu_, catalog_mu_);
  /// Of the iteration that began last, all ranks together.
  int64_t dropped_rows() const PENSTOCK_EXCLUDES(mu_);
  int64_t repeated_rows() const PENSTOCK_EXCLUDES(mu_);

  /// Gives the catalog's memory back.
  void Close() PENSTOCK_EXCLUDES(catalog_mu_);

 private:
  /// Whether positions in an epoch count the rows that pass filter and sample. Those of a sample can be told without
  /// reading.
  bool IsBalanced() const {
    return projection_->selects_rows() && !projection_->packing.is_any() &&
           (projection_->filter == nullptr || options_->balance == Balance::kRows || PermutesChunks());
  }
  /// Whether positions in an epoch count rows that are packed, and the catalog the items that they are made of.
  bool CountsPackedRows() const { return projection_->packing.is_any() && options_->balance == Balance::kRows; }
  /// Of what is read to be counted, only the rows within windows are shuffled.
  bool PermutesChunks() const { return options_->shuffle && source_->is_counted(); }
  /// Whether what is mixed within windows are not rows of the source: the run then is of documents, and windows are of
  /// what is made of them.
  bool MixesPackedRows() const { return options_->shuffle && projection_->packing.is_any(); }
  void GaveOneLocked() PENSTOCK_REQUIRES(mu_);
  void GaveEmptyLocked() PENSTOCK_REQUIRES(mu_);
  EpochRun::Ranks Ranks() const { return {options_->rank, options_->world_size, options_->uneven}; }
  InputContext Context() const { return {projection_, ledger_, options_->use_direct_decode}; }
  arrow::Status CheckRanks() const;
  arrow::Status CheckPacking() const;
  arrow::Status CheckCanResume() const;
  arrow::Result<std::shared_ptr<const Catalog>> ReadCatalog() PENSTOCK_EXCLUDES(mu_, catalog_mu_);
  /// Rows of an epoch, all ranks together.
  int64_t EpochRows(const Catalog& catalog) const;
  arrow::Status CheckEnoughRows(int64_t epoch_rows) const;
  /// Of a window of packed rows that is gone on in: those that are made again and not given.
  int64_t AgainRows(int64_t given_rows) const { return MixesPackedRows() ? given_rows % window_rows_ : 0; }
  /// What is read for the packed rows that are left to give in `run`, as a run of the catalog's items. Sets the limit,
  /// and how many rows of this rank's share were given.
  EpochRun ItemsOf(const Catalog& catalog, const EpochRun& run, Start* start) const;
  /// See PlanCursor::PlaceOf.
  arrow::Result<SourcePlace> PlaceOf(const Input& opened, int64_t number, int chunk, int64_t position);
  PlanCursor CursorOf(std::shared_ptr<const Catalog> catalog, EpochRun run);

  const LoaderOptions* const options_;
  Source* const source_;
  const Projection* const projection_;
  const std::shared_ptr<Ledger> ledger_;
  int64_t window_rows_ = 0;  // Constant after SetWindow().

  Mutex catalog_mu_;
  std::shared_ptr<const Catalog> catalog_ PENSTOCK_GUARDED_BY(catalog_mu_);

  mutable Mutex mu_;
  EpochState own_ PENSTOCK_GUARDED_BY(mu_);  // What every state of this loader has in common.
  InputsDigest seen_ PENSTOCK_GUARDED_BY(mu_);
  int64_t next_epoch_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int64_t times_asked_ PENSTOCK_GUARDED_BY(mu_) = 0;          // For an iteration, by Resume() and SetEpoch().
  std::optional<EpochRun> pending_ PENSTOCK_GUARDED_BY(mu_);  // Asked for by Resume().
  std::optional<EpochRun> run_ PENSTOCK_GUARDED_BY(mu_);      // The present iteration, or the one before its end.
  RowRanges had_ PENSTOCK_GUARDED_BY(mu_);                    // Of the run, by the user.
  std::deque<BatchOrigin> on_the_way_ PENSTOCK_GUARDED_BY(mu_);
  bool is_all_taken_ PENSTOCK_GUARDED_BY(mu_) = false;
  int64_t given_rows_ PENSTOCK_GUARDED_BY(mu_) = 0;   // Of the epoch, towards the limit; MixesPackedRows(): of the run.
  int64_t given_items_ PENSTOCK_GUARDED_BY(mu_) = 0;  // Of the row behind `had_`, or where `pending_` goes on.
  int64_t dropped_rows_ PENSTOCK_GUARDED_BY(mu_) = 0, repeated_rows_ PENSTOCK_GUARDED_BY(mu_) = 0;
};

}  // namespace penstock

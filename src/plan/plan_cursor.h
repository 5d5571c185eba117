#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "plan/catalog.h"
#include "plan/chunk_order.h"
#include "plan/epoch_run.h"
#include "plan/window_cursor.h"
#include "source/input.h"
#include "source/source.h"

namespace penstock {

/// Walks over the chunks that a run reads, in order, one input open at a time; leaves out empty chunks and those that
/// the filter rules out. Without a catalog it begins at the first row of the source and goes to its end.
///
/// Ownership: `projection` must outlive it. Threads: one at a time. Blocking: as InputSequence.
class PlanCursor {
 public:
  /// Starts an epoch of the source, or starts it again.
  using OpenInputs = std::function<arrow::Result<std::unique_ptr<InputSequence>>()>;
  /// Called with each input's position and Input::digest().
  using OnInput = std::function<void(int64_t number, uint64_t digest)>;
  /// Where the catalog counts survivors of filter and sample, or items of lists: where in the chunk the one of that
  /// position is.
  /// \param opened  the input, which is the source's `number`-th.
  using PlaceOf =
      std::function<arrow::Result<SourcePlace>(const Input& opened, int64_t number, int chunk, int64_t position)>;

  /// At the end from the start.
  PlanCursor() = default;
  PlanCursor(std::unique_ptr<InputSequence> inputs, const Projection* projection, EpochRun run)
      : inputs_(std::move(inputs)), projection_(projection), run_(std::move(run)) {}
  PlanCursor(OpenInputs open, const Projection* projection, std::shared_ptr<const Catalog> catalog, EpochRun run)
      : open_(std::move(open)), projection_(projection), catalog_(std::move(catalog)), run_(std::move(run)) {}

  /// The next chunk; nullopt after the last. Errors name the input.
  arrow::Result<std::optional<ChunkSpec>> Next();

  int64_t chunks_pruned() const { return chunks_pruned_; }
  /// What Next() is likely to have charged when it is seen.
  int64_t next_pulled_bytes() const {
    return input_ == nullptr && inputs_ != nullptr ? inputs_->next_pulled_bytes() : 0;
  }
  /// Reads the chunks in another order in each epoch, and all rows of the windows that the run needs.
  void set_shuffle(ShufflePlan shuffle, std::shared_ptr<Ledger> ledger) {
    shuffle_ = shuffle;
    ledger_ = std::move(ledger);
  }
  int64_t next_store_bytes() const { return input_ == nullptr && inputs_ != nullptr ? inputs_->next_store_bytes() : 0; }
  void set_on_input(OnInput on_input) { on_input_ = std::move(on_input); }
  /// \param cuts_ends  false where a limit ends the run: what lies behind it in its last chunk is then not looked for.
  void set_place_of(PlaceOf place_of, bool cuts_ends) {
    place_of_ = std::move(place_of);
    cuts_ends_ = cuts_ends;
  }
  /// Of the first row, that were given before (ops::Pack).
  void set_skip_items(int64_t items) { skip_items_ = items; }

 private:
  arrow::Result<std::optional<ChunkSpec>> NextInSequence();
  arrow::Result<std::optional<ChunkSpec>> NextInCatalog();
  arrow::Status OpenInput(int64_t number);
  arrow::Status StartEpoch();
  void CloseInput();
  int64_t FileRowOf(int chunk);
  arrow::Status CutToCounted(const Catalog::Chunk& chunk, int64_t begin, int64_t end, ChunkSpec* spec) const;

  OpenInputs open_;
  std::unique_ptr<InputSequence> inputs_;  ///< Null before the first and after the last.
  const Projection* projection_ = nullptr;
  std::shared_ptr<const Input> input_;
  OnInput on_input_;
  int64_t next_input_ = 0;  ///< Number of the one that inputs_ gives next.
  int64_t chunks_pruned_ = 0;
  int64_t run_row_ = 0;  ///< Of the next row.

  const Input* file_row_of_ = nullptr;  ///< Of which file_row_ rows come before the chunk file_row_chunk_.
  int file_row_chunk_ = 0;
  int64_t file_row_ = 0;

  int next_chunk_ = 0;  ///< Without a catalog.

  std::shared_ptr<const Catalog> catalog_;
  EpochRun run_;
  PlaceOf place_of_;
  bool cuts_ends_ = false;
  int64_t skip_items_ = 0;  ///< Of the next chunk's first row, beside what place_of_ says.
  std::optional<ShufflePlan> shuffle_;
  std::shared_ptr<Ledger> ledger_;  ///< For the order of the chunks.
  std::unique_ptr<const ChunkOrder> chunk_order_;
  int64_t epoch_ = 0;  ///< Of the run.
  bool is_in_epoch_ = false;
  RowRanges ranges_;  ///< Of the epoch.
  size_t range_ = 0;
  int64_t had_ = 0;  ///< Of the range.
};

}  // namespace penstock

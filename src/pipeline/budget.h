#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>

#include "batch/slot_layout.h"
#include "penstock/ledger.h"
#include "penstock/options.h"
#include "pipeline/survey.h"
#include "plan/sizing.h"
#include "source/projection.h"
#include "source/source.h"

namespace penstock {

/// What of a loader its budget is divided by, beside what a survey finds. What it points to must outlive it.
struct BudgetTerms {
  const LoaderOptions* options = nullptr;
  const Source* source = nullptr;
  const Projection* projection = nullptr;
  std::shared_ptr<const Schema> schema;
  int64_t metadata_bytes = 0;  ///< Of the source (the list of files) and the vocabularies.
  bool has_catalog = false;    ///< The list of row groups is held as well.
  int gated_slots = 0;         ///< Let go of, but maybe still read by a device (CopyGate).
};

/// What a slot of `layout` takes, with the arenas that are expected.
int64_t SlotBytes(const SlotLayout& layout, const Survey& survey);

/// The windows of a shuffle. All zero without one.
struct ShuffleRoom {
  ShuffleSizing sizing;
  std::shared_ptr<const SlotLayout> slab_layout;  ///< Slabs are slots of one batch.
  int64_t slab_bytes = 0;
  int64_t bytes = 0;  ///< Of all slabs, and of the order of their rows.

  /// \param data_rows  of the data that is shuffled, or -1: little data needs no large window.
  static ShuffleRoom Of(const BudgetTerms& terms, const Survey& survey, int64_t data_rows);
};

/// The least budget that works: the windows of a shuffle, slots of one batch (one is filled, one is the caller's, and
/// what collate and devices hold), one chunk in its smallest pieces, and the metadata of the inputs that are open.
struct LeastBudget {
  int64_t slots = 0;
  int64_t slot_bytes = 0;  ///< Of one slot.
  int64_t chunk_bytes = 0;
  int64_t metadata_bytes = 0;
  int64_t shuffle_bytes = 0;

  static LeastBudget Of(const BudgetTerms& terms, const Survey& survey, const ShuffleRoom& shuffle);
  int64_t bytes() const { return shuffle_bytes + metadata_bytes + slots * slot_bytes + chunk_bytes; }
  /// Invalid where the options' budget is smaller: what takes how much, and what to do.
  arrow::Status Check(const BudgetTerms& terms) const;
};

/// Who gets what of a loader's budget. Made once, before anything runs.
struct BudgetDivision {
  SlotSizing sizing;                         ///< Of the slots that the caller gets...
  std::shared_ptr<const SlotLayout> layout;  ///< ... and what lies where in them.
  ShuffleRoom shuffle;
  int64_t most_decode_bytes = 0;  ///< What decoding one chunk may count on.
  Ledger::Room room;              ///< What the ledger is to set aside, so that nothing starves.

  /// \param first        of the inputs that were looked at.
  /// \param known_rows   of an epoch, or -1: slots are not made larger than that.
  /// \param data_rows    see ShuffleRoom.
  /// \return Invalid where the budget is below the least that works.
  static arrow::Result<BudgetDivision> Of(const BudgetTerms& terms, const Survey& first, int64_t known_rows,
                                          int64_t data_rows);
};

}  // namespace penstock

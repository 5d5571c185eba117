#include "pipeline/budget.h"

#include <algorithm>
#include <string>
#include <utility>

namespace penstock {
namespace {

// Inputs whose metadata (footers) the budget always has room for: of the one being read, of the one that the plan is
// ahead, and of one that len() looks at.
constexpr int64_t kInputsOpen = 3;
// Of a few hundred chunks; what more of them take in the list is taken as they are found.
constexpr int64_t kCatalogBytes = 4096;
constexpr int64_t kMostFooterSpareBytes = int64_t{4} << 20;
constexpr auto kOrderBytes = static_cast<int64_t>(sizeof(uint32_t));  // Per row of a window.

SlotLayout OneBatchLayout(const BudgetTerms& terms) {
  const LoaderOptions& options = *terms.options;
  return {terms.schema, options.batch_size, 1, options.memory_budget_bytes, terms.projection->packing};
}

// What all rows of a slot are likely to take in arenas.
int64_t ArenaBytes(const SlotLayout& layout, const Survey& survey) {
  const bool has_fewer = survey.all_rows >= 0 && !layout.packing().is_any();
  return ExpectedArenaBytes(survey.arena_row_bytes,
                            has_fewer ? std::min(layout.rows(), survey.all_rows) : layout.rows());
}

// Rows that a slot need not be larger than; -1: no such bound.
int64_t MostSlotRows(const BudgetTerms& terms, const Survey& first, const ShuffleRoom& shuffle, int64_t known_rows) {
  if (terms.options->shuffle) {
    // A slot larger than a window would have to wait for several.
    const int64_t half_rows = std::max<int64_t>(1, shuffle.sizing.window_rows / 2);
    return known_rows < 0 ? half_rows : std::min(known_rows, half_rows);
  }
  if (terms.projection->packing.is_any()) return known_rows;
  // Nor is a slot to wait for more than a stream gives at once: who reads from it may be slow.
  if (first.stream_rows > 0) return known_rows < 0 ? first.stream_rows : std::min(known_rows, first.stream_rows);
  return known_rows < 0 ? first.all_rows : known_rows;
}

}  // namespace

int64_t SlotBytes(const SlotLayout& layout, const Survey& survey) {
  return layout.bytes() + ArenaBytes(layout, survey) + layout.ArenaOverheadBytes();
}

ShuffleRoom ShuffleRoom::Of(const BudgetTerms& terms, const Survey& survey, int64_t data_rows) {
  const LoaderOptions& options = *terms.options;
  ShuffleRoom room;
  if (!options.shuffle) return room;
  const Packing& packing = terms.projection->packing;
  auto schema = std::make_shared<Schema>(*terms.schema);
  for (Field& field : *schema) field.has_segments = false;  // They are those of a batch.
  const double row_bytes =
      std::max(1.0, static_cast<double>(SlotLayout::BatchBytes(*schema, 1)) +
                        static_cast<double>(ExpectedArenaBytes(survey.arena_row_bytes, 1'000'000)) / 1e6);
  const auto choose = [&](const ShuffleSizing& sizing) {
    // A state says where a window begins; where slabs do is known.
    room.sizing = packing.is_any() ? sizing.InWholeSlabs() : sizing;
    room.slab_layout =
        std::make_shared<SlotLayout>(schema, room.sizing.slab_rows, 1, options.memory_budget_bytes, packing);
    room.slab_bytes = SlotBytes(*room.slab_layout, survey);
  };
  const bool is_by_rows = options.shuffle_window_rows > 0;
  if (is_by_rows) choose(ShuffleSizing::OfRows(options.shuffle_window_rows, row_bytes));
  // Slabs are whole pages: what that costs comes off the window, so that it keeps to its bytes unless it is tiny.
  const int64_t window_bytes = options.shuffle_window_bytes;
  constexpr int64_t kLeastBytes = int64_t{1} << 20;
  int64_t target_bytes = window_bytes;
  for (int attempt = 0; !is_by_rows && attempt < 4; ++attempt) {
    choose(ShuffleSizing::Of(target_bytes, row_bytes));
    const int64_t bytes = room.sizing.most_slabs(-1) * room.slab_bytes + 2 * room.sizing.window_rows * kOrderBytes;
    if (bytes <= window_bytes || window_bytes < kLeastBytes) break;
    target_bytes = static_cast<int64_t>(static_cast<double>(target_bytes) * static_cast<double>(window_bytes) /
                                        static_cast<double>(bytes));
  }
  const int64_t two_windows_rows = 2 * room.sizing.window_rows;
  // Packed rows are not counted: there is an order for as many as a window can have.
  const int64_t order_rows =
      data_rows < 0 || packing.is_any() ? two_windows_rows : std::min(two_windows_rows, data_rows);
  room.bytes = room.sizing.most_slabs(data_rows) * room.slab_bytes + order_rows * kOrderBytes;
  return room;
}

LeastBudget LeastBudget::Of(const BudgetTerms& terms, const Survey& survey, const ShuffleRoom& shuffle) {
  LeastBudget least;
  least.slots = 2 + int64_t{terms.options->collate_batches} + terms.gated_slots;
  least.slot_bytes = SlotBytes(OneBatchLayout(terms), survey);
  least.chunk_bytes = survey.least_chunk_bytes;
  least.metadata_bytes =
      terms.metadata_bytes + kInputsOpen * survey.most_input_bytes + (terms.has_catalog ? kCatalogBytes : 0);
  least.shuffle_bytes = shuffle.bytes;
  return least;
}

arrow::Status LeastBudget::Check(const BudgetTerms& terms) const {
  const LoaderOptions& options = *terms.options;
  if (options.memory_budget_bytes >= bytes()) return arrow::Status::OK();
  std::string what_for = ":";
  std::string remedy = ", lower batch_size or select fewer columns.";
  if (options.shuffle) {
    const bool is_by_rows = options.shuffle_window_rows > 0;
    what_for = is_by_rows ? " for shuffle windows of " + std::to_string(options.shuffle_window_rows) + " rows"
                          : " for a shuffle_window of " + FormatBytes(options.shuffle_window_bytes);
    what_for += ": the window takes " + FormatBytes(shuffle_bytes) + ", and";
    remedy = is_by_rows ? " or mix fewer rows at a time." : " or lower shuffle_window.";
  }
  return arrow::Status::Invalid("memory_budget of ", FormatBytes(options.memory_budget_bytes), " is too small",
                                what_for, " the least that works here is ", bytes(), " bytes (",
                                slots == 2 ? "two" : std::to_string(slots), " slots of ", FormatBytes(slot_bytes), ", ",
                                FormatBytes(chunk_bytes), " to decode a ", terms.source->chunk_name(), ", ",
                                FormatBytes(metadata_bytes), " of metadata). Raise memory_budget", remedy);
}

arrow::Result<BudgetDivision> BudgetDivision::Of(const BudgetTerms& terms, const Survey& first, int64_t known_rows,
                                                 int64_t data_rows) {
  const LoaderOptions& options = *terms.options;
  const int64_t budget_bytes = options.memory_budget_bytes;
  BudgetDivision division;
  division.shuffle = ShuffleRoom::Of(terms, first, data_rows);
  const LeastBudget least = LeastBudget::Of(terms, first, division.shuffle);
  ARROW_RETURN_NOT_OK(least.Check(terms));

  // Beside windows, metadata and what decodes one chunk, slots are as large as the rest allows.
  const int64_t rest_bytes = budget_bytes - least.metadata_bytes - least.shuffle_bytes;
  const SlotLayout batch = OneBatchLayout(terms);
  SlotSizing& sizing = division.sizing;
  sizing = SlotSizing::Of(options, *terms.projection, *terms.schema, ArenaBytes(batch, first) + batch.BatchEndBytes(),
                          MostSlotRows(terms, first, division.shuffle, known_rows),
                          rest_bytes - least.chunk_bytes - 3 * batch.ArenaOverheadBytes());
  sizing.collate_slots += terms.gated_slots;
  Packing packing = terms.projection->packing;
  packing.has_whole_rows = options.shuffle;
  division.layout =
      std::make_shared<SlotLayout>(terms.schema, options.batch_size, sizing.batches_per_slot, budget_bytes, packing);
  sizing.slot_bytes = SlotBytes(*division.layout, first);

  const int64_t slot_bytes = (2 + sizing.collate_slots) * sizing.slot_bytes;
  // Footers further on may be larger than the first; where the budget is not tight, it shall not be they that fail.
  const bool is_tight = budget_bytes < 2 * least.bytes();
  const int64_t spare_bytes = is_tight ? 0 : std::min(kMostFooterSpareBytes, budget_bytes / 16);
  division.most_decode_bytes = rest_bytes - slot_bytes - spare_bytes;
  division.room = {.slot_bytes = slot_bytes,
                   .decode_bytes = std::min(division.most_decode_bytes, 2 * first.most_chunk_bytes),
                   .metadata_bytes = least.metadata_bytes + spare_bytes,
                   .shuffle_bytes = least.shuffle_bytes};
  return division;
}

}  // namespace penstock

#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "batch/slot_layout.h"
#include "memory/slot_memory.h"
#include "penstock/batch.h"
#include "penstock/ledger.h"
#include "penstock/mutex.h"
#include "penstock/schema.h"

namespace penstock {

/// Where a row of a window lies: slab and row in it.
struct SlabRow {
  uint32_t slab = 0;
  uint32_t row = 0;
};

/// Bytes that every row has from `offset` on, and where they go, those of one row after those of the other.
struct GatheredItem {
  int64_t offset = 0;
  int64_t bytes = 0;
  uint8_t* to = nullptr;
};

/// Copies items of rows, wherever these lie.
/// \param slabs  the first row of each. \param row_bytes  from one row of a slab to the next.
void GatherItems(std::span<const uint8_t* const> slabs, std::span<const SlabRow> rows, int64_t row_bytes,
                 std::span<GatheredItem> items);

/// Rows as records: what the columns have of a row, values and masks, next to each other. Whoever takes rows in random
/// order from more than the caches hold waits for memory once for a row then, not once for each of its columns.
///
/// Ownership: immutable value. Threads: any; every caller of Gather() writes rows of its own.
class RecordLayout {
 public:
  /// nullopt where records do not pay: rows that vary in size, a column alone, columns wider than a cache line.
  static std::optional<RecordLayout> Of(const Schema& schema);

  int64_t record_bytes() const { return record_bytes_; }
  /// Copies all rows of a batch of the schema to the records at `records`.
  void Write(const Batch& batch, uint8_t* records) const;
  /// Copies records to rows of a slot: `rows` to the slot's rows from `slot_row` on.
  /// \param slabs  the records of each.
  void Gather(std::span<const uint8_t* const> slabs, std::span<const SlabRow> rows, const SlotLayout& layout,
              uint8_t* base, int64_t slot_row) const;

 private:
  struct Item {
    int column = 0;
    bool is_mask = false;
    int64_t bytes = 0;
    int64_t offset = 0;  ///< In the record.
  };
  RecordLayout() = default;

  std::vector<Item> items_;
  int64_t record_bytes_ = 0;
};

/// Memory for slabs of records, charged to `shuffle`. What is given back stays mapped, and charged, until the pool
/// goes: a window's slabs come back together, and are wanted again at once.
///
/// Ownership: by shared_ptr; slabs keep it. Threads: any.
class RecordPool : public std::enable_shared_from_this<RecordPool> {
 public:
  /// A slab's memory. Ownership: gives it back when it dies.
  class Slab {
   public:
    Slab(std::shared_ptr<RecordPool> pool, SlotMemory memory) : pool_(std::move(pool)), memory_(std::move(memory)) {}
    ~Slab() { pool_->GiveBack(std::move(memory_)); }
    Slab(const Slab&) = delete;
    Slab& operator=(const Slab&) = delete;

    uint8_t* data() const { return memory_.data(); }
    const RecordLayout& layout() const { return pool_->layout(); }

   private:
    const std::shared_ptr<RecordPool> pool_;
    SlotMemory memory_;
  };

  /// \param slab_rows  of a slab. \param most_slabs  that are likely to be there at once; more are possible.
  RecordPool(RecordLayout layout, int64_t slab_rows, int64_t most_slabs, std::shared_ptr<Ledger> ledger);
  ~RecordPool();
  RecordPool(const RecordPool&) = delete;
  RecordPool& operator=(const RecordPool&) = delete;

  const RecordLayout& layout() const { return layout_; }
  /// OutOfMemory where the budget or the system has none.
  arrow::Result<std::unique_ptr<Slab>> Take() PENSTOCK_EXCLUDES(mu_);

 private:
  void GiveBack(SlotMemory memory) PENSTOCK_EXCLUDES(mu_);
  arrow::Result<SlotMemory> Map();

  const RecordLayout layout_;
  const int64_t slab_bytes_;
  const std::shared_ptr<Ledger> ledger_;
  const std::shared_ptr<SlotRegion>
      region_;  // Null where the system refused it: each slab is a mapping of its own then.
  Mutex mu_;
  std::vector<SlotMemory> spare_ PENSTOCK_GUARDED_BY(mu_);
};

}  // namespace penstock

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "batch/varying_column.h"
#include "ops/packing.h"
#include "penstock/batch.h"
#include "penstock/schema.h"
#include "source/row_group_reader.h"

namespace penstock {

class ArenaFill;

/// Where each column lies in a slot. Its rows are those of the batches, but with a packing: then they are items, so
/// many of which are a row of a batch (unless Packing::has_whole_rows). A slot holds a run of consecutive batches,
/// column-major over all its rows, so that a column is written in one piece and every batch is a view.
///
/// Columns of fixed size have their place in the fixed part. Columns whose rows vary in size have their strands there
/// as far as they are per row, and arenas behind it for all others: address space of which each slot uses as much as
/// its data takes. The domains of all such columns are numbered through: column i has first_domain(i) and following.
///
/// Ownership: immutable value. Threads: any.
class SlotLayout {
 public:
  /// \param batch_size  in rows of batches. \param schema  of the batches.
  /// \param most_arena_bytes  of one slot: what its arenas can grow to at the most (the budget).
  SlotLayout(std::shared_ptr<const Schema> schema, int64_t batch_size, int64_t batches_per_slot,
             int64_t most_arena_bytes, Packing packing = {});

  int64_t batch_rows() const { return batch_rows_; }
  int64_t batches_per_slot() const { return batches_per_slot_; }
  int64_t rows() const { return batch_rows_ * batches_per_slot_; }
  const Packing& packing() const { return packing_; }
  /// Of one row of the slot, in column `i` of fixed size.
  int64_t row_bytes(int i) const { return row_elements(i) * ByteWidth((*schema_)[static_cast<size_t>(i)].dtype); }
  int64_t row_elements(int i) const {
    return (*schema_)[static_cast<size_t>(i)].items() / packing_.slot_rows_per_row();
  }
  /// Of the fixed part. Whole pages, > 0.
  int64_t bytes() const { return bytes_; }
  /// Address space of all arenas.
  int64_t arena_address_bytes() const { return arena_address_bytes_; }
  const std::shared_ptr<const Schema>& schema() const { return schema_; }

  /// Of all columns together; 0: there are no arenas.
  int num_domains() const { return num_domains_; }
  int first_domain(int column) const { return places_[static_cast<size_t>(column)].first_domain; }
  /// Memory of the arenas where domain d has used[d] elements; whole pages.
  int64_t ArenaBytes(const int64_t* used) const;
  /// What arenas take beside their data: the rest of their last pages, the ends of batches.
  int64_t ArenaOverheadBytes() const;
  /// Of that, what each batch's end takes.
  int64_t BatchEndBytes() const;
  /// The most elements that domain d has room for.
  int64_t domain_capacity(int domain) const { return capacities_[static_cast<size_t>(domain)]; }

  /// Row 0 of column `i` in the slot at `base`. Of fixed size.
  SlotColumn Column(uint8_t* base, int i) const {
    const Place& place = places_[static_cast<size_t>(i)];
    return {base + place.values, place.mask < 0 ? nullptr : base + place.mask};
  }
  /// The strands of column `i` in the slot at `base`. Of varying size.
  std::vector<uint8_t*> Strands(uint8_t* base, int i) const;
  /// Batch number `batch` of the slot at `base`, of `num_rows` of the slot's rows. `fill` is null where there are no
  /// arenas.
  Batch View(uint8_t* base, const ArenaFill* fill, int64_t batch, int64_t num_rows, std::shared_ptr<void> hold) const;

  /// Bytes that one batch of this schema takes in the fixed part, masks included, before rounding.
  static int64_t BatchBytes(const Schema& schema, int64_t batch_size);

 private:
  struct Place {
    int64_t values = 0;
    int64_t mask = -1;
    int64_t segments = -1;
    int first_domain = 0;
    std::vector<int64_t> strands;
  };
  struct Arena {
    int domain;
    int64_t width;
    int64_t extra;  ///< Elements beside those of the domain.
  };
  int64_t BatchSegmentBytes() const;
  int64_t PlaceDense(int column, int64_t end, Place* place);
  int64_t PlaceVarying(const VaryingColumn& column, int64_t end, Place* place);
  void PlaceArenas(int64_t most_arena_bytes);

  std::shared_ptr<const Schema> schema_;
  Packing packing_;
  int64_t batch_rows_;
  int64_t batches_per_slot_;
  int64_t bytes_ = 0;
  int64_t arena_address_bytes_ = 0;
  int num_domains_ = 0;
  std::vector<Place> places_;
  std::vector<Arena> arenas_;
  std::vector<int64_t> capacities_;
};

/// How far the arenas of one slot are filled, and where each of its batches begins in them.
class ArenaFill {
 public:
  explicit ArenaFill(const SlotLayout& layout)
      : num_domains_(static_cast<size_t>(layout.num_domains())),
        used_(num_domains_),
        first_(num_domains_ * static_cast<size_t>(layout.batches_per_slot())),
        counts_(first_.size()) {}

  /// Elements per domain, gaps between batches included.
  int64_t* used() { return used_.data(); }
  /// The batch's first element per domain...
  int64_t* first(int64_t batch) { return first_.data() + static_cast<size_t>(batch) * num_domains_; }
  const int64_t* first(int64_t batch) const { return first_.data() + static_cast<size_t>(batch) * num_domains_; }
  /// ... and how many it has.
  int64_t* counts(int64_t batch) { return counts_.data() + static_cast<size_t>(batch) * num_domains_; }
  const int64_t* counts(int64_t batch) const { return counts_.data() + static_cast<size_t>(batch) * num_domains_; }

 private:
  size_t num_domains_;
  std::vector<int64_t> used_, first_, counts_;
};

}  // namespace penstock

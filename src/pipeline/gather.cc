#include "pipeline/gather.h"

#include <arrow/array/array_base.h>
#include <arrow/array/util.h>
#include <arrow/extension_type.h>

#include <algorithm>
#include <cstring>

namespace penstock {
namespace {

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Without extension types, which say nothing of where things lie.
std::shared_ptr<arrow::ArrayData> StorageOf(const arrow::ArrayData& data) {
  auto storage = data.Copy();
  if (data.type->id() == arrow::Type::EXTENSION) {
    storage->type = static_cast<const arrow::ExtensionType&>(*data.type).storage_type();
  }
  for (auto& child : storage->child_data) child = StorageOf(*child);
  return storage;
}

void GatherColumn(const std::vector<const uint8_t*>& from, std::span<const SlabRow> rows, int64_t width, uint8_t* out) {
  if (width == 0) return;
  GatheredItem item{0, width, out};
  GatherItems(from, rows, width, {&item, 1});
}

void GatherRecords(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows,
                   const SlotLayout& layout, uint8_t* base, int64_t slot_row) {
  std::vector<const uint8_t*> from;
  from.reserve(slabs.size());
  for (const auto& slab : slabs) from.push_back(slab->records->data());
  slabs.front()->records->layout().Gather(from, rows, layout, base, slot_row);
}

/// The rows of one batch, in one column of varying size.
class VaryingGather {
 public:
  VaryingGather(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows,
                const SlotLayout& layout, int column)
      : slabs_(slabs),
        rows_(rows),
        column_(static_cast<size_t>(column)),
        varying_(*(*layout.schema())[column_].varying),
        num_domains_(static_cast<size_t>(varying_.num_domains())) {}

  size_t num_domains() const { return num_domains_; }

  std::vector<int64_t> Count() const {
    std::vector<int64_t> all(num_domains_), one(num_domains_);
    for (const SlabRow& row : rows_) {
      varying_.Count(ArrayOf(row), row.row, 1, one.data());
      for (size_t d = 0; d < num_domains_; ++d) all[d] += one[d];
    }
    return all;
  }

  /// \param target  of the first row; moved on.
  void Copy(VaryingColumn::Target target, std::vector<int64_t> first) const {
    std::vector<int64_t> one(num_domains_);
    target.first = first.data();
    for (const SlabRow& row : rows_) {
      const arrow::Array& array = ArrayOf(row);
      varying_.Copy(array, row.row, 1, target);
      varying_.Count(array, row.row, 1, one.data());
      for (size_t d = 0; d < num_domains_; ++d) first[d] += one[d];
      ++target.row;
    }
  }

 private:
  const arrow::Array& ArrayOf(const SlabRow& row) const { return *slabs_[row.slab]->arrays[column_]; }

  std::span<const std::shared_ptr<const Slab>> slabs_;
  std::span<const SlabRow> rows_;
  const size_t column_;
  const VaryingColumn& varying_;
  const size_t num_domains_;
};

arrow::Status GatherBatch(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows,
                          const SlotLayout& layout, uint8_t* base, int64_t slot_row, ArenaFill* fill,
                          const std::function<arrow::Status(const int64_t* used)>& take) {
  const int64_t batch = slot_row / layout.batch_rows();
  const int64_t batch_row = batch * layout.batch_rows();
  for (int column = 0; column < static_cast<int>(layout.schema()->size()); ++column) {
    if ((*layout.schema())[static_cast<size_t>(column)].varying == nullptr) continue;
    const VaryingGather gather(slabs, rows, layout, column);
    const std::vector<int64_t> counts = gather.Count();
    const int first_domain = layout.first_domain(column);
    std::vector<int64_t> first(gather.num_domains());
    for (size_t d = 0; d < first.size(); ++d) {
      const auto domain = static_cast<int>(d) + first_domain;
      int64_t& used = fill->used()[domain];
      if (slot_row == batch_row) fill->first(batch)[domain] = used = RoundUp(used, VaryingColumn::kAlignment);
      first[d] = used;
      used += counts[d];
      fill->counts(batch)[domain] += counts[d];
      if (used > layout.domain_capacity(domain)) {
        return arrow::Status::OutOfMemory("the rows of one slot take more than memory_budget; raise it");
      }
    }
    ARROW_RETURN_NOT_OK(take(fill->used()));
    const std::vector<uint8_t*> strands = layout.Strands(base, column);
    VaryingColumn::Target target;
    target.strands = strands.data();
    target.batch = batch;
    target.row = slot_row;
    target.batch_row = batch_row;
    target.batch_first = fill->first(batch) + first_domain;
    gather.Copy(target, std::move(first));
  }
  return arrow::Status::OK();
}

}  // namespace

arrow::Result<std::shared_ptr<arrow::Array>> StorageColumn(const Batch& batch, int column) {
  ARROW_ASSIGN_OR_RAISE(const auto array, batch.ArrayColumn(column));
  return arrow::MakeArray(StorageOf(*array->data()));
}

arrow::Result<std::shared_ptr<const Slab>> MakeSlab(Batch batch, LostRows lost, RecordPool* pool) {
  auto slab = std::make_shared<Slab>();
  slab->num_rows = batch.num_rows();
  slab->lost = std::move(lost);
  if (pool != nullptr) {
    ARROW_ASSIGN_OR_RAISE(auto records, pool->Take());
    pool->layout().Write(batch, records->data());
    slab->records = std::move(records);
    return slab;
  }
  slab->arrays.resize(static_cast<size_t>(batch.num_columns()));
  slab->has_missing.resize(slab->arrays.size());
  for (int i = 0; i < batch.num_columns(); ++i) {
    const auto at = static_cast<size_t>(i);
    const Field& field = batch.schema()[at];
    if (field.varying == nullptr) {
      const uint8_t* mask = batch.column(i).mask;
      const auto mask_bytes = static_cast<size_t>(batch.num_rows() * field.items());
      slab->has_missing[at] = mask != nullptr && std::memchr(mask, 1, mask_bytes) != nullptr;
    } else {
      ARROW_ASSIGN_OR_RAISE(slab->arrays[at], StorageColumn(batch, i));
    }
  }
  slab->batch = std::move(batch);
  return slab;
}

void GatherLost(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows, uint8_t* lost) {
  for (const SlabRow& row : rows) {
    const LostRows& from = slabs[row.slab]->lost;
    *lost++ = from.empty() ? 0 : from[row.row];
  }
}

void GatherFixed(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows,
                 const SlotLayout& layout, uint8_t* base, int64_t slot_row) {
  if (slabs.front()->records != nullptr) return GatherRecords(slabs, rows, layout, base, slot_row);
  std::vector<const uint8_t*> values(slabs.size()), masks(slabs.size());
  for (int column = 0; column < static_cast<int>(layout.schema()->size()); ++column) {
    const Field& field = (*layout.schema())[static_cast<size_t>(column)];
    if (field.varying != nullptr) continue;
    bool has_missing = false;
    for (size_t i = 0; i < slabs.size(); ++i) {
      const Batch::Column& from = slabs[i]->batch.column(column);
      values[i] = from.values;
      masks[i] = from.mask;
      has_missing = has_missing || slabs[i]->has_missing[static_cast<size_t>(column)];
    }
    const SlotColumn to = layout.Column(base, column);
    GatherColumn(values, rows, field.row_bytes(), to.values + slot_row * field.row_bytes());
    if (to.mask == nullptr) continue;
    uint8_t* const mask = to.mask + slot_row * field.items();
    if (has_missing) {
      GatherColumn(masks, rows, field.items(), mask);
    } else {
      std::memset(mask, 0, rows.size() * static_cast<size_t>(field.items()));
    }
  }
}

arrow::Status GatherVarying(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows,
                            const SlotLayout& layout, uint8_t* base, int64_t slot_row, ArenaFill* fill,
                            const std::function<arrow::Status(const int64_t* used)>& take) {
  for (size_t done = 0; done < rows.size();) {
    const int64_t row = slot_row + static_cast<int64_t>(done);
    const auto n = std::min(rows.size() - done, static_cast<size_t>(layout.batch_rows() - row % layout.batch_rows()));
    ARROW_RETURN_NOT_OK(GatherBatch(slabs, rows.subspan(done, n), layout, base, row, fill, take));
    done += n;
  }
  return arrow::Status::OK();
}

}  // namespace penstock

#include "pipeline/records.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "penstock/options.h"

namespace penstock {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kPageBytes = 4096;

// Columns are gone through one after the other for a block of rows, whose records stay in the first cache meanwhile.
constexpr int64_t kBlockBytes = int64_t{16} << 10;
constexpr int64_t kLeastBlockRows = 16;
constexpr int64_t kMostBlockRows = 256;
// Longer rows are read from front to back for long enough that the processor fetches ahead by itself.
constexpr int64_t kMostPrefetchBytes = 4096;

size_t BlockRows(int64_t row_bytes) {
  return static_cast<size_t>(std::clamp(kBlockBytes / row_bytes, kLeastBlockRows, kMostBlockRows));
}

// A core has few loads under way into its first cache, and many more into the second: fetching there first makes
// gathering from a window beyond the caches twice as fast (bench/RESULTS.md).
void Prefetch(const uint8_t* row, int64_t bytes) {
  const uint8_t* line = row - reinterpret_cast<uintptr_t>(row) % kLineBytes;
  for (; line < row + bytes; line += kLineBytes) __builtin_prefetch(line, 0, 2);
}

template <size_t kBytes>
void WriteItem(const uint8_t* from, int64_t rows, int64_t stride, uint8_t* to) {
  for (int64_t i = 0; i < rows; ++i) std::memcpy(to + i * stride, from + i * int64_t{kBytes}, kBytes);
}

void WriteItem(const uint8_t* from, int64_t rows, int64_t bytes, int64_t stride, uint8_t* to) {
  switch (bytes) {
    case 1:
      return WriteItem<1>(from, rows, stride, to);
    case 2:
      return WriteItem<2>(from, rows, stride, to);
    case 4:
      return WriteItem<4>(from, rows, stride, to);
    case 8:
      return WriteItem<8>(from, rows, stride, to);
    case 16:
      return WriteItem<16>(from, rows, stride, to);
    default:
      for (int64_t i = 0; i < rows; ++i) {
        std::memcpy(to + i * stride, from + i * bytes, static_cast<size_t>(bytes));
      }
  }
}

template <size_t kBytes>
void GatherItem(std::span<const uint8_t* const> records, int64_t offset, uint8_t* out) {
  for (size_t i = 0; i < records.size(); ++i) std::memcpy(out + i * kBytes, records[i] + offset, kBytes);
}

void GatherItem(std::span<const uint8_t* const> records, int64_t offset, int64_t bytes, uint8_t* out) {
  switch (bytes) {
    case 1:
      return GatherItem<1>(records, offset, out);
    case 2:
      return GatherItem<2>(records, offset, out);
    case 4:
      return GatherItem<4>(records, offset, out);
    case 8:
      return GatherItem<8>(records, offset, out);
    case 16:
      return GatherItem<16>(records, offset, out);
    default:
      for (const uint8_t* record : records) {
        std::memcpy(out, record + offset, static_cast<size_t>(bytes));
        out += bytes;
      }
  }
}

}  // namespace

void GatherItems(std::span<const uint8_t* const> slabs, std::span<const SlabRow> rows, int64_t row_bytes,
                 std::span<GatheredItem> items) {
  std::array<const uint8_t*, kMostBlockRows> first, second;
  const uint8_t** here = first.data();
  const uint8_t** ahead = second.data();
  const auto locate = [&](std::span<const SlabRow> block) {
    for (size_t i = 0; i < block.size(); ++i) {
      ahead[i] = slabs[block[i].slab] + block[i].row * row_bytes;
      if (row_bytes <= kMostPrefetchBytes) Prefetch(ahead[i], row_bytes);
    }
  };
  const size_t block_rows = BlockRows(row_bytes);
  locate(rows.first(std::min(block_rows, rows.size())));
  while (!rows.empty()) {
    const size_t n = std::min(block_rows, rows.size());
    rows = rows.subspan(n);
    std::swap(here, ahead);
    locate(rows.first(std::min(block_rows, rows.size())));
    for (GatheredItem& item : items) {
      GatherItem(std::span(here, n), item.offset, item.bytes, item.to);
      item.to += static_cast<int64_t>(n) * item.bytes;
    }
  }
}

std::optional<RecordLayout> RecordLayout::Of(const Schema& schema) {
  RecordLayout layout;
  const auto add = [&](int column, bool is_mask, int64_t bytes) {
    layout.items_.push_back({column, is_mask, bytes, layout.record_bytes_});
    layout.record_bytes_ += bytes;
  };
  for (int i = 0; i < static_cast<int>(schema.size()); ++i) {
    const Field& field = schema[static_cast<size_t>(i)];
    if (field.varying != nullptr) return std::nullopt;
    if (field.row_bytes() == 0) continue;
    add(i, /*is_mask=*/false, field.row_bytes());
    if (field.has_mask) add(i, /*is_mask=*/true, field.items());
  }
  const auto num_items = static_cast<int64_t>(layout.items_.size());
  if (num_items < 2 || layout.record_bytes_ > num_items * kLineBytes) return std::nullopt;
  return layout;
}

void RecordLayout::Write(const Batch& batch, uint8_t* records) const {
  const auto block_rows = static_cast<int64_t>(BlockRows(record_bytes_));
  for (int64_t row = 0; row < batch.num_rows(); row += block_rows) {
    const int64_t rows = std::min(block_rows, batch.num_rows() - row);
    for (const Item& item : items_) {
      const Batch::Column& from = batch.column(item.column);
      WriteItem((item.is_mask ? from.mask : from.values) + row * item.bytes, rows, item.bytes, record_bytes_,
                records + row * record_bytes_ + item.offset);
    }
  }
}

void RecordLayout::Gather(std::span<const uint8_t* const> slabs, std::span<const SlabRow> rows,
                          const SlotLayout& layout, uint8_t* base, int64_t slot_row) const {
  std::vector<GatheredItem> items;
  items.reserve(items_.size());
  for (const Item& item : items_) {
    const SlotColumn column = layout.Column(base, item.column);
    uint8_t* const to = (item.is_mask ? column.mask : column.values) + slot_row * item.bytes;
    items.push_back({item.offset, item.bytes, to});
  }
  GatherItems(slabs, rows, record_bytes_, items);
}

RecordPool::RecordPool(RecordLayout layout, int64_t slab_rows, int64_t most_slabs, std::shared_ptr<Ledger> ledger)
    : layout_(std::move(layout)),
      slab_bytes_((slab_rows * layout_.record_bytes() + kPageBytes - 1) / kPageBytes * kPageBytes),
      ledger_(std::move(ledger)),
      region_(SlotRegion::Map(slab_bytes_, most_slabs).ValueOr(nullptr)) {}

RecordPool::~RecordPool() {
  for (SlotMemory& memory : spare_) {
    memory = {};
    ledger_->Sub(Account::kShuffle, slab_bytes_);
  }
}

arrow::Result<std::unique_ptr<RecordPool::Slab>> RecordPool::Take() {
  SlotMemory memory;
  {
    MutexLock lock(mu_);
    if (!spare_.empty()) {
      memory = std::move(spare_.back());
      spare_.pop_back();
    }
  }
  if (memory.data() == nullptr) {
    ARROW_ASSIGN_OR_RAISE(memory, Map());
  }
  return std::make_unique<Slab>(shared_from_this(), std::move(memory));
}

arrow::Result<SlotMemory> RecordPool::Map() {
  if (!ledger_->TryAdd(Account::kShuffle, slab_bytes_)) {
    return arrow::Status::OutOfMemory("a slab of a shuffle_window takes ", FormatBytes(slab_bytes_),
                                      ", more than memory_budget has left; raise it");
  }
  auto memory = region_ != nullptr ? region_->Take() : SlotMemory::Map(slab_bytes_);
  if (!memory.ok()) ledger_->Sub(Account::kShuffle, slab_bytes_);
  return memory;
}

void RecordPool::GiveBack(SlotMemory memory) {
  MutexLock lock(mu_);
  spare_.push_back(std::move(memory));
}

}  // namespace penstock

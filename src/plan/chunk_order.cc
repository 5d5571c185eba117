#include "plan/chunk_order.h"

#include <algorithm>
#include <utility>

namespace penstock {

arrow::Result<std::unique_ptr<const ChunkOrder>> ChunkOrder::Make(std::shared_ptr<const Catalog> catalog,
                                                                  ShuffleKey key, std::shared_ptr<Ledger> ledger) {
  const auto bytes = (catalog->num_chunks() + 1) * static_cast<int64_t>(sizeof(int64_t));
  if (!ledger->TryAdd(Account::kMetadata, bytes)) {
    return arrow::Status::OutOfMemory("the order of ", catalog->num_chunks(), " chunks takes ", bytes,
                                      " bytes, more than memory_budget has room for; raise memory_budget");
  }
  return std::unique_ptr<const ChunkOrder>(new ChunkOrder(std::move(catalog), key, std::move(ledger), bytes));
}

ChunkOrder::ChunkOrder(std::shared_ptr<const Catalog> catalog, ShuffleKey key, std::shared_ptr<Ledger> ledger,
                       int64_t bytes)
    : catalog_(std::move(catalog)),
      ledger_(std::move(ledger)),
      bytes_(bytes),
      permutation_(key, std::max<int64_t>(1, catalog_->num_chunks())) {
  begin_rows_.reserve(static_cast<size_t>(catalog_->num_chunks()) + 1);
  begin_rows_.push_back(0);
  for (int64_t i = 0; i < catalog_->num_chunks(); ++i) {
    const Catalog::Chunk chunk = catalog_->chunk(permutation_.At(i));
    begin_rows_.push_back(begin_rows_.back() + chunk.end_row - chunk.begin_row);
  }
}

ChunkOrder::~ChunkOrder() { ledger_->Sub(Account::kMetadata, bytes_); }

Catalog::Chunk ChunkOrder::ChunkAt(int64_t row) const {
  const auto position = std::upper_bound(begin_rows_.begin(), begin_rows_.end(), row) - begin_rows_.begin() - 1;
  Catalog::Chunk chunk = catalog_->chunk(permutation_.At(position));
  chunk.begin_row = begin_rows_[static_cast<size_t>(position)];
  chunk.end_row = begin_rows_[static_cast<size_t>(position) + 1];
  return chunk;
}

}  // namespace penstock

#pragma once

#include <arrow/memory_pool.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "penstock/ledger.h"

namespace penstock {

/// The arrow::MemoryPool of one worker for one piece of work on rows that are decoded already. What it allocates is
/// charged to `decode`. A small amount is charged even where the budget has no room for it, and shows as over budget
/// then: the rows in hand would otherwise wait for memory that only they can set free. More is refused (OutOfMemory).
///
/// Ownership: must outlive every buffer allocated from it.
/// Threads:   every method may be called from any thread.
/// Blocking:  none.
class ScratchPool final : public arrow::MemoryPool {
 public:
  static constexpr int64_t kAlwaysBytes = int64_t{1} << 20;

  explicit ScratchPool(std::shared_ptr<Ledger> ledger)
      : ledger_(std::move(ledger)), backend_(arrow::default_memory_pool()) {}

  arrow::Status Allocate(int64_t size, int64_t alignment, uint8_t** out) override;
  arrow::Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) override;
  void Free(uint8_t* buffer, int64_t size, int64_t alignment) override;
  using arrow::MemoryPool::Allocate;
  using arrow::MemoryPool::Free;
  using arrow::MemoryPool::Reallocate;
  int64_t bytes_allocated() const override { return used_bytes_; }
  int64_t max_memory() const override { return -1; }
  int64_t total_bytes_allocated() const override { return total_bytes_; }
  int64_t num_allocations() const override { return allocations_; }
  std::string backend_name() const override { return "penstock"; }

 private:
  arrow::Status Take(int64_t bytes);
  void GiveBack(int64_t bytes);

  const std::shared_ptr<Ledger> ledger_;
  arrow::MemoryPool* const backend_;
  std::atomic<int64_t> used_bytes_ = 0, total_bytes_ = 0, allocations_ = 0;
};

}  // namespace penstock

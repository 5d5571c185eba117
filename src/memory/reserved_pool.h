#pragma once

#include <arrow/memory_pool.h>

#include <cstdint>
#include <memory>
#include <string>

#include "penstock/ledger.h"

namespace penstock {

/// The arrow::MemoryPool of one chunk under decode. It holds a reservation in an account of the ledger (`decode`),
/// grows it when an allocation does not fit, and refuses (OutOfMemory) what the budget does not admit: never is a byte
/// allocated that was not taken before.
///
/// Ownership: by shared_ptr; must outlive every buffer allocated from it.
/// Threads:   every method may be called from any thread.
/// Blocking:  none.
class ReservedPool : public arrow::MemoryPool {
 public:
  /// Takes `promise_bytes` from the ledger; null where they do not fit (none always do).
  static std::shared_ptr<ReservedPool> TryMake(std::shared_ptr<Ledger> ledger, int64_t promise_bytes,
                                               Account account = Account::kDecode);
  ~ReservedPool() override;

  arrow::Status Allocate(int64_t size, int64_t alignment, uint8_t** out) override;
  arrow::Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) override;
  void Free(uint8_t* buffer, int64_t size, int64_t alignment) override;
  using arrow::MemoryPool::Allocate;
  using arrow::MemoryPool::Free;
  using arrow::MemoryPool::Reallocate;
  int64_t bytes_allocated() const override;
  int64_t max_memory() const override;
  int64_t total_bytes_allocated() const override;
  int64_t num_allocations() const override;
  std::string backend_name() const override { return "penstock"; }

  /// Counts `bytes` that are about to be allocated elsewhere, until GiveBack() says that they are freed. OutOfMemory
  /// as from Allocate().
  arrow::Status Take(int64_t bytes);
  void GiveBack(int64_t bytes);
  /// Gives back so much of what is promised, because it was used and will not be again.
  void LowerPromise(int64_t bytes);

  /// Moves `bytes` of what is allocated from `decode` to `blocks` (a block is ready and waits for its rows to be
  /// copied)...
  void MoveToBlocks(int64_t bytes);
  /// ... and back, just before the block is freed.
  void MoveFromBlocks(int64_t bytes);
  /// Gives back what is promised but not used, for good: from here on the reservation follows the use.
  void ReleasePromise();
  /// Bytes by which the last refused allocation exceeded the reservation; 0: none was refused.
  int64_t refused_bytes() const;

 private:
  ReservedPool(std::shared_ptr<Ledger> ledger, int64_t promise_bytes, Account account);
  /// Counts `bytes` more as used, growing the reservation where needed; false where the budget refuses.
  bool TakeLocked(int64_t bytes) PENSTOCK_REQUIRES(mu_);
  void GiveBackLocked(int64_t bytes) PENSTOCK_REQUIRES(mu_);

  const std::shared_ptr<Ledger> ledger_;
  const Account account_;
  arrow::MemoryPool* const backend_;
  mutable Mutex mu_;
  int64_t promise_bytes_ PENSTOCK_GUARDED_BY(mu_);
  int64_t reserved_bytes_ PENSTOCK_GUARDED_BY(mu_);
  int64_t used_bytes_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int64_t peak_bytes_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int64_t total_bytes_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int64_t allocations_ PENSTOCK_GUARDED_BY(mu_) = 0;
  int64_t refused_bytes_ PENSTOCK_GUARDED_BY(mu_) = 0;
};

}  // namespace penstock

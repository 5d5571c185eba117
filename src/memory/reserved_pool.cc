#include "memory/reserved_pool.h"

#include <algorithm>

namespace penstock {

std::shared_ptr<ReservedPool> ReservedPool::TryMake(std::shared_ptr<Ledger> ledger, int64_t promise_bytes,
                                                    Account account) {
  if (promise_bytes > 0 && !ledger->TryAdd(account, promise_bytes)) return nullptr;
  return std::shared_ptr<ReservedPool>(new ReservedPool(std::move(ledger), promise_bytes, account));
}

ReservedPool::ReservedPool(std::shared_ptr<Ledger> ledger, int64_t promise_bytes, Account account)
    : ledger_(std::move(ledger)),
      account_(account),
      backend_(arrow::default_memory_pool()),
      promise_bytes_(promise_bytes),
      reserved_bytes_(promise_bytes) {}

ReservedPool::~ReservedPool() {
  MutexLock lock(mu_);
  ledger_->Sub(account_, reserved_bytes_);
}

bool ReservedPool::TakeLocked(int64_t bytes) {
  const int64_t missing = used_bytes_ + bytes - reserved_bytes_;
  if (missing > 0) {
    if (!ledger_->TryAdd(account_, missing)) {
      refused_bytes_ = missing;
      return false;
    }
    reserved_bytes_ += missing;
  }
  used_bytes_ += bytes;
  peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  return true;
}

void ReservedPool::GiveBackLocked(int64_t bytes) {
  used_bytes_ -= bytes;
  // What was promised stays reserved until the chunk is done; what had to be added goes back at once.
  const int64_t keep = std::max(used_bytes_, promise_bytes_);
  if (reserved_bytes_ > keep) {
    ledger_->Sub(account_, reserved_bytes_ - keep);
    reserved_bytes_ = keep;
  }
}

arrow::Status ReservedPool::Take(int64_t bytes) {
  MutexLock lock(mu_);
  if (!TakeLocked(bytes)) {
    return arrow::Status::OutOfMemory("the memory budget of ", ledger_->budget_bytes(), " bytes leaves no room for ",
                                      bytes, " bytes more");
  }
  total_bytes_ += bytes;
  ++allocations_;
  return arrow::Status::OK();
}

void ReservedPool::GiveBack(int64_t bytes) {
  MutexLock lock(mu_);
  GiveBackLocked(bytes);
}

arrow::Status ReservedPool::Allocate(int64_t size, int64_t alignment, uint8_t** out) {
  ARROW_RETURN_NOT_OK(Take(size));
  arrow::Status status = backend_->Allocate(size, alignment, out);
  if (!status.ok()) GiveBack(size);
  return status;
}

arrow::Status ReservedPool::Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) {
  // While a buffer moves, both copies exist: both are counted.
  uint8_t* moved = nullptr;
  ARROW_RETURN_NOT_OK(Allocate(new_size, alignment, &moved));
  std::copy_n(*ptr, std::min(old_size, new_size), moved);
  Free(*ptr, old_size, alignment);
  *ptr = moved;
  return arrow::Status::OK();
}

void ReservedPool::Free(uint8_t* buffer, int64_t size, int64_t alignment) {
  backend_->Free(buffer, size, alignment);
  GiveBack(size);
}

void ReservedPool::LowerPromise(int64_t bytes) {
  MutexLock lock(mu_);
  promise_bytes_ = std::max<int64_t>(0, promise_bytes_ - bytes);
  GiveBackLocked(0);
}

void ReservedPool::ReleasePromise() {
  MutexLock lock(mu_);
  promise_bytes_ = 0;
  GiveBackLocked(0);
}

void ReservedPool::MoveToBlocks(int64_t bytes) {
  MutexLock lock(mu_);
  ledger_->Move(account_, Account::kBlocks, bytes);
  reserved_bytes_ -= bytes;
  used_bytes_ -= bytes;
}

void ReservedPool::MoveFromBlocks(int64_t bytes) {
  MutexLock lock(mu_);
  ledger_->Move(Account::kBlocks, account_, bytes);
  reserved_bytes_ += bytes;
  used_bytes_ += bytes;
}

int64_t ReservedPool::bytes_allocated() const {
  MutexLock lock(mu_);
  return used_bytes_;
}
int64_t ReservedPool::max_memory() const {
  MutexLock lock(mu_);
  return peak_bytes_;
}
int64_t ReservedPool::total_bytes_allocated() const {
  MutexLock lock(mu_);
  return total_bytes_;
}
int64_t ReservedPool::num_allocations() const {
  MutexLock lock(mu_);
  return allocations_;
}
int64_t ReservedPool::refused_bytes() const {
  MutexLock lock(mu_);
  return refused_bytes_;
}

}  // namespace penstock

#include "memory/scratch_pool.h"

namespace penstock {

arrow::Status ScratchPool::Take(int64_t bytes) {
  const int64_t used_bytes = used_bytes_ += bytes;
  if (!ledger_->TryAdd(Account::kDecode, bytes)) {
    if (used_bytes > kAlwaysBytes) {
      used_bytes_ -= bytes;
      return arrow::Status::OutOfMemory("the memory budget of ", ledger_->budget_bytes(), " bytes leaves no room for ",
                                        bytes, " bytes of scratch memory");
    }
    ledger_->Add(Account::kDecode, bytes);
  }
  total_bytes_ += bytes;
  ++allocations_;
  return arrow::Status::OK();
}

void ScratchPool::GiveBack(int64_t bytes) {
  used_bytes_ -= bytes;
  ledger_->Sub(Account::kDecode, bytes);
}

arrow::Status ScratchPool::Allocate(int64_t size, int64_t alignment, uint8_t** out) {
  ARROW_RETURN_NOT_OK(Take(size));
  const arrow::Status status = backend_->Allocate(size, alignment, out);
  if (!status.ok()) GiveBack(size);
  return status;
}

arrow::Status ScratchPool::Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) {
  ARROW_RETURN_NOT_OK(Take(new_size));  // Both may be there for a moment.
  const arrow::Status status = backend_->Reallocate(old_size, new_size, alignment, ptr);
  GiveBack(status.ok() ? old_size : new_size);
  return status;
}

void ScratchPool::Free(uint8_t* buffer, int64_t size, int64_t alignment) {
  backend_->Free(buffer, size, alignment);
  GiveBack(size);
}

}  // namespace penstock

#include "memory/reserved_pool.h"

#include <sanitizer/asan_interface.h>

#include <algorithm>
#include <bit>

namespace penstock {
namespace {

// Smaller ones the backend has at hand by itself.
constexpr int64_t kLeastKeptBytes = int64_t{128} << 10;
constexpr size_t kMostKept = 16;

// Blocks that are nearly alike are made alike, an eighth larger at most, so that one can follow the other.
int64_t RoundedUp(int64_t bytes) {
  const auto step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes)) / 8);
  return (bytes + step - 1) / step * step;
}

}  // namespace

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
  DropKeptLocked(0);
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
  DropKeptLocked(reserved_bytes_ - bytes);
  used_bytes_ += bytes;
  peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  return true;
}

void ReservedPool::GiveBackLocked(int64_t bytes) {
  used_bytes_ -= bytes;
  // What was promised stays reserved until the chunk is done; what had to be added goes back at once.
  const int64_t stays = std::max(used_bytes_, promise_bytes_);
  if (reserved_bytes_ <= stays) return;
  DropKeptLocked(stays);
  ledger_->Sub(account_, reserved_bytes_ - stays);
  reserved_bytes_ = stays;
}

uint8_t* ReservedPool::ReuseLocked(int64_t bytes, int64_t alignment) {
  auto best = kept_.end();
  for (auto block = kept_.begin(); block != kept_.end(); ++block) {
    const bool serves = block->bytes >= bytes && block->bytes / 2 <= bytes && block->alignment == alignment;
    if (serves && (best == kept_.end() || block->bytes < best->bytes)) best = block;
  }
  if (best == kept_.end()) return nullptr;
  const Block block = *best;
  kept_.erase(best);
  kept_bytes_ -= block.bytes;
  used_bytes_ += block.bytes;  // Which stays within what is reserved.
  peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  total_bytes_ += block.bytes;
  ++allocations_;
  if (block.bytes > bytes) block_bytes_[block.data] = block.bytes;
  ASAN_UNPOISON_MEMORY_REGION(block.data, static_cast<size_t>(block.bytes));
  return block.data;
}

void ReservedPool::DropKeptLocked(int64_t most_bytes) {
  while (!kept_.empty() && used_bytes_ + kept_bytes_ > most_bytes) {
    const Block block = kept_.back();
    kept_.pop_back();
    kept_bytes_ -= block.bytes;
    ASAN_UNPOISON_MEMORY_REGION(block.data, static_cast<size_t>(block.bytes));
    backend_->Free(block.data, block.bytes, block.alignment);
  }
}

int64_t ReservedPool::BlockBytesLocked(const uint8_t* data, int64_t bytes) const {
  if (bytes < kLeastKeptBytes) return bytes;
  const auto found = block_bytes_.find(data);
  return found == block_bytes_.end() ? bytes : found->second;
}

arrow::Status ReservedPool::TakeOrRefuseLocked(int64_t bytes) {
  if (!TakeLocked(bytes)) {
    return arrow::Status::OutOfMemory("the memory budget of ", ledger_->budget_bytes(), " bytes leaves no room for ",
                                      bytes, " bytes more");
  }
  total_bytes_ += bytes;
  ++allocations_;
  return arrow::Status::OK();
}

arrow::Status ReservedPool::Take(int64_t bytes) {
  MutexLock lock(mu_);
  return TakeOrRefuseLocked(bytes);
}

void ReservedPool::GiveBack(int64_t bytes) {
  MutexLock lock(mu_);
  GiveBackLocked(bytes);
}

arrow::Status ReservedPool::Allocate(int64_t size, int64_t alignment, uint8_t** out) {
  MutexLock lock(mu_);
  int64_t bytes = size;
  if (size >= kLeastKeptBytes) {
    *out = ReuseLocked(size, alignment);
    if (*out != nullptr) return arrow::Status::OK();
    const int64_t rounded = RoundedUp(size);
    if (used_bytes_ + rounded <= std::min(promise_bytes_, reserved_bytes_)) bytes = rounded;
  }
  ARROW_RETURN_NOT_OK(TakeOrRefuseLocked(bytes));
  const arrow::Status status = backend_->Allocate(bytes, alignment, out);
  if (!status.ok()) {
    GiveBackLocked(bytes);
  } else if (bytes > size) {
    block_bytes_[*out] = bytes;
  }
  return status;
}

arrow::Status ReservedPool::Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) {
  {
    MutexLock lock(mu_);
    if (new_size >= old_size && new_size <= BlockBytesLocked(*ptr, old_size)) return arrow::Status::OK();
  }
  // While a buffer moves, both copies exist: both are counted.
  uint8_t* moved = nullptr;
  ARROW_RETURN_NOT_OK(Allocate(new_size, alignment, &moved));
  std::copy_n(*ptr, std::min(old_size, new_size), moved);
  Free(*ptr, old_size, alignment);
  *ptr = moved;
  return arrow::Status::OK();
}

void ReservedPool::Free(uint8_t* buffer, int64_t size, int64_t alignment) {
  MutexLock lock(mu_);
  const Block block{buffer, BlockBytesLocked(buffer, size), alignment};
  block_bytes_.erase(buffer);
  const int64_t most_bytes = std::min(promise_bytes_, reserved_bytes_);
  const bool is_kept =
      block.bytes >= kLeastKeptBytes && kept_.size() < kMostKept && used_bytes_ + kept_bytes_ <= most_bytes;
  if (is_kept) {
    kept_.push_back(block);
    kept_bytes_ += block.bytes;
    ASAN_POISON_MEMORY_REGION(block.data, static_cast<size_t>(block.bytes));
    used_bytes_ -= block.bytes;
    return;
  }
  backend_->Free(block.data, block.bytes, alignment);
  GiveBackLocked(block.bytes);
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

#include "memory/slot_memory.h"

#include <arrow/status.h>
#include <sys/mman.h>

namespace penstock {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kHugePageBytes = int64_t{2} << 20;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

arrow::Result<uint8_t*> MapBytes(int64_t bytes, int more_flags) {
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | more_flags, -1, 0);
  if (data == MAP_FAILED) return arrow::Status::OutOfMemory("the system refused ", bytes, " bytes for a slot");
  return static_cast<uint8_t*>(data);
}

}  // namespace

SlotMemory::~SlotMemory() {
  if (locker_ != nullptr) locker_->Unlock(data_);
  if (region_ != nullptr) {
    region_->GiveBack(data_);
  } else if (data_ != nullptr) {
    munmap(data_, static_cast<size_t>(bytes_));
  }
}

arrow::Result<SlotMemory> SlotMemory::Map(int64_t fixed_bytes, int64_t arena_bytes) {
  SlotMemory memory;
  const int64_t bytes = fixed_bytes + arena_bytes;
  // No swap is set aside for address space that will hardly be used.
  ARROW_ASSIGN_OR_RAISE(memory.data_, MapBytes(bytes, arena_bytes > 0 ? MAP_NORESERVE : 0));
  memory.bytes_ = bytes;
  // Huge pages would make an arena of a few bytes one of 2 MiB.
  if (arena_bytes > 0) madvise(memory.data_ + fixed_bytes, static_cast<size_t>(arena_bytes), MADV_NOHUGEPAGE);
  return memory;
}

arrow::Status SlotMemory::Lock(std::shared_ptr<PageLocker> locker, int64_t bytes) {
  // All of it is touched at once: huge pages, where the system has them, are fewer to find and to lock.
  madvise(data_, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  ARROW_RETURN_NOT_OK(locker->Lock(data_, bytes));
  locker_ = std::move(locker);
  return arrow::Status::OK();
}

void SlotMemory::Discard(int64_t offset) {
  if (offset < bytes_) madvise(data_ + offset, static_cast<size_t>(bytes_ - offset), MADV_DONTNEED);
}

arrow::Result<std::shared_ptr<SlotRegion>> SlotRegion::Map(int64_t slot_bytes, int64_t most_slots) {
  std::shared_ptr<SlotRegion> region(new SlotRegion);
  region->slot_bytes_ = RoundUp(slot_bytes, kPageBytes);
  // Room to begin where a huge page does.
  const int64_t bytes = region->slot_bytes_ * most_slots + kHugePageBytes;
  ARROW_ASSIGN_OR_RAISE(region->data_, MapBytes(bytes, MAP_NORESERVE));
  region->bytes_ = bytes;
  const auto address = reinterpret_cast<intptr_t>(region->data_);
  uint8_t* const first = region->data_ + (RoundUp(address, kHugePageBytes) - address);
  // A wish. What does not fill a huge page is not to take one.
  const int64_t huge_bytes = region->slot_bytes_ * most_slots / kHugePageBytes * kHugePageBytes;
  if (huge_bytes > 0) madvise(first, static_cast<size_t>(huge_bytes), MADV_HUGEPAGE);
  MutexLock lock(region->mu_);
  for (int64_t i = most_slots - 1; i >= 0; --i) region->free_.push_back(first + i * region->slot_bytes_);
  return region;
}

SlotRegion::~SlotRegion() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

arrow::Result<SlotMemory> SlotRegion::Take() {
  SlotMemory memory;
  {
    MutexLock lock(mu_);
    if (!free_.empty()) {
      memory.data_ = free_.back();
      free_.pop_back();
    }
  }
  if (memory.data_ == nullptr) return SlotMemory::Map(slot_bytes_);
  memory.bytes_ = slot_bytes_;
  memory.region_ = shared_from_this();
  return memory;
}

void SlotRegion::GiveBack(uint8_t* data) {
  madvise(data, static_cast<size_t>(slot_bytes_), MADV_DONTNEED);
  MutexLock lock(mu_);
  free_.push_back(data);
}

}  // namespace penstock

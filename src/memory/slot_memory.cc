#include "memory/slot_memory.h"

#include <arrow/status.h>
#include <sys/mman.h>

namespace penstock {

SlotMemory::~SlotMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

arrow::Result<SlotMemory> SlotMemory::Map(int64_t fixed_bytes, int64_t arena_bytes) {
  const int64_t bytes = fixed_bytes + arena_bytes;
  // No swap is set aside for address space that will hardly be used.
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (arena_bytes > 0 ? MAP_NORESERVE : 0);
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (data == MAP_FAILED) return arrow::Status::OutOfMemory("the system refused ", bytes, " bytes for a slot");
  SlotMemory memory;
  memory.data_ = static_cast<uint8_t*>(data);
  memory.bytes_ = bytes;
  // Huge pages would make an arena of a few bytes one of 2 MiB.
  if (arena_bytes > 0) madvise(memory.data_ + fixed_bytes, static_cast<size_t>(arena_bytes), MADV_NOHUGEPAGE);
  return memory;
}

void SlotMemory::Discard(int64_t offset) {
  if (offset < bytes_) madvise(data_ + offset, static_cast<size_t>(bytes_ - offset), MADV_DONTNEED);
}

}  // namespace penstock

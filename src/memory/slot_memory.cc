#include "memory/slot_memory.h"

#include <arrow/status.h>
#include <sys/mman.h>

namespace penstock {

SlotMemory::~SlotMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

arrow::Result<SlotMemory> SlotMemory::Map(int64_t bytes) {
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return arrow::Status::OutOfMemory("the system refused ", bytes, " bytes for a slot");
  SlotMemory memory;
  memory.data_ = static_cast<uint8_t*>(data);
  memory.bytes_ = bytes;
  return memory;
}

}  // namespace penstock

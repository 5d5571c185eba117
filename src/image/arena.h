#pragma once

#include <arrow/memory_pool.h>
#include <arrow/status.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace penstock::image {

/// Scratch memory for one image after the other: pieces of a few large allocations from a pool.
///
/// Threads: one.
class Arena {
 public:
  explicit Arena(arrow::MemoryPool* pool) : pool_(pool) {}
  ~Arena() { Free(0); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Aligned to 64 bytes, not zeroed, valid until Reset(); null where the pool refuses, and status() says why.
  void* Allocate(size_t bytes) noexcept;
  /// An array of a trivial type.
  template <typename T>
  T* Array(int64_t length) noexcept {
    return static_cast<T*>(Allocate(static_cast<size_t>(length) * sizeof(T)));
  }
  const arrow::Status& status() const { return status_; }
  /// All pieces are free again; the first allocation is kept for the next image.
  void Reset();

 private:
  struct Chunk {
    uint8_t* data;
    int64_t bytes;
  };
  void Free(size_t keep);

  arrow::MemoryPool* pool_;
  std::vector<Chunk> chunks_;
  uint8_t* next_ = nullptr;
  uint8_t* end_ = nullptr;
  arrow::Status status_;
};

}  // namespace penstock::image

#include "image/arena.h"

#include <algorithm>
#include <limits>

namespace penstock::image {
namespace {

constexpr size_t kAlignment = 64;
// Most images need no more.
constexpr size_t kChunkBytes = 192 << 10;

}  // namespace

void* Arena::Allocate(size_t bytes) noexcept {
  bytes = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  if (bytes > static_cast<size_t>(end_ - next_)) {
    Chunk chunk{nullptr, static_cast<int64_t>(std::max(bytes, kChunkBytes))};
    status_ = pool_->Allocate(chunk.bytes, kAlignment, &chunk.data);
    if (!status_.ok()) return nullptr;
    chunks_.push_back(chunk);
    // A large piece has a chunk of its own, and the rest of the last one stays in use.
    if (bytes >= kChunkBytes && next_ != nullptr) return chunk.data;
    next_ = chunk.data;
    end_ = chunk.data + chunk.bytes;
  }
  uint8_t* piece = next_;
  next_ += bytes;
  return piece;
}

void Arena::Reset() {
  status_ = arrow::Status::OK();
  if (chunks_.empty()) return;
  Free(1);
  next_ = chunks_[0].data;
  end_ = next_ + chunks_[0].bytes;
}

void Arena::Free(size_t keep) {
  for (size_t i = keep; i < chunks_.size(); ++i) pool_->Free(chunks_[i].data, chunks_[i].bytes, kAlignment);
  chunks_.resize(std::min(keep, chunks_.size()));
}

}  // namespace penstock::image

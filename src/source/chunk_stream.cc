#include "source/chunk_stream.h"

#include <arrow/result.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace penstock {

ChunkStream::ChunkStream(std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t start, int64_t length,
                         int64_t window_bytes, arrow::MemoryPool* pool)
    : file_(std::move(file)),
      start_(start),
      window_bytes_(window_bytes),
      pool_(pool),
      position_(start),
      left_(length) {}

ChunkStream::~ChunkStream() = default;

// What has not been read moves to the front, of a larger window where need be; both count meanwhile.
arrow::Status ChunkStream::Widen(int64_t nbytes) {
  const int64_t unread = end_ - begin_;
  if (window_ != nullptr && window_->size() >= nbytes && !is_window_left_) {
    std::memmove(window_->mutable_data(), window_->data() + begin_, static_cast<size_t>(unread));
  } else {
    // Pages are of nearly the same size: the next one shall fit as well, or both windows would be there meanwhile.
    const int64_t roomy = std::max(window_bytes_, nbytes > window_bytes_ ? nbytes + nbytes / 4 : 0);
    const int64_t size = std::max(nbytes, std::min(roomy, unread + left_));
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> wider, arrow::AllocateBuffer(size, pool_));
    if (unread > 0) std::memcpy(wider->mutable_data(), window_->data() + begin_, static_cast<size_t>(unread));
    window_ = std::move(wider);
    is_window_left_ = false;
  }
  begin_ = 0;
  end_ = unread;
  return arrow::Status::OK();
}

arrow::Result<int64_t> ChunkStream::Fill(int64_t nbytes) {
  const int64_t unread = end_ - begin_;
  const int64_t wanted = std::clamp<int64_t>(nbytes, 0, unread + left_);
  if (wanted <= unread) return wanted;
  ARROW_RETURN_NOT_OK(Widen(wanted));
  const int64_t more = std::min(window_->size() - unread, left_);
  ARROW_ASSIGN_OR_RAISE(const int64_t read, file_->ReadAt(position_, more, window_->mutable_data() + end_));
  position_ += read;
  left_ = read < more ? 0 : left_ - read;  // The file ends before its time.
  end_ += read;
  return std::min(wanted, end_ - begin_);
}

arrow::Result<std::string_view> ChunkStream::Peek(int64_t nbytes) {
  ARROW_ASSIGN_OR_RAISE(const int64_t size, Fill(nbytes));
  if (size == 0) return std::string_view();
  return std::string_view(reinterpret_cast<const char*>(window_->data()) + begin_, static_cast<size_t>(size));
}

arrow::Result<std::shared_ptr<arrow::Buffer>> ChunkStream::Read(int64_t nbytes) {
  ARROW_ASSIGN_OR_RAISE(const int64_t size, Fill(nbytes));
  if (size == 0) return std::make_shared<arrow::Buffer>(nullptr, 0);
  begin_ += size;
  return arrow::SliceBuffer(window_, begin_ - size, size);
}

arrow::Result<int64_t> ChunkStream::Read(int64_t nbytes, void* out) {
  ARROW_ASSIGN_OR_RAISE(const int64_t size, Fill(nbytes));
  if (size > 0) std::memcpy(out, window_->data() + begin_, static_cast<size_t>(size));
  begin_ += size;
  return size;
}

arrow::Result<int64_t> ChunkStream::Tell() const { return position_ - start_ - (end_ - begin_); }

arrow::Status ChunkStream::Close() {
  is_closed_ = true;
  window_.reset();
  begin_ = end_ = left_ = 0;
  return arrow::Status::OK();
}

}  // namespace penstock

#include "source/pooled_file.h"

#include <arrow/buffer.h>

#include <algorithm>
#include <utility>

namespace penstock {
namespace {

/// A buffer that keeps its pool.
class KeptBuffer final : public arrow::Buffer {
 public:
  KeptBuffer(std::shared_ptr<arrow::Buffer> kept, std::shared_ptr<const void> keeper)
      : arrow::Buffer(kept->data(), kept->size()), keeper_(std::move(keeper)), kept_(std::move(kept)) {}

 private:
  const std::shared_ptr<const void> keeper_;
  const std::shared_ptr<arrow::Buffer> kept_;
};

class PooledFile final : public arrow::io::RandomAccessFile {
 public:
  PooledFile(std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t begin, int64_t size_bytes,
             arrow::MemoryPool* pool, std::shared_ptr<const void> keeper)
      : keeper_(std::move(keeper)), file_(std::move(file)), begin_(begin), size_bytes_(size_bytes), pool_(pool) {}

  arrow::Status Close() override {
    is_closed_ = true;
    return arrow::Status::OK();
  }
  bool closed() const override { return is_closed_; }
  arrow::Result<int64_t> Tell() const override { return position_; }
  arrow::Status Seek(int64_t position) override {
    if (position < 0) return arrow::Status::IOError("a position before the beginning");
    position_ = position;
    return arrow::Status::OK();
  }
  arrow::Result<int64_t> GetSize() override { return size_bytes_; }

  arrow::Result<int64_t> ReadAt(int64_t position, int64_t nbytes, void* out) override {
    if (position < 0 || nbytes < 0 || position > size_bytes_) {
      return arrow::Status::IOError("cannot read ", nbytes, " bytes at ", position, " of ", size_bytes_);
    }
    return file_->ReadAt(begin_ + position, std::min(nbytes, size_bytes_ - position), out);
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t nbytes) override {
    const int64_t bytes = std::clamp<int64_t>(nbytes, 0, std::max<int64_t>(0, size_bytes_ - position));
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(bytes, pool_));
    ARROW_ASSIGN_OR_RAISE(const int64_t read, ReadAt(position, bytes, buffer->mutable_data()));
    if (read < bytes) ARROW_RETURN_NOT_OK(buffer->Resize(read, /*shrink_to_fit=*/false));
    if (keeper_ == nullptr) return std::shared_ptr<arrow::Buffer>(std::move(buffer));
    return std::make_shared<KeptBuffer>(std::move(buffer), keeper_);
  }
  arrow::Result<int64_t> Read(int64_t nbytes, void* out) override {
    ARROW_ASSIGN_OR_RAISE(const int64_t read, ReadAt(position_, nbytes, out));
    position_ += read;
    return read;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t nbytes) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, ReadAt(position_, nbytes));
    position_ += buffer->size();
    return buffer;
  }

 private:
  const std::shared_ptr<const void> keeper_;
  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
  const int64_t begin_;
  const int64_t size_bytes_;
  arrow::MemoryPool* const pool_;
  int64_t position_ = 0;
  bool is_closed_ = false;
};

}  // namespace

std::shared_ptr<arrow::io::RandomAccessFile> PooledPart(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                                        int64_t begin, int64_t size_bytes, arrow::MemoryPool* pool,
                                                        std::shared_ptr<const void> keeper) {
  return std::make_shared<PooledFile>(std::move(file), begin, size_bytes, pool, std::move(keeper));
}

}  // namespace penstock

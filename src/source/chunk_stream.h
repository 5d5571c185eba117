#pragma once

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <arrow/memory_pool.h>

#include <cstdint>
#include <memory>
#include <string_view>

namespace penstock {

/// The bytes of a column chunk from front to back, for Parquet's page reader. Unlike Arrow's buffered stream it has one
/// buffer, grown to the largest page, and gives pages out as slices of it: no page is allocated or copied.
///
/// Ownership: shared with the page reader; the pool must outlive the stream and all slices.
/// Lifetime of what is read: a buffer's bytes stay until the second call after Read(), as a page's do until the next;
/// see LeaveWindow().
/// Threads: one at a time. Blocking: reads the file.
class ChunkStream final : public arrow::io::InputStream {
 public:
  /// \param window_bytes  to read at once at least, where there are as many.
  ChunkStream(std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t start, int64_t length, int64_t window_bytes,
              arrow::MemoryPool* pool);
  ~ChunkStream() override;

  arrow::Result<std::string_view> Peek(int64_t nbytes) override;
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t nbytes) override;
  arrow::Result<int64_t> Read(int64_t nbytes, void* out) override;

  /// What was given out of the present window stays as it is for as long as somebody holds it.
  void LeaveWindow() { is_window_left_ = true; }

  arrow::Result<int64_t> Tell() const override;
  arrow::Status Close() override;
  bool closed() const override { return is_closed_; }

 private:
  /// Sees to it that `nbytes`, or all that are left, are in the window. \return how many of them are.
  arrow::Result<int64_t> Fill(int64_t nbytes);
  arrow::Status Widen(int64_t nbytes);

  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
  const int64_t start_;
  const int64_t window_bytes_;
  arrow::MemoryPool* const pool_;
  int64_t position_;  // In the file, behind the window.
  int64_t left_;      // From there to the end of the chunk.
  std::shared_ptr<arrow::Buffer> window_;
  int64_t begin_ = 0;  // Of what has not been read yet, in the window.
  int64_t end_ = 0;
  bool is_window_left_ = false;  // The next bytes are for another one.
  bool is_closed_ = false;
};

}  // namespace penstock

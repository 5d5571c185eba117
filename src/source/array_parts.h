#pragma once

#include <arrow/buffer.h>
#include <arrow/buffer_builder.h>
#include <arrow/result.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "penstock/mutex.h"

/// Parts of arrays that are made page by page. Private to src/source.
namespace penstock {

/// Which elements of an array are there: all that are not mentioned, which take no time and no memory where nothing is
/// missing.
class Validity {
 public:
  explicit Validity(arrow::MemoryPool* pool) : bits_(pool) {}

  /// Elements [at, at + n), behind those mentioned before: one byte each, 1 = there.
  arrow::Status Mention(int64_t at, const uint8_t* bytes, int64_t n) {
    ARROW_RETURN_NOT_OK(bits_.Append(at - bits_.length(), true));
    return bits_.Append(bytes, n);
  }

  struct Bits {
    std::shared_ptr<arrow::Buffer> buffer;  ///< Null: all are there.
    int64_t missing = 0;
  };
  /// Of `length` elements; none is mentioned afterwards.
  arrow::Result<Bits> Finish(int64_t length) {
    Bits bits;
    bits.missing = bits_.false_count();
    if (bits_.length() == 0) return bits;
    ARROW_RETURN_NOT_OK(bits_.Append(length - bits_.length(), true));
    ARROW_ASSIGN_OR_RAISE(bits.buffer, bits_.Finish());
    return bits;
  }

 private:
  arrow::TypedBufferBuilder<bool> bits_;
};

/// Lends a buffer to one array after the other: fresh memory costs page faults.
///
/// Ownership: what is lent comes back when nobody has it any more, or dies then if the lender is gone; the pool must
/// outlive both. Threads: buffers may be let go on any.
class BufferLender {
 public:
  BufferLender() = default;
  ~BufferLender() {
    std::unique_ptr<arrow::ResizableBuffer> last;
    MutexLock lock(shelf_->mu);
    shelf_->is_closed = true;
    last = std::move(shelf_->buffer);
  }
  BufferLender(const BufferLender&) = delete;
  BufferLender& operator=(const BufferLender&) = delete;

  /// A buffer of `bytes` or up to twice as much, its content undefined: one that came back, if it is of such a size.
  arrow::Result<std::unique_ptr<arrow::ResizableBuffer>> Make(int64_t bytes, arrow::MemoryPool* pool) {
    std::unique_ptr<arrow::ResizableBuffer> buffer;
    {
      MutexLock lock(shelf_->mu);
      buffer = std::move(shelf_->buffer);
    }
    if (buffer == nullptr || buffer->capacity() < bytes || buffer->capacity() / 2 > bytes) {
      buffer.reset();  // Before there is another one.
      return arrow::AllocateResizableBuffer(bytes, pool);
    }
    ARROW_RETURN_NOT_OK(buffer->Resize(buffer->capacity(), /*shrink_to_fit=*/false));
    return buffer;
  }

  std::shared_ptr<arrow::Buffer> Lend(std::unique_ptr<arrow::ResizableBuffer> buffer) {
    return std::make_shared<Lent>(std::move(buffer), shelf_);
  }

 private:
  struct Shelf {
    Mutex mu;
    bool is_closed PENSTOCK_GUARDED_BY(mu) = false;
    std::unique_ptr<arrow::ResizableBuffer> buffer PENSTOCK_GUARDED_BY(mu);  // One; others die when they come back.
  };

  class Lent final : public arrow::Buffer {
   public:
    Lent(std::unique_ptr<arrow::ResizableBuffer> buffer, std::shared_ptr<Shelf> shelf)
        : arrow::Buffer(buffer->data(), buffer->size()), buffer_(std::move(buffer)), shelf_(std::move(shelf)) {}
    ~Lent() override {
      MutexLock lock(shelf_->mu);
      if (!shelf_->is_closed && shelf_->buffer == nullptr) shelf_->buffer = std::move(buffer_);
    }

   private:
    std::unique_ptr<arrow::ResizableBuffer> buffer_;
    const std::shared_ptr<Shelf> shelf_;
  };

  const std::shared_ptr<Shelf> shelf_ = std::make_shared<Shelf>();
};

/// An array's values, as many as rows turn out to have.
///
/// How many that is likely to be is the footer's word at first, then that of the rows made last.
class GrowingValues {
 public:
  /// None is made larger than this before its rows are known.
  static constexpr int64_t kMostBytesAhead = int64_t{64} << 20;

  /// \param row_bytes  of a row's values, likely. \param lender  of their memory; must outlive this.
  static arrow::Result<GrowingValues> For(int64_t rows, double row_bytes, BufferLender* lender,
                                          arrow::MemoryPool* pool) {
    const double bytes = std::clamp(static_cast<double>(rows) * row_bytes * 1.125, 0.0, double{kMostBytesAhead});
    GrowingValues values;
    values.lender_ = lender;
    ARROW_ASSIGN_OR_RAISE(values.buffer_, lender->Make(static_cast<int64_t>(bytes), pool));
    return values;
  }

  uint8_t* data() const { return buffer_->mutable_data(); }

  /// Room for `bytes`: half as much on top, but no more than `most_more`, and none where the budget has none.
  arrow::Status Reserve(int64_t bytes, int64_t most_more) {
    if (bytes <= buffer_->size()) return arrow::Status::OK();
    const int64_t more = std::clamp<int64_t>(bytes / 2, 0, std::max<int64_t>(most_more, 0));
    if (more > 0 && buffer_->Resize(bytes + more, /*shrink_to_fit=*/false).ok()) return arrow::Status::OK();
    return buffer_->Resize(bytes, /*shrink_to_fit=*/false);
  }

  /// \param bytes  that were written. Nothing is written afterwards.
  arrow::Result<std::shared_ptr<arrow::Buffer>> Finish(int64_t bytes) {
    ARROW_RETURN_NOT_OK(buffer_->Resize(bytes, /*shrink_to_fit=*/false));
    return lender_->Lend(std::move(buffer_));
  }

 private:
  BufferLender* lender_ = nullptr;
  std::unique_ptr<arrow::ResizableBuffer> buffer_;
};

}  // namespace penstock

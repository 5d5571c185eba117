#include "source/range_reader.h"

#include <arrow/buffer.h>
#include <arrow/util/thread_pool.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>

#include "penstock/mutex.h"
#include "source/counting_file.h"

namespace penstock {
namespace {

int64_t EndOf(const arrow::io::ReadRange& range) { return range.offset + range.length; }

/// The bytes of a request, counted from before it is made until they are freed.
class Bytes {
 public:
  static arrow::Result<std::shared_ptr<const Bytes>> Fetch(arrow::io::RandomAccessFile& file,
                                                           const arrow::io::ReadRange& range,
                                                           std::shared_ptr<ReservedPool> pool) {
    std::shared_ptr<Bytes> bytes(new Bytes);
    ARROW_RETURN_NOT_OK(pool->Take(HeldBytes(range)));
    bytes->pool_ = std::move(pool);
    bytes->held_bytes_ = HeldBytes(range);
    // The file brings the memory: bytes that a Python file gives are Python's.
    ARROW_ASSIGN_OR_RAISE(bytes->buffer_, file.ReadAt(range.offset, range.length));
    if (bytes->buffer_->size() != range.length) {
      return arrow::Status::IOError("the file gave ", bytes->buffer_->size(), " of ", range.length, " bytes at ",
                                    range.offset, "; was it cut while it was read?");
    }
    return bytes;
  }

  ~Bytes() {
    buffer_.reset();
    if (pool_ != nullptr) pool_->GiveBack(held_bytes_);
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  /// As allocators round.
  static int64_t HeldBytes(const arrow::io::ReadRange& range) { return (range.length + 63) / 64 * 64; }

  const uint8_t* data() const { return buffer_->data(); }

 private:
  Bytes() = default;

  std::shared_ptr<ReservedPool> pool_;
  int64_t held_bytes_ = 0;
  std::shared_ptr<arrow::Buffer> buffer_;
};

}  // namespace

/// What the reader and its requests share.
class RangeReader::State : public std::enable_shared_from_this<RangeReader::State> {
 public:
  State(const ParquetFile& file, FetchPlan plan, std::shared_ptr<ReservedPool> pool, arrow::internal::Executor* ahead)
      : plan_(std::move(plan)), file_(file.file), remote_(file.remote), ahead_(ahead), pool_(std::move(pool)) {
    MutexLock lock(mu_);
    blocks_.resize(plan_.blocks.size());
    for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i].columns_left = plan_.blocks[i].columns;
  }

  const FetchPlan& plan() const { return plan_; }
  arrow::io::RandomAccessFile& file() const { return *file_; }
  std::shared_ptr<ReservedPool> pool() const PENSTOCK_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return pool_;
  }

  /// The block that has the byte at `position`; -1: none.
  int BlockAt(int64_t position) const {
    if (is_over_) return -1;
    const auto after =
        std::upper_bound(plan_.blocks.begin(), plan_.blocks.end(), position,
                         [](int64_t at, const FetchPlan::Block& block) { return at < block.range.offset; });
    const auto index = static_cast<int>(after - plan_.blocks.begin()) - 1;
    return index >= 0 && position < EndOf(RangeOf(index)) ? index : -1;
  }
  const arrow::io::ReadRange& RangeOf(int index) const { return plan_.blocks[static_cast<size_t>(index)].range; }

  /// Fetches a block in the background, unless somebody has it or is about to; at the start also unless it was read:
  /// readers may have been quicker.
  void FetchAhead(int index, bool is_start) PENSTOCK_EXCLUDES(mu_) {
    if (ahead_ == nullptr || index < 0) return;
    {
      MutexLock lock(mu_);
      Block& block = BlockLocked(index);
      if (is_over_ || block.phase != Phase::kAbsent || (is_start && block.was_passed)) return;
      block.phase = Phase::kAsked;
    }
    const arrow::Status spawned = ahead_->Spawn([self = shared_from_this(), index] {
      const BackgroundRead background;
      {
        MutexLock lock(self->mu_);
        // Dropped meanwhile, or a reader was quicker.
        if (self->BlockLocked(index).phase != Phase::kAsked) return;
        self->BeginLocked(index);
      }
      self->Fetch(index);
    });
    if (spawned.ok()) return;
    MutexLock lock(mu_);
    Block& block = BlockLocked(index);
    if (block.phase == Phase::kAsked) block.phase = Phase::kAbsent;
  }

  /// The bytes of a block, fetched here where nobody has done so; null where the budget has no room for them.
  arrow::Result<std::shared_ptr<const Bytes>> Get(int index) PENSTOCK_EXCLUDES(mu_) {
    FetchAhead(plan_.blocks[static_cast<size_t>(index)].next, /*is_start=*/false);
    MutexLock lock(mu_);
    WaitForLocked(index);
    if (is_over_) return nullptr;
    if (BlockLocked(index).phase != Phase::kHere) {
      BeginLocked(index);
      lock.Unlock();
      Fetch(index);
      lock.Lock();
    }
    const Block& block = BlockLocked(index);
    ARROW_RETURN_NOT_OK(block.failure);
    return block.bytes;
  }

  /// Notes that [position, end) of a column was read; frees the block where that was the last of it.
  void Passed(int index, int64_t position, int64_t end) PENSTOCK_EXCLUDES(mu_) {
    const auto after =
        std::upper_bound(plan_.columns.begin(), plan_.columns.end(), position,
                         [](int64_t at, const arrow::io::ReadRange& column) { return at < column.offset; });
    if (after == plan_.columns.begin() || end < std::min(EndOf(*std::prev(after)), EndOf(RangeOf(index)))) return;
    std::shared_ptr<const Bytes> doomed;
    std::shared_ptr<ReservedPool> pool;
    {
      MutexLock lock(mu_);
      Block& block = BlockLocked(index);
      if (--block.columns_left > 0 || block.phase != Phase::kHere) return;
      block.columns_left = 1;  // Who reads it once more is alone with it.
      block.phase = Phase::kAbsent;
      doomed = std::move(block.bytes);
      if (!std::exchange(block.was_passed, true) && plan_.is_whole) pool = pool_;
    }
    doomed.reset();
    if (pool != nullptr) pool->LowerPromise(Bytes::HeldBytes(RangeOf(index)));
  }

  /// Waits for requests under way and frees all blocks; there will be no others.
  void End() PENSTOCK_EXCLUDES(mu_) {
    std::vector<std::shared_ptr<const Bytes>> doomed;
    MutexLock lock(mu_);
    is_over_ = true;
    for (Block& block : blocks_) {
      if (block.phase == Phase::kAsked) block.phase = Phase::kAbsent;
    }
    while (num_fetching_ > 0) arrived_.Wait(mu_);
    for (Block& block : blocks_) {
      doomed.push_back(std::move(block.bytes));
      block = {};
    }
  }

  /// After End(): requests that have not begun may keep this alive, but not the row group's memory.
  void ReleasePool() PENSTOCK_EXCLUDES(mu_) {
    std::shared_ptr<ReservedPool> pool;
    MutexLock lock(mu_);
    pool.swap(pool_);
  }

  arrow::Status Check() const { return remote_->check(); }

 private:
  /// kAsked: a background task is going to fetch it. kFetching: somebody is. kHere: bytes, or a failure.
  enum class Phase : uint8_t { kAbsent, kAsked, kFetching, kHere };
  struct Block {
    Phase phase = Phase::kAbsent;
    int columns_left = 0;
    bool was_passed = false;
    std::shared_ptr<const Bytes> bytes;
    arrow::Status failure;
  };

  Block& BlockLocked(int index) PENSTOCK_REQUIRES(mu_) { return blocks_[static_cast<size_t>(index)]; }

  void BeginLocked(int index) PENSTOCK_REQUIRES(mu_) {
    BlockLocked(index).phase = Phase::kFetching;
    ++num_fetching_;
  }

  // To the caller it is reading, whoever does it.
  void WaitForLocked(int index) PENSTOCK_REQUIRES(mu_) {
    if (BlockLocked(index).phase != Phase::kFetching) return;
    const auto since = std::chrono::steady_clock::now();
    while (BlockLocked(index).phase == Phase::kFetching) arrived_.Wait(mu_);
    AddReadWait(std::chrono::steady_clock::now() - since, remote_->counters);
  }

  void Fetch(int index) PENSTOCK_EXCLUDES(mu_) {
    std::shared_ptr<const Bytes> bytes;
    const arrow::Status status = Bytes::Fetch(*file_, RangeOf(index), pool()).Value(&bytes);
    const arrow::Status checked = status.ok() ? Check() : status;
    if (!checked.ok()) bytes.reset();  // Before the request counts as done.
    MutexLock lock(mu_);
    Block& block = BlockLocked(index);
    block.phase = status.IsOutOfMemory() ? Phase::kAbsent : Phase::kHere;
    block.failure = status.IsOutOfMemory() ? arrow::Status::OK() : checked;
    block.bytes = std::move(bytes);
    --num_fetching_;
    arrived_.NotifyAll();
  }

  const FetchPlan plan_;
  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
  const std::shared_ptr<const RemoteFile> remote_;
  arrow::internal::Executor* const ahead_;
  mutable Mutex mu_;
  CondVar arrived_;
  std::shared_ptr<ReservedPool> pool_ PENSTOCK_GUARDED_BY(mu_);  // Null when all is over.
  std::vector<Block> blocks_ PENSTOCK_GUARDED_BY(mu_);
  int num_fetching_ PENSTOCK_GUARDED_BY(mu_) = 0;
  std::atomic<bool> is_over_{false};
};

RangeReader::RangeReader(const ParquetFile& file, FetchPlan plan, std::shared_ptr<ReservedPool> pool,
                         arrow::internal::Executor* ahead)
    : state_(std::make_shared<State>(file, std::move(plan), std::move(pool), ahead)) {}

RangeReader::~RangeReader() {
  state_->End();
  state_->ReleasePool();
}

void RangeReader::Start() {
  if (!state_->plan().is_whole) return;
  for (size_t i = 0; i < state_->plan().blocks.size(); ++i) state_->FetchAhead(static_cast<int>(i), /*is_start=*/true);
}

void RangeReader::ReadDirectly() { state_->End(); }

arrow::Result<int64_t> RangeReader::GetSize() { return state_->file().GetSize(); }

arrow::Result<int64_t> RangeReader::ReadAt(int64_t position, int64_t nbytes, void* out) {
  int64_t done = 0;
  while (done < nbytes) {
    const int64_t at = position + done;
    auto* to = static_cast<uint8_t*>(out) + done;
    int64_t wanted = nbytes - done;
    const int index = state_->BlockAt(at);
    std::shared_ptr<const Bytes> bytes;
    if (index >= 0) {
      wanted = std::min(wanted, EndOf(state_->RangeOf(index)) - at);
      ARROW_ASSIGN_OR_RAISE(bytes, state_->Get(index));
    }
    if (bytes != nullptr) {
      std::memcpy(to, bytes->data() + (at - state_->RangeOf(index).offset), static_cast<size_t>(wanted));
      bytes.reset();
      state_->Passed(index, at, at + wanted);
    } else {
      ARROW_ASSIGN_OR_RAISE(const int64_t read, state_->file().ReadAt(at, wanted, to));
      ARROW_RETURN_NOT_OK(state_->Check());
      if (read < wanted) return done + read;
    }
    done += wanted;
  }
  return done;
}

arrow::Result<std::shared_ptr<arrow::Buffer>> RangeReader::ReadAt(int64_t position, int64_t nbytes) {
  const std::shared_ptr<ReservedPool> pool = state_->pool();
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::ResizableBuffer> buffer,
                        arrow::AllocateResizableBuffer(nbytes, pool.get()));
  ARROW_ASSIGN_OR_RAISE(const int64_t read, ReadAt(position, nbytes, buffer->mutable_data()));
  ARROW_RETURN_NOT_OK(buffer->Resize(read, /*shrink_to_fit=*/false));
  return buffer;
}

std::shared_ptr<const ParquetFile> ReadThrough(const ParquetFile& file, std::shared_ptr<RangeReader> ranges) {
  auto through = std::make_shared<ParquetFile>(file);
  through->file = std::move(ranges);
  return through;
}

namespace {

arrow::Status NoPosition() { return arrow::Status::NotImplemented("column chunks are read at their places"); }

}  // namespace

arrow::Result<int64_t> RangeReader::Tell() const { return NoPosition(); }
arrow::Status RangeReader::Seek(int64_t) { return NoPosition(); }
arrow::Result<int64_t> RangeReader::Read(int64_t, void*) { return NoPosition(); }
arrow::Result<std::shared_ptr<arrow::Buffer>> RangeReader::Read(int64_t) { return NoPosition(); }

}  // namespace penstock

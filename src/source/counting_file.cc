#include "source/counting_file.h"

#include <arrow/buffer.h>
#include <arrow/util/future.h>

#include <chrono>
#include <utility>

namespace penstock {
namespace {

thread_local int64_t thread_busy_ns = 0;

int64_t BytesOf(int64_t bytes) { return bytes; }
int64_t BytesOf(const std::shared_ptr<arrow::Buffer>& buffer) { return buffer->size(); }

class CountingFile : public arrow::io::RandomAccessFile {
 private:
  template <typename ReadOnce>
  auto Timed(ReadOnce&& read_once) {
    const auto start = std::chrono::steady_clock::now();
    auto result = read_once();
    const std::chrono::nanoseconds busy = std::chrono::steady_clock::now() - start;
    thread_busy_ns += busy.count();
    if (counters_ != nullptr) {
      counters_->busy_ns.fetch_add(busy.count(), std::memory_order_relaxed);
      counters_->reads.fetch_add(1, std::memory_order_relaxed);
      if (result.ok()) counters_->bytes.fetch_add(BytesOf(*result), std::memory_order_relaxed);
    }
    return result;
  }

 public:
  CountingFile(std::shared_ptr<arrow::io::RandomAccessFile> file, IoCounters* counters)
      : file_(std::move(file)), counters_(counters) {}

  arrow::Status Close() override { return file_->Close(); }
  arrow::Status Abort() override { return file_->Abort(); }
  bool closed() const override { return file_->closed(); }
  arrow::Result<int64_t> Tell() const override { return file_->Tell(); }
  arrow::Status Seek(int64_t position) override { return file_->Seek(position); }
  arrow::Result<int64_t> GetSize() override { return file_->GetSize(); }
  bool supports_zero_copy() const override { return file_->supports_zero_copy(); }
  const arrow::io::IOContext& io_context() const override { return file_->io_context(); }
  arrow::Status WillNeed(const std::vector<arrow::io::ReadRange>& ranges) override { return file_->WillNeed(ranges); }

  arrow::Result<int64_t> Read(int64_t nbytes, void* out) override {
    return Timed([&] { return file_->Read(nbytes, out); });
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t nbytes) override {
    return Timed([&] { return file_->Read(nbytes); });
  }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t nbytes, void* out) override {
    return Timed([&] { return file_->ReadAt(position, nbytes, out); });
  }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t nbytes, bool allow_short_read, void* out) override {
    return Timed([&] { return file_->ReadAt(position, nbytes, allow_short_read, out); });
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t nbytes) override {
    return Timed([&] { return file_->ReadAt(position, nbytes); });
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t nbytes,
                                                       bool allow_short_read) override {
    return Timed([&] { return file_->ReadAt(position, nbytes, allow_short_read); });
  }

 private:
  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
  IoCounters* const counters_;
};

}  // namespace

int64_t IoCounters::ThreadBusyNs() { return thread_busy_ns; }

std::shared_ptr<arrow::io::RandomAccessFile> CountReads(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                                        IoCounters* counters) {
  return std::make_shared<CountingFile>(std::move(file), counters);
}

}  // namespace penstock

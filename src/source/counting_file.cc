#include "source/counting_file.h"

#include <arrow/buffer.h>
#include <arrow/filesystem/filesystem.h>
#include <arrow/io/file.h>
#include <arrow/util/future.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <utility>

namespace penstock {
namespace {

thread_local int64_t thread_busy_ns = 0;
thread_local bool is_background = false;

// S3 lists files to the millisecond and describes one to the second: what is whole seconds says no more.
bool IsSameTime(int64_t a_ns, int64_t b_ns) {
  constexpr int64_t kSecond = 1'000'000'000;
  if (a_ns % kSecond != 0 && b_ns % kSecond != 0) return a_ns == b_ns;
  return a_ns / kSecond == b_ns / kSecond;
}

uint64_t NewMark() {
  static thread_local std::mt19937_64 random(std::random_device{}());
  return random();
}

int64_t BytesOf(int64_t bytes) { return bytes; }
int64_t BytesOf(const std::shared_ptr<arrow::Buffer>& buffer) { return buffer->size(); }

class CountingFile : public arrow::io::RandomAccessFile {
 private:
  // Whoever writes sets the time before the bytes: what was read before this check is of the version that it finds.
  arrow::Status CheckNotWritten() const {
    struct stat now;
    if (descriptor_ < 0 || fstat(descriptor_, &now) != 0) return arrow::Status::OK();
    return CheckUnchanged(entry_, now.st_size, int64_t{now.st_mtim.tv_sec} * 1'000'000'000 + now.st_mtim.tv_nsec);
  }

  template <typename ReadOnce>
  auto Timed(ReadOnce&& read_once) -> decltype(read_once()) {
    const auto start = std::chrono::steady_clock::now();
    auto result = read_once();
    const std::chrono::nanoseconds busy = std::chrono::steady_clock::now() - start;
    if (!is_background) AddReadWait(busy, counters_);
    if (counters_ != nullptr) {
      counters_->reads.fetch_add(1, std::memory_order_relaxed);
      if (result.ok()) counters_->bytes.fetch_add(BytesOf(*result), std::memory_order_relaxed);
    }
    ARROW_RETURN_NOT_OK(CheckNotWritten());
    return result;
  }

 public:
  CountingFile(std::shared_ptr<arrow::io::RandomAccessFile> file, const FileEntry& entry, IoCounters* counters)
      : file_(std::move(file)), entry_(entry), size_bytes_(file_->GetSize().ValueOr(-1)), counters_(counters) {
    const auto* local = dynamic_cast<const arrow::io::ReadableFile*>(file_.get());
    if (local != nullptr) descriptor_ = local->file_descriptor();
    is_watched_ = local == nullptr && !file_->supports_zero_copy() && size_bytes_ >= 0;
  }

  ~CountingFile() override {
    if (!file_->closed()) arrow::Status ignored = file_->Close();  // A Python file does not do so by itself.
  }

  arrow::Status Close() override { return file_->Close(); }
  arrow::Status Abort() override { return file_->Abort(); }
  bool closed() const override { return file_->closed(); }
  arrow::Result<int64_t> Tell() const override { return file_->Tell(); }
  arrow::Status Seek(int64_t position) override { return file_->Seek(position); }
  // Asked for once, before workers share the file: a Python file seeks to its end and back to tell, which would come
  // between the seek and the read of another thread.
  arrow::Result<int64_t> GetSize() override { return size_bytes_; }
  bool supports_zero_copy() const override { return file_->supports_zero_copy(); }
  const arrow::io::IOContext& io_context() const override { return file_->io_context(); }
  arrow::Status WillNeed(const std::vector<arrow::io::ReadRange>& ranges) override { return file_->WillNeed(ranges); }

  arrow::Result<int64_t> Read(int64_t nbytes, void* out) override {
    ARROW_ASSIGN_OR_RAISE(const int64_t position, is_watched_ ? file_->Tell() : 0);
    return Watched(position, nbytes, out, [&] { return file_->Read(nbytes, out); });
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t nbytes) override {
    if (is_watched_) return ToBuffer(nbytes, [&](void* out) { return Read(nbytes, out); });
    return Timed([&] { return file_->Read(nbytes); });
  }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t nbytes, void* out) override {
    return Watched(position, nbytes, out, [&] { return file_->ReadAt(position, nbytes, out); });
  }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t nbytes, bool allow_short_read, void* out) override {
    return Watched(position, nbytes, out, [&] { return file_->ReadAt(position, nbytes, allow_short_read, out); });
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t nbytes) override {
    if (is_watched_) return ToBuffer(nbytes, [&](void* out) { return ReadAt(position, nbytes, out); });
    return Timed([&] { return file_->ReadAt(position, nbytes); });
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t nbytes,
                                                       bool allow_short_read) override {
    const auto read = [&](void* out) { return ReadAt(position, nbytes, allow_short_read, out); };
    if (is_watched_) return ToBuffer(nbytes, read);
    return Timed([&] { return file_->ReadAt(position, nbytes, allow_short_read); });
  }

 private:
  // S3's file system takes an answer that is too short for a whole one, and leaves the rest of the memory as it was. So
  // a mark that nobody can know stands where the last bytes belong.
  template <typename ReadOnce>
  arrow::Result<int64_t> Watched(int64_t position, int64_t nbytes, void* out, ReadOnce&& read_once) {
    const int64_t wanted = std::min(nbytes, size_bytes_ - position);
    const uint64_t mark = NewMark();
    if (!is_watched_ || wanted < int64_t{sizeof(mark)}) return Timed(read_once);
    uint8_t* last = static_cast<uint8_t*>(out) + wanted - sizeof(mark);
    std::memcpy(last, &mark, sizeof(mark));
    ARROW_ASSIGN_OR_RAISE(const int64_t read, Timed(read_once));
    if (read == wanted && std::memcmp(last, &mark, sizeof(mark)) == 0) {
      return arrow::Status::IOError("the answer had fewer bytes than the ", wanted, " that were asked for at byte ",
                                    position);
    }
    return read;
  }

  template <typename ReadTo>
  arrow::Result<std::shared_ptr<arrow::Buffer>> ToBuffer(int64_t nbytes, ReadTo&& read_to) {
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(nbytes, file_->io_context().pool()));
    ARROW_ASSIGN_OR_RAISE(const int64_t read, read_to(buffer->mutable_data()));
    if (read < nbytes) ARROW_RETURN_NOT_OK(buffer->Resize(read));
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
  }

  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
  const FileEntry entry_;
  const int64_t size_bytes_;
  IoCounters* const counters_;
  int descriptor_ = -1;      ///< -1: no local file.
  bool is_watched_ = false;  ///< Whether reads are watched for answers that are too short.
};

}  // namespace

arrow::Status CheckUnchanged(const FileEntry& entry, int64_t size_bytes, int64_t mtime_ns) {
  constexpr const char* kRemedy = "; make a new loader";
  if (entry.size_bytes >= 0 && size_bytes >= 0 && entry.size_bytes != size_bytes) {
    return arrow::Status::IOError("changed since the loader was made (size ", entry.size_bytes, " -> ", size_bytes,
                                  " bytes)", kRemedy);
  }
  if (entry.mtime_ns >= 0 && mtime_ns >= 0 && !IsSameTime(entry.mtime_ns, mtime_ns)) {
    return arrow::Status::IOError("changed since the loader was made (written again, ", size_bytes, " bytes)", kRemedy);
  }
  return arrow::Status::OK();
}

BackgroundRead::BackgroundRead() { is_background = true; }
BackgroundRead::~BackgroundRead() { is_background = false; }

void AddReadWait(std::chrono::nanoseconds waited, IoCounters* counters) {
  thread_busy_ns += waited.count();
  if (counters != nullptr) counters->busy_ns.fetch_add(waited.count(), std::memory_order_relaxed);
}

int64_t IoCounters::ThreadBusyNs() { return thread_busy_ns; }

std::shared_ptr<arrow::io::RandomAccessFile> CountReads(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                                        const FileEntry& entry, IoCounters* counters) {
  return std::make_shared<CountingFile>(std::move(file), entry, counters);
}

arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenCounted(arrow::fs::FileSystem& fs,
                                                                        const FileEntry& entry, IoCounters* counters,
                                                                        bool* is_local) {
  ARROW_ASSIGN_OR_RAISE(arrow::fs::FileInfo info, fs.GetFileInfo(entry.path));
  if (info.type() == arrow::fs::FileType::NotFound) {
    return arrow::Status::IOError("no such file; it was there when the files were listed, or the path is wrong");
  }
  if (!info.IsFile()) return arrow::Status::IOError("is not a file");
  ARROW_RETURN_NOT_OK(CheckUnchanged(entry, info.size(), info.mtime().time_since_epoch().count()));
  ARROW_ASSIGN_OR_RAISE(auto file, fs.OpenInputFile(info));
  if (is_local != nullptr) {
    *is_local = dynamic_cast<const arrow::io::ReadableFile*>(file.get()) != nullptr || file->supports_zero_copy();
  }
  return CountReads(std::move(file), entry, counters);
}

}  // namespace penstock

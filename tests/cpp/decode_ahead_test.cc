// A column whose decoding is one worker's work at a time: the others go on with the row groups behind it.
#include <arrow/array/builder_nested.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/compute/expression.h>
#include <arrow/record_batch.h>
#include <arrow/table.h>
#include <gtest/gtest.h>
#include <parquet/metadata.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "penstock/loader.h"
#include "source_testing.h"

namespace penstock {
namespace {

using source_testing::Open;
using source_testing::TableOf;
using source_testing::TempFolder;
using source_testing::WriteParquet;

constexpr int64_t kGroupRows = 32768;
constexpr int64_t kItems = 256;  // Of a row.

/// Holds reads in one part of a file until others have been made in another.
struct Gate {
  void Reads(int64_t position) {
    std::unique_lock lock(mutex);
    if (position >= opens_at && position < opens_before) {
      is_open = true;
      opened.notify_all();
    }
    if (position < held_from || position >= held_before || is_given_up) return;
    is_given_up = !opened.wait_for(lock, std::chrono::seconds(20), [this] { return is_open; });
  }

  int64_t held_from = 0, held_before = 0;
  int64_t opens_at = 0, opens_before = 0;
  std::mutex mutex;
  std::condition_variable opened;
  bool is_open = false;
  bool is_given_up = false;
};

class GatedFile : public arrow::io::RandomAccessFile {
 public:
  GatedFile(std::shared_ptr<arrow::io::RandomAccessFile> file, Gate* gate) : file_(std::move(file)), gate_(gate) {}

  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t nbytes) override {
    gate_->Reads(position);
    return file_->ReadAt(position, nbytes);
  }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t nbytes, void* out) override {
    gate_->Reads(position);
    return file_->ReadAt(position, nbytes, out);
  }
  bool supports_zero_copy() const override { return true; }  // Or it would be taken for a file on a server.
  arrow::Status Close() override { return file_->Close(); }
  bool closed() const override { return file_->closed(); }
  arrow::Result<int64_t> GetSize() override { return file_->GetSize(); }
  arrow::Result<int64_t> Tell() const override { return file_->Tell(); }
  arrow::Status Seek(int64_t position) override { return file_->Seek(position); }
  arrow::Result<int64_t> Read(int64_t nbytes, void* out) override { return file_->Read(nbytes, out); }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t nbytes) override { return file_->Read(nbytes); }

 private:
  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
  Gate* const gate_;
};

class GatedFiles : public arrow::fs::LocalFileSystem {
 public:
  explicit GatedFiles(Gate* gate) : gate_(gate) {}
  arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenInputFile(const std::string& path) override {
    ARROW_ASSIGN_OR_RAISE(auto file, LocalFileSystem::OpenInputFile(path));
    return std::make_shared<GatedFile>(std::move(file), gate_);
  }
  arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenInputFile(const arrow::fs::FileInfo& info) override {
    return OpenInputFile(info.path());
  }

 private:
  Gate* const gate_;
};

class DecodeAheadTest : public testing::Test {
 protected:
  // Two row groups of 32 MiB in one column of lists; item i of the file is i.
  DecodeAheadTest() {
    arrow::ListBuilder lists(arrow::default_memory_pool(), std::make_shared<arrow::Int32Builder>());
    auto& items = static_cast<arrow::Int32Builder&>(*lists.value_builder());
    for (int64_t row = 0; row < 2 * kGroupRows; ++row) {
      EXPECT_TRUE(lists.Append().ok());
      for (int64_t i = 0; i < kItems; ++i) EXPECT_TRUE(items.Append(static_cast<int32_t>(row * kItems + i)).ok());
    }
    parquet::WriterProperties::Builder properties;
    properties.disable_dictionary()->data_pagesize(64 << 10);
    WriteParquet(path_, *TableOf({{"items", lists.Finish().ValueOrDie()}}), kGroupRows, properties.build());

    const auto file = Open(path_).ValueOrDie();
    const auto first = file->metadata->RowGroup(0)->ColumnChunk(0);
    const auto second = file->metadata->RowGroup(1)->ColumnChunk(0);
    gate_.held_from = first->data_page_offset() + first->total_compressed_size() / 4;
    gate_.held_before = gate_.opens_at = second->data_page_offset();
    gate_.opens_before = gate_.opens_at + second->total_compressed_size() / 2;  // A footer is read with what is before.
  }

  LoaderOptions Options() {
    LoaderOptions options;
    options.paths = {path_};
    options.filesystem = std::make_shared<GatedFiles>(&gate_);
    options.batch_size = 64;
    options.num_workers = 2;
    options.memory_budget_bytes = 40 << 20;  // Too little for as many slots as the rest of a row group fills.
    return options;
  }

  void ExpectAllRows(LoaderOptions options) {
    auto loader = Loader::Make(std::move(options));
    ASSERT_TRUE(loader.ok()) << loader.status();
    ASSERT_TRUE((*loader)->StartEpoch().ok());
    int64_t next = 0;
    while (true) {
      auto batch = (*loader)->Next();
      ASSERT_TRUE(batch.ok()) << batch.status();
      if (!*batch) break;
      const Ragged ragged = (*batch)->RaggedColumn(0);
      const auto* items = reinterpret_cast<const int32_t*>(ragged.values);
      for (int64_t i = 0; i < ragged.num_values; ++i) ASSERT_EQ(items[i], next++);
    }
    EXPECT_EQ(next, 2 * kGroupRows * kItems);
    EXPECT_FALSE(gate_.is_given_up) << "nobody read the second row group while the first was held up";
    EXPECT_LE((*loader)->Memory().total.peak_bytes, (*loader)->Memory().budget_bytes);
  }

  TempFolder folder_;
  const std::string path_ = folder_.File("lists.parquet");
  Gate gate_;
};

TEST_F(DecodeAheadTest, TheNextRowGroupIsDecodedWhileOneWorkerHasTheFirst) { ExpectAllRows(Options()); }

}  // namespace
}  // namespace penstock

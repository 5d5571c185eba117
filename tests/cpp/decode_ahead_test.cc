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
    is_given_up = !opened.wait_for(lock, std::chrono::seconds(100), [this] { return is_open; });
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
  // \param more_items  that the last row of the first row group has beside those that each has.
  void Write(int64_t more_items = 0) {
    arrow::ListBuilder lists(arrow::default_memory_pool(), std::make_shared<arrow::Int32Builder>());
    auto& items = static_cast<arrow::Int32Builder&>(*lists.value_builder());
    for (int64_t row = 0; row < 2 * kGroupRows; ++row) {
      EXPECT_TRUE(lists.Append().ok());
      const int64_t row_items = row == kGroupRows - 1 ? kItems + more_items : kItems;
      for (int64_t i = 0; i < row_items; ++i) EXPECT_TRUE(items.Append(static_cast<int32_t>(num_items_++)).ok());
    }
    parquet::WriterProperties::Builder properties;
    properties.disable_dictionary()->data_pagesize(64 << 10);
    WriteParquet(path_, *TableOf({{"items", lists.Finish().ValueOrDie()}}), kGroupRows, properties.build());
  }

  // The first row group is held up after a quarter of it, until `ahead_bytes` of the second are read.
  void HoldUntil(int64_t ahead_bytes) {
    const auto file = Open(path_).ValueOrDie();
    const auto first = file->metadata->RowGroup(0)->ColumnChunk(0);
    const auto second = file->metadata->RowGroup(1)->ColumnChunk(0);
    gate_.held_from = first->data_page_offset() + (8 << 20);
    gate_.held_before = second->data_page_offset();
    gate_.opens_at = second->data_page_offset() + ahead_bytes;
    gate_.opens_before = second->data_page_offset() + second->total_compressed_size() * 7 / 8;  // Behind: the footer.
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
    EXPECT_EQ(next, num_items_);
    EXPECT_FALSE(gate_.is_given_up) << "nobody read the second row group while the first was held up";
    memory_ = (*loader)->Memory();
    EXPECT_LE(memory_.total.peak_bytes, memory_.budget_bytes);
  }

  TempFolder folder_;
  const std::string path_ = folder_.File("lists.parquet");
  int64_t num_items_ = 0;
  Gate gate_;
  MemoryReport memory_;
};

TEST_F(DecodeAheadTest, TheNextRowGroupIsDecodedWhileOneWorkerHasTheFirst) {
  Write();
  HoldUntil(0);
  ExpectAllRows(Options());
}

// With a filter, some pieces of the next row group are decoded in any case: it is more than these.
TEST_F(DecodeAheadTest, SoIsThatOfAFilter) {
  Write();
  HoldUntil(10 << 20);
  LoaderOptions options = Options();
  options.memory_budget_bytes = 64 << 20;  // Pieces with a filter are promised more.
  options.filter =
      std::make_shared<arrow::compute::Expression>(arrow::compute::is_valid(arrow::compute::field_ref("items")));
  ExpectAllRows(std::move(options));
}

TEST_F(DecodeAheadTest, AQuarterOfTheBudgetIsLeft) {
  Write();
  HoldUntil(10 << 20);
  ExpectAllRows(Options());
  EXPECT_LE(memory_.total.peak_bytes, memory_.budget_bytes / 4 * 3);
}

// The last row of the first row group takes more than that quarter: what is ahead of it goes, and nobody brings it back
// meanwhile.
TEST_F(DecodeAheadTest, WhatIsAheadMakesRoomForWhatComesBefore) {
  Write(/*more_items=*/2 << 20);
  HoldUntil(20 << 20);
  LoaderOptions options = Options();
  options.memory_budget_bytes = 64 << 20;
  ExpectAllRows(std::move(options));
}

}  // namespace
}  // namespace penstock

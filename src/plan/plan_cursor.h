#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "penstock/ledger.h"
#include "source/file_set.h"
#include "source/parquet_file.h"
#include "source/projection.h"
#include "source/row_group_reader.h"

namespace penstock {

/// A file that is open, charged to the ledger's `metadata` account for as long as somebody reads it.
class OpenFile {
 public:
  /// OutOfMemory where the budget has no room for the footer.
  static arrow::Result<std::shared_ptr<const OpenFile>> Open(const FileSet& files, size_t index,
                                                             const Projection& projection, bool use_direct_decode,
                                                             std::shared_ptr<Ledger> ledger, IoCounters* counters);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const std::shared_ptr<const ParquetFile>& parquet() const { return parquet_; }
  const ReadPlan& read_plan() const { return read_plan_; }
  int64_t bytes() const { return bytes_; }

 private:
  OpenFile(std::shared_ptr<const ParquetFile> parquet, std::shared_ptr<Ledger> ledger, int64_t bytes);

  std::shared_ptr<const ParquetFile> parquet_;
  ReadPlan read_plan_;
  std::shared_ptr<Ledger> ledger_;
  int64_t bytes_;
};

/// A row group that is to be read.
struct ChunkSpec {
  std::shared_ptr<const OpenFile> file;
  int row_group = 0;
  int64_t rows = 0;  ///< > 0.
};

/// Walks over the row groups of a data set in order, one file open at a time; leaves out empty row groups and those
/// that the filter rules out.
///
/// Ownership: what it points to must outlive it. Threads: one at a time. Blocking: opens files.
class PlanCursor {
 public:
  PlanCursor(const FileSet* files, const Projection* projection, bool use_direct_decode, std::shared_ptr<Ledger> ledger,
             IoCounters* counters)
      : files_(files),
        projection_(projection),
        use_direct_decode_(use_direct_decode),
        ledger_(std::move(ledger)),
        counters_(counters) {}

  /// The next row group; nullopt after the last. Errors name the file.
  arrow::Result<std::optional<ChunkSpec>> Next();

  int64_t files_opened() const { return static_cast<int64_t>(next_file_); }
  int64_t row_groups_pruned() const { return row_groups_pruned_; }

 private:
  const FileSet* files_;
  const Projection* projection_;
  bool use_direct_decode_;
  std::shared_ptr<Ledger> ledger_;
  IoCounters* counters_;
  size_t next_file_ = 0;
  std::shared_ptr<const OpenFile> file_;
  int next_row_group_ = 0;
  int64_t row_groups_pruned_ = 0;
};

}  // namespace penstock

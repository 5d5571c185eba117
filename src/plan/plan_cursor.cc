#include "plan/plan_cursor.h"

#include <parquet/metadata.h>

namespace penstock {

OpenFile::OpenFile(std::shared_ptr<const ParquetFile> parquet, std::shared_ptr<Ledger> ledger, int64_t bytes)
    : parquet_(std::move(parquet)), ledger_(std::move(ledger)), bytes_(bytes) {}

OpenFile::~OpenFile() {
  parquet_.reset();
  ledger_->Sub(Account::kMetadata, bytes_);
}

arrow::Result<std::shared_ptr<const OpenFile>> OpenFile::Open(const FileSet& files, size_t index,
                                                              const Projection& projection, bool use_direct_decode,
                                                              std::shared_ptr<Ledger> ledger, IoCounters* counters) {
  const FileEntry& entry = files.files[index];
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<const ParquetFile> parquet, OpenParquet(*files.filesystem, entry, counters));
  const int64_t bytes = parquet->MemoryBytes();
  if (!ledger->TryAdd(Account::kMetadata, bytes)) {
    return arrow::Status::OutOfMemory(
        "'", entry.path, "': the footer takes ", bytes,
        " bytes of memory, more than memory_budget has room for; raise memory_budget by that much");
  }
  std::shared_ptr<OpenFile> file(new OpenFile(parquet, std::move(ledger), bytes));
  ARROW_RETURN_NOT_OK(CheckSchema(projection, *parquet));
  file->read_plan_ = MakeReadPlan(projection, *parquet, use_direct_decode);
  return file;
}

arrow::Result<std::optional<ChunkSpec>> PlanCursor::Next() {
  while (true) {
    if (file_ == nullptr) {
      if (next_file_ == files_->files.size()) return std::nullopt;
      ARROW_ASSIGN_OR_RAISE(file_,
                            OpenFile::Open(*files_, next_file_, *projection_, use_direct_decode_, ledger_, counters_));
      ++next_file_;
      next_row_group_ = 0;
    }
    const ParquetFile& parquet = *file_->parquet();
    if (next_row_group_ == parquet.metadata->num_row_groups()) {
      file_.reset();
      continue;
    }
    const int row_group = next_row_group_++;
    const int64_t rows = parquet.metadata->RowGroup(row_group)->num_rows();
    if (rows == 0) continue;
    ARROW_ASSIGN_OR_RAISE(const bool may_match, MayMatch(*projection_, parquet, row_group));
    if (!may_match) {
      ++row_groups_pruned_;
      continue;
    }
    return ChunkSpec{file_, row_group, rows};
  }
}

}  // namespace penstock

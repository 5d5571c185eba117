#include "source/parquet_source.h"

#include <parquet/metadata.h>

#include <algorithm>
#include <utility>

#include "source/file_kind.h"
#include "source/prune.h"
#include "source/range_reader.h"
#include "source/read_plan.h"
#include "source/row_group_reader.h"
#include "source/row_sample.h"
#include "source/text.h"
#include "source/vocabulary.h"

namespace penstock {
namespace {

/// An open Parquet file; its footer is charged to the ledger's `metadata` account.
class ParquetInput final : public Input, public std::enable_shared_from_this<ParquetInput> {
 public:
  static arrow::Result<std::shared_ptr<const Input>> Open(std::shared_ptr<const ParquetFile> file, size_t index,
                                                          const InputContext& context) {
    const std::string name = text::Quoted(file->entry.path);
    const int64_t bytes = file->MemoryBytes();
    if (!context.ledger->TryAdd(Account::kMetadata, bytes)) {
      return arrow::Status::OutOfMemory(
          name, ": the footer takes ", bytes,
          " bytes of memory, more than memory_budget has room for; raise memory_budget by that much");
    }
    auto input = std::make_shared<ParquetInput>(std::move(file), context.ledger, bytes);
    ARROW_RETURN_NOT_OK(CheckSchema(*context.projection, *input->parquet_->schema, name));
    input->file_index_ = static_cast<int64_t>(index);
    input->read_plan_ = MakeReadPlan(*context.projection, *input->parquet_, context.use_direct_decode);
    return input;
  }

  ParquetInput(std::shared_ptr<const ParquetFile> file, std::shared_ptr<Ledger> ledger, int64_t bytes)
      : parquet_(std::move(file)), ledger_(std::move(ledger)), bytes_(bytes) {}
  ~ParquetInput() override {
    parquet_.reset();
    ledger_->Sub(Account::kMetadata, bytes_);
  }
  ParquetInput(const ParquetInput&) = delete;
  ParquetInput& operator=(const ParquetInput&) = delete;

  int num_chunks() const override { return parquet_->metadata->num_row_groups(); }
  int64_t rows(int chunk) const override { return parquet_->metadata->RowGroup(chunk)->num_rows(); }
  std::string Where(int chunk) const override {
    return text::Quoted(parquet_->entry.path) + ", row group " + std::to_string(chunk);
  }
  const arrow::ScalarVector& partition_values() const override { return parquet_->entry.partition_values; }
  uint64_t digest() const override { return parquet_->footer_digest; }
  int64_t metadata_bytes() const override { return bytes_; }
  arrow::Result<bool> MayMatch(const Projection& projection, int chunk) const override {
    return penstock::MayMatch(projection, *parquet_, chunk);
  }

  int64_t DirectBytes(const Projection& projection, int chunk) const override {
    return EstimateDirectBytes(*parquet_, chunk, projection, read_plan_.direct);
  }
  int64_t PieceBytes(const Projection& projection, int chunk, int64_t rows) const override {
    return EstimatePieceBytes(*parquet_, chunk, projection, read_plan_.through_arrow, rows,
                              read_plan_.use_direct_decode);
  }
  int64_t DecodedBytes(int chunk) const override { return EstimateDecodedBytes(*parquet_, chunk); }
  int64_t StoredBytes(int chunk, const std::string& column) const override {
    const auto group = parquet_->metadata->RowGroup(chunk);
    const int leaf = group->schema()->ColumnIndex(column);
    return leaf < 0 ? 0 : group->ColumnChunk(leaf)->total_compressed_size();
  }
  std::optional<int64_t> NumItems(const OutputColumn& output, int chunk) const override {
    return penstock::NumItems(*parquet_, chunk, output);
  }

  int64_t ArenaBytes(const Projection& projection, int chunk) const override {
    return EstimateArenaBytes(*parquet_, chunk, projection);
  }
  int64_t MostItems(const Projection& projection, int chunk) const override {
    return MostItemsOf(*parquet_, chunk, projection);
  }
  FetchPlan PlanFetch(const Projection& projection, int chunk, int64_t most_bytes) const override {
    return PlanRowGroupFetch(*parquet_, chunk, projection, read_plan_, most_bytes);
  }
  std::shared_ptr<RangeReader> Fetch(FetchPlan plan, std::shared_ptr<ReservedPool> pool,
                                     arrow::internal::Executor* ahead) const override {
    return std::make_shared<RangeReader>(*parquet_, std::move(plan), std::move(pool), ahead);
  }
  std::shared_ptr<const Input> Through(std::shared_ptr<RangeReader> ranges) const override {
    auto through = std::make_shared<ParquetInput>(ReadThrough(*parquet_, std::move(ranges)), ledger_, /*bytes=*/0);
    through->read_plan_ = read_plan_;
    through->file_index_ = file_index_;
    through->charged_ = shared_from_this();
    return through;
  }

  arrow::Result<std::unique_ptr<PieceReader>> OpenPieces(const Projection& projection, int chunk,
                                                         std::vector<int> outputs, std::shared_ptr<ReservedPool> pool,
                                                         int64_t piece_rows, int64_t skip_rows) const override {
    const uint64_t sample_key = projection.sample ? SampleKey(*projection.sample, file(), begin_row(), chunk) : 0;
    return OpenRowGroupPieces(parquet_, chunk, projection, std::move(outputs), std::move(pool), piece_rows, skip_rows,
                              read_plan_.use_direct_decode, sample_key);
  }
  arrow::Result<std::unique_ptr<DirectReader>> OpenDirect(const Projection& projection, int chunk,
                                                          std::vector<int> outputs, std::shared_ptr<ReservedPool> pool,
                                                          int64_t skip_rows) const override {
    return DirectReader::Open(parquet_, chunk, projection, std::move(outputs), std::move(pool), skip_rows);
  }

 private:
  std::shared_ptr<const ParquetFile> parquet_;
  std::shared_ptr<const Input> charged_;  // Holds the footer that this one shares; null where it is its own.
  const std::shared_ptr<Ledger> ledger_;
  const int64_t bytes_;
};

class ParquetSequence final : public InputSequence {
 public:
  /// \param first  the first file, where it is open already.
  ParquetSequence(const FileSet* files, InputContext context, IoCounters* counters,
                  std::shared_ptr<const ParquetFile> first)
      : files_(files), context_(std::move(context)), counters_(counters), opened_(std::move(first)) {}

  arrow::Result<std::shared_ptr<const Input>> Next() override {
    if (next_ == files_->files.size()) return nullptr;
    std::shared_ptr<const ParquetFile> file = std::move(opened_);
    if (file == nullptr) {
      auto opened = OpenParquet(*files_->filesystem, files_->files[next_], counters_);
      ARROW_RETURN_NOT_OK(OrMixed(opened.status(), *files_, next_, FileKind::kParquet, counters_));
      file = std::move(*opened);
    }
    ARROW_ASSIGN_OR_RAISE(auto input, ParquetInput::Open(std::move(file), next_, context_));
    ++next_;
    return input;
  }
  arrow::Status Skip(int64_t inputs) override {
    if (inputs > 0) opened_.reset();
    next_ = std::min(files_->files.size(), next_ + static_cast<size_t>(inputs));
    return arrow::Status::OK();
  }

 private:
  const FileSet* files_;
  const InputContext context_;
  IoCounters* const counters_;
  std::shared_ptr<const ParquetFile> opened_;
  size_t next_ = 0;
};

class ParquetSource final : public Source {
 public:
  ParquetSource(FileSet files, IoCounters* counters) : files_(std::move(files)), counters_(counters) {}

  arrow::Status Init() {
    const FileEntry& first = files_.files.front();
    ARROW_ASSIGN_OR_RAISE(first_, OpenParquet(*files_.filesystem, first, counters_));
    if (files_.files.size() == 1) known_rows_ = first_->metadata->num_rows();
    SetSchema(*first_->schema, files_.partition_fields, first.path);
    return arrow::Status::OK();
  }

  bool is_counted() const override { return true; }
  int64_t known_rows() const override { return known_rows_; }
  int64_t num_files() const override { return static_cast<int64_t>(files_.files.size()); }
  std::vector<std::string> file_names() const override { return files_.Paths(); }
  DataFingerprint fingerprint() const override { return files_.Fingerprint(); }
  std::string_view chunk_name() const override { return "row group"; }
  int64_t MemoryBytes() const override { return files_.MemoryBytes(); }

  arrow::Result<std::unique_ptr<InputSequence>> Open(const InputContext& context) override {
    return std::make_unique<ParquetSequence>(&files_, context, counters_, std::move(first_));
  }
  arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields,
                                               const std::shared_ptr<arrow::MemoryPool>& pool) override {
    return penstock::ReadVocabularies(fields, files_, pool.get(), counters_);
  }

 private:
  const FileSet files_;
  IoCounters* const counters_;
  int64_t known_rows_ = -1;
  std::shared_ptr<const ParquetFile> first_;  // Until the first look ahead, so that its footer is read once for both.
};

}  // namespace

arrow::Result<std::unique_ptr<Source>> MakeParquetSource(FileSet files, IoCounters* counters) {
  auto source = std::make_unique<ParquetSource>(std::move(files), counters);
  ARROW_RETURN_NOT_OK(source->Init());
  return source;
}

}  // namespace penstock

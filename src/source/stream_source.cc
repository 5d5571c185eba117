#include <arrow/array/array_base.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

#include "penstock/store_reader.h"
#include "source/batch_input.h"
#include "source/text.h"
#include "source/unified_dictionaries.h"

namespace penstock {
namespace {

// Whoever gives more before the first row has nothing to be looked at.
constexpr size_t kMostEmptyBatches = 100;

struct ReadBatch {
  arrow::Status status;
  std::shared_ptr<arrow::RecordBatch> batch;  // Null at the end.
  bool is_in_store = false;
  std::shared_ptr<const void> owner;
};

ReadBatch ReadFrom(arrow::RecordBatchReader& reader) {
  ReadBatch read;
  read.status = reader.ReadNext(&read.batch);
  if (!read.status.ok()) read.batch = nullptr;
  auto* const store = dynamic_cast<StoreReader*>(&reader);
  if (store == nullptr || read.batch == nullptr) return read;
  read.is_in_store = store->is_in_store();
  read.owner = store->TakeOwner();
  return read;
}

class StreamSequence final : public InputSequence {
 public:
  /// \param ahead  what reading the first batches came to, if they have been read.
  StreamSequence(std::shared_ptr<arrow::RecordBatchReader> reader, std::deque<ReadBatch> ahead, InputContext context)
      : reader_(std::move(reader)), ahead_(std::move(ahead)), context_(std::move(context)) {}

  // The reader is kept after its end: what it holds dies where the epoch does, not on a worker.
  arrow::Result<std::shared_ptr<const Input>> Next() override {
    ARROW_RETURN_NOT_OK(refused_);
    auto input = TakeNext();
    // Whoever is refused memory asks again, and what was read is gone: not the end, nor the next batch instead of it.
    if (input.status().IsOutOfMemory()) refused_ = input.status();
    return input;
  }

  int64_t next_pulled_bytes() const override { return is_at_end_ || is_last_in_store_ ? 0 : last_bytes_; }
  int64_t next_store_bytes() const override { return is_at_end_ || !is_last_in_store_ ? 0 : last_bytes_; }

 private:
  ReadBatch Read() {
    if (ahead_.empty()) return ReadFrom(*reader_);
    ReadBatch batch = std::move(ahead_.front());
    ahead_.pop_front();
    return batch;
  }

  arrow::Result<std::shared_ptr<const Input>> TakeNext() {
    if (is_at_end_) return nullptr;
    ReadBatch read = Read();
    is_at_end_ = read.batch == nullptr;
    ARROW_RETURN_NOT_OK(text::WithContext(read.status, "reading " + (kPrefix + std::to_string(next_number_))));
    if (read.batch == nullptr) return nullptr;
    BatchInputParts parts;
    parts.pulled_bytes = std::max<int64_t>(1, BatchBytes(*read.batch));
    if (read.is_in_store) parts.pulled_account = Account::kStore;
    parts.owner = std::move(read.owner);
    last_bytes_ = parts.pulled_bytes;
    is_last_in_store_ = parts.pulled_account == Account::kStore;
    parts.batches = {std::move(read.batch)};
    parts.prefix = kPrefix;
    parts.first_number = next_number_++;
    parts.begin_row = next_row_;
    next_row_ += parts.batches.front()->num_rows();
    return MakeBatchInput(std::move(parts), context_);
  }

  inline static const std::string kPrefix = "the stream, record batch ";
  const std::shared_ptr<arrow::RecordBatchReader> reader_;
  std::deque<ReadBatch> ahead_;
  const InputContext context_;
  arrow::Status refused_;
  int64_t next_number_ = 0;
  int64_t next_row_ = 0;
  int64_t last_bytes_ = 0;
  bool is_last_in_store_ = false;
  bool is_at_end_ = false;
};

bool IsEmpty(const ReadBatch& read) { return read.batch != nullptr && read.batch->num_rows() == 0; }

class StreamSource final : public Source {
 public:
  StreamSource(BatchReaderFactory open, bool once) : open_(std::move(open)), is_one_shot_(once) {}

  arrow::Status Init() {
    ARROW_ASSIGN_OR_RAISE(first_, open_());
    SetSchema(*first_->schema(), {}, "the stream");
    return arrow::Status::OK();
  }

  bool is_counted() const override { return false; }
  bool is_one_shot() const override { return is_one_shot_; }
  int64_t known_rows() const override { return -1; }
  int64_t num_files() const override { return 0; }
  std::string_view chunk_name() const override { return "record batch"; }
  int64_t MemoryBytes() const override { return 0; }

  arrow::Result<std::unique_ptr<InputSequence>> Open(const InputContext& context) override {
    auto reader = std::move(first_);
    if (reader == nullptr && is_one_shot_) {
      return arrow::Status::Invalid(
          "this source can be read once; for more epochs give a table, files, or an iterable that can be iterated "
          "again (not an iterator)");
    }
    if (reader == nullptr) {
      ARROW_ASSIGN_OR_RAISE(reader, open_());
    }
    return std::make_unique<StreamSequence>(std::move(reader), std::exchange(ahead_, {}), context);
  }
  // Those of the first batch with rows, which waits for the first epoch then.
  arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields,
                                               const std::shared_ptr<arrow::MemoryPool>& pool) override {
    if (fields.empty()) return Vocabularies{};
    ARROW_ASSIGN_OR_RAISE(auto unified, UnifiedDictionaries::Make(fields, pool.get()));
    const auto batch = LookAtFirst();
    const std::string name = "the stream, record batch " + std::to_string(ahead_.size() - 1);
    ARROW_RETURN_NOT_OK(text::WithContext(ahead_.back().status, "reading " + name));
    if (batch != nullptr) ARROW_RETURN_NOT_OK(text::WithContext(unified.Add(*batch), name));
    return unified.Finish();
  }
  std::shared_ptr<arrow::RecordBatch> LookAtFirst() override {
    if (ahead_.empty() && first_ == nullptr) return nullptr;
    while (ahead_.empty() || (IsEmpty(ahead_.back()) && ahead_.size() < kMostEmptyBatches)) {
      ahead_.push_back(ReadFrom(*first_));
    }
    return ahead_.back().batch;
  }

 private:
  const BatchReaderFactory open_;
  const bool is_one_shot_;
  std::shared_ptr<arrow::RecordBatchReader> first_;  // Opened for its schema; of the first epoch...
  std::deque<ReadBatch> ahead_;                      // ... as is what has been looked at: up to the first rows.
};

}  // namespace

arrow::Result<std::unique_ptr<Source>> MakeStreamSource(BatchReaderFactory open, bool once) {
  auto source = std::make_unique<StreamSource>(std::move(open), once);
  ARROW_RETURN_NOT_OK(source->Init());
  return source;
}

}  // namespace penstock

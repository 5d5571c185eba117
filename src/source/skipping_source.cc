#include "source/skipping_source.h"

#include <cstring>
#include <utility>

#include "source/row_group_reader.h"

namespace penstock {
namespace {

using OnError = std::function<arrow::Status(const arrow::Status&)>;

/// What takes the place of a file that cannot be opened.
class NoInput final : public Input {
 public:
  int num_chunks() const override { return 0; }
  int64_t rows(int /*chunk*/) const override { return 0; }
  std::string Where(int /*chunk*/) const override { return "a file that was left out"; }
  const arrow::ScalarVector& partition_values() const override { return partition_values_; }
  arrow::Result<bool> MayMatch(const Projection& /*projection*/, int /*chunk*/) const override { return false; }
  int64_t DirectBytes(const Projection& /*projection*/, int /*chunk*/) const override { return 0; }
  int64_t PieceBytes(const Projection& /*projection*/, int /*chunk*/, int64_t /*rows*/) const override { return 0; }
  int64_t DecodedBytes(int /*chunk*/) const override { return 0; }
  int64_t StoredBytes(int /*chunk*/, const std::string& /*column*/) const override { return 0; }
  int64_t ArenaBytes(const Projection& /*projection*/, int /*chunk*/) const override { return 0; }
  arrow::Result<std::unique_ptr<PieceReader>> OpenPieces(const Projection& /*projection*/, int /*chunk*/,
                                                         std::vector<int> /*outputs*/,
                                                         std::shared_ptr<ReservedPool> /*pool*/, int64_t /*piece_rows*/,
                                                         int64_t /*skip_rows*/) const override {
    return arrow::Status::IndexError(Where(0), " has no rows");
  }
  arrow::Result<std::unique_ptr<DirectReader>> OpenDirect(const Projection& /*projection*/, int /*chunk*/,
                                                          std::vector<int> /*outputs*/,
                                                          std::shared_ptr<ReservedPool> /*pool*/,
                                                          int64_t /*skip_rows*/) const override {
    return arrow::Status::IndexError(Where(0), " has no rows");
  }

 private:
  arrow::ScalarVector partition_values_;
};

class SkippingSequence final : public InputSequence {
 public:
  SkippingSequence(std::unique_ptr<InputSequence> inner, OnError on_error)
      : inner_(std::move(inner)), on_error_(std::move(on_error)) {}

  arrow::Result<std::shared_ptr<const Input>> Next() override {
    auto input = inner_->Next();
    if (input.ok() || !IsDataError(input.status())) return input;
    ARROW_RETURN_NOT_OK(on_error_(input.status()));
    ARROW_RETURN_NOT_OK(inner_->Skip(1));  // It stands before the file that it could not open.
    return std::make_shared<NoInput>();
  }
  arrow::Status Skip(int64_t inputs) override { return inner_->Skip(inputs); }
  int64_t next_pulled_bytes() const override { return inner_->next_pulled_bytes(); }

 private:
  const std::unique_ptr<InputSequence> inner_;
  const OnError on_error_;
};

class SkippingSource final : public Source {
 public:
  SkippingSource(std::unique_ptr<Source> inner, OnError on_error)
      : inner_(std::move(inner)), on_error_(std::move(on_error)) {
    TakeSchema(*inner_);
  }

  bool is_counted() const override { return inner_->is_counted(); }
  bool is_one_shot() const override { return inner_->is_one_shot(); }
  int64_t known_rows() const override { return inner_->known_rows(); }
  int64_t num_files() const override { return inner_->num_files(); }
  std::vector<std::string> file_names() const override { return inner_->file_names(); }
  DataFingerprint fingerprint() const override { return inner_->fingerprint(); }
  std::string_view chunk_name() const override { return inner_->chunk_name(); }
  int64_t MemoryBytes() const override { return inner_->MemoryBytes(); }
  std::shared_ptr<arrow::RecordBatch> LookAtFirst() override { return inner_->LookAtFirst(); }
  arrow::Result<std::unique_ptr<InputSequence>> Open(const InputContext& context) override {
    ARROW_ASSIGN_OR_RAISE(auto inputs, inner_->Open(context));
    return std::make_unique<SkippingSequence>(std::move(inputs), on_error_);
  }
  arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields,
                                               const std::shared_ptr<arrow::MemoryPool>& pool) override {
    return inner_->ReadVocabularies(fields, pool);
  }

 private:
  const std::unique_ptr<Source> inner_;
  const OnError on_error_;
};

}  // namespace

bool IsDataError(const arrow::Status& status) {
  if (status.ok() || status.IsOutOfMemory() || status.IsCancelled()) return false;
  const arrow::StatusDetail* detail = status.detail().get();
  return detail == nullptr || std::strstr(detail->type_id(), "PythonErrorDetail") == nullptr;
}

arrow::Status TooManyErrors(int64_t errors, int64_t most, const arrow::Status& last) {
  if (most < 0 || errors <= most) return arrow::Status::OK();
  return last.WithMessage("more than max_errors=", most, " errors in one iteration, one of them: ", last.message());
}

std::unique_ptr<Source> SkipBadFiles(std::unique_ptr<Source> inner, OnError on_error) {
  return std::make_unique<SkippingSource>(std::move(inner), std::move(on_error));
}

}  // namespace penstock

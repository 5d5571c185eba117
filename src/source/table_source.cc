#include <arrow/record_batch.h>
#include <arrow/table.h>

#include <utility>

#include "ops/hash.h"
#include "source/batch_input.h"
#include "source/text.h"
#include "source/unified_dictionaries.h"

namespace penstock {
namespace {

// Large batches are cut, so that several workers decode side by side.
constexpr int64_t kMostBatchRows = int64_t{1} << 18;

class TableSequence final : public InputSequence {
 public:
  TableSequence(std::vector<std::shared_ptr<arrow::RecordBatch>> batches, InputContext context)
      : batches_(std::move(batches)), context_(std::move(context)) {}

  arrow::Result<std::shared_ptr<const Input>> Next() override {
    if (std::exchange(is_given_, true)) return nullptr;
    BatchInputParts parts;
    parts.batches = std::move(batches_);
    parts.prefix = "the table, record batch ";
    return MakeBatchInput(std::move(parts), context_);
  }

 private:
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches_;
  const InputContext context_;
  bool is_given_ = false;
};

class TableSource final : public Source {
 public:
  arrow::Status Init(const arrow::Table& table) {
    ARROW_RETURN_NOT_OK(text::WithContext(table.Validate(), "the table"));
    arrow::TableBatchReader reader(table);
    reader.set_chunksize(kMostBatchRows);
    ARROW_ASSIGN_OR_RAISE(batches_, reader.ToRecordBatches());
    num_rows_ = table.num_rows();
    std::string lengths;
    for (const auto& batch : batches_) lengths += std::to_string(batch->num_rows()) + '\n';
    fingerprint_.rows = num_rows_;
    fingerprint_.names = text::Hex(Hash64(lengths));
    SetSchema(*table.schema(), {}, "the table");
    return arrow::Status::OK();
  }

  bool is_counted() const override { return true; }
  int64_t known_rows() const override { return num_rows_; }
  int64_t num_files() const override { return 0; }
  DataFingerprint fingerprint() const override { return fingerprint_; }
  std::string_view chunk_name() const override { return "record batch"; }
  int64_t MemoryBytes() const override { return 0; }

  arrow::Result<std::unique_ptr<InputSequence>> Open(const InputContext& context) override {
    return std::make_unique<TableSequence>(batches_, context);
  }
  arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields,
                                               const std::shared_ptr<arrow::MemoryPool>& pool) override {
    ARROW_ASSIGN_OR_RAISE(auto unified, UnifiedDictionaries::Make(fields, pool.get()));
    for (const auto& batch : batches_) ARROW_RETURN_NOT_OK(text::WithContext(unified.Add(*batch), "the table"));
    return unified.Finish();
  }

 private:
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches_;
  int64_t num_rows_ = 0;
  DataFingerprint fingerprint_;
};

}  // namespace

arrow::Result<std::unique_ptr<Source>> MakeTableSource(std::shared_ptr<arrow::Table> table) {
  auto source = std::make_unique<TableSource>();
  ARROW_RETURN_NOT_OK(source->Init(*table));
  return source;
}

}  // namespace penstock

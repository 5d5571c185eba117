#include "source/batch_input.h"

#include <arrow/array/array_base.h>
#include <arrow/extension_type.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "ops/list_reader.h"
#include "source/column_layout.h"
#include "source/constant_column.h"
#include "source/piece_filter.h"
#include "source/prune.h"
#include "source/row_group_reader.h"
#include "source/row_sample.h"
#include "source/text.h"

namespace penstock {
namespace {

// Which part of their buffers a slice of these uses shows in their first and last offsets.
bool HasKnownReach(const arrow::DataType& type) {
  if (type.id() == arrow::Type::EXTENSION) {
    return HasKnownReach(*static_cast<const arrow::ExtensionType&>(type).storage_type());
  }
  if (arrow::is_union(type.id()) || arrow::is_binary_view_like(type.id()) || arrow::is_list_view(type.id()) ||
      type.id() == arrow::Type::RUN_END_ENCODED || type.id() == arrow::Type::DICTIONARY) {
    return false;
  }
  return std::ranges::all_of(type.fields(), [](const auto& field) { return HasKnownReach(*field->type()); });
}

int64_t VaryingBytes(const Projection& projection, const arrow::RecordBatch& batch) {
  int64_t bytes = 0;
  for (const OutputColumn& output : projection.outputs) {
    const auto column = output.field.varying == nullptr ? nullptr : batch.GetColumnByName(output.input);
    if (column == nullptr) continue;
    bytes += BatchBytes(*arrow::RecordBatch::Make(arrow::schema({output.input_field}), batch.num_rows(), {column}));
  }
  return bytes;
}

// Of lists; -1 where they make no sense.
int64_t ItemsIn(const arrow::Array& array) {
  const auto lists = ListReader::Open(*array.data());
  if (!lists.ok() || !array.Validate().ok()) return -1;
  int64_t items = 0;
  for (int64_t row = 0; row < array.length(); ++row) {
    const int64_t size = lists->At(row).size;
    if (size < 0 || __builtin_add_overflow(items, size, &items)) return -1;
  }
  return items;
}

class BatchPieces final : public PieceReader {
 public:
  BatchPieces(BatchLoader load, std::string where, std::shared_ptr<const void> owner,
              std::shared_ptr<ReservedPool> pool, int64_t piece_rows, int64_t skip_rows)
      : owner_(std::move(owner)),
        pool_(std::move(pool)),
        load_(std::move(load)),
        where_(std::move(where)),
        piece_rows_(piece_rows),
        row_(skip_rows) {}

  arrow::Status Init(const Projection& projection, const std::vector<int>& outputs,
                     const arrow::ScalarVector& partition_values, uint64_t sample_key) {
    names_ = NeededColumns(projection, outputs);
    for (const std::string& name : names_) types_.push_back(projection.dataset_schema->GetFieldByName(name)->type());
    for (int output : outputs) {
      const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
      if (!column.is_read()) continue;
      output_columns_.push_back(static_cast<int>(std::ranges::find(names_, column.input) - names_.begin()));
    }
    constants_.emplace(projection, outputs, partition_values);
    if (!projection.selects_rows()) return arrow::Status::OK();
    auto filter = PieceFilter::Make(projection, partition_values, sample_key, names_, output_columns_);
    return text::WithContext(std::move(filter).Value(&filter_), where_);
  }

  arrow::Result<Piece> Next() override {
    if (!is_loaded_) ARROW_RETURN_NOT_OK(Load());
    Piece piece;
    piece.owner = owner_;
    piece.first_row = row_;
    piece.rows_read = std::min(piece_rows_, num_rows_ - row_);
    if (piece.rows_read == 0) return piece;
    arrow::ArrayVector columns;
    for (size_t i = 0; i < columns_.size(); ++i) {
      auto column = InLayoutOf(types_[i], columns_[i]->Slice(row_, piece.rows_read), pool_.get());
      ARROW_RETURN_NOT_OK(text::WithContext(column.status(), where_ + ", column " + text::Quoted(names_[i])));
      columns.push_back(std::move(*column));
    }
    int64_t rows = piece.rows_read;
    if (filter_ != nullptr) {
      ARROW_RETURN_NOT_OK(text::WithContext(filter_->Apply(&columns, &piece, pool_.get()), where_));
      rows = piece.row_numbers->length();
    }
    arrow::ArrayVector arrays;
    arrow::FieldVector fields;
    for (size_t i = 0; i < output_columns_.size(); ++i) {
      const auto column = static_cast<size_t>(output_columns_[i]);
      arrays.push_back(columns[column]);
      fields.push_back(arrow::field(names_[column], columns[column]->type()));
    }
    auto read = arrow::RecordBatch::Make(arrow::schema(std::move(fields)), rows, std::move(arrays));
    ARROW_ASSIGN_OR_RAISE(piece.rows, constants_->AddTo(std::move(read), pool_.get()));
    row_ += piece.rows_read;
    return piece;
  }

 private:
  arrow::Status Load() {
    auto loaded = load_(pool_);
    ARROW_RETURN_NOT_OK(text::WithContext(loaded.status(), where_));
    const arrow::RecordBatch& batch = **loaded;
    num_rows_ = batch.num_rows();
    if (row_ > num_rows_) {
      return arrow::Status::IOError(where_, ": has ", num_rows_, " rows, fewer than before");
    }
    for (const std::string& name : names_) {
      const auto column = batch.GetColumnByName(name);
      if (column == nullptr) return arrow::Status::Invalid(where_, ": there is no column ", text::Quoted(name));
      arrow::Status valid = column->ValidateFull();
      if (valid.ok() && column->length() != num_rows_) {
        valid = arrow::Status::Invalid("it has ", column->length(), " values for ", num_rows_, " rows");
      }
      ARROW_RETURN_NOT_OK(text::WithContext(valid, where_ + ", column " + text::Quoted(name)));
      columns_.push_back(column);
    }
    is_loaded_ = true;
    return arrow::Status::OK();
  }

  const std::shared_ptr<const void> owner_;  // These two outlive the columns.
  const std::shared_ptr<ReservedPool> pool_;
  const BatchLoader load_;
  const std::string where_;
  const int64_t piece_rows_;
  std::vector<std::string> names_;
  arrow::DataTypeVector types_;      // By names_, in the first file.
  std::vector<int> output_columns_;  // Positions in names_.
  std::optional<ConstantColumns> constants_;
  std::unique_ptr<PieceFilter> filter_;
  bool is_loaded_ = false;
  arrow::ArrayVector columns_;  // By names_.
  int64_t num_rows_ = 0;
  int64_t row_;
};

class BatchInput final : public Input, public std::enable_shared_from_this<BatchInput> {
 public:
  BatchInput(BatchInputParts parts, const InputContext& context)
      : parts_(std::move(parts)), ledger_(context.ledger), selects_rows_(context.projection->selects_rows()) {
    read_plan_ = PlanThroughArrow(*context.projection);
    file_index_ = parts_.file_index;
    begin_row_ = parts_.begin_row;
    for (const auto& batch : parts_.batches) {
      batch_bytes_.push_back(BatchBytes(*batch));
      arena_bytes_.push_back(VaryingBytes(*context.projection, *batch));
    }
    ledger_->Add(parts_.pulled_account, parts_.pulled_bytes);
  }
  ~BatchInput() override {
    parts_.batches.clear();
    parts_.owner.reset();
    ledger_->Sub(parts_.pulled_account, parts_.pulled_bytes);
  }
  BatchInput(const BatchInput&) = delete;
  BatchInput& operator=(const BatchInput&) = delete;

  int num_chunks() const override { return static_cast<int>(parts_.batches.size()); }
  int64_t rows(int chunk) const override { return batch(chunk).num_rows(); }
  std::string Where(int chunk) const override {
    return text::ToValidUtf8(parts_.prefix) + std::to_string(parts_.first_number + chunk);
  }
  const arrow::ScalarVector& partition_values() const override { return parts_.partition_values; }
  int64_t pulled_bytes() const override { return parts_.pulled_bytes; }
  arrow::Result<bool> MayMatch(const Projection& projection, int) const override {
    return penstock::MayMatch(projection, parts_.partition_values);
  }

  int64_t DirectBytes(const Projection&, int) const override { return 0; }
  // What the filter copies, with the numbers of the rows. A byte for what was pulled: while the ledger is over the
  // budget nothing is admitted.
  int64_t PieceBytes(const Projection& projection, int chunk, int64_t rows) const override {
    const int64_t copied =
        selects_rows_ ? rows * (DecodedBytes(chunk) / this->rows(chunk) + int64_t{sizeof(int64_t)}) : 0;
    return copied + ConstantArrayBytes(projection, partition_values(), rows) + (parts_.pulled_bytes > 0 ? 1 : 0);
  }
  int64_t DecodedBytes(int chunk) const override { return batch_bytes_[static_cast<size_t>(chunk)]; }
  int64_t StoredBytes(int, const std::string&) const override { return 0; }

  int64_t ArenaBytes(const Projection& projection, int chunk) const override {
    return arena_bytes_[static_cast<size_t>(chunk)] + ConstantArenaBytes(projection, partition_values(), rows(chunk));
  }
  int64_t MostItems(const Projection& projection, int chunk) const override {
    const ColumnPath path = projection.outputs.front().path();
    const auto lists = batch(chunk).GetColumnByName(path.column);
    return lists != nullptr && path.fields.empty() ? ItemsIn(*lists) : -1;
  }

  arrow::Result<std::unique_ptr<PieceReader>> OpenPieces(const Projection& projection, int chunk,
                                                         std::vector<int> outputs, std::shared_ptr<ReservedPool> pool,
                                                         int64_t piece_rows, int64_t skip_rows) const override {
    const auto load = [batch = parts_.batches[static_cast<size_t>(chunk)]](const std::shared_ptr<arrow::MemoryPool>&) {
      return arrow::Result<std::shared_ptr<arrow::RecordBatch>>(batch);
    };
    const uint64_t sample_key = projection.sample ? SampleKey(*projection.sample, file(), begin_row(), chunk) : 0;
    return OpenBatchPieces(load, Where(chunk), shared_from_this(), projection, outputs, parts_.partition_values,
                           std::move(pool), piece_rows, skip_rows, sample_key);
  }
  arrow::Result<std::unique_ptr<DirectReader>> OpenDirect(const Projection&, int chunk, std::vector<int>,
                                                          std::shared_ptr<ReservedPool>, int64_t) const override {
    return arrow::Status::Invalid(Where(chunk), ": is not decoded directly");
  }

 private:
  const arrow::RecordBatch& batch(int chunk) const { return *parts_.batches[static_cast<size_t>(chunk)]; }

  BatchInputParts parts_;
  const std::shared_ptr<Ledger> ledger_;
  const bool selects_rows_;
  std::vector<int64_t> batch_bytes_, arena_bytes_;
};

}  // namespace

arrow::Result<std::unique_ptr<PieceReader>> OpenBatchPieces(
    BatchLoader load, std::string where, std::shared_ptr<const void> owner, const Projection& projection,
    const std::vector<int>& outputs, const arrow::ScalarVector& partition_values, std::shared_ptr<ReservedPool> pool,
    int64_t piece_rows, int64_t skip_rows, uint64_t sample_key) {
  auto reader = std::make_unique<BatchPieces>(std::move(load), std::move(where), std::move(owner), std::move(pool),
                                              piece_rows, skip_rows);
  ARROW_RETURN_NOT_OK(reader->Init(projection, outputs, partition_values, sample_key));
  return reader;
}

ReadPlan PlanThroughArrow(const Projection& projection) {
  ReadPlan plan;
  for (int i = 0; i < static_cast<int>(projection.outputs.size()); ++i) {
    const bool is_constant = projection.outputs[static_cast<size_t>(i)].is_constant();
    (is_constant ? plan.constant : plan.through_arrow).push_back(i);
  }
  return plan;
}

arrow::Result<std::shared_ptr<const Input>> MakeBatchInput(BatchInputParts parts, const InputContext& context) {
  if (!parts.batches.empty()) {
    ARROW_RETURN_NOT_OK(CheckSchema(*context.projection, *parts.batches.front()->schema(),
                                    text::ToValidUtf8(parts.prefix) + std::to_string(parts.first_number)));
  }
  return std::make_shared<BatchInput>(std::move(parts), context);
}

int64_t BatchBytes(const arrow::RecordBatch& batch) {
  bool is_sliceable = batch.Validate().ok();
  for (const auto& field : batch.schema()->fields()) is_sliceable = is_sliceable && HasKnownReach(*field->type());
  if (is_sliceable) {
    const auto bytes = arrow::util::ReferencedBufferSize(batch);
    if (bytes.ok()) return *bytes;
  }
  return arrow::util::TotalBufferSize(batch);
}

}  // namespace penstock

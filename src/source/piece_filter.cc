#include "source/piece_filter.h"

#include <arrow/array.h>
#include <arrow/array/concatenate.h>
#include <arrow/compute/api_vector.h>
#include <arrow/compute/cast.h>
#include <arrow/compute/exec.h>
#include <arrow/compute/expression.h>
#include <arrow/compute/initialize.h>
#include <arrow/datum.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/bit_util.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "source/row_sample.h"

namespace penstock {
namespace {

// Positions in the chunk of the rows that `mask` keeps.
arrow::Result<std::shared_ptr<arrow::Array>> RowNumbers(const arrow::BooleanArray* mask, int64_t first_row,
                                                        int64_t rows, arrow::MemoryPool* pool) {
  const int64_t kept = mask == nullptr ? rows : mask->true_count();
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> buffer,
                        arrow::AllocateBuffer(kept * int64_t{sizeof(int64_t)}, pool));
  auto* numbers = reinterpret_cast<int64_t*>(buffer->mutable_data());
  int64_t n = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (mask == nullptr || (mask->IsValid(i) && mask->Value(i))) numbers[n++] = first_row + i;
  }
  return std::make_shared<arrow::Int64Array>(kept, std::move(buffer));
}

// Columns that the filter does not use stand in its batches as null scalars, partition columns as constants: neither
// takes memory per row.
class RowFilter final : public PieceFilter {
 public:
  RowFilter(const Projection& projection, uint64_t sample_key, std::vector<int> kept)
      : expression_(projection.filter), sample_(projection.sample), sample_key_(sample_key), kept_(std::move(kept)) {}

  arrow::Status Init(const Projection& projection, const arrow::ScalarVector& constants,
                     const std::vector<std::string>& names) {
    if (expression_ == nullptr) return arrow::Status::OK();
    ARROW_RETURN_NOT_OK(arrow::compute::Initialize());
    const arrow::Schema& schema = *projection.dataset_schema;
    for (const auto& field : schema.fields()) inputs_.emplace_back(arrow::MakeNullScalar(field->type()));
    if (constants.size() > inputs_.size()) return arrow::Status::Invalid("more partition values than fields");
    const size_t first = inputs_.size() - constants.size();
    for (size_t i = 0; i < constants.size(); ++i) {
      if (constants[i] != nullptr && constants[i]->is_valid) inputs_[first + i] = constants[i];
    }
    column_of_field_.assign(inputs_.size(), -1);
    for (const auto& field : projection.filter_fields) {
      const auto name = std::find(names.begin(), names.end(), field->name());
      const int position = schema.GetFieldIndex(field->name());
      if (name == names.end() || position < 0) return arrow::Status::Invalid("the filter's columns are not all read");
      column_of_field_[static_cast<size_t>(position)] = static_cast<int>(name - names.begin());
    }
    return arrow::Status::OK();
  }

  arrow::Status Apply(arrow::ArrayVector* columns, PieceReader::Piece* piece, arrow::MemoryPool* pool) const override {
    arrow::compute::ExecContext context(pool);
    context.set_use_threads(false);
    bool keeps_all = false;
    std::shared_ptr<arrow::BooleanArray> mask;
    if (expression_ == nullptr) {
      keeps_all = true;
    } else {
      ARROW_ASSIGN_OR_RAISE(mask, Mask(*columns, piece->rows_read, &context, &keeps_all));
    }
    if (sample_ && (mask != nullptr || keeps_all)) {
      ARROW_ASSIGN_OR_RAISE(mask, InSample(mask.get(), piece->first_row, piece->rows_read, pool));
      keeps_all = false;
    }
    if (mask != nullptr) keeps_all = mask->true_count() == piece->rows_read;
    const bool keeps_none = !keeps_all && (mask == nullptr || mask->true_count() == 0);
    const arrow::BooleanArray* selection = keeps_all || keeps_none ? nullptr : mask.get();
    ARROW_ASSIGN_OR_RAISE(piece->row_numbers,
                          RowNumbers(selection, piece->first_row, keeps_none ? 0 : piece->rows_read, pool));
    for (size_t i = 0; i < columns->size(); ++i) {
      std::shared_ptr<arrow::Array>& column = (*columns)[i];
      if (std::find(kept_.begin(), kept_.end(), static_cast<int>(i)) == kept_.end()) {
        column.reset();  // Only the filter needed it.
      } else if (keeps_none) {
        column = column->Slice(0, 0);
      } else if (selection != nullptr) {
        ARROW_ASSIGN_OR_RAISE(column, Selected(std::move(column), *mask, &context));
      }
    }
    return arrow::Status::OK();
  }

 private:
  // Arrow filters no views: they become arrays with offsets, as slots have them. Of run ends, and of views within
  // nested types, runs of rows are joined.
  static arrow::Result<std::shared_ptr<arrow::Array>> Selected(std::shared_ptr<arrow::Array> column,
                                                               const arrow::BooleanArray& mask,
                                                               arrow::compute::ExecContext* context) {
    const auto id = column->type_id();
    if (arrow::is_binary_view_like(id)) {
      const auto type = id == arrow::Type::STRING_VIEW ? arrow::large_utf8() : arrow::large_binary();
      ARROW_ASSIGN_OR_RAISE(column, arrow::compute::Cast(*column, type, arrow::compute::CastOptions::Safe(), context));
    }
    auto kept = arrow::compute::Filter(column, mask.data(), arrow::compute::FilterOptions::Defaults(), context);
    if (!kept.status().IsNotImplemented()) {
      ARROW_RETURN_NOT_OK(kept.status());
      return kept->make_array();
    }
    arrow::ArrayVector runs;
    const auto is_kept = [&](int64_t row) { return mask.IsValid(row) && mask.Value(row); };
    for (int64_t row = 0; row < mask.length();) {
      const int64_t begin = row;
      while (row < mask.length() && is_kept(row)) ++row;
      if (row > begin) runs.push_back(column->Slice(begin, row - begin));
      while (row < mask.length() && !is_kept(row)) ++row;
    }
    return arrow::Concatenate(runs, context->memory_pool());
  }

  // Of the rows that `mask` keeps (all where it is null), those in the sample.
  arrow::Result<std::shared_ptr<arrow::BooleanArray>> InSample(const arrow::BooleanArray* mask, int64_t first_row,
                                                               int64_t rows, arrow::MemoryPool* pool) const {
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> bits, arrow::AllocateEmptyBitmap(rows, pool));
    for (int64_t i = 0; i < rows; ++i) {
      if (mask != nullptr && (mask->IsNull(i) || !mask->Value(i))) continue;
      if (IsInSample(*sample_, sample_key_, first_row + i)) arrow::bit_util::SetBit(bits->mutable_data(), i);
    }
    return std::make_shared<arrow::BooleanArray>(rows, std::move(bits));
  }

  // Bits of the rows to keep; null where a constant says it for all, `*keeps_all` telling what.
  arrow::Result<std::shared_ptr<arrow::BooleanArray>> Mask(const arrow::ArrayVector& columns, int64_t rows,
                                                           arrow::compute::ExecContext* context,
                                                           bool* keeps_all) const {
    std::vector<arrow::Datum> inputs = inputs_;
    for (size_t field = 0; field < column_of_field_.size(); ++field) {
      const int column = column_of_field_[field];
      if (column >= 0) inputs[field] = columns[static_cast<size_t>(column)];
    }
    ARROW_ASSIGN_OR_RAISE(arrow::Datum result,
                          arrow::compute::ExecuteScalarExpression(
                              *expression_, arrow::compute::ExecBatch(std::move(inputs), rows), context));
    *keeps_all = false;
    if (result.type()->id() != arrow::Type::BOOL) {
      return arrow::Status::TypeError("the filter is of type ", result.type()->ToString(), ", not bool");
    }
    if (!result.is_scalar()) return std::static_pointer_cast<arrow::BooleanArray>(result.make_array());
    const auto& scalar = result.scalar_as<arrow::BooleanScalar>();
    *keeps_all = scalar.is_valid && scalar.value;
    return nullptr;
  }

  const std::shared_ptr<const arrow::compute::Expression> expression_;
  const std::optional<RowSample> sample_;
  const uint64_t sample_key_;
  const std::vector<int> kept_;
  std::vector<int> column_of_field_;  // By field of the data set's schema; -1: not read.
  std::vector<arrow::Datum> inputs_;
};

}  // namespace

arrow::Result<std::unique_ptr<PieceFilter>> PieceFilter::Make(const Projection& projection,
                                                              const arrow::ScalarVector& partition_values,
                                                              uint64_t sample_key,
                                                              const std::vector<std::string>& names,
                                                              std::vector<int> kept) {
  auto filter = std::make_unique<RowFilter>(projection, sample_key, std::move(kept));
  ARROW_RETURN_NOT_OK(filter->Init(projection, partition_values, names));
  return filter;
}

}  // namespace penstock

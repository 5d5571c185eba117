#include "plan/plan_cursor.h"

#include <algorithm>
#include <utility>

namespace penstock {

arrow::Result<std::optional<ChunkSpec>> PlanCursor::Next() {
  return catalog_ == nullptr ? NextInSequence() : NextInCatalog();
}

arrow::Result<std::optional<ChunkSpec>> PlanCursor::NextInSequence() {
  while (true) {
    if (input_ == nullptr) {
      if (inputs_ == nullptr) return std::nullopt;
      ARROW_ASSIGN_OR_RAISE(input_, inputs_->Next());
      if (input_ == nullptr) {
        inputs_.reset();
        return std::nullopt;
      }
      if (on_input_ != nullptr) on_input_(next_input_, input_->digest());
      ++next_input_;
      next_chunk_ = 0;
    }
    while (next_chunk_ < input_->num_chunks()) {
      const int chunk = next_chunk_++;
      const int64_t rows = input_->rows(chunk);
      if (rows == 0) continue;
      const int64_t run_row = run_row_;
      run_row_ += rows;
      ARROW_ASSIGN_OR_RAISE(const bool may_match, input_->MayMatch(*projection_, chunk));
      if (!may_match) {
        ++chunks_pruned_;
        continue;
      }
      const int64_t skip_items = std::exchange(skip_items_, 0);
      ChunkSpec spec{input_, chunk, rows, 0, rows, skip_items, run_row, FileRowOf(chunk), run_.epoch(epoch_)};
      if (next_chunk_ == input_->num_chunks()) CloseInput();  // It dies with its last chunk, not with the next input.
      return spec;
    }
    CloseInput();
  }
}

void PlanCursor::CloseInput() {
  input_.reset();
  file_row_of_ = nullptr;
}

// From the chunk that was asked for last, as long as chunks come in their order.
int64_t PlanCursor::FileRowOf(int chunk) {
  if (file_row_of_ != input_.get() || chunk < file_row_chunk_) {
    file_row_of_ = input_.get();
    file_row_chunk_ = 0;
    file_row_ = input_->begin_row();
  }
  for (; file_row_chunk_ < chunk; ++file_row_chunk_) file_row_ += input_->rows(file_row_chunk_);
  return file_row_;
}

// Opens the input of that number, which may lie before the one that is open: a share can go on at the front, and the
// next epoch does.
arrow::Status PlanCursor::OpenInput(int64_t number) {
  if (input_ != nullptr && next_input_ == number + 1) return arrow::Status::OK();
  input_.reset();
  if (inputs_ == nullptr || number < next_input_) {
    inputs_.reset();
    ARROW_ASSIGN_OR_RAISE(inputs_, open_());
    next_input_ = 0;
  }
  ARROW_RETURN_NOT_OK(inputs_->Skip(number - next_input_));
  next_input_ = number;
  ARROW_ASSIGN_OR_RAISE(input_, inputs_->Next());
  if (input_ == nullptr) return arrow::Status::IOError("the data has become shorter since the loader was made");
  ++next_input_;
  return arrow::Status::OK();
}

arrow::Status PlanCursor::StartEpoch() {
  if (shuffle_) {
    const ShuffleKey key = {shuffle_->seed, static_cast<uint32_t>(run_.epoch(epoch_))};
    chunk_order_.reset();  // Before the next one takes as much.
    ARROW_ASSIGN_OR_RAISE(chunk_order_, ChunkOrder::Make(catalog_, key, ledger_));
    ranges_ = WindowCursor::RowsOf(*shuffle_, run_, epoch_);
  } else {
    ranges_ = run_.ranges(epoch_);
  }
  range_ = 0;
  is_in_epoch_ = true;
  return arrow::Status::OK();
}

arrow::Result<std::optional<ChunkSpec>> PlanCursor::NextInCatalog() {
  while (epoch_ < run_.num_epochs()) {
    if (!is_in_epoch_) ARROW_RETURN_NOT_OK(StartEpoch());
    if (range_ == ranges_.size()) {
      ++epoch_;
      is_in_epoch_ = false;
      continue;
    }
    const RowRange& range = ranges_[range_];
    const int64_t begin = range.begin + had_;
    if (begin == range.end) {
      ++range_;
      had_ = 0;
      continue;
    }
    const Catalog::Chunk chunk =
        chunk_order_ == nullptr ? catalog_->chunk(catalog_->ChunkAt(begin)) : chunk_order_->ChunkAt(begin);
    ARROW_RETURN_NOT_OK(OpenInput(chunk.input));
    const int64_t end = std::min(range.end, chunk.end_row);
    const int64_t rows = input_->rows(chunk.index);
    ChunkSpec spec{input_,
                   chunk.index,
                   rows,
                   begin - chunk.begin_row,
                   end - chunk.begin_row,
                   skip_items_,
                   run_row_,
                   FileRowOf(chunk.index),
                   run_.epoch(epoch_)};
    if (place_of_ != nullptr) {
      ARROW_RETURN_NOT_OK(CutToCounted(chunk, begin, end, &spec));
    } else if (rows != chunk.end_row - chunk.begin_row) {
      return arrow::Status::IOError(spec.Where(), ": the number of rows has changed since the loader was made");
    }
    // Not before nothing can fail any more: whoever was refused memory asks for the same chunk again.
    had_ += end - begin;
    run_row_ += end - begin;
    ARROW_ASSIGN_OR_RAISE(const bool may_match, input_->MayMatch(*projection_, chunk.index));
    if (may_match) {
      skip_items_ = 0;
      return spec;
    }
    ++chunks_pruned_;
  }
  input_.reset();
  inputs_.reset();
  return std::nullopt;
}

arrow::Status PlanCursor::CutToCounted(const Catalog::Chunk& chunk, int64_t begin, int64_t end, ChunkSpec* spec) const {
  spec->first_row = 0;
  spec->end_row = spec->rows;
  if (begin > chunk.begin_row) {
    ARROW_ASSIGN_OR_RAISE(const SourcePlace first,
                          place_of_(*input_, chunk.input, chunk.index, begin - chunk.begin_row));
    spec->first_row = first.row;
    spec->skip_items += first.items;
  }
  if (end < chunk.end_row && cuts_ends_) {
    ARROW_ASSIGN_OR_RAISE(const SourcePlace behind,
                          place_of_(*input_, chunk.input, chunk.index, end - chunk.begin_row));
    spec->end_row = behind.row;
  }
  return arrow::Status::OK();
}

}  // namespace penstock

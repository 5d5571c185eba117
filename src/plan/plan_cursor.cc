#include "plan/plan_cursor.h"

namespace penstock {

arrow::Result<std::optional<ChunkSpec>> PlanCursor::Next() {
  while (true) {
    if (input_ == nullptr) {
      if (inputs_ == nullptr) return std::nullopt;
      ARROW_ASSIGN_OR_RAISE(input_, inputs_->Next());
      if (input_ == nullptr) {
        inputs_.reset();
        return std::nullopt;
      }
      next_chunk_ = 0;
      next_file_row_ = input_->begin_row();
    }
    while (next_chunk_ < input_->num_chunks()) {
      const int chunk = next_chunk_++;
      const int64_t rows = input_->rows(chunk);
      const int64_t file_row = next_file_row_;
      next_file_row_ += rows;
      if (rows == 0) continue;
      ARROW_ASSIGN_OR_RAISE(const bool may_match, input_->MayMatch(*projection_, chunk));
      if (!may_match) {
        ++chunks_pruned_;
        continue;
      }
      return ChunkSpec{input_, chunk, rows, file_row};
    }
    input_.reset();
  }
}

}  // namespace penstock

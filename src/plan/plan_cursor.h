#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "source/input.h"
#include "source/source.h"

namespace penstock {

/// Walks over the chunks of a source in order, one input open at a time; leaves out empty chunks and those that the
/// filter rules out.
///
/// Ownership: `projection` must outlive it. Threads: one at a time. Blocking: as InputSequence.
class PlanCursor {
 public:
  /// At the end from the start.
  PlanCursor() = default;
  PlanCursor(std::unique_ptr<InputSequence> inputs, const Projection* projection)
      : inputs_(std::move(inputs)), projection_(projection) {}

  /// The next chunk; nullopt after the last. Errors name the input.
  arrow::Result<std::optional<ChunkSpec>> Next();

  int64_t chunks_pruned() const { return chunks_pruned_; }
  /// What Next() is likely to have charged when it is seen.
  int64_t next_pulled_bytes() const {
    return input_ == nullptr && inputs_ != nullptr ? inputs_->next_pulled_bytes() : 0;
  }

 private:
  std::unique_ptr<InputSequence> inputs_;  ///< Null after the last.
  const Projection* projection_ = nullptr;
  std::shared_ptr<const Input> input_;
  int next_chunk_ = 0;
  int64_t next_file_row_ = 0;
  int64_t chunks_pruned_ = 0;
};

}  // namespace penstock

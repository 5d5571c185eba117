#include "pipeline/check_options.h"

#include <algorithm>

#include "batch/slot_layout.h"
#include "plan/sizing.h"

namespace penstock {
namespace {

// No computation with bytes of slots overflows below it.
constexpr int64_t kMostBatchBytes = int64_t{1} << 56;

}  // namespace

arrow::Status CheckOptions(const LoaderOptions& options) {
  if (options.batch_size < 1) return arrow::Status::Invalid("batch_size must be at least 1, not ", options.batch_size);
  if (options.memory_budget_bytes < 1) {
    return arrow::Status::Invalid("memory_budget must be at least 1 byte, not ", options.memory_budget_bytes);
  }
  if (options.limit && *options.limit < 0)
    return arrow::Status::Invalid("limit must be at least 0, not ", *options.limit);
  if (options.num_workers < -1)
    return arrow::Status::Invalid("num_workers must be at least 0, not ", options.num_workers);
  if (options.prefetch_batches < -1) {
    return arrow::Status::Invalid("prefetch_batches must be at least 0, not ", options.prefetch_batches);
  }
  if (options.shuffle_window_bytes < 1) {
    return arrow::Status::Invalid("shuffle_window must be at least 1 byte, not ", options.shuffle_window_bytes);
  }
  if (options.shuffle_window_rows < 0 || options.shuffle_window_rows > kMostWindowRows) {
    return arrow::Status::Invalid("shuffle_window_rows must be at least 0 and at most 2^31, not ",
                                  options.shuffle_window_rows);
  }
  if (options.collate_batches < 0) {
    return arrow::Status::Invalid("collate_batches must be at least 0, not ", options.collate_batches);
  }
  return arrow::Status::OK();
}

arrow::Status CheckBatchBytes(const LoaderOptions& options, const Schema& schema) {
  if (options.batch_size <= kMostBatchBytes / std::max<int64_t>(1, SlotLayout::BatchBytes(schema, 1))) {
    return arrow::Status::OK();
  }
  return arrow::Status::Invalid("memory_budget of ", FormatBytes(options.memory_budget_bytes),
                                " is too small for a batch_size of ", options.batch_size,
                                ": no machine has memory for such a batch. Lower batch_size.");
}

}  // namespace penstock

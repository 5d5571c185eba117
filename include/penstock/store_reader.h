#pragma once

#include <arrow/record_batch.h>

#include <memory>

namespace penstock {

/// A reader of batches that may lie in memory that somebody else counts and bounds, such as an object store: what a
/// BatchReaderFactory may give.
///
/// Such a batch is charged to Account::kStore, beside the sum. The next is asked for while those whose rows are still
/// needed take little memory, or none is held.
///
/// Threads: as any reader, one at a time.
class StoreReader : public arrow::RecordBatchReader {
 public:
  /// Whether the batch that ReadNext() gave last lies in a store.
  virtual bool is_in_store() const = 0;
  /// What is to be kept until the last row of that batch has been copied, and let go with it, on any thread; may be
  /// null. Called once for each batch.
  virtual std::shared_ptr<const void> TakeOwner() = 0;
};

}  // namespace penstock

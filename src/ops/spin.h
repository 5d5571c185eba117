#pragma once

#include <arrow/status.h>

#include <cstdint>

#include "penstock/custom_op.h"
#include "penstock/ops.h"

namespace penstock {

/// An ops::Spin made ready: what each row costs, and spending it.
///
/// Threads: immutable. Blocking: Spend() spins or sleeps.
class Spinner {
 public:
  /// Invalid where a setting is negative or not finite.
  static arrow::Result<Spinner> Make(const ops::Spin& op);

  /// The time of the row at this position in its row group; the same in every run.
  double RowMicros(int64_t row) const;
  /// Spends the time of `rows` rows at once.
  void Spend(const RowKey& key, int64_t rows) const;

 private:
  explicit Spinner(const ops::Spin& op);

  ops::Spin op_;
  double log_median_;
};

}  // namespace penstock

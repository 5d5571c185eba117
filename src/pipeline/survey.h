#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "penstock/ledger.h"
#include "penstock/options.h"
#include "plan/plan_cursor.h"
#include "plan/sizing.h"

namespace penstock {

inline constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

/// What the footers say about an epoch before it runs: for len(), for explain() and for the check of the budget.
struct Survey {
  int64_t row_groups = 0;
  int64_t rows = 0;
  int64_t most_chunk_bytes = 0;    ///< Promise of the dearest row group.
  int64_t least_chunk_bytes = 0;   ///< The most that a row group needs with its smallest pieces.
  int64_t most_file_bytes = 0;     ///< Of one open footer.
  int64_t window_chunk_bytes = 0;  ///< The most that the row groups open at one time are promised.
  int64_t window_file_bytes = 0;   ///< The most that their footers take.
  std::vector<std::string> ways;   ///< Per output column, in the first file: "direct", "arrow" or "constant".

  /// Reads the footers of the first `most_files` files.
  /// \param most_decode_bytes  as EpochPlan has it.
  /// \param window_rows        rows of all slots that are open at one time.
  static arrow::Result<Survey> Of(const FileSet& files, const Projection& projection, const LoaderOptions& options,
                                  int64_t most_files, int64_t most_decode_bytes, const std::shared_ptr<Ledger>& ledger,
                                  IoCounters* counters, int64_t window_rows = 0);
};

}  // namespace penstock

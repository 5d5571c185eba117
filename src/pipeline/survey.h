#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "penstock/ledger.h"
#include "penstock/options.h"
#include "plan/sizing.h"
#include "source/source.h"

namespace penstock {

inline constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

/// What metadata say about an epoch before it runs: for len(), for explain() and for the check of the budget. Of a
/// source that cannot be looked at without being read only what its first record batch tells.
struct Survey {
  int64_t chunks = 0;
  int64_t rows = 0;
  int64_t all_rows = -1;           ///< Of all epochs of an iteration, from one input; -1: there are several.
  int64_t most_items = 0;          ///< That ps.ops.pack makes rows of; -1: not known ahead.
  int64_t most_chunk_bytes = 0;    ///< Promise of the dearest chunk.
  int64_t least_chunk_bytes = 0;   ///< The most that a chunk needs with its smallest pieces.
  int64_t most_input_bytes = 0;    ///< Metadata of one open input.
  double arena_row_bytes = 0;      ///< The most that rows take in arenas, on the average of a row group.
  int64_t stream_rows = 0;         ///< Of a stream's first record batch; 0: none, or rows are counted.
  int64_t window_chunk_bytes = 0;  ///< The most that the chunks open at one time are promised.
  int64_t window_input_bytes = 0;  ///< The most that the metadata of their inputs take.
  std::vector<std::string> ways;   ///< Per output column, in the first input: "direct", "arrow" or "constant".

  /// \param items  of a chunk; -1: not known.
  void AddItems(int64_t items);

  /// Opens the first `most_inputs` inputs.
  /// \param context            for the inputs; counts against its ledger.
  /// \param most_decode_bytes  as EpochPlan has it.
  /// \param window_rows        rows of all slots that are open at one time.
  static arrow::Result<Survey> Of(Source& source, const InputContext& context, const LoaderOptions& options,
                                  int64_t most_inputs, int64_t most_decode_bytes, int64_t window_rows = 0);
};

}  // namespace penstock

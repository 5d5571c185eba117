#pragma once

#include <cstdint>

#include "penstock/options.h"

namespace penstock::python {

/// The options that say which rows a loader gives, as Python has them.
struct OrderChoices {
  int64_t rank;
  int64_t world_size;
  bool repeat;
  bool balance;
  int64_t epochs;
  uint64_t seed;
  bool shuffle;
  int64_t shuffle_window_bytes;
  int64_t shuffle_window_rows;
  bool skips_errors;
  int64_t max_errors;

  void SetIn(LoaderOptions* options) const {
    options->rank = rank;
    options->world_size = world_size;
    options->uneven = repeat ? Uneven::kRepeat : Uneven::kDrop;
    options->balance = balance ? Balance::kRows : Balance::kNone;
    options->epochs = epochs;
    options->seed = seed;
    options->shuffle = shuffle;
    options->shuffle_window_bytes = shuffle_window_bytes;
    options->shuffle_window_rows = shuffle_window_rows;
    options->skips_errors = skips_errors;
    options->max_errors = max_errors;
  }
};

}  // namespace penstock::python

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/ledger.h"

namespace penstock {

/// The user's code behind Next(), as a stage of the statistics.
enum class UserCode : uint8_t { kCollate, kFinalize };

/// What a loader has done since it was made, or in its current or last epoch where a field says so. Plain values.
struct StatsReport {
  /// Time of one stage, summed over workers.
  struct Stage {
    std::string name;  ///< "plan", "read", "decode", "transform", of workers, "shuffle" where there is one; "collate",
                       ///< "finalize" where there is such code of the user's. For waits see `waits`.
    double busy_s = 0;
    int64_t items = 0;  ///< Files planned, reads, morsels decoded, morsels converted, batches.
    int64_t bytes = 0;  ///< Bytes read from files; bytes written to slots.
  };
  /// Time in which workers had nothing to do, by what they lacked.
  struct Waits {
    double slot_s = 0;    ///< All slots full: the consumer is the slower side.
    double budget_s = 0;  ///< The budget admitted no further chunk or slot.
    double work_s = 0;    ///< Everything that could be done was in other workers' hands.
  };
  /// The caller's wait for its next batch, from the call of Next() to its return, in milliseconds; the first batch left
  /// out.
  struct WaitMs {
    double mean = 0, std = 0, p50 = 0, p99 = 0, max = 0;
  };

  int64_t epochs = 0;
  int64_t batches = 0;
  int64_t rows = 0;
  double elapsed_s = 0;  ///< From when each epoch was asked for to its last Next().
  double rows_per_s = 0;
  double first_batch_s = 0;    ///< Of the current or last epoch, from when it was asked for.
  double step_s = 0;           ///< Time that the caller spent outside Next().
  double consumer_wait_s = 0;  ///< Time that the caller spent in Next(), and in starting epochs.
  WaitMs wait_ms;
  std::vector<Stage> stages;
  Waits waits;
  double worker_s = 0;  ///< Workers' life time, summed: busy + waits.
  int num_workers = 0;
  int collate_workers = 0;  ///< 0: none, or on the caller's thread.
  int64_t slots_open = 0;   ///< Slots that may be open at once now.
  int64_t slots_grown = 0;  ///< How many were added because the caller waited while workers were idle.
  /// What was passed over (LoaderOptions::skips_errors): rows left out of their batches; rows that got a fill value;
  /// errors, of which one may be about many rows; and the first of these, in words.
  int64_t skipped = 0;
  int64_t filled = 0;
  int64_t errors = 0;
  std::vector<std::string> error_messages;
  int64_t rows_dropped =
      0;  ///< Of the iteration that began last, all ranks together: nobody's, so that all get as many.
  int64_t rows_repeated = 0;  ///< ... that come again, so that all get as many.
  int64_t row_groups_pruned = 0;
  int64_t rows_filtered = 0;
  int64_t slots_locked = 0;  ///< How often a slot was page-locked (LoaderOptions::pin_memory)...
  double lock_s = 0;         ///< ... the time that it took, on the workers...
  std::string lock_refusal;  ///< ... and why slots, or no more of them, are not locked; empty where none was refused.
  MemoryReport memory;
  std::string bottleneck;  ///< One word: "step", "read", "decode", "transform", "plan", "collate", "finalize",
                           ///< "budget", "slots" or "none" (too little ran to tell).
  std::string advice;      ///< A sentence that says what to change.

  /// A table for people, several lines, no trailing newline.
  std::string ToString() const;
};

/// What a loader will do, before it does it.
struct Explanation {
  int64_t files = 0;
  int64_t row_groups = -1;  ///< -1: not known without reading all footers (that is done on demand).
  int64_t rows = -1;        ///< -1: not known ahead (a filter).
  std::string plan;         ///< "counted" or "discovered".
  int64_t batches = -1;
  int64_t batch_bytes = 0;
  int64_t batches_per_slot = 0;
  int64_t slot_bytes = 0;
  int64_t slots = 0;        ///< Open at once, the caller's included, before any growth.
  int64_t chunk_bytes = 0;  ///< Decode memory of the dearest row group that was looked at.
  int64_t metadata_bytes = 0;
  int64_t locked_bytes = 0;         ///< Of all these slots, page-locked; 0 without pin_memory.
  int64_t shuffle_window_rows = 0;  ///< Rows that are mixed with each other; 0: no shuffle.
  int64_t shuffle_bytes = 0;        ///< The most that mixing them takes.
  int64_t memory_budget_bytes = 0;
  int64_t least_budget_bytes = 0;
  int64_t predicted_peak_bytes = 0;
  bool may_grow = false;  ///< prefetch_batches = "auto": more while the caller waits and workers are idle.
  int num_workers = 0;
  struct Column {
    std::string name, type, source_type, path;  ///< path: "direct", "arrow" or "constant".
    int64_t row_bytes = 0;
  };
  std::vector<Column> columns;

  std::string ToString() const;
};

}  // namespace penstock

#include "reports.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings.h"
#include "errors.h"
#include "file_system.h"
#include "gil.h"

namespace penstock::python {

using namespace nb::literals;

namespace {

nb::dict ToDict(const MemoryReport::Line& line) {
  nb::dict out;
  out["current_bytes"] = line.current_bytes;
  out["peak_bytes"] = line.peak_bytes;
  return out;
}

nb::dict StageDict(double busy_s, double wait_s, int64_t items, int64_t bytes) {
  nb::dict out;
  out["busy_s"] = busy_s;
  out["wait_s"] = wait_s;
  out["items"] = items;
  out["bytes"] = bytes;
  return out;
}

// Waits are stages too, so that busy and waiting time of all stages adds up to the workers' time.
nb::dict StagesDict(const StatsReport& report) {
  nb::dict out;
  for (const StatsReport::Stage& stage : report.stages) {
    out[stage.name.c_str()] = StageDict(stage.busy_s, 0, stage.items, stage.bytes);
  }
  out["slot"] = StageDict(0, report.waits.slot_s, 0, 0);
  out["budget"] = StageDict(0, report.waits.budget_s, 0, 0);
  out["work"] = StageDict(0, report.waits.work_s, 0, 0);
  return out;
}

nb::dict ToDict(const StatsReport::WaitMs& wait) {
  nb::dict out;
  out["mean"] = wait.mean;
  out["std"] = wait.std;
  out["p50"] = wait.p50;
  out["p99"] = wait.p99;
  out["max"] = wait.max;
  return out;
}

// -1 says "not known" in C++.
nb::object KnownOrNone(int64_t value) { return value < 0 ? nb::none() : nb::object(nb::int_(value)); }

FileSummary SummarizeFiles(const std::vector<std::string>& paths, nb::object filesystem) {
  auto fs = MakeFileSystem(filesystem);
  arrow::Result<FileSummary> summary = [&] {
    GilRelease no_gil;
    return Summarize(paths, std::move(fs));
  }();
  return Unwrap(std::move(summary));
}

}  // namespace

nb::dict ToDict(const MemoryReport& report) {
  nb::dict out;
  for (int i = 0; i < kNumAccounts; ++i) {
    const auto account = static_cast<Account>(i);
    out[std::string(AccountName(account)).c_str()] = ToDict(report[account]);
  }
  out["total"] = ToDict(report.total);
  out["budget_bytes"] = report.budget_bytes;
  out["over_budget_bytes"] = report.over_budget_bytes;
  return out;
}

nb::dict ToDict(const StatsReport& report) {
  nb::dict out;
  out["epochs"] = report.epochs;
  out["batches"] = report.batches;
  out["rows"] = report.rows;
  out["elapsed_s"] = report.elapsed_s;
  out["rows_per_s"] = report.rows_per_s;
  out["first_batch_s"] = report.first_batch_s;
  out["step_s"] = report.step_s;
  out["consumer_wait_s"] = report.consumer_wait_s;
  out["wait_ms"] = ToDict(report.wait_ms);
  out["stages"] = StagesDict(report);
  out["worker_s"] = report.worker_s;
  out["num_workers"] = report.num_workers;
  out["slots_open"] = report.slots_open;
  out["slots_grown"] = report.slots_grown;
  out["slots_locked"] = report.slots_locked;
  out["lock_s"] = report.lock_s;
  out["lock_refusal"] = report.lock_refusal;
  out["skipped"] = report.skipped;
  out["filled"] = report.filled;
  out["errors"] = report.errors;
  out["error_messages"] = report.error_messages;
  out["rows_dropped"] = report.rows_dropped;
  out["rows_repeated"] = report.rows_repeated;
  out["row_groups_pruned"] = report.row_groups_pruned;
  out["rows_filtered"] = report.rows_filtered;
  out["peak_bytes"] = report.memory.total.peak_bytes;
  out["budget_bytes"] = report.memory.budget_bytes;
  out["memory"] = ToDict(report.memory);
  out["bottleneck"] = report.bottleneck;
  out["advice"] = report.advice;
  return out;
}

nb::dict ToDict(const Explanation& report) {
  nb::dict out;
  out["plan"] = report.plan;
  out["files"] = report.files;
  out["row_groups"] = KnownOrNone(report.row_groups);
  out["rows"] = KnownOrNone(report.rows);
  out["batches"] = KnownOrNone(report.batches);
  out["batch_bytes"] = report.batch_bytes;
  out["batches_per_slot"] = report.batches_per_slot;
  out["slot_bytes"] = report.slot_bytes;
  out["slots"] = report.slots;
  out["locked_bytes"] = report.locked_bytes;
  out["chunk_bytes"] = report.chunk_bytes;
  out["metadata_bytes"] = report.metadata_bytes;
  out["memory_budget_bytes"] = report.memory_budget_bytes;
  out["shuffle_window_rows"] = report.shuffle_window_rows;
  out["shuffle_bytes"] = report.shuffle_bytes;
  out["least_budget_bytes"] = report.least_budget_bytes;
  out["predicted_peak_bytes"] = report.predicted_peak_bytes;
  out["may_grow"] = report.may_grow;
  out["num_workers"] = report.num_workers;
  nb::list columns;
  for (const Explanation::Column& column : report.columns) {
    nb::dict line;
    line["name"] = column.name;
    line["type"] = column.type;
    line["source_type"] = column.source_type;
    line["path"] = column.path;
    line["row_bytes"] = column.row_bytes;
    columns.append(line);
  }
  out["columns"] = columns;
  return out;
}

nb::dict ToDict(const FileSummary& summary) {
  nb::dict out;
  out["files"] = summary.files;
  out["row_groups"] = summary.row_groups;
  out["rows"] = summary.rows;
  out["size_bytes"] = summary.size_bytes;
  out["smallest_row_group_rows"] = summary.smallest_row_group_rows;
  out["largest_row_group_rows"] = summary.largest_row_group_rows;
  out["largest_row_group_bytes"] = summary.largest_row_group_bytes;
  nb::list columns;
  for (const FileSummary::Column& column : summary.columns) {
    nb::dict line;
    line["name"] = column.name;
    line["type"] = column.type;
    line["physical_type"] = column.physical_type;
    line["is_nullable"] = column.is_nullable;
    line["compressed_bytes"] = column.compressed_bytes;
    line["uncompressed_bytes"] = column.uncompressed_bytes;
    line["codecs"] = column.codecs;
    line["encodings"] = column.encodings;
    columns.append(line);
  }
  out["columns"] = columns;
  return out;
}

void BindReports(nb::module_& m) {
  m.def(
      "summarize",
      [](const std::vector<std::string>& paths, nb::object filesystem) {
        return ToDict(SummarizeFiles(paths, std::move(filesystem)));
      },
      "paths"_a, "filesystem"_a.none(),
      nb::sig("def summarize(paths: Sequence[str], filesystem: object | None) -> dict[str, typing.Any]"),
      "What the files hold, from their footers (all are read), as a dict.");
}

}  // namespace penstock::python

#include <cstdio>
#include <string>

#include "penstock/options.h"
#include "penstock/stats.h"

namespace penstock {
namespace {

template <typename... Args>
std::string Format(const char* format, Args... args) {
  const int length = std::snprintf(nullptr, 0, format, args...);
  std::string text(static_cast<size_t>(length), '\0');
  std::snprintf(text.data(), text.size() + 1, format, args...);
  return text;
}

std::string Count(int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

std::string Line(const char* name, const std::string& value) { return Format("%-18s%s\n", name, value.c_str()); }

std::string CountOr(int64_t n, const char* unknown) { return n < 0 ? unknown : Count(n); }

std::string MemoryTable(const MemoryReport& memory) {
  std::string text = Line("memory", "now            peak");
  const auto row = [&](std::string_view name, const MemoryReport::Line& line) {
    text += Format("  %-16s%-15s%s\n", std::string(name).c_str(), FormatBytes(line.current_bytes).c_str(),
                   FormatBytes(line.peak_bytes).c_str());
  };
  for (int i = 0; i < kNumAccounts; ++i) {
    const auto account = static_cast<Account>(i);
    if (memory[account].peak_bytes > 0) row(AccountName(account), memory[account]);
  }
  row("total", memory.total);
  const double share = 100.0 * static_cast<double>(memory.total.peak_bytes) / static_cast<double>(memory.budget_bytes);
  text += Line("budget", Format("%s, %.1f %% used at the peak", FormatBytes(memory.budget_bytes).c_str(), share));
  if (memory.over_budget_bytes > 0) text += Line("over budget", FormatBytes(memory.over_budget_bytes));
  return text;
}

}  // namespace

std::string StatsReport::ToString() const {
  std::string text;
  text += Line("rows", Format("%s in %s batches, %.2f s", Count(rows).c_str(), Count(batches).c_str(), elapsed_s));
  text += Line("throughput", Format("%s rows/s", Count(static_cast<int64_t>(rows_per_s)).c_str()));
  text += Line("first batch", Format("%.1f ms", first_batch_s * 1e3));
  text += Line("next-batch wait", Format("mean %.3f ms, p50 %.3f, p99 %.3f, max %.3f", wait_ms.mean, wait_ms.p50,
                                         wait_ms.p99, wait_ms.max));
  text += Line("time", Format("%.2f s in the step, %.2f s waiting for batches", step_s, consumer_wait_s));
  std::string work;
  for (const Stage& stage : stages)
    work += Format("%s%s %.2f s", work.empty() ? "" : ", ", stage.name.c_str(), stage.busy_s);
  text += Line("work", work + Format(" (%d workers)", num_workers));
  text += Line("workers idle", Format("%.2f s for a slot, %.2f s for the budget, %.2f s for work", waits.slot_s,
                                      waits.budget_s, waits.work_s));
  text += Line("slots", Format("%lld open at once, %lld of them grown", static_cast<long long>(slots_open),
                               static_cast<long long>(slots_grown)));
  if (slots_locked > 0) {
    text += Line("page-locked", Format("%s times a slot, %.2f s", Count(slots_locked).c_str(), lock_s));
  }
  if (!lock_refusal.empty()) text += Line("not page-locked", lock_refusal);
  if (rows_dropped > 0 || rows_repeated > 0) {
    text += Line("ranks", Format("%s rows are nobody's, %s come twice", Count(rows_dropped).c_str(),
                                 Count(rows_repeated).c_str()));
  }
  if (rows_filtered > 0 || row_groups_pruned > 0) {
    text += Line("filtered", Format("%s rows, %s row groups not read", Count(rows_filtered).c_str(),
                                    Count(row_groups_pruned).c_str()));
  }
  if (errors > 0) {
    text += Line("skipped", Format("%s rows, and %s filled, for %s errors:", Count(skipped).c_str(),
                                   Count(filled).c_str(), Count(errors).c_str()));
    for (const std::string& message : error_messages) text += "  " + message + "\n";
    if (errors > static_cast<int64_t>(error_messages.size())) text += "  ...\n";
  }
  text += MemoryTable(memory);
  text += Line("bottleneck", bottleneck + ": " + advice);
  text.pop_back();
  return text;
}

std::string Explanation::ToString() const {
  std::string text;
  text += Line("data", Format("%s files, %s row groups, %s rows", Count(files).c_str(),
                              CountOr(row_groups, "?").c_str(), CountOr(rows, "unknown").c_str()));
  text += Line("plan",
               plan == "counted"
                   ? "counted: row numbers are known ahead"
                   : "discovered: a filter, ps.ops.pack or the source decides, row numbers become known on the way");
  text += Line("batches", CountOr(batches, "unknown"));
  text += Line("one batch", FormatBytes(batch_bytes));
  text += Line("one slot", Format("%s, %s batches", FormatBytes(slot_bytes).c_str(), Count(batches_per_slot).c_str()));
  text += Line("slots", Count(slots));
  if (locked_bytes > 0) text += Line("page-locked", FormatBytes(locked_bytes) + " of all slots");
  text += Line("decoding", FormatBytes(chunk_bytes) + " for the dearest row group");
  text += Line("metadata", FormatBytes(metadata_bytes));
  if (shuffle_window_rows > 0) {
    text += Line("shuffle", Format("windows of %s rows, at most %s", Count(shuffle_window_rows).c_str(),
                                   FormatBytes(shuffle_bytes).c_str()));
  }
  text += Line("least budget",
               Format("%s (%s bytes)", FormatBytes(least_budget_bytes).c_str(), Count(least_budget_bytes).c_str()));
  text += Line("predicted peak",
               Format("%s of %s%s", FormatBytes(predicted_peak_bytes).c_str(), FormatBytes(memory_budget_bytes).c_str(),
                      may_grow ? ", more only while you wait and workers are idle" : ""));
  text += Line("workers", Count(num_workers));
  text += Line("columns", "type            from            bytes/row  way");
  for (const Column& column : columns) {
    text += Format("  %-15s %-15s %-15s %-10lld %s\n", column.name.c_str(), column.type.c_str(),
                   column.source_type.c_str(), static_cast<long long>(column.row_bytes), column.path.c_str());
  }
  text.pop_back();
  return text;
}

}  // namespace penstock

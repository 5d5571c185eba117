#include <arrow/type.h>
#include <parquet/metadata.h>

#include <algorithm>
#include <set>
#include <string>

#include "source/input.h"
#include "source/projection.h"
#include "source/range_reader.h"
#include "source/read_plan.h"

namespace penstock {
namespace {

using arrow::io::ReadRange;

int64_t EndOf(const ReadRange& range) { return range.offset + range.length; }

// As allocators round.
int64_t Held(int64_t bytes) { return (bytes + 63) / 64 * 64; }

ReadRange RangeOf(const parquet::ColumnChunkMetaData& chunk) {
  int64_t start = chunk.data_page_offset();
  if (chunk.has_dictionary_page() && chunk.dictionary_page_offset() > 0) {
    start = std::min(start, chunk.dictionary_page_offset());
  }
  return {start, chunk.total_compressed_size()};
}

// `range` in pieces of `piece_bytes`, at the end of `blocks`.
void Cut(const ReadRange& range, int64_t piece_bytes, bool is_chained, std::vector<FetchPlan::Block>* blocks) {
  for (int64_t at = range.offset; at < EndOf(range); at += piece_bytes) {
    const int64_t length = std::min(piece_bytes, EndOf(range) - at);
    if (is_chained && at > range.offset) blocks->back().next = static_cast<int>(blocks->size());
    blocks->push_back({{at, length}});
  }
}

void CutWhole(FetchPlan* plan) {
  ReadRange merged = plan->columns.front();
  for (size_t i = 1; i < plan->columns.size(); ++i) {
    const ReadRange& column = plan->columns[i];
    if (column.offset - EndOf(merged) <= FetchPlan::kHoleBytes) {
      merged.length = EndOf(column) - merged.offset;
    } else {
      Cut(merged, FetchPlan::kRequestBytes, /*is_chained=*/false, &plan->blocks);
      merged = column;
    }
  }
  Cut(merged, FetchPlan::kRequestBytes, /*is_chained=*/false, &plan->blocks);
  for (FetchPlan::Block& block : plan->blocks) {
    plan->bytes += Held(block.range.length);
    block.columns =
        static_cast<int>(std::count_if(plan->columns.begin(), plan->columns.end(), [&](const ReadRange& column) {
          return column.offset < EndOf(block.range) && block.range.offset < EndOf(column);
        }));
  }
  plan->is_whole = true;
}

void CutSteps(int64_t step_bytes, FetchPlan* plan) {
  for (const ReadRange& column : plan->columns) {
    Cut(column, step_bytes, /*is_chained=*/true, &plan->blocks);
    plan->bytes += Held(std::min(column.length, 2 * step_bytes));
  }
}

}  // namespace

FetchPlan FetchPlan::Of(std::vector<ReadRange> columns, int64_t most_bytes) {
  FetchPlan plan;
  std::erase_if(columns, [](const ReadRange& column) { return column.length <= 0; });
  std::sort(columns.begin(), columns.end(), [](const ReadRange& a, const ReadRange& b) { return a.offset < b.offset; });
  const auto overlap = [](const ReadRange& a, const ReadRange& b) { return EndOf(a) > b.offset; };
  // Only a damaged footer says so; its reader will find out.
  if (std::adjacent_find(columns.begin(), columns.end(), overlap) != columns.end()) return plan;
  plan.columns = std::move(columns);
  if (plan.columns.empty()) return plan;
  CutWhole(&plan);
  if (plan.bytes <= most_bytes) return plan;

  plan.blocks.clear();
  plan.is_whole = false;
  plan.bytes = 0;
  const int64_t share = most_bytes / static_cast<int64_t>(plan.columns.size());
  const int64_t step_bytes = std::min(kRequestBytes, share / 2 / 64 * 64);
  if (step_bytes >= kLeastStepBytes) CutSteps(step_bytes, &plan);
  return plan;
}

FetchPlan PlanRowGroupFetch(const ParquetFile& file, int row_group, const Projection& projection, const ReadPlan& plan,
                            int64_t most_bytes) {
  if (file.remote == nullptr) return {};
  std::vector<int> outputs = plan.direct;
  outputs.insert(outputs.end(), plan.through_arrow.begin(), plan.through_arrow.end());
  std::vector<ReadRange> columns;
  const arrow::Status status = CatchParquet([&] {
    const auto group = file.metadata->RowGroup(row_group);
    std::set<int> leaves;
    for (const ColumnPath& path : NeededPaths(projection, outputs)) {
      for (int leaf : LeavesOf(file, path)) leaves.insert(leaf);
    }
    for (int leaf : leaves) columns.push_back(RangeOf(*group->ColumnChunk(leaf)));
    return arrow::Status::OK();
  });
  // Opening the row group will say what is wrong with it.
  return status.ok() ? FetchPlan::Of(std::move(columns), most_bytes) : FetchPlan();
}

}  // namespace penstock

#include "pipeline/survey.h"

#include <arrow/record_batch.h>

#include <algorithm>
#include <deque>

#include "plan/survivors.h"
#include "source/batch_input.h"

namespace penstock {
namespace {

/// The chunks that can be open at the same time, while one goes over all of them in order.
class Window {
 public:
  Window(int64_t rows, size_t most_chunks) : rows_(rows), most_chunks_(most_chunks) {}

  void Add(int64_t rows, int64_t chunk_bytes, int64_t input_bytes, bool is_new_input) {
    open_.push_back({end_row_, end_row_ + rows, chunk_bytes, is_new_input ? input_bytes : 0});
    end_row_ += rows;
    chunk_bytes_ += chunk_bytes;
    input_bytes_ += open_.back().input_bytes;
    // Open together: chunks that touch the rows of the open slots, wherever these begin in the first of them.
    while (open_.size() > 1 &&
           (open_.back().begin_row - open_.front().end_row >= rows_ || open_.size() > most_chunks_)) {
      chunk_bytes_ -= open_.front().chunk_bytes;
      input_bytes_ -= open_.front().input_bytes;
      open_.pop_front();
    }
    most_chunk_bytes_ = std::max(most_chunk_bytes_, chunk_bytes_);
    most_input_bytes_ = std::max(most_input_bytes_, input_bytes_);
  }

  int64_t most_chunk_bytes() const { return most_chunk_bytes_; }
  /// With the input that the window's first chunk belongs to, and the one that the plan is ahead.
  int64_t most_input_bytes(int64_t one_input) const { return most_input_bytes_ + 2 * one_input; }

 private:
  struct Entry {
    int64_t begin_row, end_row, chunk_bytes, input_bytes;
  };
  const int64_t rows_;
  const size_t most_chunks_;
  std::deque<Entry> open_;
  int64_t end_row_ = 0;
  int64_t chunk_bytes_ = 0, input_bytes_ = 0;
  int64_t most_chunk_bytes_ = 0, most_input_bytes_ = 0;
};

std::vector<std::string> WaysOf(const ReadPlan& plan, size_t num_outputs) {
  std::vector<std::string> ways(num_outputs);
  for (int i : plan.direct) ways[static_cast<size_t>(i)] = "direct";
  for (int i : plan.through_arrow) ways[static_cast<size_t>(i)] = "arrow";
  for (int i : plan.constant) ways[static_cast<size_t>(i)] = "constant";
  return ways;
}

std::vector<std::string> WaysUnread(const Projection& projection) {
  std::vector<std::string> ways;
  for (const OutputColumn& output : projection.outputs) {
    ways.emplace_back(output.is_constant() ? "constant" : "arrow");
  }
  return ways;
}

arrow::Result<Survey> OfStream(Source& source, const InputContext& context, Survey survey) {
  auto batch = source.LookAtFirst();
  if (batch == nullptr || batch->num_rows() == 0) return survey;
  survey.stream_rows = batch->num_rows();
  BatchInputParts parts;
  parts.batches = {std::move(batch)};
  const auto input = MakeBatchInput(std::move(parts), context);
  if (!input.ok()) return survey;  // Says so when it is its turn.
  survey.arena_row_bytes =
      static_cast<double>((*input)->ArenaBytes(*context.projection, 0)) / static_cast<double>(survey.stream_rows);
  return survey;
}

}  // namespace

void Survey::AddItems(int64_t items) {
  if (most_items >= 0 && (items < 0 || __builtin_add_overflow(most_items, items, &most_items))) most_items = -1;
}

arrow::Result<Survey> Survey::Of(Source& source, const InputContext& context, const LoaderOptions& options,
                                 int64_t most_inputs, int64_t most_decode_bytes, int64_t window_rows) {
  Survey survey;
  const Projection& projection = *context.projection;
  survey.ways = WaysUnread(projection);
  if (!source.is_counted()) return OfStream(source, context, std::move(survey));
  const bool is_counted = !projection.discovers_rows();
  const auto most_chunks =
      is_counted ? size_t{kMaxOpenChunks} : static_cast<size_t>(std::max(2, options.num_workers + 1));
  Window window(is_counted ? window_rows : kUnlimited, most_chunks);
  bool is_fetched = false, is_all_direct = is_counted;
  int64_t most_lane_bytes = 0;
  ARROW_ASSIGN_OR_RAISE(const auto inputs, source.Open(context));
  for (int64_t i = 0; i < most_inputs; ++i) {
    // The first is always looked at: it says how columns are decoded.
    if (i > 0 && options.limit && is_counted && survey.rows >= *options.limit) break;
    ARROW_ASSIGN_OR_RAISE(const auto input, inputs->Next());
    if (input == nullptr) break;
    if (i == 0) survey.ways = WaysOf(input->read_plan(), projection.outputs.size());
    survey.most_input_bytes = std::max(survey.most_input_bytes, input->metadata_bytes());
    for (int chunk = 0; chunk < input->num_chunks(); ++chunk) {
      const int64_t rows = input->rows(chunk);
      if (rows == 0) continue;
      const auto sizing = ChunkSizing::Of({input, chunk, rows}, projection, most_decode_bytes);
      survey.arena_row_bytes =
          std::max(survey.arena_row_bytes,
                   static_cast<double>(input->ArenaBytes(projection, chunk)) / static_cast<double>(rows));
      is_fetched = is_fetched || !sizing.fetch.blocks.empty();
      const auto num_direct = static_cast<int64_t>(input->read_plan().direct.size());
      is_all_direct = is_all_direct && input->read_plan().through_arrow.empty() && num_direct > 0;
      if (is_all_direct) {
        most_lane_bytes = std::max(most_lane_bytes, sizing.direct_bytes / NumDirectReaders(num_direct, rows));
      }
      ++survey.chunks;
      survey.rows +=
          projection.filter == nullptr && projection.sample ? RowsInSample(*projection.sample, *input, chunk) : rows;
      if (projection.packing.is_any()) survey.AddItems(input->MostItems(projection, chunk));
      survey.most_chunk_bytes = std::max(survey.most_chunk_bytes, sizing.promise_bytes);
      survey.least_chunk_bytes = std::max(survey.least_chunk_bytes, sizing.least_bytes);
      window.Add(rows, sizing.promise_bytes, input->metadata_bytes(), chunk == 0);
    }
  }
  const bool is_all = source.num_files() <= 1;  // The same whoever asks, for however many inputs.
  if (is_all && __builtin_mul_overflow(survey.rows, options.epochs, &survey.all_rows)) survey.all_rows = -1;
  survey.window_chunk_bytes = window.most_chunk_bytes();
  // Another is opened when there are few lanes left of those before it, and lanes give back what they were promised.
  if (is_all_direct && !is_fetched) {
    const int64_t lanes = WorkAhead(options.num_workers) - 1;
    survey.window_chunk_bytes = std::min(survey.window_chunk_bytes, survey.most_chunk_bytes + lanes * most_lane_bytes);
  }
  // One more is fetched ahead of the open slots.
  if (is_fetched && is_counted && options.num_workers > 0) survey.window_chunk_bytes += survey.most_chunk_bytes;
  survey.window_input_bytes = window.most_input_bytes(survey.most_input_bytes);
  return survey;
}

}  // namespace penstock

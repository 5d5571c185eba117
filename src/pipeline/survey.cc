#include "pipeline/survey.h"

#include <parquet/metadata.h>

#include <algorithm>
#include <deque>

namespace penstock {
namespace {

/// The row groups that can be open at the same time, while one goes over all of them in order.
class Window {
 public:
  Window(int64_t rows, size_t most_chunks) : rows_(rows), most_chunks_(most_chunks) {}

  void Add(int64_t rows, int64_t chunk_bytes, int64_t file_bytes, bool is_new_file) {
    open_.push_back({end_row_, end_row_ + rows, chunk_bytes, is_new_file ? file_bytes : 0});
    end_row_ += rows;
    chunk_bytes_ += chunk_bytes;
    file_bytes_ += open_.back().file_bytes;
    // Open together: row groups that touch the rows of the open slots, wherever these begin in the first of them.
    while (open_.size() > 1 &&
           (open_.back().begin_row - open_.front().end_row >= rows_ || open_.size() > most_chunks_)) {
      chunk_bytes_ -= open_.front().chunk_bytes;
      file_bytes_ -= open_.front().file_bytes;
      open_.pop_front();
    }
    most_chunk_bytes_ = std::max(most_chunk_bytes_, chunk_bytes_);
    most_file_bytes_ = std::max(most_file_bytes_, file_bytes_);
  }

  int64_t most_chunk_bytes() const { return most_chunk_bytes_; }
  /// With the file that the window's first row group belongs to, and the one that the plan is ahead.
  int64_t most_file_bytes(int64_t one_file) const { return most_file_bytes_ + 2 * one_file; }

 private:
  struct Entry {
    int64_t begin_row, end_row, chunk_bytes, file_bytes;
  };
  const int64_t rows_;
  const size_t most_chunks_;
  std::deque<Entry> open_;
  int64_t end_row_ = 0;
  int64_t chunk_bytes_ = 0, file_bytes_ = 0;
  int64_t most_chunk_bytes_ = 0, most_file_bytes_ = 0;
};

std::vector<std::string> WaysOf(const ReadPlan& plan, size_t num_outputs) {
  std::vector<std::string> ways(num_outputs);
  for (int i : plan.direct) ways[static_cast<size_t>(i)] = "direct";
  for (int i : plan.through_arrow) ways[static_cast<size_t>(i)] = "arrow";
  for (int i : plan.constant) ways[static_cast<size_t>(i)] = "constant";
  return ways;
}

}  // namespace

arrow::Result<Survey> Survey::Of(const FileSet& files, const Projection& projection, const LoaderOptions& options,
                                 int64_t most_files, int64_t most_decode_bytes, const std::shared_ptr<Ledger>& ledger,
                                 IoCounters* counters, int64_t window_rows) {
  Survey survey;
  const bool is_counted = projection.filter == nullptr;
  const auto most_chunks =
      is_counted ? size_t{kMaxOpenChunks} : static_cast<size_t>(std::max(2, options.num_workers + 1));
  Window window(is_counted ? window_rows : kUnlimited, most_chunks);
  const size_t num_files = std::min(files.files.size(), static_cast<size_t>(most_files));
  for (size_t i = 0; i < num_files; ++i) {
    // The first is always looked at: it says how columns are decoded.
    if (i > 0 && options.limit && is_counted && survey.rows >= *options.limit) break;
    ARROW_ASSIGN_OR_RAISE(const auto file,
                          OpenFile::Open(files, i, projection, options.use_direct_decode, ledger, counters));
    if (i == 0) survey.ways = WaysOf(file->read_plan(), projection.outputs.size());
    survey.most_file_bytes = std::max(survey.most_file_bytes, file->bytes());
    const auto& metadata = *file->parquet()->metadata;
    for (int group = 0; group < metadata.num_row_groups(); ++group) {
      const int64_t rows = metadata.RowGroup(group)->num_rows();
      if (rows == 0) continue;
      const auto sizing = ChunkSizing::Of({file, group, rows}, projection, most_decode_bytes);
      ++survey.row_groups;
      survey.rows += rows;
      survey.most_chunk_bytes = std::max(survey.most_chunk_bytes, sizing.promise_bytes);
      survey.least_chunk_bytes = std::max(survey.least_chunk_bytes, sizing.least_bytes);
      window.Add(rows, sizing.promise_bytes, file->bytes(), group == 0);
    }
  }
  survey.window_chunk_bytes = window.most_chunk_bytes();
  survey.window_file_bytes = window.most_file_bytes(survey.most_file_bytes);
  return survey;
}

}  // namespace penstock

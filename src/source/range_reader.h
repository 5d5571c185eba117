#pragma once

#include <arrow/io/interfaces.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "memory/reserved_pool.h"
#include "source/fetch_plan.h"
#include "source/parquet_file.h"

namespace arrow::internal {
class Executor;
}

namespace penstock {

struct Projection;
struct ReadPlan;

/// For all that `plan` and the filter read of a row group. A local file's is empty.
FetchPlan PlanRowGroupFetch(const ParquetFile& file, int row_group, const Projection& projection, const ReadPlan& plan,
                            int64_t most_bytes);

/// The bytes of one row group in few large requests: serves its readers from blocks that are fetched ahead, on
/// threads of their own, and freed when the last column has passed them. What the plan does not cover, and
/// what the budget has no room for, is read from the file directly. Bytes are taken from the row group's pool before
/// they are asked for.
///
/// Ownership: shares file and pool. Threads: all from any.
/// Blocking: ReadAt() waits for its block; ReadDirectly() and the destructor wait for requests under way, not for those
/// that have not begun. A failed request fails each ReadAt() of its block.
class RangeReader : public arrow::io::RandomAccessFile {
 public:
  /// \param file  remote. Whether it is still the same is checked after each request.
  /// \param ahead  runs the requests that are made ahead, and outlives this; null: blocks are fetched by whoever asks
  ///               first, on its own thread.
  RangeReader(const ParquetFile& file, FetchPlan plan, std::shared_ptr<ReservedPool> pool,
              arrow::internal::Executor* ahead);
  ~RangeReader() override;

  /// Begins to fetch what is fetched before anybody asks.
  void Start();
  /// Frees all blocks; from here on what is asked for is read directly.
  void ReadDirectly();

  arrow::Status Close() override { return arrow::Status::OK(); }
  bool closed() const override { return false; }
  arrow::Result<int64_t> GetSize() override;
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t nbytes, void* out) override;
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t nbytes) override;
  // Not used by readers of column chunks: there is no position.
  arrow::Result<int64_t> Tell() const override;
  arrow::Status Seek(int64_t position) override;
  arrow::Result<int64_t> Read(int64_t nbytes, void* out) override;
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t nbytes) override;

 private:
  class State;
  const std::shared_ptr<State> state_;  // Shared with requests that have not begun when this dies.
};

/// `file` with its bytes read through `ranges`: what the readers of one row group get.
std::shared_ptr<const ParquetFile> ReadThrough(const ParquetFile& file, std::shared_ptr<RangeReader> ranges);

}  // namespace penstock

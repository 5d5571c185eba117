// What an order costs before a row is read: windows of rows, orders of row groups, shares of ranks.
#include <benchmark/benchmark.h>

#include <vector>

#include "penstock/ledger.h"
#include "plan/catalog.h"
#include "plan/permutation.h"
#include "plan/plan_cursor.h"
#include "plan/row_ranges.h"
#include "source/row_group_reader.h"

namespace penstock {
namespace {

// Per row; windows of 64 KiB rows (in the caches) and of 4 Mi rows (64 MiB of four int32 columns).
void ShuffleWindowRows(benchmark::State& state) {
  std::vector<uint32_t> rows(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    ShuffleWindow({1, 2}, 3, rows);
    benchmark::DoNotOptimize(rows.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(ShuffleWindowRows)->Arg(1 << 16)->Arg(1 << 22)->Unit(benchmark::kMillisecond);

void PermuteRowGroups(benchmark::State& state) {
  const Permutation permutation({1, 2}, state.range(0));
  for (auto _ : state) {
    int64_t sum = 0;
    for (int64_t i = 0; i < state.range(0); ++i) sum += permutation.At(i);
    benchmark::DoNotOptimize(sum);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(PermuteRowGroups)->Arg(100'000)->Unit(benchmark::kMillisecond);

// All of 1,024 ranks, after an epoch that 512, 1,000 and 768 ranks have begun.
void ElasticShares(benchmark::State& state) {
  const std::vector<EpochPhase> history = {{512, 1'000'000, {}}, {1000, 700'000, {}}, {768, 300'000, {}}};
  for (auto _ : state) {
    const RowRanges left = LeftOfEpoch(int64_t{100'000} << 16, history, Uneven::kDrop);
    for (int64_t rank = 0; rank < 1024; ++rank) {
      benchmark::DoNotOptimize(ShareOf(left, rank, 1024, Uneven::kDrop));
    }
  }
}
BENCHMARK(ElasticShares)->Unit(benchmark::kMillisecond);

/// A file of 1,000 row groups that nobody reads.
class FakeInput final : public Input {
 public:
  int num_chunks() const override { return 1000; }
  int64_t rows(int) const override { return 1 << 16; }
  std::string Where(int) const override { return "'fake'"; }
  const arrow::ScalarVector& partition_values() const override { return partition_values_; }
  arrow::Result<bool> MayMatch(const Projection&, int) const override { return true; }
  int64_t DirectBytes(const Projection&, int) const override { return 0; }
  int64_t PieceBytes(const Projection&, int, int64_t) const override { return 0; }
  int64_t ArenaBytes(const Projection&, int) const override { return 0; }
  int64_t DecodedBytes(int) const override { return 0; }
  int64_t StoredBytes(int, const std::string&) const override { return 0; }
  arrow::Result<std::unique_ptr<PieceReader>> OpenPieces(const Projection&, int, std::vector<int>,
                                                         std::shared_ptr<ReservedPool>, int64_t,
                                                         int64_t) const override {
    return arrow::Status::NotImplemented("fake");
  }
  arrow::Result<std::unique_ptr<DirectReader>> OpenDirect(const Projection&, int, std::vector<int>,
                                                          std::shared_ptr<ReservedPool>, int64_t) const override {
    return arrow::Status::NotImplemented("fake");
  }

 private:
  arrow::ScalarVector partition_values_;
};

class FakeInputs final : public InputSequence {
 public:
  arrow::Result<std::shared_ptr<const Input>> Next() override {
    if (left_ == 0) return nullptr;
    --left_;
    return input_;
  }
  arrow::Status Skip(int64_t inputs) override {
    left_ -= inputs;
    return arrow::Status::OK();
  }

 private:
  std::shared_ptr<const Input> input_ = std::make_shared<FakeInput>();
  int64_t left_ = 100;
};

// 1,024 ranks over 100,000 row groups: the catalog, and every row group of every rank. Without the time to read
// footers.
void PlanRanks(benchmark::State& state) {
  const Projection projection;
  for (auto _ : state) {
    FakeInputs inputs;
    const auto catalog = Catalog::Read(inputs, std::make_shared<Ledger>(int64_t{1} << 30)).ValueOrDie();
    for (int64_t rank = 0; rank < 1024; ++rank) {
      PlanCursor cursor([] { return std::make_unique<FakeInputs>(); }, &projection, catalog,
                        EpochRun(catalog->num_rows(), {rank, 1024, Uneven::kDrop}, 0, 1));
      while (cursor.Next().ValueOrDie().has_value()) {
      }
    }
  }
}
BENCHMARK(PlanRanks)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace penstock

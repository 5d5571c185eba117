// What an order costs before a row is read: windows of rows, orders of row groups, shares of ranks.
#include <benchmark/benchmark.h>

#include <vector>

#include "plan/permutation.h"
#include "plan/row_ranges.h"

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
  const std::vector<EpochPhase> history = {{512, 1000, {}}, {1000, 700, {}}, {768, 300, {}}};
  for (auto _ : state) {
    const RowRanges left = LeftOfEpoch(int64_t{100'000} << 16, history, 1024, Uneven::kDrop);
    for (int64_t rank = 0; rank < 1024; ++rank) {
      benchmark::DoNotOptimize(ShareOf(left, rank, 1024, Uneven::kDrop));
    }
  }
}
BENCHMARK(ElasticShares)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace penstock

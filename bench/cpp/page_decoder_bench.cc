// The parts of the page decoder by themselves: unpacking of indices by width, levels with and without missing values.
//
//   penstock_bench --benchmark_filter=Page

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "ops/gather.h"
#include "source/page_levels.h"
#include "source/page_runs.h"

namespace penstock {
namespace {

constexpr int64_t kRows = 1 << 17;
constexpr int64_t kStrip = 2048;
constexpr int64_t kRunValues = 504;  // As Arrow and parquet-rs write them: 63 groups.

// Random values in packed runs.
std::vector<uint8_t> PackedRuns(int bit_width) {
  std::mt19937_64 random(1);
  std::vector<uint8_t> out;
  for (int64_t row = 0; row < kRows; row += kRunValues) {
    out.push_back(kRunValues / 8 << 1 | 1);
    for (int64_t byte = 0; byte < kRunValues / 8 * bit_width; ++byte) out.push_back(static_cast<uint8_t>(random()));
  }
  return out;
}

void PageIndices(benchmark::State& state) {
  const auto bit_width = static_cast<int>(state.range(0));
  const std::vector<uint8_t> bytes = PackedRuns(bit_width);
  std::vector<uint32_t> out(kStrip);
  for (auto _ : state) {
    RunDecoder runs(bytes.data(), std::ssize(bytes), bit_width);
    for (int64_t row = 0; row < kRows; row += kStrip) benchmark::DoNotOptimize(runs.Decode(kStrip, out.data()));
  }
  state.SetItemsProcessed(state.iterations() * kRows);
}

// Indices looked up in a dictionary of 8-byte values, as large as the width allows: what a dictionary page costs.
void PageDictionary(benchmark::State& state) {
  const auto bit_width = static_cast<int>(state.range(0));
  const std::vector<uint8_t> bytes = PackedRuns(bit_width);
  const std::vector<uint64_t> table(size_t{1} << bit_width, 7);
  std::vector<uint32_t> indices(kStrip);
  std::vector<uint64_t> slot(kRows + kStrip);
  for (auto _ : state) {
    RunDecoder runs(bytes.data(), std::ssize(bytes), bit_width);
    for (int64_t row = 0; row < kRows; row += kStrip) {
      runs.Decode(kStrip, indices.data());
      GatherValues(8, reinterpret_cast<const uint8_t*>(table.data()), reinterpret_cast<const int32_t*>(indices.data()),
                   nullptr, nullptr, kStrip, reinterpret_cast<uint8_t*>(slot.data() + row));
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kRows);
}

void PageLevels(benchmark::State& state) {
  const bool has_missing = state.range(0) != 0;
  // One run that says that all are present; or random bits.
  std::vector<uint8_t> bytes = {0x80, 0x80, 0x10, 1};
  if (has_missing) bytes = PackedRuns(1);
  std::vector<uint8_t> valid(kStrip);
  for (auto _ : state) {
    LevelReader levels(bytes.data(), std::ssize(bytes), false);
    for (int64_t row = 0; row < kRows; row += kStrip) benchmark::DoNotOptimize(levels.Next(kStrip, valid.data()));
  }
  state.SetItemsProcessed(state.iterations() * kRows);
}

BENCHMARK(PageIndices)->Arg(1)->Arg(3)->Arg(8)->Arg(14)->Arg(17)->Arg(20);
BENCHMARK(PageDictionary)->Arg(3)->Arg(14)->Arg(17);
BENCHMARK(PageLevels)->Arg(0)->Arg(1);

}  // namespace
}  // namespace penstock

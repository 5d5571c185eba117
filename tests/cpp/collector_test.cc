#include "stats/collector.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

TEST(CollectorTest, TheTimeRunsFromWhenTheEpochWasAskedFor) {
  StatsCollector stats;
  stats.EpochStarted(10 * kSecond, 13 * kSecond);  // The files were read to count rows.
  stats.NextCalled(14 * kSecond);
  stats.NextReturned(16 * kSecond, 60);
  stats.NextCalled(17 * kSecond);
  stats.NextReturned(17 * kSecond, 0);
  const StatsReport report = stats.Report();
  EXPECT_DOUBLE_EQ(report.elapsed_s, 7);
  EXPECT_DOUBLE_EQ(report.first_batch_s, 6);
  EXPECT_DOUBLE_EQ(report.consumer_wait_s, 5);
  EXPECT_DOUBLE_EQ(report.step_s, 2);
  EXPECT_DOUBLE_EQ(report.rows_per_s, 60.0 / 7);
}

TEST(CollectorTest, TimeBetweenEpochsIsNobodys) {
  StatsCollector stats;
  for (const int64_t asked_s : {10, 100}) {
    stats.EpochStarted(asked_s * kSecond, asked_s * kSecond);
    stats.NextCalled((asked_s + 1) * kSecond);
    stats.NextReturned((asked_s + 2) * kSecond, 0);
  }
  EXPECT_DOUBLE_EQ(stats.Report().elapsed_s, 4);
}

}  // namespace
}  // namespace penstock

#include <arrow/builder.h>
#include <arrow/record_batch.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "penstock/store_reader.h"
#include "pipeline/scheduler.h"
#include "source/batch_input.h"
#include "source_testing.h"

namespace penstock {
namespace {

constexpr int64_t kRows = int64_t{5} << 19;  // 20 MiB of int64: of a store one block is held, two are too much.

/// Two blocks of "x", which counts up.
class TwoBlocks final : public StoreReader {
 public:
  /// \param on_death  called where the memory of a block is let go.
  explicit TwoBlocks(std::function<void()> on_death) : on_death_(std::move(on_death)) {}

  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    *batch = nullptr;
    if (num_read_ == 2) return arrow::Status::OK();
    arrow::Int64Builder values;
    ARROW_RETURN_NOT_OK(values.Reserve(kRows));
    for (int64_t i = 0; i < kRows; ++i) values.UnsafeAppend(num_read_ * kRows + i);
    ARROW_ASSIGN_OR_RAISE(const auto array, values.Finish());
    *batch = arrow::RecordBatch::Make(schema_, kRows, {array});
    ++num_read_;
    return arrow::Status::OK();
  }
  bool is_in_store() const override { return true; }
  std::shared_ptr<const void> TakeOwner() override {
    return {this, [on_death = on_death_](const TwoBlocks*) { on_death(); }};
  }

  int64_t num_read() const { return num_read_; }

 private:
  const std::shared_ptr<arrow::Schema> schema_ = arrow::schema({arrow::field("x", arrow::int64(), /*nullable=*/false)});
  const std::function<void()> on_death_;
  int64_t num_read_ = 0;
};

/// What a loader makes of the source: one slot for all rows, and nobody who works but the caller.
std::shared_ptr<Scheduler> MakeScheduler(Source& source, const Projection& projection, std::shared_ptr<Ledger> ledger) {
  auto schema = std::make_shared<Schema>();
  for (const OutputColumn& output : projection.outputs) schema->push_back(output.field);
  EpochPlan plan;
  plan.projection = &projection;
  plan.layout = std::make_shared<SlotLayout>(schema, 2 * kRows, 1, ledger->budget_bytes());
  plan.sizing.slot_bytes = plan.layout->bytes();
  plan.most_decode_bytes = ledger->budget_bytes() / 2;
  plan.stats = std::make_shared<StatsCollector>();
  plan.held_batches = std::make_shared<std::atomic<int64_t>>(0);
  plan.ledger = ledger;
  PlanCursor cursor(source.Open({&projection, ledger, true}).ValueOrDie(), &projection, EpochRun());
  return std::make_shared<Scheduler>(std::move(plan), std::move(cursor));
}

// The next block of a store is asked for when the last has died, not when its rows are copied. Whoever comes by while
// it dies is played by the call that its death makes.
TEST(SchedulerStoreTest, TheNextBlockIsAskedForWhenTheLastHasDied) {
  const auto ledger = std::make_shared<Ledger>(int64_t{1} << 30);
  std::shared_ptr<Scheduler> scheduler;
  std::shared_ptr<TwoBlocks> reader;
  int64_t num_died = 0, num_read_meanwhile = 0, held_bytes = 0;
  arrow::Status answer;
  reader = std::make_shared<TwoBlocks>([&] {
    if (++num_died > 1) return;
    held_bytes = ledger->HeldBytes(Account::kStore);
    bool timed_out = false;
    answer = scheduler->Next(std::nullopt, &timed_out).status();
    num_read_meanwhile = reader->num_read();
  });
  LoaderOptions options;
  const auto source = MakeStreamSource([&] { return arrow::Result<std::shared_ptr<arrow::RecordBatchReader>>(reader); },
                                       /*once=*/true)
                          .ValueOrDie();
  const Projection projection = MakeProjection(options, *source, source_testing::DefaultPool()).ValueOrDie();
  scheduler = MakeScheduler(*source, projection, ledger);

  bool timed_out = false;
  const auto batch = scheduler->Next(std::nullopt, &timed_out);
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_TRUE(batch->has_value());
  EXPECT_EQ((*batch)->num_rows(), 2 * kRows);
  EXPECT_EQ(num_died, 2);
  EXPECT_EQ(held_bytes, kRows * 8) << "the first block was not there any more";
  EXPECT_EQ(num_read_meanwhile, 1) << "the second block was asked for while the first was there";
  EXPECT_TRUE(answer.IsCapacityError()) << answer;  // Nothing could be done meanwhile.
  EXPECT_EQ(ledger->HeldBytes(Account::kStore), 0);
  scheduler->Stop();
  scheduler->Clear();
}

}  // namespace
}  // namespace penstock

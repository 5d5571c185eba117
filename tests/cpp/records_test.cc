// Rows as records give what their columns give; the memory of a window's slabs is counted and given back.
#include "pipeline/records.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "pipeline/gather.h"

namespace penstock {
namespace {

constexpr int64_t kSlabRows = 1024;

Field MakeField(DType dtype, std::vector<int64_t> shape, bool has_mask) {
  Field field;
  field.dtype = dtype;
  field.shape = std::move(shape);
  field.has_mask = has_mask;
  return field;
}

// Widths that are copied as numbers and others, masks, and a column of nothing.
std::shared_ptr<const Schema> MixedSchema() {
  return std::make_shared<Schema>(Schema{
      MakeField(DType::kInt64, {}, true),
      MakeField(DType::kUInt8, {}, false),
      MakeField(DType::kFloat32, {3}, true),
      MakeField(DType::kInt16, {}, false),
      MakeField(DType::kInt32, {0}, true),
      MakeField(DType::kFloat64, {2, 2}, false),
      MakeField(DType::kInt32, {}, false),
  });
}

class Records : public testing::Test {
 protected:
  SlotMemory RandomSlot(const SlotLayout& layout) {
    auto memory = SlotMemory::Map(layout.bytes()).ValueOrDie();
    for (int64_t i = 0; i < memory.bytes(); ++i) memory.data()[i] = static_cast<uint8_t>(random_());
    return memory;
  }

  const std::shared_ptr<const Schema> schema_ = MixedSchema();
  const std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>(int64_t{1} << 24);
  std::mt19937 random_{7};
};

TEST_F(Records, GiveWhatColumnsGive) {
  const SlotLayout slab_layout(schema_, kSlabRows, 1, 0);
  constexpr int64_t kRows = 1500;  // More than are gone through at once, and no multiple of those.
  const SlotLayout slot_layout(schema_, kRows + 100, 1, 0);
  const auto layout = RecordLayout::Of(*schema_);
  ASSERT_TRUE(layout.has_value());
  EXPECT_EQ(layout->record_bytes(), 8 + 1 + 1 + 12 + 3 + 2 + 32 + 4);
  auto pool = std::make_shared<RecordPool>(*layout, kSlabRows, 2, ledger_);

  std::vector<SlotMemory> memory;
  std::vector<std::shared_ptr<const Slab>> columns, records;
  std::vector<const uint8_t*> addresses;
  for (int64_t rows : {kSlabRows, kSlabRows, int64_t{700}}) {  // The last one is short, and beyond the pool's region.
    memory.push_back(RandomSlot(slab_layout));
    const auto batch = [&] { return slab_layout.View(memory.back().data(), nullptr, 0, rows, nullptr); };
    columns.push_back(MakeSlab(batch(), {}, nullptr).ValueOrDie());
    records.push_back(MakeSlab(batch(), {}, pool.get()).ValueOrDie());
    EXPECT_EQ(records.back()->num_rows, rows);
    addresses.push_back(records.back()->records->data());
  }
  std::vector<SlabRow> rows;
  for (int64_t i = 0; i < kRows; ++i) {
    const auto slab = static_cast<uint32_t>(random_() % 3);
    rows.push_back({slab, static_cast<uint32_t>(random_() % columns[slab]->num_rows)});
  }

  auto of_columns = SlotMemory::Map(slot_layout.bytes()).ValueOrDie();
  auto of_records = SlotMemory::Map(slot_layout.bytes()).ValueOrDie();
  GatherFixed(columns, rows, slot_layout, of_columns.data(), 50);
  layout->Gather(addresses, rows, slot_layout, of_records.data(), 50);
  EXPECT_EQ(std::memcmp(of_columns.data(), of_records.data(), static_cast<size_t>(of_columns.bytes())), 0);
}

TEST_F(Records, AreNotMadeWhereTheyDoNotPay) {
  const Field number = MakeField(DType::kInt64, {}, false);
  EXPECT_TRUE(RecordLayout::Of({number, number}).has_value());
  EXPECT_TRUE(RecordLayout::Of({MakeField(DType::kInt64, {}, true)}).has_value());
  EXPECT_FALSE(RecordLayout::Of({number}).has_value());
  EXPECT_FALSE(RecordLayout::Of({number, MakeField(DType::kUInt8, {3, 224, 224}, false)}).has_value());
}

TEST_F(Records, MemoryIsCountedAndGivenBack) {
  auto pool = std::make_shared<RecordPool>(*RecordLayout::Of(*schema_), kSlabRows, 2, ledger_);
  const auto charged = [&] { return ledger_->Report()[Account::kShuffle].current_bytes; };
  auto slab = pool->Take().ValueOrDie();
  const int64_t slab_bytes = charged();
  EXPECT_GE(slab_bytes, kSlabRows * pool->layout().record_bytes());
  const uint8_t* const data = slab->data();
  slab.reset();
  EXPECT_EQ(charged(), slab_bytes) << "it stays mapped, and counted";
  slab = pool->Take().ValueOrDie();
  EXPECT_EQ(slab->data(), data) << "it is used again";
  pool.reset();
  EXPECT_EQ(charged(), slab_bytes) << "a slab keeps its pool";
  slab.reset();
  EXPECT_EQ(charged(), 0);
}

TEST_F(Records, ARefusedSlabIsAnErrorAndChangesNothing) {
  const auto small = std::make_shared<Ledger>(int64_t{4096});
  auto pool = std::make_shared<RecordPool>(*RecordLayout::Of(*schema_), kSlabRows, 2, small);
  const arrow::Status status = pool->Take().status();
  EXPECT_TRUE(status.IsOutOfMemory());
  EXPECT_NE(status.message().find("raise it"), std::string::npos) << status.ToString();
  EXPECT_EQ(small->Report()[Account::kShuffle].current_bytes, 0);
}

}  // namespace
}  // namespace penstock

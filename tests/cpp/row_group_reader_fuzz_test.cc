#include <parquet/properties.h>

#include <random>

#include "row_group_reader_util.h"

namespace penstock {
namespace {

using testing::MakeTable;
using testing::Nulls;

// Damaged files end in an error or in rows, never in a crash, a hang or memory beyond the budget.
void ReadDamaged(std::shared_ptr<arrow::Buffer> bytes) {
  auto opened = testing::OpenBytes(std::move(bytes));
  if (!opened.ok()) return;
  const auto& file = *opened;
  const auto projection = testing::ProjectAll(*file);
  if (!projection.ok()) return;
  constexpr int64_t kBudgetBytes = 16 << 20;
  const ReadPlan plan = MakeReadPlan(*projection, *file, true);
  for (int group = 0; group < file->metadata->num_row_groups(); ++group) {
    EstimateDirectBytes(*file, group, *projection, plan.direct);
    EstimatePieceBytes(*file, group, *projection, plan.direct, 1000, false);
    const int64_t rows = file->metadata->RowGroup(group)->num_rows();
    if (rows < 0 || rows > 100000) continue;
    for (int output : plan.direct) {
      testing::TestSlot slot(*projection, {output}, rows);
      const auto direct =
          testing::ReadDirect(file, group, *projection, {output}, 700, &slot, 0, testing::RoomyPool(kBudgetBytes));
      const auto pieces =
          testing::ReadPieces(file, group, *projection, {output}, 700, &slot, 0, testing::RoomyPool(kBudgetBytes));
      const auto guard = std::vector<uint8_t>(slot.values[0].end() - testing::TestSlot::kGuard, slot.values[0].end());
      EXPECT_EQ(guard, std::vector<uint8_t>(testing::TestSlot::kGuard, 0xA5));
    }
  }
}

std::shared_ptr<arrow::Buffer> Copy(const arrow::Buffer& bytes, int64_t size) {
  return arrow::Buffer::FromString(bytes.ToString().substr(0, static_cast<size_t>(size)));
}

void FlipBits(bool has_checksums, bool is_dictionary, Nulls nulls, int flips,
              parquet::ParquetDataPageVersion version = parquet::ParquetDataPageVersion::V1) {
  parquet::WriterProperties::Builder builder;
  builder.data_page_version(version)->data_pagesize(1024)->write_batch_size(128)->disable_statistics();
  if (!is_dictionary) builder.disable_dictionary();
  if (has_checksums) builder.enable_page_checksum();
  const auto bytes = testing::Write(*MakeTable(1500, nulls), builder.build());
  std::mt19937_64 random(static_cast<uint64_t>(flips) + (has_checksums ? 1000 : 0) + (is_dictionary ? 2000 : 0));
  for (int i = 0; i < flips; ++i) {
    auto damaged = Copy(*bytes, bytes->size());
    auto* data = const_cast<uint8_t*>(damaged->data());
    const int bits = 1 + static_cast<int>(random() % 4);
    for (int bit = 0; bit < bits; ++bit)
      data[random() % static_cast<uint64_t>(bytes->size())] ^= uint8_t(1U << (random() % 8));
    SCOPED_TRACE(i);
    ReadDamaged(damaged);
  }
}

TEST(RowGroupReaderFuzzTest, FlippedBitsInDictionaryPages) { FlipBits(false, true, Nulls::kSome, 200); }
TEST(RowGroupReaderFuzzTest, FlippedBitsInPlainPages) { FlipBits(false, false, Nulls::kRequired, 150); }
TEST(RowGroupReaderFuzzTest, FlippedBitsInSecondVersionPages) {
  FlipBits(false, true, Nulls::kSome, 100, parquet::ParquetDataPageVersion::V2);
}
TEST(RowGroupReaderFuzzTest, FlippedBitsUnderChecksums) { FlipBits(true, true, Nulls::kSome, 100); }

TEST(RowGroupReaderFuzzTest, TruncatedFiles) {
  const auto bytes = testing::Write(*MakeTable(1500, Nulls::kSome), parquet::default_writer_properties());
  for (int64_t size = 0; size < bytes->size(); size += 1 + bytes->size() / 40) ReadDamaged(Copy(*bytes, size));
}

// The footer is whole, the pages are not there: what a file that was cut while being read looks like.
TEST(RowGroupReaderFuzzTest, PagesCutBehindAWholeFooter) {
  const auto bytes = testing::Write(*MakeTable(1500, Nulls::kSome), parquet::default_writer_properties());
  auto file = std::make_shared<ParquetFile>(**testing::OpenBytes(bytes));
  const Projection projection = testing::Must(testing::ProjectAll(*file));
  for (const int64_t size : {int64_t{4}, bytes->size() / 3, bytes->size() / 2}) {
    file->file = std::make_shared<arrow::io::BufferReader>(Copy(*bytes, size));
    const int last = static_cast<int>(projection.outputs.size()) - 1;
    testing::TestSlot slot(projection, {last}, 1500);
    EXPECT_FALSE(testing::ReadDirect(file, 0, projection, {last}, 700, &slot).ok());
    EXPECT_FALSE(testing::ReadPieces(file, 0, projection, {last}, 700, &slot).ok());
  }
}

}  // namespace
}  // namespace penstock

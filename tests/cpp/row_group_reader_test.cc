#include "source/row_group_reader.h"

#include <arrow/compute/api_scalar.h>
#include <arrow/compute/expression.h>
#include <arrow/compute/initialize.h>
#include <parquet/properties.h>

#include "row_group_reader_util.h"

namespace penstock {
namespace {

using testing::MakeTable;
using testing::Must;
using testing::Nulls;
using testing::OpenBytes;
using testing::Outputs;
using testing::ProjectAll;
using testing::ReadDirect;
using testing::ReadPieces;
using testing::RoomyPool;
using testing::TestSlot;
using testing::Write;

using Builder = parquet::WriterProperties::Builder;

// Both ways through a file, at several batch sizes: equal slots.
void ExpectBothWaysEqual(const std::shared_ptr<arrow::Buffer>& bytes, const std::string& what) {
  SCOPED_TRACE(what);
  const auto file = Must(OpenBytes(bytes));
  const Projection projection = Must(ProjectAll(*file));
  const ReadPlan plan = MakeReadPlan(projection, *file, true);
  ASSERT_EQ(plan.direct.size(), projection.outputs.size());
  const int64_t rows = file->metadata->RowGroup(0)->num_rows();
  TestSlot expected(projection, plan.direct, rows);
  const auto status = ReadPieces(file, 0, projection, plan.direct, 777, &expected);
  ASSERT_TRUE(status.ok()) << status;
  for (const int64_t batch_rows : {int64_t{1000}, int64_t{2049}, rows}) {
    TestSlot slot(projection, plan.direct, rows);
    const auto read = ReadDirect(file, 0, projection, plan.direct, batch_rows, &slot);
    ASSERT_TRUE(read.ok()) << read;
    for (size_t i = 0; i < plan.direct.size(); ++i) {
      EXPECT_EQ(slot.values[i], expected.values[i])
          << file->schema->field(static_cast<int>(i))->ToString() << " by " << batch_rows;
      EXPECT_EQ(slot.masks[i], expected.masks[i]) << file->schema->field(static_cast<int>(i))->ToString();
    }
  }
}

TEST(RowGroupReaderTest, DirectAndArrowGiveEqualSlots) {
  using parquet::ParquetDataPageVersion;
  for (const Nulls nulls : {Nulls::kRequired, Nulls::kNone, Nulls::kSome, Nulls::kAll}) {
    const auto table = MakeTable(6000, nulls);
    for (const bool is_dictionary : {true, false}) {
      for (const auto version : {ParquetDataPageVersion::V1, ParquetDataPageVersion::V2}) {
        Builder builder;
        builder.data_page_version(version)->data_pagesize(4096)->write_batch_size(512);
        if (!is_dictionary) builder.disable_dictionary();
        ExpectBothWaysEqual(Write(*table, builder.build()),
                            "nulls " + std::to_string(static_cast<int>(nulls)) +
                                (is_dictionary ? ", dictionary" : ", plain") +
                                (version == ParquetDataPageVersion::V1 ? ", v1" : ", v2"));
      }
    }
  }
}

TEST(RowGroupReaderTest, EveryCodec) {
  const auto table = MakeTable(3000, Nulls::kSome);
  for (const auto codec : {parquet::Compression::SNAPPY, parquet::Compression::ZSTD, parquet::Compression::GZIP,
                           parquet::Compression::LZ4, parquet::Compression::BROTLI}) {
    Builder builder;
    builder.compression(codec)->data_pagesize(2048)->write_batch_size(256);
    ExpectBothWaysEqual(Write(*table, builder.build()), "codec " + std::to_string(static_cast<int>(codec)));
  }
}

TEST(RowGroupReaderTest, EveryEncoding) {
  for (const Nulls nulls : {Nulls::kRequired, Nulls::kSome}) {
    const auto table = MakeTable(5000, nulls);
    Builder builder;
    builder.disable_dictionary()->data_pagesize(4096)->write_batch_size(512)->data_page_version(
        parquet::ParquetDataPageVersion::V2);
    for (const auto& field : table->schema()->fields()) {
      const auto id = field->type()->id();
      const bool is_float = id == arrow::Type::FLOAT || id == arrow::Type::DOUBLE || id == arrow::Type::HALF_FLOAT ||
                            id == arrow::Type::DECIMAL128;
      auto encoding = parquet::Encoding::DELTA_BINARY_PACKED;
      if (is_float) encoding = parquet::Encoding::BYTE_STREAM_SPLIT;
      if (id == arrow::Type::BOOL) encoding = parquet::Encoding::RLE;
      if (id == arrow::Type::STRING) encoding = parquet::Encoding::DELTA_BYTE_ARRAY;
      if (id == arrow::Type::BINARY || id == arrow::Type::LARGE_STRING)
        encoding = parquet::Encoding::DELTA_LENGTH_BYTE_ARRAY;
      builder.encoding(field->name(), encoding);
    }
    ExpectBothWaysEqual(Write(*table, builder.build()), nulls == Nulls::kRequired ? "required" : "some nulls");
  }
}

TEST(RowGroupReaderTest, ADictionaryThatIsGivenUpHalfWay) {
  Builder builder;
  builder.dictionary_pagesize_limit(256)->data_pagesize(1024)->write_batch_size(128);
  ExpectBothWaysEqual(Write(*MakeTable(5000, Nulls::kSome), builder.build()), "fallback");
}

TEST(RowGroupReaderTest, RowsAtTheFrontAreSkipped) {
  Builder builder;
  builder.data_pagesize(1024)->write_batch_size(128);
  const auto file = Must(OpenBytes(Write(*MakeTable(4000, Nulls::kSome), builder.build())));
  const Projection projection = Must(ProjectAll(*file));
  const auto outputs = Outputs(projection);
  TestSlot expected(projection, outputs, 4000);
  ASSERT_TRUE(ReadDirect(file, 0, projection, outputs, 4000, &expected).ok());
  for (const int64_t skip : {1, 127, 128, 2500, 3999, 4000}) {
    TestSlot direct = expected, pieces = expected;
    // The copies' pointers are the original's.
    for (TestSlot* slot : {&direct, &pieces}) {
      for (size_t i = 0; i < outputs.size(); ++i) {
        slot->columns[i] = {slot->values[i].data(), slot->masks[i].empty() ? nullptr : slot->masks[i].data()};
        const int64_t width = ByteWidth(projection.outputs[i].converter->field().dtype);
        std::memset(slot->values[i].data() + skip * width, 0x5A, static_cast<size_t>((4000 - skip) * width));
      }
    }
    ASSERT_TRUE(ReadDirect(file, 0, projection, outputs, 301, &direct, skip).ok());
    ASSERT_TRUE(ReadPieces(file, 0, projection, outputs, 301, &pieces, skip).ok());
    EXPECT_TRUE(direct == expected) << skip;
    EXPECT_TRUE(pieces == expected) << skip;
  }
}

// SQLite's way: a budget that grows step by step; each ends in OutOfMemory or in the right rows, and a new reader goes
// on where the call began.
TEST(RowGroupReaderTest, OutOfMemoryThenReopenGoesOn) {
  Builder builder;
  builder.data_pagesize(2048)->write_batch_size(128)->compression(parquet::Compression::ZSTD);
  const auto file = Must(OpenBytes(Write(*MakeTable(3000, Nulls::kSome), builder.build())));
  const Projection projection = Must(ProjectAll(*file));
  const auto outputs = Outputs(projection);
  TestSlot expected(projection, outputs, 3000);
  ASSERT_TRUE(ReadDirect(file, 0, projection, outputs, 3000, &expected).ok());
  int refused = 0;
  for (int64_t budget = 4096; budget < (4 << 20); budget += budget / 4) {
    TestSlot slot(projection, outputs, 3000);
    int64_t row = 0;
    auto opened = DirectReader::Open(file, 0, projection, outputs, RoomyPool(budget), 0);
    arrow::Status status = opened.status();
    for (; status.ok() && row < 3000; row += 500) {
      status = (*opened)->Read(500, slot.columns, row);
      if (!status.ok()) break;
    }
    if (!status.ok()) {
      ++refused;
      EXPECT_TRUE(status.IsOutOfMemory()) << status;
      EXPECT_EQ(status.message().find("'memory.parquet', row group 0"), 0U) << status;
      ASSERT_TRUE(ReadDirect(file, 0, projection, outputs, 500, &slot, row).ok());
    }
    EXPECT_TRUE(slot == expected) << budget;
    TestSlot pieces(projection, outputs, 3000);
    const auto read = ReadPieces(file, 0, projection, outputs, 500, &pieces, 0, RoomyPool(budget));
    EXPECT_TRUE(read.ok() ? pieces == expected : read.IsOutOfMemory()) << read;
  }
  EXPECT_GT(refused, 5);
}

TEST(RowGroupReaderTest, ANullThatMayNotBeNamesItsRow) {
  arrow::Int64Builder values;
  for (int i = 0; i < 3000; ++i) ASSERT_TRUE((i == 2500 ? values.AppendNull() : values.Append(i)).ok());
  const auto table = arrow::Table::Make(arrow::schema({arrow::field("n", arrow::int64())}), {Must(values.Finish())});
  const auto file = Must(OpenBytes(Write(*table, parquet::default_writer_properties())));
  const Projection projection = Must(ProjectAll(*file, NullPolicy::Kind::kError));
  TestSlot slot(projection, {0}, 3000);
  for (const int64_t skip : {0, 2400}) {
    const auto status = ReadDirect(file, 0, projection, {0}, 1000, &slot, skip);
    EXPECT_TRUE(status.IsInvalid()) << status;
    EXPECT_EQ(status.message().find("'memory.parquet', row group 0, column 'n': "), 0U) << status;
    EXPECT_NE(status.message().find("row 2500"), std::string::npos) << status;
  }
}

TEST(RowGroupReaderTest, PlanSendsWhatIsNotFlatThroughArrow) {
  const auto table = arrow::Table::Make(
      arrow::schema(
          {arrow::field("flat", arrow::int32()), arrow::field("vector", arrow::fixed_size_list(arrow::float32(), 2))}),
      {testing::MakeArray(arrow::int32(), 4, Nulls::kNone, 1),
       Must(arrow::FixedSizeListArray::FromArrays(testing::MakeArray(arrow::float32(), 8, Nulls::kNone, 1), 2))});
  const auto file = Must(OpenBytes(Write(*table, parquet::default_writer_properties())));
  Projection projection = Must(ProjectAll(*file));
  ReadPlan plan = MakeReadPlan(projection, *file, true);
  EXPECT_EQ(plan.direct, std::vector<int>{0});
  EXPECT_EQ(plan.through_arrow, std::vector<int>{1});
  EXPECT_TRUE(MakeReadPlan(projection, *file, false).direct.empty());
  projection.filter = std::make_shared<arrow::compute::Expression>(arrow::compute::literal(true));
  EXPECT_TRUE(MakeReadPlan(projection, *file, true).direct.empty());
}

TEST(RowGroupReaderTest, PiecesAreExactAndFiltered) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  arrow::Int64Builder numbers;
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE((i % 10 == 3 ? numbers.AppendNull() : numbers.Append(i)).ok());
  const auto table =
      arrow::Table::Make(arrow::schema({arrow::field("n", arrow::int64()), arrow::field("x", arrow::int32())}),
                         {Must(numbers.Finish()), testing::MakeArray(arrow::int32(), 1000, Nulls::kNone, 3)});
  auto file = std::make_shared<ParquetFile>(*Must(OpenBytes(Write(*table, parquet::default_writer_properties()))));
  file->entry.partition_values = {arrow::MakeScalar(int32_t{7})};
  Projection projection = Must(ProjectAll(*file));
  projection.filter_fields = {file->schema->field(0)};
  projection.dataset_schema = Must(file->schema->AddField(2, arrow::field("day", arrow::int32())));
  using arrow::compute::call;
  using arrow::compute::field_ref;
  using arrow::compute::literal;
  const auto filter = arrow::compute::and_(call("less", {field_ref("n"), literal(int64_t{250})}),
                                           call("equal", {field_ref("day"), literal(int32_t{7})}));
  projection.filter = std::make_shared<arrow::compute::Expression>(Must(filter.Bind(*projection.dataset_schema)));
  auto reader = Must(OpenRowGroupPieces(file, 0, projection, {1}, RoomyPool(), 300, 0, false));
  std::vector<int64_t> kept;
  for (int64_t first = 0; first < 1000; first += 300) {
    const auto piece = Must(reader->Next());
    ASSERT_NE(piece.rows, nullptr);
    EXPECT_EQ(piece.first_row, first);
    EXPECT_EQ(piece.rows_read, std::min<int64_t>(300, 1000 - first));
    EXPECT_EQ(piece.rows->num_columns(), 1);
    ASSERT_EQ(piece.rows->num_rows(), piece.row_numbers->length());
    for (int64_t i = 0; i < piece.rows->num_rows(); ++i) {
      kept.push_back(static_cast<const arrow::Int64Array&>(*piece.row_numbers).Value(i));
      EXPECT_EQ(static_cast<const arrow::Int32Array&>(*piece.rows->column(0)).Value(i),
                static_cast<const arrow::Int32Array&>(*table->column(1)->chunk(0)).Value(kept.back()));
    }
  }
  EXPECT_EQ(Must(reader->Next()).rows, nullptr);
  std::vector<int64_t> expected;
  for (int64_t i = 0; i < 250; ++i) {
    if (i % 10 != 3) expected.push_back(i);
  }
  EXPECT_EQ(kept, expected);
}

// The estimate is what gets reserved: too low means a decode that is dropped and repeated, too high a chunk that must
// wait.
TEST(RowGroupReaderTest, EstimatesHold) {
  constexpr int64_t kBuffer = 64 << 10;  // What does not grow with the column.
  for (const Nulls nulls : {Nulls::kRequired, Nulls::kSome}) {
    const auto table = MakeTable(100000, nulls);
    for (const auto codec :
         {parquet::Compression::SNAPPY, parquet::Compression::ZSTD, parquet::Compression::UNCOMPRESSED}) {
      const auto file = Must(OpenBytes(Write(*table, Builder().compression(codec)->build())));
      const Projection projection = Must(ProjectAll(*file));
      for (const int output : Outputs(projection)) {
        TestSlot slot(projection, {output}, 100000);
        auto pool = RoomyPool();
        ASSERT_TRUE(ReadDirect(file, 0, projection, {output}, 40000, &slot, 0, pool).ok());
        const std::string type = file->schema->field(output)->ToString();
        EXPECT_GE(EstimateDirectBytes(*file, 0, projection, {output}), pool->max_memory()) << type;
        EXPECT_LE(EstimateDirectBytes(*file, 0, projection, {output}), 3 * pool->max_memory() + kBuffer) << type;
        auto piece_pool = RoomyPool();
        ASSERT_TRUE(ReadPieces(file, 0, projection, {output}, 40000, &slot, 0, piece_pool).ok());
        EXPECT_GE(EstimatePieceBytes(*file, 0, projection, {output}, 40000, false), piece_pool->max_memory()) << type;
        EXPECT_LE(EstimatePieceBytes(*file, 0, projection, {output}, 40000, false), 4 * piece_pool->max_memory())
            << type;
      }
    }
  }
}

}  // namespace
}  // namespace penstock

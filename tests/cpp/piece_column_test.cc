#include "source/piece_column.h"

#include <arrow/compute/cast.h>
#include <arrow/compute/initialize.h>
#include <parquet/properties.h>

#include <random>

#include "batch/varying_column.h"
#include "row_group_reader_util.h"
#include "source/read_plan.h"

namespace penstock {
namespace {

using testing::Must;
using testing::OpenBytes;
using testing::RoomyPool;
using testing::Write;

using Builder = parquet::WriterProperties::Builder;
using Version = parquet::ParquetDataPageVersion;
using Random = std::mt19937_64;

struct Shape {
  bool has_null_lists = false;
  bool has_null_items = false;
  int most_items = 9;  // Of a list; some have fifty times as many, and some none.
};

// `rows` lists of what `items` begins with, again and again.
std::shared_ptr<arrow::Array> MakeLists(const std::shared_ptr<arrow::DataType>& type, int64_t rows, Shape shape,
                                        uint64_t seed) {
  Random random(seed);
  auto builder = Must(arrow::MakeBuilder(type));
  auto& lists = static_cast<arrow::BaseListBuilder<arrow::ListType>&>(*builder);
  arrow::ArrayBuilder* items = type->id() == arrow::Type::LARGE_LIST
                                   ? static_cast<arrow::LargeListBuilder&>(*builder).value_builder()
                                   : lists.value_builder();
  const auto& item_type = static_cast<const arrow::BaseListType&>(*type).value_type();
  for (int64_t row = 0; row < rows; ++row) {
    if (shape.has_null_lists && random() % 7 == 0) {
      EXPECT_TRUE(builder->AppendNull().ok());
      continue;
    }
    EXPECT_TRUE((type->id() == arrow::Type::LARGE_LIST ? static_cast<arrow::LargeListBuilder&>(*builder).Append()
                                                       : static_cast<arrow::ListBuilder&>(*builder).Append())
                    .ok());
    const auto most = static_cast<uint64_t>(random() % 40 == 0 ? shape.most_items * 50 : shape.most_items);
    for (uint64_t n = random() % 5 == 0 ? 0 : random() % (most + 1); n > 0; --n) {
      const bool is_null = shape.has_null_items && random() % 11 == 0;
      const auto value = static_cast<int>(random() % 120);
      EXPECT_TRUE(
          (is_null ? items->AppendNull() : items->AppendScalar(*Must(arrow::MakeScalar(item_type, value)))).ok());
    }
  }
  return Must(builder->Finish());
}

std::shared_ptr<arrow::Table> MakeTable(const std::shared_ptr<arrow::DataType>& item, int64_t rows, Shape shape,
                                        uint64_t seed, bool is_large = false) {
  const auto field = arrow::field("element", item, shape.has_null_items);
  const auto type = is_large ? arrow::large_list(field) : arrow::list(field);
  return arrow::Table::Make(arrow::schema({arrow::field("x", type, shape.has_null_lists)}),
                            {MakeLists(type, rows, shape, seed)});
}

// The only column of `file` as an output; what it becomes in a slot does not matter here.
Projection ProjectColumn(const ParquetFile& file) {
  Projection projection;
  projection.dataset_schema = file.schema;
  OutputColumn output;
  output.input = file.schema->field(0)->name();
  output.input_field = file.schema->field(0);
  output.preparation = Preparation(output.input_field);
  output.field.varying = Must(VaryingColumn::Make(*output.input_field));
  projection.outputs.push_back(std::move(output));
  return projection;
}

// The column from row `skip` on; the pool must outlive what it gives.
arrow::Result<std::shared_ptr<arrow::ChunkedArray>> ReadAll(const std::shared_ptr<const ParquetFile>& file, int group,
                                                            bool use_direct_decode, int64_t piece_rows, int64_t skip,
                                                            const std::shared_ptr<ReservedPool>& pool) {
  ARROW_ASSIGN_OR_RAISE(auto reader, OpenRowGroupPieces(file, group, ProjectColumn(*file), {0}, pool, piece_rows, skip,
                                                        use_direct_decode));
  arrow::ArrayVector pieces;
  while (true) {
    ARROW_ASSIGN_OR_RAISE(PieceReader::Piece piece, reader->Next());
    if (piece.rows == nullptr) break;
    ARROW_RETURN_NOT_OK(piece.rows->ValidateFull());
    pieces.push_back(piece.rows->column(0));
  }
  return arrow::ChunkedArray::Make(std::move(pieces));
}

// The column's own decoder against Arrow's, at several sizes of pieces.
void ExpectSameLists(const std::shared_ptr<arrow::Buffer>& bytes) {
  const auto file = Must(OpenBytes(bytes));
  const auto pool = RoomyPool();
  for (int group = 0; group < file->metadata->num_row_groups(); ++group) {
    ASSERT_NE(ListField(*file, group, {"x", {}}), nullptr);
    const int64_t rows = file->metadata->RowGroup(group)->num_rows();
    const auto expected = Must(ReadAll(file, group, false, rows, 0, pool));
    for (const int64_t piece_rows : {int64_t{1}, int64_t{97}, int64_t{1024}, rows}) {
      const auto read = Must(ReadAll(file, group, true, piece_rows, 0, pool));
      EXPECT_EQ(read->length(), rows);
      EXPECT_TRUE(read->Equals(*expected)) << piece_rows << " rows at once";
    }
    const int64_t skip = rows / 3;
    EXPECT_TRUE(Must(ReadAll(file, group, true, 97, skip, pool))->Equals(*expected->Slice(skip)));
  }
}

TEST(ListColumnTest, AsArrowReadsThem) {
  uint64_t seed = 0;
  for (const bool has_null_lists : {false, true}) {
    for (const bool has_null_items : {false, true}) {
      for (const bool is_dictionary : {true, false}) {
        for (const auto version : {Version::V1, Version::V2}) {
          for (const int most_items : {0, 1, 9, 400}) {
            ++seed;
            SCOPED_TRACE("seed " + std::to_string(seed));
            Builder builder;
            builder.data_page_version(version)->data_pagesize(700)->write_batch_size(64);
            if (!is_dictionary) builder.disable_dictionary();
            const Shape shape{has_null_lists, has_null_items, most_items};
            ExpectSameLists(Write(*MakeTable(arrow::int32(), 1500, shape, seed), builder.build(), 900));
          }
        }
      }
    }
  }
}

TEST(ListColumnTest, EveryTypeOfNumber) {
  for (const auto& item : {arrow::int8(), arrow::uint8(), arrow::int16(), arrow::uint16(), arrow::int32(),
                           arrow::uint32(), arrow::int64(), arrow::uint64(), arrow::float32(), arrow::float64()}) {
    for (const bool has_nulls : {false, true}) {
      SCOPED_TRACE(item->ToString());
      const auto table = MakeTable(item, 2000, {has_nulls, has_nulls}, 7, /*is_large=*/has_nulls);
      ExpectSameLists(Write(*table, Builder().compression(parquet::Compression::SNAPPY)->build()));
      ExpectSameLists(Write(*table, Builder().compression(parquet::Compression::ZSTD)->disable_dictionary()->build()));
    }
  }
}

TEST(ListColumnTest, OtherEncodings) {
  const auto integers = MakeTable(arrow::int64(), 2000, {true, true}, 11);
  const auto floats = MakeTable(arrow::float32(), 2000, {true, true}, 12);
  const auto written = [](const arrow::Table& table, parquet::Encoding::type encoding) {
    return Write(table, Builder().disable_dictionary()->encoding(encoding)->data_pagesize(900)->build());
  };
  ExpectSameLists(written(*integers, parquet::Encoding::DELTA_BINARY_PACKED));
  ExpectSameLists(written(*floats, parquet::Encoding::BYTE_STREAM_SPLIT));
  // A dictionary that is given up on the way.
  ExpectSameLists(Write(*integers, Builder().dictionary_pagesize_limit(64)->write_batch_size(64)->build()));
}

TEST(ListColumnTest, AWriterThatForgetsTheArrowSchema) {
  const auto table = MakeTable(arrow::uint16(), 500, {true, true}, 5);
  ExpectSameLists(Write(*table, Builder().build(), 1 << 20, /*store_schema=*/false));
}

TEST(ListColumnTest, WhatItDoesNotTakeIsLeftToArrow) {
  const arrow::FieldVector fields = {
      arrow::field("text", arrow::list(arrow::utf8())),
      arrow::field("bool", arrow::list(arrow::boolean())),
      arrow::field("time", arrow::list(arrow::timestamp(arrow::TimeUnit::MICRO))),
      arrow::field("half", arrow::list(arrow::float16())),
      arrow::field("lists", arrow::list(arrow::list(arrow::int32()))),
      arrow::field("structs", arrow::list(arrow::struct_({arrow::field("a", arrow::int32())}))),
      arrow::field("inside", arrow::struct_({arrow::field("a", arrow::list(arrow::int32()))})),
      arrow::field("fixed", arrow::fixed_size_list(arrow::int32(), 2)),
      arrow::field("map", arrow::map(arrow::int32(), arrow::int32())),
      arrow::field("flat", arrow::int32()),
  };
  arrow::ArrayVector arrays;
  for (const auto& field : fields) arrays.push_back(Must(arrow::MakeArrayOfNull(field->type(), 3)));
  const auto file = Must(OpenBytes(Write(*arrow::Table::Make(arrow::schema(fields), arrays), Builder().build())));
  for (const auto& field : fields) EXPECT_EQ(ListField(*file, 0, {field->name(), {}}), nullptr) << field->name();
}

TEST(ListColumnTest, EstimatesHold) {
  constexpr int64_t kPages = 3 << 20;  // Guessed from the footer, whatever the rows.
  for (const bool has_nulls : {false, true}) {
    for (const auto& item : {arrow::int8(), arrow::uint16(), arrow::int32(), arrow::int64()}) {
      const auto file =
          Must(OpenBytes(Write(*MakeTable(item, 60000, {has_nulls, has_nulls, 60}, 3, has_nulls), Builder().build())));
      const Projection projection = ProjectColumn(*file);
      for (const int64_t rows : {int64_t{500}, int64_t{20000}, int64_t{60000}}) {
        const auto pool = RoomyPool();
        auto reader = Must(OpenRowGroupPieces(file, 0, projection, {0}, pool, rows, 0, true));
        while (Must(reader->Next()).rows != nullptr) continue;
        const int64_t estimate = EstimatePieceBytes(*file, 0, projection, {0}, rows, true);
        EXPECT_GE(estimate, pool->max_memory()) << item->ToString() << ", " << rows << " rows";
        EXPECT_LE(estimate, 2 * pool->max_memory() + kPages) << item->ToString() << ", " << rows << " rows";
      }
    }
  }
}

// `rows` strings, some empty and some long, a few of them again and again.
std::shared_ptr<arrow::Array> MakeTexts(const std::shared_ptr<arrow::DataType>& type, int64_t rows, bool has_nulls,
                                        int distinct, uint64_t seed) {
  Random random(seed);
  arrow::StringBuilder builder;
  for (int64_t row = 0; row < rows; ++row) {
    const uint64_t value = random() % static_cast<uint64_t>(distinct);
    const std::string text = value % 9 == 0 ? "" : std::to_string(value) + std::string(value * 7 % 50, 'x');
    const bool is_null = has_nulls && random() % 7 == 0;
    EXPECT_TRUE((is_null ? builder.AppendNull() : builder.Append(text)).ok());
  }
  return Must(arrow::compute::Cast(*Must(builder.Finish()), type));
}

// The column's own decoder against Arrow's; views come as large strings from the one, as views from the other.
void ExpectSameTexts(const std::shared_ptr<arrow::Buffer>& bytes) {
  const auto file = Must(OpenBytes(bytes));
  const auto pool = RoomyPool();
  const Projection projection = ProjectColumn(*file);
  for (int group = 0; group < file->metadata->num_row_groups(); ++group) {
    const auto field = BytesField(projection, *file, {"x", {}});
    ASSERT_NE(field, nullptr);
    const int64_t rows = file->metadata->RowGroup(group)->num_rows();
    const auto arrow_way = Must(ReadAll(file, group, false, rows, 0, pool));
    const auto expected = Must(arrow::compute::Cast(arrow_way, field->type())).chunked_array();
    for (const int64_t piece_rows : {int64_t{1}, int64_t{97}, int64_t{1024}, rows}) {
      const auto read = Must(ReadAll(file, group, true, piece_rows, 0, pool));
      EXPECT_TRUE(read->Equals(*expected)) << piece_rows << " rows at once";
    }
    const int64_t skip = rows / 3;
    EXPECT_TRUE(Must(ReadAll(file, group, true, 97, skip, pool))->Equals(*expected->Slice(skip)));
  }
}

std::shared_ptr<arrow::Table> TextTable(const std::shared_ptr<arrow::DataType>& type, bool has_nulls, int distinct,
                                        uint64_t seed) {
  return arrow::Table::Make(arrow::schema({arrow::field("x", type, has_nulls)}),
                            {MakeTexts(type, 3000, has_nulls, distinct, seed)});
}

TEST(BytesColumnTest, AsArrowReadsThem) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  uint64_t seed = 0;
  for (const auto& type : {arrow::utf8(), arrow::binary(), arrow::large_utf8(), arrow::large_binary(),
                           arrow::utf8_view(), arrow::binary_view()}) {
    for (const bool has_nulls : {false, true}) {
      for (const auto version : {Version::V1, Version::V2}) {
        for (const int distinct : {2, 30, 100000}) {
          SCOPED_TRACE(type->ToString() + ", seed " + std::to_string(++seed));
          Builder builder;
          builder.data_page_version(version)->data_pagesize(900)->write_batch_size(64)->dictionary_pagesize_limit(4000);
          ExpectSameTexts(Write(*TextTable(type, has_nulls, distinct, seed), builder.build(), 2000));
        }
      }
    }
  }
}

// Photos as pyarrow writes them: nearly all of a row group is its dictionary, read into the window that later pages do
// not get. Where nothing is unpacked it is not copied: the estimate has it once.
TEST(BytesColumnTest, ALargeDictionary) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  constexpr int64_t kRows = 300, kRowBytes = 20000;
  Random random(5);
  arrow::BinaryBuilder builder;
  for (int64_t row = 0; row < kRows; ++row) {
    std::string bytes(kRowBytes, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    ASSERT_TRUE(builder.Append(bytes).ok());
  }
  const auto table = arrow::Table::Make(arrow::schema({arrow::field("x", arrow::binary())}), {Must(builder.Finish())});
  for (const auto codec : {parquet::Compression::UNCOMPRESSED, parquet::Compression::SNAPPY}) {
    for (const int64_t limit : {int64_t{10} << 20, int64_t{1} << 20}) {  // Plain pages follow where it is passed.
      Builder properties;
      properties.compression(codec)->dictionary_pagesize_limit(limit)->write_batch_size(16)->data_pagesize(50000);
      const auto bytes = Write(*table, properties.build());
      ExpectSameTexts(bytes);
      const auto file = Must(OpenBytes(bytes));
      constexpr int64_t kPieceRows = 10;
      const auto pool = RoomyPool();
      auto reader = Must(OpenRowGroupPieces(file, 0, ProjectColumn(*file), {0}, pool, kPieceRows, 0, true));
      while (Must(reader->Next()).rows != nullptr) continue;
      const int64_t estimate = EstimatePieceBytes(*file, 0, ProjectColumn(*file), {0}, kPieceRows, true);
      EXPECT_GE(estimate, pool->max_memory());
      if (codec == parquet::Compression::UNCOMPRESSED) {
        EXPECT_LE(pool->max_memory(), std::min(limit, kRows * kRowBytes) * 5 / 4 + (1 << 20));
        EXPECT_LE(estimate, std::min(limit, kRows * kRowBytes) * 5 / 4 + (2 << 20));
      }
    }
  }
}

// Of indices that are read into the next window, the values are still those of the dictionary.
TEST(BytesColumnTest, ADictionaryStaysWhileItsIndicesAreRead) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  const auto table = arrow::Table::Make(arrow::schema({arrow::field("x", arrow::utf8(), false)}),
                                        {MakeTexts(arrow::utf8(), 100000, false, 5000, 6)});
  Builder properties;
  properties.compression(parquet::Compression::UNCOMPRESSED)->data_pagesize(5000)->write_batch_size(500);
  ExpectSameTexts(Write(*table, properties.build()));
}

TEST(BytesColumnTest, OtherEncodings) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  for (const auto encoding :
       {parquet::Encoding::PLAIN, parquet::Encoding::DELTA_LENGTH_BYTE_ARRAY, parquet::Encoding::DELTA_BYTE_ARRAY}) {
    for (const auto codec : {parquet::Compression::SNAPPY, parquet::Compression::ZSTD}) {
      Builder builder;
      builder.disable_dictionary()->encoding(encoding)->compression(codec)->data_pagesize(2000);
      ExpectSameTexts(Write(*TextTable(arrow::utf8(), true, 500, 4), builder.build()));
    }
  }
}

TEST(BytesColumnTest, WhatItDoesNotTakeIsLeftToArrow) {
  const arrow::FieldVector fields = {
      arrow::field("number", arrow::int32()),
      arrow::field("fixed", arrow::fixed_size_binary(3)),
      arrow::field("list", arrow::list(arrow::utf8())),
      arrow::field("inside", arrow::struct_({arrow::field("a", arrow::utf8())})),
      arrow::field("codes", arrow::dictionary(arrow::int32(), arrow::utf8())),
  };
  arrow::ArrayVector arrays;
  for (const auto& field : fields) arrays.push_back(Must(arrow::MakeArrayOfNull(field->type(), 3)));
  const auto file = Must(OpenBytes(Write(*arrow::Table::Make(arrow::schema(fields), arrays), Builder().build())));
  Projection projection;
  for (const auto& field : fields) EXPECT_EQ(BytesField(projection, *file, {field->name(), {}}), nullptr);
}

// A filter looks at the arrays as the schema says they are.
TEST(BytesColumnTest, ViewsStayViewsForAFilter) {
  const auto file = Must(OpenBytes(Write(*TextTable(arrow::utf8_view(), false, 9, 1), Builder().build())));
  Projection projection = ProjectColumn(*file);
  EXPECT_TRUE(BytesField(projection, *file, {"x", {}})->type()->Equals(arrow::large_utf8()));
  projection.filter_fields.push_back(file->schema->field(0));
  EXPECT_EQ(BytesField(projection, *file, {"x", {}}), nullptr);
}

// Damaged files end in an error or in rows, never in a crash, a hang or memory beyond the budget.
void ReadDamaged(const arrow::Table& table) {
  constexpr int kFlips = 1500;
  for (const bool is_dictionary : {true, false}) {
    for (const auto version : {Version::V1, Version::V2}) {
      Builder builder;
      builder.data_page_version(version)->data_pagesize(600)->write_batch_size(64)->disable_statistics();
      if (!is_dictionary) builder.disable_dictionary();
      const auto bytes = Write(table, builder.build());
      const uint64_t seed = 100 + (is_dictionary ? 1 : 0) + (version == Version::V1 ? 2 : 0);
      Random random(seed);
      for (int i = 0; i < kFlips; ++i) {
        SCOPED_TRACE("seed " + std::to_string(seed) + ", flip " + std::to_string(i));
        std::string damaged = bytes->ToString();
        for (uint64_t bits = 1 + random() % 4; bits > 0; --bits) {
          damaged[random() % damaged.size()] ^= static_cast<char>(1U << (random() % 8));
        }
        const auto opened = OpenBytes(arrow::Buffer::FromString(std::move(damaged)));
        if (!opened.ok() || (*opened)->schema->num_fields() != 1) continue;
        const auto& file = *opened;
        for (int group = 0; group < file->metadata->num_row_groups(); ++group) {
          const int64_t rows = file->metadata->RowGroup(group)->num_rows();
          if (rows < 0 || rows > 100000) continue;
          EstimatePieceBytes(*file, group, ProjectColumn(*file), {0}, 100, true);
          const auto pool = RoomyPool(16 << 20);
          const auto read = ReadAll(file, group, true, 100, 0, pool);
          EXPECT_TRUE(!read.ok() || (*read)->length() == rows);
        }
      }
    }
  }
}

TEST(ListColumnTest, DamagedFiles) { ReadDamaged(*MakeTable(arrow::int32(), 800, {true, true}, 21)); }

TEST(BytesColumnTest, DamagedFiles) { ReadDamaged(*TextTable(arrow::utf8(), true, 60, 22)); }

}  // namespace
}  // namespace penstock

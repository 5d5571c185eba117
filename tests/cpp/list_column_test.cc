#include "source/list_column.h"

#include <parquet/properties.h>

#include <random>

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
  projection.outputs.push_back(std::move(output));
  return projection;
}

// The column from row `skip` on; the pool must outlive what it gives.
arrow::Result<std::shared_ptr<arrow::ChunkedArray>> ReadAll(const std::shared_ptr<const ParquetFile>& file, int group,
                                                            bool decodes_lists, int64_t piece_rows, int64_t skip,
                                                            const std::shared_ptr<ReservedPool>& pool) {
  ARROW_ASSIGN_OR_RAISE(
      auto reader, OpenRowGroupPieces(file, group, ProjectColumn(*file), {0}, pool, piece_rows, skip, decodes_lists));
  arrow::ArrayVector pieces;
  while (true) {
    ARROW_ASSIGN_OR_RAISE(PieceReader::Piece piece, reader->Next());
    if (piece.rows == nullptr) break;
    ARROW_RETURN_NOT_OK(piece.rows->ValidateFull());
    pieces.push_back(piece.rows->column(0));
  }
  return arrow::ChunkedArray::Make(std::move(pieces), file->schema->field(0)->type());
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

// Damaged files end in an error or in rows, never in a crash, a hang or memory beyond the budget.
TEST(ListColumnTest, DamagedFiles) {
  constexpr int kFlips = 1500;
  for (const bool is_dictionary : {true, false}) {
    for (const auto version : {Version::V1, Version::V2}) {
      Builder builder;
      builder.data_page_version(version)->data_pagesize(600)->write_batch_size(64)->disable_statistics();
      if (!is_dictionary) builder.disable_dictionary();
      const auto bytes = Write(*MakeTable(arrow::int32(), 800, {true, true}, 21), builder.build());
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

}  // namespace
}  // namespace penstock

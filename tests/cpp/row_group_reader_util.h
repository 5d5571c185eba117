#pragma once

#include <arrow/api.h>
#include <arrow/io/memory.h>
#include <gtest/gtest.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/writer.h>
#include <parquet/file_reader.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "memory/reserved_pool.h"
#include "ops/converter.h"
#include "penstock/ledger.h"
#include "source/row_group_reader.h"

/// Small Parquet files in memory and what the readers of row groups make of them.
namespace penstock::testing {

template <typename T>
T Must(arrow::Result<T> result) {
  EXPECT_TRUE(result.ok()) << result.status();
  return std::move(result).ValueOrDie();
}

/// The file in `bytes`, as OpenParquet would give it.
inline arrow::Result<std::shared_ptr<const ParquetFile>> OpenBytes(std::shared_ptr<arrow::Buffer> bytes) {
  auto file = std::make_shared<ParquetFile>();
  file->entry.path = "memory.parquet";
  file->file = std::make_shared<arrow::io::BufferReader>(std::move(bytes));
  ARROW_RETURN_NOT_OK(CatchParquet([&] {
    file->metadata = parquet::ReadMetaData(file->file);
    auto plain = parquet::ParquetFileReader::Open(file->file, parquet::default_reader_properties(), file->metadata);
    ARROW_ASSIGN_OR_RAISE(auto reader,
                          parquet::arrow::FileReader::Make(arrow::default_memory_pool(), std::move(plain)));
    ARROW_RETURN_NOT_OK(reader->GetSchema(&file->schema));
    file->schema = file->schema->RemoveMetadata();
    return arrow::Status::OK();
  }));
  return file;
}

inline std::shared_ptr<arrow::Buffer> Write(const arrow::Table& table,
                                            const std::shared_ptr<parquet::WriterProperties>& properties,
                                            int64_t row_group_rows = 1 << 20, bool store_schema = true) {
  auto sink = Must(arrow::io::BufferOutputStream::Create());
  parquet::ArrowWriterProperties::Builder arrow_properties;
  if (store_schema) arrow_properties.store_schema();
  const auto status = parquet::arrow::WriteTable(table, arrow::default_memory_pool(), sink, row_group_rows, properties,
                                                 arrow_properties.build());
  EXPECT_TRUE(status.ok()) << status;
  return Must(sink->Finish());
}

/// Every column of `file` as an output; strings become hash buckets, nulls a mask.
inline arrow::Result<Projection> ProjectAll(const ParquetFile& file, NullPolicy::Kind nulls = NullPolicy::Kind::kMask) {
  Projection projection;
  projection.dataset_schema = file.schema;
  for (const auto& field : file.schema->fields()) {
    NullPolicy policy;
    policy.otherwise = nulls;
    std::vector<Op> ops;
    const auto id = field->type()->id();
    if (arrow::is_base_binary_like(id) || arrow::is_binary_view_like(id)) ops.push_back(ops::HashBucket{1000003});
    ARROW_ASSIGN_OR_RAISE(auto converter,
                          Converter::Make(field->name(), *field, ops, policy, Layout::kTensor, nullptr));
    OutputColumn output;
    output.input = field->name();
    output.input_field = field;
    output.preparation = Preparation(field);
    output.field = converter->field();
    output.converter = std::move(converter);
    projection.outputs.push_back(std::move(output));
  }
  return projection;
}

/// A slot of all outputs for `rows` rows, with the bytes around it watched.
struct TestSlot {
  static constexpr size_t kGuard = 64;

  TestSlot(const Projection& projection, const std::vector<int>& outputs, int64_t rows) {
    for (int output : outputs) {
      const Field& field = projection.outputs[static_cast<size_t>(output)].converter->field();
      values.emplace_back(static_cast<size_t>(rows * field.row_bytes()) + kGuard, uint8_t{0xA5});
      masks.emplace_back(field.has_mask ? static_cast<size_t>(rows * field.items()) + kGuard : 0, uint8_t{0xA5});
    }
    for (size_t i = 0; i < values.size(); ++i) {
      columns.push_back({values[i].data(), masks[i].empty() ? nullptr : masks[i].data()});
    }
  }
  bool operator==(const TestSlot& other) const { return values == other.values && masks == other.masks; }

  std::vector<std::vector<uint8_t>> values, masks;
  std::vector<SlotColumn> columns;
};

inline std::shared_ptr<ReservedPool> RoomyPool(int64_t budget_bytes = int64_t{1} << 30) {
  return ReservedPool::TryMake(std::make_shared<Ledger>(budget_bytes), 1);
}

inline std::vector<int> Outputs(const Projection& projection) {
  std::vector<int> outputs;
  for (size_t i = 0; i < projection.outputs.size(); ++i) outputs.push_back(static_cast<int>(i));
  return outputs;
}

/// Rows [skip, end) of a row group by DirectReader, `batch_rows` at a time.
inline arrow::Status ReadDirect(const std::shared_ptr<const ParquetFile>& file, int row_group,
                                const Projection& projection, const std::vector<int>& outputs, int64_t batch_rows,
                                TestSlot* slot, int64_t skip = 0, std::shared_ptr<ReservedPool> pool = RoomyPool()) {
  ARROW_ASSIGN_OR_RAISE(auto reader, DirectReader::Open(file, row_group, projection, outputs, std::move(pool), skip));
  const int64_t rows = file->metadata->RowGroup(row_group)->num_rows();
  for (int64_t row = skip; row < rows; row += batch_rows) {
    ARROW_RETURN_NOT_OK(reader->Read(std::min(batch_rows, rows - row), slot->columns, row));
  }
  return arrow::Status::OK();
}

/// The same by PieceReader and ConvertArray.
inline arrow::Status ReadPieces(const std::shared_ptr<const ParquetFile>& file, int row_group,
                                const Projection& projection, const std::vector<int>& outputs, int64_t piece_rows,
                                TestSlot* slot, int64_t skip = 0, std::shared_ptr<ReservedPool> pool = RoomyPool()) {
  ARROW_ASSIGN_OR_RAISE(auto reader, OpenRowGroupPieces(file, row_group, projection, outputs, std::move(pool),
                                                        piece_rows, skip, /*use_direct_decode=*/false));
  while (true) {
    ARROW_ASSIGN_OR_RAISE(PieceReader::Piece piece, reader->Next());
    if (piece.rows == nullptr) return arrow::Status::OK();
    for (int i = 0; i < piece.rows->num_columns(); ++i) {
      const auto& converter = *projection.outputs[static_cast<size_t>(outputs[static_cast<size_t>(i)])].converter;
      const SlotColumn& to = slot->columns[static_cast<size_t>(i)];
      const int64_t at = piece.first_row * converter.field().items();
      ARROW_RETURN_NOT_OK(converter.ConvertArray(
          *piece.rows->column(i), 0, piece.rows->num_rows(), piece.first_row,
          {to.values + at * ByteWidth(converter.field().dtype), to.mask == nullptr ? nullptr : to.mask + at}));
    }
  }
}

enum class Nulls { kRequired, kNone, kSome, kAll };

/// One array of `rows` values; about every fifth null where `nulls` says so. Few distinct values, so that dictionaries
/// stay.
inline std::shared_ptr<arrow::Array> MakeArray(const std::shared_ptr<arrow::DataType>& type, int64_t rows, Nulls nulls,
                                               uint64_t seed) {
  auto builder = Must(arrow::MakeBuilder(type));
  for (int64_t row = 0; row < rows; ++row) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    const auto value = static_cast<int>((seed >> 33) % 100);
    const bool is_null = nulls == Nulls::kAll || (nulls == Nulls::kSome && (seed >> 50) % 5 == 0);
    std::shared_ptr<arrow::Scalar> scalar;
    switch (type->id()) {
      case arrow::Type::BOOL:
        scalar = std::make_shared<arrow::BooleanScalar>(value % 3 == 0);
        break;
      case arrow::Type::HALF_FLOAT:
        scalar = std::make_shared<arrow::HalfFloatScalar>(arrow::util::Float16(static_cast<float>(value)));
        break;
      case arrow::Type::DECIMAL128:
        scalar = std::make_shared<arrow::Decimal128Scalar>(arrow::Decimal128(value - 50), type);
        break;
      case arrow::Type::STRING:
      case arrow::Type::BINARY:
      case arrow::Type::LARGE_STRING:
        scalar = Must(arrow::Scalar::Parse(
            type, "value " + std::string(static_cast<size_t>(value % 7), 'x') + std::to_string(value)));
        break;
      default:
        scalar = Must(arrow::MakeScalar(type, value));
    }
    EXPECT_TRUE((is_null ? builder->AppendNull() : builder->AppendScalar(*scalar)).ok());
  }
  return Must(builder->Finish());
}

/// All types that are read directly, one column each.
inline std::shared_ptr<arrow::Table> MakeTable(int64_t rows, Nulls nulls, uint64_t seed = 1) {
  const arrow::DataTypeVector types = {arrow::boolean(),
                                       arrow::int8(),
                                       arrow::int16(),
                                       arrow::int32(),
                                       arrow::int64(),
                                       arrow::uint8(),
                                       arrow::uint16(),
                                       arrow::uint32(),
                                       arrow::uint64(),
                                       arrow::float16(),
                                       arrow::float32(),
                                       arrow::float64(),
                                       arrow::date32(),
                                       arrow::time32(arrow::TimeUnit::MILLI),
                                       arrow::time64(arrow::TimeUnit::MICRO),
                                       arrow::timestamp(arrow::TimeUnit::MICRO),
                                       arrow::timestamp(arrow::TimeUnit::NANO, "Europe/Rome"),
                                       arrow::duration(arrow::TimeUnit::MILLI),
                                       arrow::decimal128(7, 2),
                                       arrow::decimal128(15, 2),
                                       arrow::decimal128(30, 3),
                                       arrow::utf8(),
                                       arrow::binary(),
                                       arrow::large_utf8()};
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (size_t i = 0; i < types.size(); ++i) {
    fields.push_back(arrow::field("c" + std::to_string(i), types[i], nulls != Nulls::kRequired));
    arrays.push_back(MakeArray(types[i], rows, nulls, seed + i));
  }
  return arrow::Table::Make(arrow::schema(fields), arrays);
}

}  // namespace penstock::testing

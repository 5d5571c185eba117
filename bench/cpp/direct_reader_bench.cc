// Decoding of Parquet row groups into slots, one thread, against bare Parquet doing the same.
//
//   PENSTOCK_BENCH_LINEITEM=lineitem.parquet penstock_bench --benchmark_filter=Lineitem
//
// The file is TPC-H's lineitem (tpchgen-cli) or the same written by another writer; without it, a stand-in is made in
// memory.

#include <arrow/api.h>
#include <arrow/io/api.h>
#include <benchmark/benchmark.h>
#include <parquet/api/reader.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/writer.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "memory/reserved_pool.h"
#include "ops/converter.h"
#include "penstock/ledger.h"
#include "source/column_pages.h"
#include "source/row_group_reader.h"

namespace penstock {
namespace {

constexpr int64_t kSlabRows = 65536;

template <typename T>
T OrDie(arrow::Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    std::abort();
  }
  return std::move(result).ValueUnsafe();
}
void OrDie(const arrow::Status& status) { OrDie(arrow::Result<int>(status.ok() ? arrow::Result<int>(0) : status)); }

const std::vector<std::string> kFourInts = {"l_orderkey", "l_partkey", "l_suppkey", "l_linenumber"};
const std::vector<std::string> kNumbers = {"l_orderkey", "l_partkey",       "l_suppkey",    "l_linenumber",
                                           "l_quantity", "l_extendedprice", "l_discount",   "l_tax",
                                           "l_shipdate", "l_commitdate",    "l_receiptdate"};
const std::vector<std::string> kDecimals = {"l_quantity", "l_extendedprice", "l_discount", "l_tax"};

// Enough like lineitem to run without it: sorted keys, random keys, decimals with many equal values, dates.
class StandIn {
 public:
  explicit StandIn(int64_t rows) : rows_(rows) {}

  template <typename Builder>
  StandIn& Add(const std::string& name, const std::shared_ptr<arrow::DataType>& type, uint64_t distinct) {
    Builder builder(type, arrow::default_memory_pool());
    for (int64_t row = 0; row < rows_; ++row) {
      seed_ = seed_ * 6364136223846793005U + 1442695040888963407U;
      const int64_t value = distinct == 0 ? row / 4 : static_cast<int64_t>((seed_ >> 33) % distinct);
      if constexpr (std::is_same_v<Builder, arrow::Decimal128Builder>) {
        OrDie(builder.Append(arrow::Decimal128(value)));
      } else {
        OrDie(builder.Append(static_cast<typename Builder::value_type>(value)));
      }
    }
    fields_.push_back(arrow::field(name, type, /*nullable=*/false));
    columns_.push_back(OrDie(builder.Finish()));
    return *this;
  }
  std::shared_ptr<arrow::Table> Finish() const { return arrow::Table::Make(arrow::schema(fields_), columns_); }

 private:
  const int64_t rows_;
  uint64_t seed_ = 1;
  arrow::FieldVector fields_;
  arrow::ArrayVector columns_;
};

std::shared_ptr<arrow::Table> MakeStandIn(int64_t rows) {
  StandIn table(rows);
  table.Add<arrow::Int64Builder>("l_orderkey", arrow::int64(), 0)
      .Add<arrow::Int64Builder>("l_partkey", arrow::int64(), 200000)
      .Add<arrow::Int64Builder>("l_suppkey", arrow::int64(), 10000)
      .Add<arrow::Int32Builder>("l_linenumber", arrow::int32(), 7);
  const std::vector<std::pair<std::string, uint64_t>> decimals = {
      {"l_quantity", 50}, {"l_extendedprice", 900000}, {"l_discount", 11}, {"l_tax", 9}};
  for (const auto& [name, distinct] : decimals) {
    table.Add<arrow::Decimal128Builder>(name, arrow::decimal128(15, 2), distinct);
  }
  for (const char* name : {"l_shipdate", "l_commitdate", "l_receiptdate"}) {
    table.Add<arrow::Date32Builder>(name, arrow::date32(), 2500);
  }
  return table.Finish();
}

std::shared_ptr<arrow::io::RandomAccessFile> OpenInput() {
  const char* path = std::getenv("PENSTOCK_BENCH_LINEITEM");
  if (path != nullptr) return OrDie(arrow::io::ReadableFile::Open(path));
  static const std::shared_ptr<arrow::Buffer> buffer = [] {
    auto sink = OrDie(arrow::io::BufferOutputStream::Create());
    const auto properties = parquet::WriterProperties::Builder().compression(arrow::Compression::ZSTD)->build();
    OrDie(parquet::arrow::WriteTable(*MakeStandIn(1000000), arrow::default_memory_pool(), sink, 240000, properties));
    return OrDie(sink->Finish());
  }();
  return std::make_shared<arrow::io::BufferReader>(buffer);
}

std::shared_ptr<const ParquetFile> Lineitem() {
  auto file = std::make_shared<ParquetFile>();
  file->entry.path = "lineitem";
  file->file = OpenInput();
  file->metadata = parquet::ReadMetaData(file->file);
  auto reader = OrDie(parquet::arrow::FileReader::Make(
      arrow::default_memory_pool(),
      parquet::ParquetFileReader::Open(file->file, parquet::default_reader_properties(), file->metadata)));
  OrDie(reader->GetSchema(&file->schema));
  return file;
}

Projection ProjectionOf(const ParquetFile& file, const std::vector<std::string>& names) {
  Projection projection;
  projection.dataset_schema = file.schema;
  for (const std::string& name : names) {
    const auto field = file.schema->GetFieldByName(name);
    OutputColumn output;
    output.input = name;
    output.input_field = field;
    output.preparation = Preparation(field);
    output.converter = OrDie(Converter::Make(name, *field, {}, NullPolicy{}, Layout::kTensor, nullptr));
    output.field = output.converter->field();
    projection.outputs.push_back(std::move(output));
  }
  return projection;
}

struct Slab {
  std::vector<std::vector<uint8_t>> memory;
  std::vector<SlotColumn> columns;
  explicit Slab(size_t width) : memory(width, std::vector<uint8_t>(kSlabRows * 8)) {
    for (auto& column : memory) columns.push_back({column.data(), nullptr});
  }
};

std::vector<int> AllOutputs(const Projection& projection) {
  std::vector<int> outputs(projection.outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) outputs[i] = static_cast<int>(i);
  return outputs;
}

void LineitemDirect(benchmark::State& state, const std::vector<std::string>& names) {
  const auto file = Lineitem();
  const Projection projection = ProjectionOf(*file, names);
  const auto ledger = std::make_shared<Ledger>(int64_t{1} << 30);
  Slab slab(names.size());
  int64_t peak_bytes = 0;
  for (auto _ : state) {
    for (int g = 0; g < file->metadata->num_row_groups(); ++g) {
      const auto pool = ReservedPool::TryMake(ledger, 1 << 20);
      auto reader = OrDie(DirectReader::Open(file, g, projection, AllOutputs(projection), pool, 0));
      const int64_t rows = file->metadata->RowGroup(g)->num_rows();
      for (int64_t row = 0; row < rows; row += kSlabRows) {
        OrDie(reader->Read(std::min(kSlabRows, rows - row), slab.columns, 0));
      }
      peak_bytes = std::max(peak_bytes, pool->max_memory());
    }
  }
  state.SetItemsProcessed(state.iterations() * file->metadata->num_rows());
  state.counters["peak_KiB"] = static_cast<double>(peak_bytes >> 10);
}

template <typename P>
void ReadBare(parquet::ColumnReader* reader, int64_t rows, bool is_optional, uint8_t* to) {
  static thread_local int16_t levels[kSlabRows];
  auto* typed = static_cast<parquet::TypedColumnReader<P>*>(reader);
  auto* values = reinterpret_cast<typename P::c_type*>(to);
  while (rows > 0) {
    int64_t present = 0;
    const int64_t read = typed->ReadBatch(rows, is_optional ? levels : nullptr, nullptr, values, &present);
    values += present;
    rows -= read;
  }
}

// Bare Parquet: dense values, not converted, nulls not looked at.
void LineitemReadBatch(benchmark::State& state, const std::vector<std::string>& names) {
  const auto file = Lineitem();
  Slab slab(names.size());
  for (auto _ : state) {
    auto reader = parquet::ParquetFileReader::Open(
        file->file, MakeReaderProperties(arrow::default_memory_pool(), state.range(0) << 10), file->metadata);
    for (int g = 0; g < file->metadata->num_row_groups(); ++g) {
      const auto group = reader->RowGroup(g);
      std::vector<std::shared_ptr<parquet::ColumnReader>> columns;
      for (const std::string& name : names)
        columns.push_back(group->Column(file->metadata->schema()->ColumnIndex(name)));
      const int64_t rows = group->metadata()->num_rows();
      for (int64_t row = 0; row < rows; row += kSlabRows) {
        for (size_t i = 0; i < columns.size(); ++i) {
          const bool is_optional = columns[i]->descr()->max_definition_level() > 0;
          const auto read =
              columns[i]->type() == parquet::Type::INT32 ? ReadBare<parquet::Int32Type> : ReadBare<parquet::Int64Type>;
          read(columns[i].get(), std::min(kSlabRows, rows - row), is_optional, slab.memory[i].data());
        }
      }
    }
  }
  state.SetItemsProcessed(state.iterations() * file->metadata->num_rows());
}

// The bound: pages are read, checked and unpacked, and nobody looks at them.
void LineitemPagesAlone(benchmark::State& state, const std::vector<std::string>& names) {
  constexpr int64_t kBufferBytes = int64_t{64} << 10;
  const auto file = Lineitem();
  for (auto _ : state) {
    for (int g = 0; g < file->metadata->num_row_groups(); ++g) {
      for (const std::string& name : names) {
        const int leaf = file->metadata->schema()->ColumnIndex(name);
        const auto pages =
            OpenColumnPages(*file, g, leaf, MakeReaderProperties(arrow::default_memory_pool(), kBufferBytes));
        while (pages->NextPage() != nullptr) continue;
      }
    }
  }
  state.SetItemsProcessed(state.iterations() * file->metadata->num_rows());
}

// As a block: row groups to Arrow arrays in pieces, each converted to slots.
void LineitemPieces(benchmark::State& state, const std::vector<std::string>& names) {
  const auto file = Lineitem();
  const Projection projection = ProjectionOf(*file, names);
  const auto ledger = std::make_shared<Ledger>(int64_t{1} << 30);
  Slab slab(names.size());
  for (auto _ : state) {
    for (int g = 0; g < file->metadata->num_row_groups(); ++g) {
      const auto pool = ReservedPool::TryMake(ledger, 1 << 20);
      auto reader = OrDie(OpenRowGroupPieces(file, g, projection, AllOutputs(projection), pool, kSlabRows, 0, true));
      for (auto piece = OrDie(reader->Next()); piece.rows != nullptr; piece = OrDie(reader->Next())) {
        for (int i = 0; i < piece.rows->num_columns(); ++i) {
          OrDie(projection.outputs[static_cast<size_t>(i)].converter->ConvertArray(
              *piece.rows->column(i), 0, piece.rows->num_rows(), piece.first_row,
              {slab.columns[static_cast<size_t>(i)].values, nullptr}));
        }
      }
    }
  }
  state.SetItemsProcessed(state.iterations() * file->metadata->num_rows());
}

// What a conversion costs beside the decoding.
BENCHMARK_CAPTURE(LineitemReadBatch, FourInts, kFourInts)
    ->Arg(16)
    ->Arg(64)
    ->Arg(128)
    ->Arg(256)
    ->Arg(1024)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemDirect, FourInts, kFourInts)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemPagesAlone, FourInts, kFourInts)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemPieces, FourInts, kFourInts)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemReadBatch, Numbers, kNumbers)->Arg(128)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemDirect, Numbers, kNumbers)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemPagesAlone, Numbers, kNumbers)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemPieces, Numbers, kNumbers)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemReadBatch, Decimals, kDecimals)->Arg(128)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(LineitemDirect, Decimals, kDecimals)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace penstock

#include <arrow/type.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>
#include <parquet/size_statistics.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>

#include "ops/converter.h"
#include "source/bytes_column.h"
#include "source/constant_column.h"
#include "source/direct_column.h"
#include "source/input.h"
#include "source/list_column.h"
#include "source/read_plan.h"
#include "source/row_group_reader.h"

namespace penstock {
namespace {

// What the footer lets one guess of a column chunk's pages; all but the first in bytes.
struct ChunkSizes {
  int64_t values = 0;
  int64_t compressed = 0;
  int64_t uncompressed = 0;
  int64_t page_compressed = 0;  // The largest page of data.
  int64_t page_uncompressed = 0;
  int64_t dictionary_compressed = 0;
  int64_t dictionary_uncompressed = 0;
  bool is_plain = false;  // Stored as it is: nothing is unpacked.

  // The largest page of all, as it is stored, and as it is unpacked to.
  int64_t largest_page() const { return std::max(page_compressed, dictionary_compressed); }
  int64_t unpacked_page() const { return is_plain ? 0 : std::max(page_uncompressed, dictionary_uncompressed); }
};

constexpr int64_t kTypicalPageBytes = 1024 * 1024;
// Distinct values compress well where they are in order: keys of a fact table reach a tenth.
constexpr int64_t kDictionaryRatio = 12;
// Pages are not of equal size, above all where a chunk changes from its dictionary to plain values.
constexpr int64_t kPageSpread = 2;
constexpr int64_t kFewPages = 4;

// Footers can say anything: nothing that is computed from these overflows.
int64_t Plausible(int64_t count) { return std::clamp<int64_t>(count, 0, int64_t{1} << 44); }

int64_t DataPages(const parquet::ColumnChunkMetaData& chunk) {
  int64_t pages = 0;
  for (const parquet::PageEncodingStats& stats : chunk.encoding_stats()) {
    const bool is_data =
        stats.page_type == parquet::PageType::DATA_PAGE || stats.page_type == parquet::PageType::DATA_PAGE_V2;
    if (is_data) pages += std::max(0, stats.count);
  }
  return pages;
}

void SetDictionary(const parquet::ColumnChunkMetaData& chunk, ChunkSizes* sizes) {
  if (!chunk.has_dictionary_page()) return;
  const int64_t stored = chunk.data_page_offset() - chunk.dictionary_page_offset();
  if (stored <= 0 || stored > sizes->compressed) {
    sizes->dictionary_compressed = std::min(sizes->compressed, kTypicalPageBytes);
    sizes->dictionary_uncompressed = std::min(sizes->uncompressed, kTypicalPageBytes);
    return;
  }
  sizes->dictionary_compressed = stored;
  sizes->dictionary_uncompressed = std::min(
      sizes->uncompressed, sizes->is_plain ? stored : std::min(kTypicalPageBytes + stored, stored * kDictionaryRatio));
}

ChunkSizes SizesOf(const parquet::ColumnChunkMetaData& chunk) {
  ChunkSizes sizes;
  sizes.values = Plausible(chunk.num_values());
  sizes.compressed = Plausible(chunk.total_compressed_size());
  sizes.uncompressed = Plausible(chunk.total_uncompressed_size());
  sizes.is_plain = chunk.compression() == parquet::Compression::UNCOMPRESSED;
  SetDictionary(chunk, &sizes);
  const int64_t pages = DataPages(chunk);
  const auto page_of = [&](int64_t bytes) {
    if (pages == 0) return std::min(bytes, kTypicalPageBytes);
    // Of few pages the last one can be next to nothing.
    const int64_t least = pages <= kFewPages ? kTypicalPageBytes : 0;
    return std::min(bytes, std::max(bytes / pages * kPageSpread, least));
  };
  sizes.page_compressed = page_of(sizes.compressed - sizes.dictionary_compressed);
  sizes.page_uncompressed = page_of(sizes.uncompressed);
  return sizes;
}

int64_t PhysicalWidth(const parquet::ColumnDescriptor& leaf) {
  switch (leaf.physical_type()) {
    case parquet::Type::BOOLEAN:
      return 1;
    case parquet::Type::INT32:
    case parquet::Type::FLOAT:
      return 4;
    case parquet::Type::INT96:
      return 12;
    case parquet::Type::FIXED_LEN_BYTE_ARRAY:
      return std::max(1, leaf.type_length());
    default:
      return 8;
  }
}

int64_t StoredAndFinalWidth(const parquet::ColumnDescriptor& leaf) {
  constexpr int64_t kDecimalWidth = 16;
  const bool is_decimal = leaf.logical_type() != nullptr && leaf.logical_type()->is_decimal();
  const int64_t builder = leaf.physical_type() == parquet::Type::FIXED_LEN_BYTE_ARRAY ? 2 : 0;
  return PhysicalWidth(leaf) + builder + (is_decimal ? kDecimalWidth : 0);
}

// Through Arrow: stream buffer, a stored and an unpacked page, the dictionary's page and its values.
int64_t DecodeBytes(const ChunkSizes& sizes, const parquet::ColumnDescriptor& leaf, int64_t buffer_bytes) {
  // Where the chunk is longer than the buffer, it is grown once to look at a header across its end, or to hold a page;
  // both copies count meanwhile.
  const int64_t stream =
      sizes.compressed > buffer_bytes ? 2 * buffer_bytes + parquet::kDefaultBufferSize : buffer_bytes;
  int64_t dictionary = sizes.dictionary_uncompressed;
  // Decoded byte arrays keep their bytes and have a view each (stored, each has a length of 4).
  if (leaf.physical_type() == parquet::Type::BYTE_ARRAY) {
    constexpr int64_t kViewBytes = 16;
    dictionary += std::min(dictionary * 2, sizes.values * kViewBytes);
  }
  return stream + sizes.largest_page() + sizes.unpacked_page() + dictionary;
}

// What ChunkStream has: pages are views of what was read. What is longer than the buffer makes it grow, and both copies
// count meanwhile.
int64_t ChunkStreamBytes(const ChunkSizes& sizes, int64_t buffer_bytes) {
  if (sizes.compressed <= buffer_bytes) return sizes.compressed;
  const int64_t roomy = std::min(sizes.compressed, sizes.largest_page() + sizes.page_compressed / 4);
  return 2 * buffer_bytes + parquet::kDefaultBufferSize + roomy;
}

int64_t ViewsOfDictionary(const ChunkSizes& sizes, int64_t stored_width) {
  return std::min(sizes.dictionary_uncompressed / stored_width, sizes.values) * int64_t{sizeof(BytesView)};
}

constexpr int64_t kRounding = 4 * 64;  // Arrow's buffers are as long as multiples of 64.

// What ListColumn has of a chunk beside its arrays.
int64_t ListColumnBytes(const ChunkSizes& sizes, int64_t buffer_bytes) {
  return ChunkStreamBytes(sizes, buffer_bytes) + sizes.unpacked_page() + sizes.dictionary_uncompressed + kRounding;
}

// What BytesColumn has of a chunk beside its arrays: a dictionary is kept, or where nothing is unpacked the window in
// which it was read.
int64_t BytesColumnBytes(const ChunkSizes& sizes, int64_t buffer_bytes) {
  constexpr int64_t kStoredWidth = 4 + 4;
  const int64_t dictionary = sizes.is_plain ? std::min(sizes.page_compressed, sizes.dictionary_compressed) +
                                                  std::min(sizes.dictionary_uncompressed, buffer_bytes)
                                            : sizes.dictionary_uncompressed;
  return ChunkStreamBytes(sizes, buffer_bytes) + sizes.unpacked_page() + dictionary +
         ViewsOfDictionary(sizes, kStoredWidth) + bytes_column::kScratchBytes + kRounding;
}

// What DirectColumn has of a chunk: the stored bytes, an unpacked page, and the dictionary as slot values or, where
// these would be too many, as it is.
int64_t DirectColumnBytes(const ChunkSizes& sizes, const parquet::ColumnDescriptor& leaf, const Converter& converter,
                          int64_t buffer_bytes) {
  const bool is_bytes = leaf.physical_type() == parquet::Type::BYTE_ARRAY;
  const bool is_viewed = is_bytes || leaf.physical_type() == parquet::Type::FIXED_LEN_BYTE_ARRAY;
  const int64_t values =
      is_viewed ? Converter::kStrip * int64_t{sizeof(BytesView)} : 0;  // As Parquet's decoders see them.
  const int64_t stored_width = is_bytes ? 4 + 4 : PhysicalWidth(leaf);
  const int64_t length = sizes.dictionary_uncompressed / stored_width;
  const int64_t table = std::min(length * ByteWidth(converter.field().dtype), kMaxTableBytes);
  const int64_t views = is_viewed ? ViewsOfDictionary(sizes, stored_width) : 0;
  return ChunkStreamBytes(sizes, buffer_bytes) + sizes.unpacked_page() + values + views +
         std::max(table, sizes.dictionary_uncompressed) + kRounding;
}

int64_t UnencodedBytes(const parquet::ColumnChunkMetaData& chunk, const ChunkSizes& sizes) {
  const auto statistics = chunk.size_statistics();
  if (statistics != nullptr && statistics->unencoded_byte_array_data_bytes.has_value()) {
    return Plausible(*statistics->unencoded_byte_array_data_bytes);
  }
  return sizes.uncompressed;
}

// One leaf's part of the arrays for `rows` of `num_rows` rows.
int64_t ArrayBytes(const parquet::ColumnChunkMetaData& chunk, const ChunkSizes& sizes,
                   const parquet::ColumnDescriptor& leaf, int64_t rows, int64_t num_rows) {
  const double part = num_rows > 0 ? static_cast<double>(rows) / static_cast<double>(num_rows) : 1.0;
  auto values = static_cast<int64_t>(part * static_cast<double>(sizes.values));
  // Arrow rounds a required column's buffers up to powers of two; a nullable one's are dearer for other reasons, see
  // below.
  if (leaf.max_definition_level() == 0) values = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(values)));
  const int64_t levels = leaf.max_definition_level() > 0 ? values * (2 + 1) : 0;
  const bool is_bytes = leaf.physical_type() == parquet::Type::BYTE_ARRAY;
  const int64_t repetition = leaf.max_repetition_level() > 0 ? values * 2 + rows * 8 : 0;
  const int64_t fixed =
      is_bytes ? static_cast<int64_t>(part * static_cast<double>(UnencodedBytes(chunk, sizes))) + values * 4
               : values * StoredAndFinalWidth(leaf);
  // Buffers of nullable columns grow step by step while both copies count; most types are read in their stored form,
  // then copied to their own.
  return (fixed + levels + repetition) * (leaf.max_definition_level() > 0 ? 3 : 2);
}

std::set<int> LeavesOfOutputs(const Projection& projection, const ParquetFile& file, const std::vector<int>& outputs) {
  std::set<int> leaves;
  for (int output : outputs) {
    const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
    if (!column.is_read()) continue;
    const auto found = LeavesOf(file, column.path());
    leaves.insert(found.begin(), found.end());
  }
  return leaves;
}

int64_t DirectBytes(const ParquetFile& file, int row_group, const Projection& projection,
                    const std::vector<int>& outputs) {
  const auto metadata = file.metadata->RowGroup(row_group);
  const std::set<int> all = LeavesOfOutputs(projection, file, outputs);
  const int64_t buffer_bytes = StreamBufferBytes(file, row_group, {all.begin(), all.end()});
  int64_t bytes = 0, scratch_bytes = 0;
  for (int output : outputs) {
    const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
    for (int i : LeavesOf(file, column.path())) {
      const parquet::ColumnDescriptor& leaf = *file.metadata->schema()->Column(i);
      bytes += DirectColumnBytes(SizesOf(*metadata->ColumnChunk(i)), leaf, *column.converter, buffer_bytes);
      scratch_bytes = std::max(scratch_bytes, DirectColumn::ScratchBytes(leaf));
    }
  }
  const int64_t readers = NumDirectReaders(static_cast<int64_t>(outputs.size()), Plausible(metadata->num_rows()));
  return bytes + readers * scratch_bytes;
}

int64_t PieceBytes(const ParquetFile& file, int row_group, const Projection& projection,
                   const std::vector<int>& outputs, int64_t rows, bool use_direct_decode) {
  const auto metadata = file.metadata->RowGroup(row_group);
  const int64_t num_rows = Plausible(metadata->num_rows());
  std::set<int> all = LeavesOfOutputs(projection, file, outputs);
  if (projection.filter != nullptr) {
    for (const auto& field : projection.filter_fields) {
      const auto found = LeavesOf(file, {field->name(), {}});
      all.insert(found.begin(), found.end());
    }
  }
  const int64_t buffer_bytes = StreamBufferBytes(file, row_group, {all.begin(), all.end()});
  int64_t bytes = 0;
  for (int i : all) {
    const parquet::ColumnDescriptor& leaf = *file.metadata->schema()->Column(i);
    const auto chunk = metadata->ColumnChunk(i);
    const ChunkSizes sizes = SizesOf(*chunk);
    const ColumnPath path{leaf.path()->ToDotVector()[0], {}};
    const auto lists = use_direct_decode ? ListField(file, row_group, path) : nullptr;
    const bool is_bytes = use_direct_decode && BytesField(projection, file, path) != nullptr;
    const int64_t arrays = lists != nullptr ? list_column::ArrayBytes(file, row_group, *lists, i, rows)
                                            : ArrayBytes(*chunk, sizes, leaf, std::min(rows, num_rows), num_rows);
    bytes += arrays * (projection.selects_rows() ? 2 : 1);
    if (lists != nullptr) {
      bytes += ListColumnBytes(sizes, buffer_bytes);
    } else {
      bytes += is_bytes ? BytesColumnBytes(sizes, buffer_bytes) : DecodeBytes(sizes, leaf, buffer_bytes);
    }
  }
  return bytes + ConstantArrayBytes(projection, file.entry.partition_values, rows);
}

int64_t DecodedBytes(const ParquetFile& file, int row_group) {
  const auto metadata = file.metadata->RowGroup(row_group);
  int64_t bytes = Plausible(metadata->total_byte_size());
  for (int i = 0; i < file.metadata->num_columns(); ++i) {
    const parquet::ColumnDescriptor& leaf = *file.metadata->schema()->Column(i);
    if (leaf.max_repetition_level() == 0) continue;
    const ChunkSizes sizes = SizesOf(*metadata->ColumnChunk(i));
    bytes += std::max<int64_t>(0, sizes.values * PhysicalWidth(leaf) - sizes.uncompressed);
  }
  return bytes;
}

// Bytes of strings; items of lists with their masks, and offsets where they are strings.
int64_t ArenaBytesOf(const parquet::ColumnChunkMetaData& chunk, const parquet::ColumnDescriptor& leaf) {
  const ChunkSizes sizes = SizesOf(chunk);
  const bool is_bytes = leaf.physical_type() == parquet::Type::BYTE_ARRAY;
  const int64_t text = is_bytes ? UnencodedBytes(chunk, sizes) : 0;
  if (leaf.max_repetition_level() == 0) return text;
  return text + sizes.values * (1 + (is_bytes ? 8 : PhysicalWidth(leaf)));
}

int64_t ArenaBytes(const ParquetFile& file, int row_group, const Projection& projection) {
  const auto metadata = file.metadata->RowGroup(row_group);
  int64_t bytes = ConstantArenaBytes(projection, file.entry.partition_values, Plausible(metadata->num_rows()));
  for (const OutputColumn& output : projection.outputs) {
    if (output.field.varying == nullptr || !output.is_read()) continue;
    for (int i : LeavesOf(file, output.path())) {
      bytes += ArenaBytesOf(*metadata->ColumnChunk(i), *file.metadata->schema()->Column(i));
    }
  }
  return bytes;
}

// A footer that Parquet refuses to look at gets a promise like any other; opening the row group will say what is wrong
// with it.
template <typename Estimate>
int64_t OrTypical(Estimate&& estimate) {
  int64_t bytes = 0;
  const arrow::Status status = CatchParquet([&] {
    bytes = estimate();
    return arrow::Status::OK();
  });
  return status.ok() ? bytes : kTypicalPageBytes;
}

// Footers say how many values have which definition level; items have that of the list that is repeated, or a higher
// one.
std::optional<int64_t> CountedItems(const ParquetFile& file, int row_group, const OutputColumn& output) {
  const std::vector<int> leaves = LeavesOf(file, output.path());
  if (leaves.size() != 1) return std::nullopt;
  const parquet::ColumnDescriptor& leaf = *file.metadata->schema()->Column(leaves.front());
  if (leaf.max_repetition_level() != 1) return std::nullopt;
  const auto chunk = file.metadata->RowGroup(row_group)->ColumnChunk(leaves.front());
  const auto statistics = chunk->size_statistics();
  if (statistics == nullptr) return std::nullopt;
  const std::vector<int64_t>& levels = statistics->definition_level_histogram;
  const bool is_plausible = levels.size() == static_cast<size_t>(leaf.max_definition_level()) + 1 &&
                            std::ranges::all_of(levels, [](int64_t n) { return n >= 0 && n == Plausible(n); });
  if (!is_plausible || std::reduce(levels.begin(), levels.end()) != chunk->num_values()) return std::nullopt;
  int16_t item_level = leaf.max_definition_level();
  for (const parquet::schema::Node* node = leaf.schema_node().get(); !node->is_repeated(); node = node->parent()) {
    if (node->is_optional()) --item_level;
  }
  return std::reduce(levels.begin() + item_level, levels.end());
}

}  // namespace

int64_t EstimateDirectBytes(const ParquetFile& file, int row_group, const Projection& projection,
                            const std::vector<int>& outputs) {
  return OrTypical([&] { return DirectBytes(file, row_group, projection, outputs); });
}

int64_t EstimatePieceBytes(const ParquetFile& file, int row_group, const Projection& projection,
                           const std::vector<int>& outputs, int64_t rows, bool use_direct_decode) {
  return OrTypical([&] { return PieceBytes(file, row_group, projection, outputs, rows, use_direct_decode); });
}

int64_t EstimateDecodedBytes(const ParquetFile& file, int row_group) {
  return OrTypical([&] { return DecodedBytes(file, row_group); });
}

int64_t EstimateArenaBytes(const ParquetFile& file, int row_group, const Projection& projection) {
  return OrTypical([&] { return ArenaBytes(file, row_group, projection); });
}

// A list that is empty or missing has a value in its leaf as well.
int64_t MostItemsOf(const ParquetFile& file, int row_group, const Projection& projection) {
  int64_t items = -1;
  const arrow::Status status = CatchParquet([&] {
    const std::vector<int> leaves = LeavesOf(file, projection.outputs.front().path());
    if (!leaves.empty()) {
      items = Plausible(file.metadata->RowGroup(row_group)->ColumnChunk(leaves.front())->num_values());
    }
    return arrow::Status::OK();
  });
  return status.ok() ? items : -1;
}

std::optional<int64_t> NumItems(const ParquetFile& file, int row_group, const OutputColumn& output) {
  std::optional<int64_t> items;
  const arrow::Status status = CatchParquet([&] {
    items = CountedItems(file, row_group, output);
    return arrow::Status::OK();
  });
  return status.ok() ? items : std::nullopt;
}

}  // namespace penstock

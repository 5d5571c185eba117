#include "source/column_pages.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <arrow/util/compression.h>
#include <parquet/column_page.h>
#include <parquet/exception.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include "source/chunk_stream.h"

namespace penstock {
namespace {

using arrow::util::Decompressor;

// The size that a ZSTD frame says it unpacks to; nullopt where it does not say (RFC 8878, 3.1.1.1). Frames that say it
// are unpacked in one pass; for others the streaming interface would keep a window of its own that nobody counts.
std::optional<int64_t> FrameContentSize(const uint8_t* data, int64_t size) {
  constexpr uint32_t kMagic = 0xFD2FB528;
  uint32_t magic = 0;
  if (size < 6) return std::nullopt;
  std::memcpy(&magic, data, sizeof(magic));
  if (magic != kMagic) return std::nullopt;
  const uint8_t descriptor = data[4];
  const int size_flag = descriptor >> 6;
  const bool is_single_segment = (descriptor & 0x20) != 0;
  constexpr int kDictionaryIdBytes[] = {0, 1, 2, 4};
  const int bytes = size_flag == 0 ? (is_single_segment ? 1 : 0) : 1 << size_flag;
  const int64_t at = 5 + (is_single_segment ? 0 : 1) + kDictionaryIdBytes[descriptor & 3];
  if (bytes == 0 || at + bytes > size) return std::nullopt;
  uint64_t content = 0;
  std::memcpy(&content, data + at, static_cast<size_t>(bytes));
  if (bytes == 2) content += 256;
  if (content > static_cast<uint64_t>(INT32_MAX)) return std::nullopt;
  return static_cast<int64_t>(content);
}

// The calling thread's context; its memory is bounded (about 160 KiB) and goes with the thread.
Decompressor& ThreadDecompressor() {
  static thread_local std::shared_ptr<Decompressor> decompressor;
  if (decompressor == nullptr) {
    PARQUET_ASSIGN_OR_THROW(auto codec, arrow::util::Codec::Create(arrow::Compression::ZSTD));
    PARQUET_ASSIGN_OR_THROW(decompressor, codec->MakeDecompressor());
  }
  return *decompressor;
}

using OpenPages = std::function<std::unique_ptr<parquet::PageReader>()>;

/// Pages of a ZSTD column chunk. Parquet's own page reader, told that nothing is compressed, gives them as they are
/// stored, headers parsed and checksums verified.
class ZstdPages final : public parquet::PageReader {
 public:
  /// \param parquet_pages  opens Parquet's own reader of the same pages.
  ZstdPages(std::unique_ptr<parquet::PageReader> stored, OpenPages parquet_pages, arrow::MemoryPool* pool)
      : stored_(std::move(stored)), parquet_pages_(std::move(parquet_pages)), pool_(pool) {}

  std::shared_ptr<parquet::Page> NextPage() override {
    const std::shared_ptr<parquet::Page> page = stored_->NextPage();
    if (page == nullptr) return nullptr;
    switch (page->type()) {
      case parquet::PageType::DICTIONARY_PAGE:
        return Unpack(static_cast<const parquet::DictionaryPage&>(*page));
      case parquet::PageType::DATA_PAGE:
        return Unpack(static_cast<const parquet::DataPageV1&>(*page));
      case parquet::PageType::DATA_PAGE_V2:
        return Unpack(static_cast<const parquet::DataPageV2&>(*page), page);
      default:
        return page;
    }
  }

  void set_max_page_header_size(uint32_t size) override { stored_->set_max_page_header_size(size); }

 private:
  std::shared_ptr<parquet::Page> Unpack(const parquet::DictionaryPage& page) {
    const auto size = FrameContentSize(page.data(), page.size());
    if (!size) {
      // Only the page header knows its size, and only Parquet sees that: it reads the page once more.
      fallback_ = parquet_pages_();
      return fallback_->NextPage();
    }
    return std::make_shared<parquet::DictionaryPage>(Unpacked(page, 0, *size), page.num_values(), page.encoding(),
                                                     page.is_sorted());
  }

  std::shared_ptr<parquet::Page> Unpack(const parquet::DataPageV1& page) {
    return std::make_shared<parquet::DataPageV1>(Unpacked(page, 0, page.uncompressed_size()), page.num_values(),
                                                 page.encoding(), page.definition_level_encoding(),
                                                 page.repetition_level_encoding(), page.uncompressed_size());
  }

  // Levels stand in front, never compressed.
  std::shared_ptr<parquet::Page> Unpack(const parquet::DataPageV2& page, const std::shared_ptr<parquet::Page>& stored) {
    const int64_t levels = int64_t{page.definition_levels_byte_length()} + page.repetition_levels_byte_length();
    if (!page.is_compressed() || page.size() == levels) return stored;
    if (levels < 0 || levels > page.size()) throw parquet::ParquetException("a page's levels are larger than the page");
    return std::make_shared<parquet::DataPageV2>(Unpacked(page, levels, page.uncompressed_size()), page.num_values(),
                                                 page.num_nulls(), page.num_rows(), page.encoding(),
                                                 page.definition_levels_byte_length(),
                                                 page.repetition_levels_byte_length(), page.uncompressed_size(), false);
  }

  // `size` bytes: the first `plain` of the page as they are, the rest unpacked. Valid until the next page.
  std::shared_ptr<arrow::Buffer> Unpacked(const parquet::Page& page, int64_t plain, int64_t size) {
    const uint8_t* packed = page.data() + plain;
    const int64_t packed_size = page.size() - plain;
    const int64_t wanted = size - plain;
    if (wanted < 0) throw parquet::ParquetException("a page's levels are larger than the page");
    Reserve(size);
    uint8_t* out = unpacked_->mutable_data();
    std::memcpy(out, page.data(), static_cast<size_t>(plain));
    if (FrameContentSize(packed, packed_size) == wanted) {
      Decompressor& decompressor = ThreadDecompressor();
      PARQUET_THROW_NOT_OK(decompressor.Reset());
      PARQUET_ASSIGN_OR_THROW(const auto result, decompressor.Decompress(packed_size, packed, wanted, out + plain));
      if (result.bytes_written != wanted || result.bytes_read != packed_size) {
        throw parquet::ParquetException("a page unpacks to another size than its header says");
      }
    } else {
      UnpackAtOnce(packed, packed_size, wanted, out + plain);
    }
    return arrow::SliceBuffer(unpacked_, 0, size);
  }

  // Whatever is not a single frame of the right size: Parquet's own way, which also tells what is wrong.
  void UnpackAtOnce(const uint8_t* packed, int64_t packed_size, int64_t wanted, uint8_t* out) {
    if (codec_ == nullptr) {
      PARQUET_ASSIGN_OR_THROW(codec_, arrow::util::Codec::Create(arrow::Compression::ZSTD));
    }
    PARQUET_ASSIGN_OR_THROW(const int64_t written, codec_->Decompress(packed_size, packed, wanted, out));
    if (written != wanted) throw parquet::ParquetException("a page unpacks to another size than its header says");
  }

  // The buffer is used again by the next page, as Parquet's page reader does: a page is valid until the next is asked
  // for.
  void Reserve(int64_t size) {
    if (unpacked_ != nullptr && unpacked_->size() >= size) return;
    unpacked_.reset();
    PARQUET_ASSIGN_OR_THROW(unpacked_, arrow::AllocateBuffer(size, pool_));
  }

  const std::unique_ptr<parquet::PageReader> stored_;
  const OpenPages parquet_pages_;
  std::unique_ptr<parquet::PageReader> fallback_;  // Owns the dictionary page that it gave.
  arrow::MemoryPool* const pool_;
  std::shared_ptr<arrow::Buffer> unpacked_;
  std::unique_ptr<arrow::util::Codec> codec_;
};

struct ChunkRange {
  int64_t start = 0;
  int64_t length = 0;
};

// Where the chunk lies, by the footer; as Parquet's own readers work it out.
ChunkRange RangeOf(const parquet::ColumnChunkMetaData& chunk, const ParquetFile& file) {
  ChunkRange range{chunk.data_page_offset(), chunk.total_compressed_size()};
  if (chunk.has_dictionary_page() && chunk.dictionary_page_offset() > 0) {
    range.start = std::min(range.start, chunk.dictionary_page_offset());
  }
  PARQUET_ASSIGN_OR_THROW(const int64_t file_bytes, file.file->GetSize());
  if (range.start < 0 || range.length < 0 || range.start > file_bytes || range.length > file_bytes - range.start) {
    throw parquet::ParquetException("the footer says that the column chunk lies outside of the file");
  }
  // Early Java writers forgot the dictionary page's header when they counted (PARQUET-816).
  constexpr int64_t kForgottenBytes = 100;
  if (file.metadata->writer_version().VersionLt(parquet::ApplicationVersion::PARQUET_816_FIXED_VERSION())) {
    range.length += std::min(kForgottenBytes, file_bytes - range.start - range.length);
  }
  return range;
}

}  // namespace

std::unique_ptr<parquet::PageReader> OpenColumnPages(const ParquetFile& file, int row_group, int leaf,
                                                     const parquet::ReaderProperties& properties,
                                                     std::shared_ptr<ChunkStream>* plain) {
  const auto chunk = file.metadata->RowGroup(row_group)->ColumnChunk(leaf);
  const ChunkRange range = RangeOf(*chunk, file);
  const auto open = [range, properties, source = file.file, values = chunk->num_values(),
                     descriptor = file.metadata->schema()->Column(leaf),
                     is_always_compressed = file.metadata->writer_version().VersionLt(
                         parquet::ApplicationVersion::PARQUET_CPP_10353_FIXED_VERSION())](
                        arrow::Compression::type codec, std::shared_ptr<ChunkStream>* opened) {
    auto stream = std::make_shared<ChunkStream>(source, range.start, range.length, properties.buffer_size(),
                                                properties.memory_pool());
    if (opened != nullptr) *opened = stream;
    return parquet::PageReader::Open(std::move(stream), values, codec, properties, *descriptor, is_always_compressed);
  };
  if (chunk->compression() != arrow::Compression::ZSTD) {
    return open(chunk->compression(), chunk->compression() == arrow::Compression::UNCOMPRESSED ? plain : nullptr);
  }
  return std::make_unique<ZstdPages>(
      open(arrow::Compression::UNCOMPRESSED, nullptr), [open] { return open(arrow::Compression::ZSTD, nullptr); },
      properties.memory_pool());
}

}  // namespace penstock

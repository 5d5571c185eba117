#include "source/parquet_file.h"

#include <arrow/buffer.h>
#include <arrow/filesystem/filesystem.h>
#include <arrow/io/interfaces.h>
#include <arrow/type.h>
#include <parquet/arrow/schema.h>
#include <parquet/exception.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <string_view>
#include <utility>

#include "ops/hash.h"
#include "source/counting_file.h"
#include "source/text.h"

namespace penstock {
namespace {

constexpr int64_t kTailBytes = 8;        ///< Footer length and magic, at the end of each file.
constexpr int64_t kLeastFileBytes = 12;  ///< Magic at both ends and the footer's length.
constexpr int64_t kFirstReadBytes = 64 << 10;
constexpr std::string_view kMagic = "PAR1";
constexpr std::string_view kEncryptedMagic = "PARE";

std::string BytesText(int64_t bytes) { return std::to_string(bytes) + " bytes"; }

arrow::Status CheckRemote(arrow::fs::FileSystem& fs, const FileEntry& entry) {
  ARROW_ASSIGN_OR_RAISE(const arrow::fs::FileInfo info, fs.GetFileInfo(entry.path));
  if (!info.IsFile()) return arrow::Status::IOError("was deleted since the loader was made; make a new loader");
  return CheckUnchanged(entry, info.size(), info.mtime().time_since_epoch().count());
}

/// Why a file whose last four bytes are not Parquet's cannot be read.
arrow::Status BadMagic(arrow::io::RandomAccessFile& file, std::string_view tail_magic) {
  if (tail_magic == kEncryptedMagic) {
    return arrow::Status::Invalid("the file is encrypted; encrypted files are not read: decrypt it first");
  }
  ARROW_ASSIGN_OR_RAISE(auto head, file.ReadAt(0, static_cast<int64_t>(kMagic.size())));
  if (std::string_view(*head) == kMagic || std::string_view(*head) == kEncryptedMagic) {
    return arrow::Status::IOError(
        "the file is truncated: it starts as Parquet but its footer is missing (still being written, or a copy that "
        "broke off?); "
        "write or copy it again");
  }
  return arrow::Status::Invalid("is not a Parquet file (it ends in none of \"PAR1\", \"PARE\")");
}

/// Reads the serialized footer.
arrow::Result<std::shared_ptr<arrow::Buffer>> ReadFooter(arrow::io::RandomAccessFile& file, int64_t size_bytes) {
  if (size_bytes == 0) return arrow::Status::Invalid("the file is empty (0 bytes); delete it or write it again");
  if (size_bytes < kLeastFileBytes) {
    return arrow::Status::Invalid("is not a Parquet file: ", BytesText(size_bytes), " are too few");
  }
  const int64_t first_bytes = std::min(size_bytes, kFirstReadBytes);
  ARROW_ASSIGN_OR_RAISE(auto tail, file.ReadAt(size_bytes - first_bytes, first_bytes));
  if (tail->size() != first_bytes) {
    return arrow::Status::IOError("the file ended at ", BytesText(size_bytes - first_bytes + tail->size()), " where ",
                                  size_bytes, " were expected; was it cut while it was read?");
  }
  const std::string_view magic = std::string_view(*tail).substr(static_cast<size_t>(first_bytes) - kMagic.size());
  if (magic != kMagic) return BadMagic(file, magic);
  static_assert(std::endian::native == std::endian::little);
  uint32_t footer_bytes = 0;
  std::memcpy(&footer_bytes, tail->data() + first_bytes - kTailBytes, sizeof(footer_bytes));
  if (footer_bytes > size_bytes - kLeastFileBytes) {
    return arrow::Status::IOError("the file is truncated or damaged: its footer says ", footer_bytes,
                                  " bytes, the file has ", size_bytes, "; write or copy it again");
  }
  if (footer_bytes + kTailBytes <= first_bytes) {
    return arrow::SliceBuffer(tail, first_bytes - kTailBytes - footer_bytes, footer_bytes);
  }
  ARROW_ASSIGN_OR_RAISE(auto footer, file.ReadAt(size_bytes - kTailBytes - footer_bytes, footer_bytes));
  if (footer->size() != footer_bytes) return arrow::Status::IOError("the footer could not be read in full");
  return footer;
}

arrow::Status CheckColumnChunk(const parquet::ColumnChunkMetaData& chunk, const parquet::ColumnDescriptor& column,
                               int64_t size_bytes) {
  const auto broken = [&](const auto&... what) {
    return arrow::Status::Invalid("column '", column.path()->ToDotString(), "': ", what...);
  };
  if (!chunk.file_path().empty())
    return broken("its data is in another file ('", chunk.file_path(), "'); not supported");
  if (chunk.type() != column.physical_type()) return broken("its type is not the schema's");
  if (chunk.num_values() < 0 || chunk.total_compressed_size() < 0 || chunk.total_uncompressed_size() < 0) {
    return broken("a count is negative");
  }
  int64_t start = chunk.data_page_offset();
  if (chunk.has_dictionary_page() && chunk.dictionary_page_offset() > 0) {
    start = std::min(start, chunk.dictionary_page_offset());
  }
  if (start < 0 || start > size_bytes || chunk.total_compressed_size() > size_bytes - start) {
    return broken("its bytes lie beyond the end of the file (", start, " + ", chunk.total_compressed_size(), " of ",
                  size_bytes, ")");
  }
  return arrow::Status::OK();
}

arrow::Status CheckRowGroup(const parquet::RowGroupMetaData& row_group, const parquet::SchemaDescriptor& schema,
                            int64_t size_bytes) {
  if (row_group.num_rows() < 0) return arrow::Status::Invalid("its number of rows is negative");
  if (row_group.num_columns() != schema.num_columns()) {
    return arrow::Status::Invalid("it has ", row_group.num_columns(), " columns, the schema has ",
                                  schema.num_columns());
  }
  for (int i = 0; i < schema.num_columns(); ++i) {
    ARROW_RETURN_NOT_OK(CheckColumnChunk(*row_group.ColumnChunk(i), *schema.Column(i), size_bytes));
  }
  return arrow::Status::OK();
}

/// A footer may say anything. What is checked here, later code relies on.
arrow::Status CheckFooter(const parquet::FileMetaData& metadata, int64_t size_bytes) {
  constexpr std::string_view kDamaged = "the footer is damaged: ";
  if (metadata.is_encryption_algorithm_set()) {
    return arrow::Status::Invalid("the file has encrypted columns; encrypted files are not read: decrypt it first");
  }
  if (metadata.num_rows() < 0) return arrow::Status::Invalid(kDamaged, "its number of rows is negative");
  int64_t rows = 0;
  for (int i = 0; i < metadata.num_row_groups(); ++i) {
    const auto row_group = metadata.RowGroup(i);
    const arrow::Status checked = CheckRowGroup(*row_group, *metadata.schema(), size_bytes);
    if (!checked.ok()) return checked.WithMessage(kDamaged, "row group ", i, ": ", checked.message());
    if (row_group->num_rows() > metadata.num_rows() - rows) rows = std::numeric_limits<int64_t>::max();
    if (rows == std::numeric_limits<int64_t>::max()) break;
    rows += row_group->num_rows();
  }
  if (rows != metadata.num_rows()) {
    return arrow::Status::Invalid(kDamaged, "it says ", metadata.num_rows(), " rows, its row groups have ",
                                  rows > metadata.num_rows() ? "more" : "fewer");
  }
  return arrow::Status::OK();
}

arrow::Status ParseFooter(const arrow::Buffer& footer, int64_t size_bytes, ParquetFile* out) {
  out->metadata = parquet::FileMetaData::Make(footer.data(), footer.size());
  out->footer_bytes = footer.size();
  out->footer_digest = Hash64(std::string_view(footer));
  ARROW_RETURN_NOT_OK(CheckFooter(*out->metadata, size_bytes));
  parquet::ArrowReaderProperties properties;
  ARROW_RETURN_NOT_OK(parquet::arrow::FromParquetSchema(out->metadata->schema(), properties,
                                                        out->metadata->key_value_metadata(), &out->schema));
  out->schema = out->schema->RemoveMetadata();
  return arrow::Status::OK();
}

arrow::Status OpenInto(arrow::fs::FileSystem& fs, IoCounters* counters, ParquetFile* out) {
  bool is_local = true;
  ARROW_ASSIGN_OR_RAISE(out->file, OpenCounted(fs, out->entry, counters, &is_local));
  ARROW_ASSIGN_OR_RAISE(const int64_t size_bytes, out->file->GetSize());
  if (!is_local) {
    auto remote = std::make_shared<RemoteFile>();
    remote->check = [fs = fs.shared_from_this(), entry = out->entry] { return CheckRemote(*fs, entry); };
    remote->counters = counters;
    out->remote = std::move(remote);
  }
  ARROW_ASSIGN_OR_RAISE(auto footer, ReadFooter(*out->file, size_bytes));
  const arrow::Status parsed = CatchParquet([&] { return ParseFooter(*footer, size_bytes, out); });
  if (parsed.ok() || parsed.IsInvalid() || parsed.IsOutOfMemory()) return parsed;
  return parsed.WithMessage("the footer cannot be read; the file is damaged: ", parsed.message());
}

}  // namespace

// Measured with mallinfo2(): a footer takes 4 to 14 times its serialized size, so a factor alone would be off by as
// much. What costs is structs: about 870 bytes per column chunk and 1,000 per schema element (its Arrow field
// included), whatever little of them was serialized; names and statistics come on top, at most as long as the footer.
// With these terms the estimate is 1.0 to 1.2 times the heap from one column to 3,000, and from one row group to 1,000.
int64_t ParquetFile::MemoryBytes() const {
  constexpr int64_t kChunkBytes = 900, kElementBytes = 1000, kFileBytes = 2000;
  int64_t bytes = kFileBytes + static_cast<int64_t>(entry.path.capacity());
  if (metadata == nullptr) return bytes;
  const int64_t chunks = int64_t{metadata->num_row_groups()} * metadata->num_columns();
  return bytes + footer_bytes + chunks * kChunkBytes + int64_t{metadata->num_schema_elements()} * kElementBytes;
}

arrow::Status StatusOfCurrentException() {
  try {
    throw;
  } catch (const parquet::ParquetStatusException& e) {
    return e.status().WithMessage(text::ToValidUtf8(e.status().message()));
  } catch (const parquet::ParquetException& e) {
    return arrow::Status::IOError(text::ToValidUtf8(e.what()));
  } catch (const std::bad_alloc&) {
    return arrow::Status::OutOfMemory("out of memory");
  } catch (const std::exception& e) {
    return arrow::Status::IOError(text::ToValidUtf8(e.what()));
  } catch (...) {
    return arrow::Status::UnknownError("an unknown exception was thrown");
  }
}

parquet::ReaderProperties MakeReaderProperties(arrow::MemoryPool* pool, int64_t buffer_bytes) {
  parquet::ReaderProperties properties(pool);
  properties.enable_buffered_stream();
  properties.set_buffer_size(buffer_bytes);
  properties.set_page_checksum_verification(true);
  return properties;
}

arrow::Result<std::shared_ptr<ParquetFile>> OpenParquet(arrow::fs::FileSystem& fs, const FileEntry& entry,
                                                        IoCounters* counters) {
  auto file = std::make_shared<ParquetFile>();
  file->entry = entry;
  ARROW_RETURN_NOT_OK(text::WithContext(OpenInto(fs, counters, file.get()), text::Quoted(entry.path)));
  return file;
}

}  // namespace penstock

#include "source/ipc_footer.h"

#include <arrow/io/interfaces.h>

#include <bit>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

namespace penstock {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "ARROW1";
constexpr int64_t kTailBytes = 10;       // The footer's length and the magic.
constexpr int64_t kLeastFileBytes = 18;  // Magic, padding, tail.
constexpr uint32_t kContinuation = 0xFFFFFFFF;

// As org.apache.arrow.flatbuf has them.
constexpr int kFooterRecordBatches = 3;
constexpr int kMessageHeaderType = 1;
constexpr int kMessageHeader = 2;
constexpr int kRecordBatchLength = 0;
constexpr int kRecordBatchCompression = 3;
constexpr uint8_t kRecordBatchHeader = 3;
constexpr int64_t kBlockBytes = 24;

/// A flatbuffer, read with every position checked.
class FlatBuffer {
 public:
  explicit FlatBuffer(const arrow::Buffer& bytes) : bytes_(bytes) {}

  template <typename T>
  std::optional<T> Read(int64_t position) const {
    if (position < 0 || position > bytes_.size() - static_cast<int64_t>(sizeof(T))) return std::nullopt;
    T value;
    std::memcpy(&value, bytes_.data() + position, sizeof(T));
    return value;
  }
  /// What the offset at `position` points to.
  std::optional<int64_t> Follow(int64_t position) const {
    const auto offset = Read<uint32_t>(position);
    return offset ? std::optional(position + *offset) : std::nullopt;
  }
  /// Where a table's field lies; nullopt where it is not set, or out of bounds.
  std::optional<int64_t> Field(int64_t table, int field) const {
    const auto back = Read<int32_t>(table);
    if (!back) return std::nullopt;
    const int64_t vtable = table - *back;
    const auto vtable_bytes = Read<uint16_t>(vtable);
    const int64_t entry = 4 + 2 * int64_t{field};
    if (!vtable_bytes || entry + 2 > *vtable_bytes) return std::nullopt;
    const auto offset = Read<uint16_t>(vtable + entry);
    return offset && *offset != 0 ? std::optional(table + *offset) : std::nullopt;
  }

 private:
  const arrow::Buffer& bytes_;
};

arrow::Status Damaged(const char* what) { return arrow::Status::Invalid("the file is damaged: ", what); }

arrow::Result<std::shared_ptr<arrow::Buffer>> ReadExactly(arrow::io::RandomAccessFile& file, int64_t position,
                                                          int64_t bytes) {
  ARROW_ASSIGN_OR_RAISE(auto buffer, file.ReadAt(position, bytes));
  if (buffer->size() != bytes) return Damaged("it ended early; was it cut while it was read?");
  return buffer;
}

}  // namespace

arrow::Result<std::vector<IpcBlock>> ReadIpcBlocks(arrow::io::RandomAccessFile& file, int64_t size_bytes) {
  if (size_bytes < kLeastFileBytes) return Damaged("it is too short to have a footer; write or copy it again");
  ARROW_ASSIGN_OR_RAISE(const auto tail, ReadExactly(file, size_bytes - kTailBytes, kTailBytes));
  const std::string_view end = std::string_view(*tail).substr(4);
  int32_t footer_bytes = 0;
  std::memcpy(&footer_bytes, tail->data(), sizeof(footer_bytes));
  if (end != kMagic || footer_bytes <= 0 || footer_bytes > size_bytes - kLeastFileBytes) {
    return arrow::Status::Invalid(
        "the file is truncated or damaged: it starts as an Arrow file but its footer is missing (still being written, "
        "or a copy that broke off?); write or copy it again");
  }
  ARROW_ASSIGN_OR_RAISE(const auto footer, ReadExactly(file, size_bytes - kTailBytes - footer_bytes, footer_bytes));
  const FlatBuffer flat(*footer);
  std::vector<IpcBlock> blocks;
  const auto root = flat.Follow(0);
  const auto field = root ? flat.Field(*root, kFooterRecordBatches) : std::nullopt;
  if (!field) return root ? arrow::Result<std::vector<IpcBlock>>(blocks) : Damaged("its footer");
  const auto vector = flat.Follow(*field);
  const auto count = vector ? flat.Read<uint32_t>(*vector) : std::nullopt;
  if (!count || int64_t{*count} > footer_bytes / kBlockBytes) return Damaged("its footer's list of record batches");
  for (uint32_t i = 0; i < *count; ++i) {
    const int64_t at = *vector + 4 + i * kBlockBytes;
    const auto offset = flat.Read<int64_t>(at);
    const auto metadata_bytes = flat.Read<int32_t>(at + 8);
    const auto body_bytes = flat.Read<int64_t>(at + 16);
    if (!offset || !metadata_bytes || !body_bytes) return Damaged("its footer's list of record batches");
    const IpcBlock block{*offset, *metadata_bytes, *body_bytes};
    if (block.offset < 0 || block.metadata_bytes < 8 || block.body_bytes < 0 || block.offset > size_bytes ||
        block.metadata_bytes > size_bytes - block.offset ||
        block.body_bytes > size_bytes - block.offset - block.metadata_bytes) {
      return arrow::Status::Invalid("the file is damaged: record batch ", i, " lies beyond its end (", block.offset,
                                    " + ", block.metadata_bytes, " + ", block.body_bytes, " of ", size_bytes,
                                    " bytes)");
    }
    blocks.push_back(block);
  }
  return blocks;
}

arrow::Result<std::shared_ptr<arrow::Buffer>> ReadIpcMetadata(arrow::io::RandomAccessFile& file,
                                                              const IpcBlock& block) {
  ARROW_ASSIGN_OR_RAISE(auto bytes, ReadExactly(file, block.offset, block.metadata_bytes));
  uint32_t first = 0;
  std::memcpy(&first, bytes->data(), sizeof(first));
  // Files of before Arrow 0.15 have the length alone.
  return arrow::SliceBuffer(bytes, first == kContinuation ? 8 : 4);
}

arrow::Result<IpcBatchHeader> ParseIpcBatchHeader(const arrow::Buffer& metadata) {
  const FlatBuffer flat(metadata);
  const auto message = flat.Follow(0);
  const auto type_at = message ? flat.Field(*message, kMessageHeaderType) : std::nullopt;
  const auto type = type_at ? flat.Read<uint8_t>(*type_at) : std::nullopt;
  if (!type || *type != kRecordBatchHeader) return Damaged("its metadata is not that of a record batch");
  const auto header_at = flat.Field(*message, kMessageHeader);
  const auto header = header_at ? flat.Follow(*header_at) : std::nullopt;
  if (!header) return Damaged("its metadata");
  IpcBatchHeader out;
  if (const auto length_at = flat.Field(*header, kRecordBatchLength)) {
    const auto length = flat.Read<int64_t>(*length_at);
    // Nothing that is computed from it overflows.
    if (!length || *length < 0 || *length > int64_t{1} << 44) return Damaged("its number of rows");
    out.rows = *length;
  }
  out.is_compressed = flat.Field(*header, kRecordBatchCompression).has_value();
  return out;
}

}  // namespace penstock

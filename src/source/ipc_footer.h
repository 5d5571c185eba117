#pragma once

#include <arrow/buffer.h>
#include <arrow/io/type_fwd.h>
#include <arrow/result.h>

#include <cstdint>
#include <vector>

namespace penstock {

/// Where a message lies in an Arrow IPC file: its metadata (with an 8-byte prefix), then its body.
struct IpcBlock {
  int64_t offset = 0;
  int64_t metadata_bytes = 0;
  int64_t body_bytes = 0;
};

/// What the header of a record batch says of it.
struct IpcBatchHeader {
  int64_t rows = 0;
  bool is_compressed = false;
};

/// The record batches that the footer of an IPC file lists. Everything is checked: each block lies within the file.
/// (Arrow reads footers too, but does not tell where batches are, nor how many rows they have without their bodies.)
arrow::Result<std::vector<IpcBlock>> ReadIpcBlocks(arrow::io::RandomAccessFile& file, int64_t size_bytes);

/// The message's flatbuffer, without its prefix.
arrow::Result<std::shared_ptr<arrow::Buffer>> ReadIpcMetadata(arrow::io::RandomAccessFile& file, const IpcBlock& block);

/// Of a record batch's message. Invalid where it is none, or damaged.
arrow::Result<IpcBatchHeader> ParseIpcBatchHeader(const arrow::Buffer& metadata);

}  // namespace penstock

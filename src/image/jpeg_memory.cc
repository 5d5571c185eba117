// In C's manner: errors leave these functions by longjmp, past any destructor.
#include "image/jpeg_memory.h"

#include <cstdint>
#include <cstring>

#include "image/jpeg_library.h"

// libjpeg leaves these types to the memory manager. An array is had whole: there is no backing store.
struct jvirt_sarray_control {
  JSAMPARRAY rows;
  JDIMENSION row_samples, num_rows, most_access;
  boolean is_zeroed;
  jvirt_sarray_ptr next;
};
struct jvirt_barray_control {
  JBLOCKARRAY rows;
  JDIMENSION row_blocks, num_rows, most_access;
  boolean is_zeroed;
  jvirt_barray_ptr next;
};

namespace penstock::image {
namespace {

// The SIMD routines work on whole registers: rows begin aligned and have room behind them.
constexpr size_t kRowAlignment = 64;

JpegMemory* Self(j_common_ptr decoder) { return reinterpret_cast<JpegMemory*>(decoder->mem); }

void* Allocate(j_common_ptr decoder, int, size_t bytes) {
  void* piece = Self(decoder)->arena->Allocate(bytes);
  if (piece == nullptr) ERREXIT1(decoder, JERR_OUT_OF_MEMORY, 0);
  return piece;
}

template <typename Row>
Row* AllocateRows(j_common_ptr decoder, size_t row_bytes, JDIMENSION num_rows) {
  const size_t stride = (row_bytes + kRowAlignment - 1) / kRowAlignment * kRowAlignment + kRowAlignment;
  auto* rows = static_cast<Row*>(Allocate(decoder, 0, num_rows * sizeof(Row)));
  auto* bytes = static_cast<uint8_t*>(Allocate(decoder, 0, num_rows * stride));
  for (JDIMENSION row = 0; row < num_rows; ++row) rows[row] = reinterpret_cast<Row>(bytes + row * stride);
  return rows;
}

JSAMPARRAY AllocateSamples(j_common_ptr decoder, int, JDIMENSION row_samples, JDIMENSION num_rows) {
  return AllocateRows<JSAMPROW>(decoder, row_samples * sizeof(JSAMPLE), num_rows);
}

JBLOCKARRAY AllocateBlocks(j_common_ptr decoder, int, JDIMENSION row_blocks, JDIMENSION num_rows) {
  return AllocateRows<JBLOCKROW>(decoder, row_blocks * sizeof(JBLOCK), num_rows);
}

template <typename Control>
Control* Request(j_common_ptr decoder, Control** list, boolean is_zeroed, JDIMENSION num_rows, JDIMENSION most_access) {
  auto* array = static_cast<Control*>(Allocate(decoder, 0, sizeof(Control)));
  *array = Control{};
  array->num_rows = num_rows;
  array->most_access = most_access;
  array->is_zeroed = is_zeroed;
  array->next = *list;
  *list = array;
  return array;
}

jvirt_sarray_ptr RequestSamples(j_common_ptr decoder, int, boolean is_zeroed, JDIMENSION row_samples,
                                JDIMENSION num_rows, JDIMENSION most_access) {
  auto* array = Request(decoder, &Self(decoder)->sample_arrays, is_zeroed, num_rows, most_access);
  array->row_samples = row_samples;
  return array;
}

jvirt_barray_ptr RequestBlocks(j_common_ptr decoder, int, boolean is_zeroed, JDIMENSION row_blocks, JDIMENSION num_rows,
                               JDIMENSION most_access) {
  auto* array = Request(decoder, &Self(decoder)->block_arrays, is_zeroed, num_rows, most_access);
  array->row_blocks = row_blocks;
  return array;
}

void Realize(j_common_ptr decoder) {
  for (auto* array = Self(decoder)->sample_arrays; array != nullptr; array = array->next) {
    if (array->rows != nullptr) continue;
    array->rows = AllocateSamples(decoder, 0, array->row_samples, array->num_rows);
    if (!array->is_zeroed) continue;
    for (JDIMENSION row = 0; row < array->num_rows; ++row) std::memset(array->rows[row], 0, array->row_samples);
  }
  for (auto* array = Self(decoder)->block_arrays; array != nullptr; array = array->next) {
    if (array->rows != nullptr) continue;
    array->rows = AllocateBlocks(decoder, 0, array->row_blocks, array->num_rows);
    if (!array->is_zeroed) continue;
    for (JDIMENSION row = 0; row < array->num_rows; ++row) {
      std::memset(array->rows[row], 0, array->row_blocks * sizeof(JBLOCK));
    }
  }
}

template <typename Control>
auto Access(j_common_ptr decoder, Control* array, JDIMENSION first, JDIMENSION num_rows) {
  const bool is_within = first <= array->num_rows && num_rows <= array->num_rows - first;
  if (!is_within || num_rows > array->most_access || array->rows == nullptr) {
    ERREXIT(decoder, JERR_BAD_VIRTUAL_ACCESS);
  }
  return array->rows + first;
}

JSAMPARRAY AccessSamples(j_common_ptr decoder, jvirt_sarray_ptr array, JDIMENSION first, JDIMENSION num_rows, boolean) {
  return Access(decoder, array, first, num_rows);
}

JBLOCKARRAY AccessBlocks(j_common_ptr decoder, jvirt_barray_ptr array, JDIMENSION first, JDIMENSION num_rows, boolean) {
  return Access(decoder, array, first, num_rows);
}

// The arena's owner frees everything at once.
void FreePool(j_common_ptr, int) {}
void Destroy(j_common_ptr) {}

}  // namespace

void JpegMemory::Install(jpeg_decompress_struct* decoder, Arena* from) {
  original = decoder->mem;
  manager = *original;
  manager.alloc_small = &Allocate;
  manager.alloc_large = &Allocate;
  manager.alloc_sarray = &AllocateSamples;
  manager.alloc_barray = &AllocateBlocks;
  manager.request_virt_sarray = &RequestSamples;
  manager.request_virt_barray = &RequestBlocks;
  manager.realize_virt_arrays = &Realize;
  manager.access_virt_sarray = &AccessSamples;
  manager.access_virt_barray = &AccessBlocks;
  manager.free_pool = &FreePool;
  manager.self_destruct = &Destroy;
  arena = from;
  sample_arrays = nullptr;
  block_arrays = nullptr;
  decoder->mem = &manager;
}

}  // namespace penstock::image

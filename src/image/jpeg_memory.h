#pragma once

#include "image/arena.h"
#include "image/jpeg_library.h"

namespace penstock::image {

/// libjpeg's memory from an Arena: what a decoder takes is asked of the caller's pool, but for the few kB that
/// jpeg_create_decompress() takes before its manager can be replaced.
///
/// Ownership: a member of whatever holds the decoder; lives as long as it.
struct JpegMemory {
  jpeg_memory_mgr manager;  // The first: libjpeg hands its address back.
  Arena* arena;
  jpeg_memory_mgr* original;
  jvirt_sarray_ptr sample_arrays;
  jvirt_barray_ptr block_arrays;

  /// Takes the place of the decoder's manager; after jpeg_create_decompress().
  void Install(jpeg_decompress_struct* decoder, Arena* from);
  /// Puts the original back; before jpeg_destroy_decompress().
  void Remove(jpeg_decompress_struct* decoder) const { decoder->mem = original; }
};

}  // namespace penstock::image

#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <span>

#include "image/arena.h"
#include "penstock/image.h"

namespace penstock::image {

/// A rectangle of pixels.
struct Box {
  int64_t left = 0, top = 0, width = 0, height = 0;
};

/// An encoded image whose rows are decoded one after the other, from the top: four bytes a pixel (red, green, blue,
/// anything) for Mode::kRGB, one for Mode::kL.
///
/// Ownership: the encoded bytes and the arena must outlive it. Threads: one.
class RowSource {
 public:
  /// Reads the header. Invalid where the bytes are no image that is known, or it is larger than `decode` allows.
  static arrow::Result<std::unique_ptr<RowSource>> Open(std::span<const uint8_t> encoded, const Decode& decode,
                                                        Arena* arena);
  virtual ~RowSource() = default;

  int64_t width() const { return width_; }
  int64_t height() const { return height_; }
  /// As in EXIF, 1 to 8; 1 where nobody asked for it.
  int orientation() const { return orientation_; }

  /// Says which pixels are wanted. Called once.
  virtual arrow::Status Start(const Box& box) = 0;
  /// Bytes that Read() writes to each row...
  int64_t row_bytes() const { return row_bytes_; }
  /// ... of which the box begins here.
  int64_t box_offset() const { return box_offset_; }
  /// The next rows of the box.
  virtual arrow::Status Read(uint8_t* const* rows, int num_rows) = 0;

 protected:
  int64_t width_ = 0;
  int64_t height_ = 0;
  int orientation_ = 1;
  int64_t row_bytes_ = 0;
  int64_t box_offset_ = 0;
};

arrow::Result<std::unique_ptr<RowSource>> OpenJpeg(std::span<const uint8_t> encoded, const Decode& decode,
                                                   Arena* arena);
arrow::Result<std::unique_ptr<RowSource>> OpenPng(std::span<const uint8_t> encoded, const Decode& decode, Arena* arena);

/// Invalid where an image is larger than allowed.
arrow::Status CheckPixels(int64_t width, int64_t height, const Decode& decode);

/// The orientation in a block of EXIF data (from "II" or "MM" on); 1 where it says none.
int OrientationOf(std::span<const uint8_t> exif);

/// Four bytes a pixel to one, as Pillow weighs the colours; in place.
void ToGray(uint8_t* row, int64_t pixels);

}  // namespace penstock::image

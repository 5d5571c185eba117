// PNG, by libpng. Its errors leave by longjmp: functions that call it hold nothing that needs a destructor.
#include <png.h>

#include <array>
#include <cstdio>
#include <cstring>

#include "image/row_source.h"

namespace penstock::image {
namespace {

/// The decoder and what its callbacks find.
struct Decoder {
  png_structp png;
  png_infop info;
  Arena* arena;
  const uint8_t* next;
  const uint8_t* end;
  std::array<char, 128> message;
};

[[noreturn]] void Fail(png_structp png, png_const_charp message) {
  auto* decoder = static_cast<Decoder*>(png_get_error_ptr(png));
  std::snprintf(decoder->message.data(), decoder->message.size(), "%s", message);
  png_longjmp(png, 1);
}

void OnWarning(png_structp, png_const_charp) {}

void* Allocate(png_structp png, size_t bytes) {
  return static_cast<Decoder*>(png_get_mem_ptr(png))->arena->Allocate(bytes);
}

// The arena's owner frees everything at once.
void Free(png_structp, void*) {}

void ReadBytes(png_structp png, uint8_t* to, size_t bytes) {
  auto* decoder = static_cast<Decoder*>(png_get_io_ptr(png));
  if (bytes > static_cast<size_t>(decoder->end - decoder->next)) png_error(png, "the data ends early");
  std::memcpy(to, decoder->next, bytes);
  decoder->next += bytes;
}

// Each of these is false where libpng failed, with `message` set.

bool ReadHeader(Decoder* decoder) {
  decoder->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, decoder, &Fail, &OnWarning, decoder, &Allocate, &Free);
  if (decoder->png == nullptr) return false;
  if (setjmp(png_jmpbuf(decoder->png)) != 0) return false;
  decoder->info = png_create_info_struct(decoder->png);
  if (decoder->info == nullptr) return false;
  png_set_read_fn(decoder->png, decoder, &ReadBytes);
  // The number of pixels is checked by the caller.
  png_set_user_limits(decoder->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_read_info(decoder->png, decoder->info);
  return true;
}

bool StartDecoding(Decoder* decoder, bool keeps_gray, int* passes) {
  if (setjmp(png_jmpbuf(decoder->png)) != 0) return false;
  png_structp png = decoder->png;
  const int type = png_get_color_type(png, decoder->info);
  png_set_strip_16(png);
  if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if ((type & PNG_COLOR_MASK_COLOR) == 0) png_set_expand_gray_1_2_4_to_8(png);
  png_set_strip_alpha(png);
  if (!keeps_gray) {
    png_set_gray_to_rgb(png);
    png_set_filler(png, 0xFF, PNG_FILLER_AFTER);
  }
  *passes = png_set_interlace_handling(png);
  png_read_update_info(png, decoder->info);
  return true;
}

bool ReadRow(Decoder* decoder, uint8_t* row) {
  if (setjmp(png_jmpbuf(decoder->png)) != 0) return false;
  png_read_row(decoder->png, row, nullptr);
  return true;
}

bool ReadAll(Decoder* decoder, uint8_t** rows) {
  if (setjmp(png_jmpbuf(decoder->png)) != 0) return false;
  png_read_image(decoder->png, rows);
  return true;
}

bool ReadExif(Decoder* decoder, uint32_t* bytes, uint8_t** exif) {
  if (setjmp(png_jmpbuf(decoder->png)) != 0) return false;
  return png_get_eXIf_1(decoder->png, decoder->info, bytes, exif) != 0;
}

class PngSource final : public RowSource {
 public:
  PngSource(std::span<const uint8_t> encoded, const Decode& decode, Arena* arena) : mode_(decode.mode) {
    decoder_.arena = arena;
    decoder_.next = encoded.data();
    decoder_.end = encoded.data() + encoded.size();
  }
  ~PngSource() override { png_destroy_read_struct(&decoder_.png, &decoder_.info, nullptr); }

  arrow::Status ReadHeader(const Decode& decode) {
    if (!image::ReadHeader(&decoder_)) return Failure();
    width_ = png_get_image_width(decoder_.png, decoder_.info);
    height_ = png_get_image_height(decoder_.png, decoder_.info);
    uint32_t bytes = 0;
    uint8_t* exif = nullptr;
    if (decode.use_orientation && ReadExif(&decoder_, &bytes, &exif)) orientation_ = OrientationOf({exif, bytes});
    return CheckPixels(width_, height_, decode);
  }

  arrow::Status Start(const Box& box) override {
    const int type = png_get_color_type(decoder_.png, decoder_.info);
    const bool is_gray = mode_ == Mode::kL && (type & PNG_COLOR_MASK_COLOR) == 0;
    makes_gray_ = mode_ == Mode::kL && !is_gray;
    int passes = 1;
    if (!StartDecoding(&decoder_, is_gray, &passes)) return Failure();
    row_bytes_ = static_cast<int64_t>(png_get_rowbytes(decoder_.png, decoder_.info));
    box_offset_ = box.left * (mode_ == Mode::kL ? 1 : 4);
    if (passes > 1) {
      ARROW_RETURN_NOT_OK(DecodeAll());
      next_row_ = box.top;
      return arrow::Status::OK();
    }
    uint8_t* skipped = decoder_.arena->Array<uint8_t>(row_bytes_);
    if (skipped == nullptr) return Failure();
    for (int64_t row = 0; row < box.top; ++row) {
      if (!ReadRow(&decoder_, skipped)) return Failure();
    }
    return arrow::Status::OK();
  }

  arrow::Status Read(uint8_t* const* rows, int num_rows) override {
    for (int i = 0; i < num_rows; ++i) {
      if (all_rows_ != nullptr) {
        std::memcpy(rows[i], all_rows_[next_row_++], static_cast<size_t>(row_bytes_));
      } else if (!ReadRow(&decoder_, rows[i])) {
        return Failure();
      }
      if (makes_gray_) ToGray(rows[i], width_);
    }
    return arrow::Status::OK();
  }

 private:
  // The last pass of an interlaced image has every second row.
  arrow::Status DecodeAll() {
    all_rows_ = decoder_.arena->Array<uint8_t*>(height_);
    uint8_t* pixels = all_rows_ == nullptr ? nullptr : decoder_.arena->Array<uint8_t>(height_ * row_bytes_);
    if (pixels == nullptr) return Failure();
    for (int64_t row = 0; row < height_; ++row) all_rows_[row] = pixels + row * row_bytes_;
    return ReadAll(&decoder_, all_rows_) ? arrow::Status::OK() : Failure();
  }

  arrow::Status Failure() const {
    if (!decoder_.arena->status().ok()) return decoder_.arena->status();
    return arrow::Status::Invalid("PNG: ", decoder_.message.data());
  }

  const Mode mode_;
  Decoder decoder_ = {};
  bool makes_gray_ = false;
  uint8_t** all_rows_ = nullptr;  // Of an interlaced image.
  int64_t next_row_ = 0;
};

}  // namespace

arrow::Result<std::unique_ptr<RowSource>> OpenPng(std::span<const uint8_t> encoded, const Decode& decode,
                                                  Arena* arena) {
  auto source = std::make_unique<PngSource>(encoded, decode, arena);
  ARROW_RETURN_NOT_OK(source->ReadHeader(decode));
  return source;
}

}  // namespace penstock::image

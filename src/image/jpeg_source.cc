// JPEG, by libjpeg-turbo. Its errors leave by longjmp: functions that call it hold nothing that needs a destructor.

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>
#include <string>
#include <utility>

#include "image/jpeg_library.h"
#include "image/jpeg_memory.h"
#include "image/row_source.h"

namespace penstock::image {
namespace {

// As many scans as nobody needs: each goes over all coefficients, and takes few bytes.
constexpr int kMostScans = 500;

/// The decoder and what its callbacks find.
struct Decoder {
  jpeg_decompress_struct jpeg;  // The first: libjpeg hands its address back.
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  JpegMemory memory;
  std::jmp_buf back;
  std::array<char, JMSG_LENGTH_MAX> message;
};

[[noreturn]] void Fail(j_common_ptr jpeg) {
  auto* decoder = reinterpret_cast<Decoder*>(jpeg);
  jpeg->err->format_message(jpeg, decoder->message.data());
  std::longjmp(decoder->back, 1);
}

// libjpeg goes on after these with pixels that it made up.
bool IsDamage(int code) {
  switch (code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC:
    case JWRN_TOO_MUCH_DATA:
      return true;
    default:
      return false;
  }
}

void OnMessage(j_common_ptr jpeg, int level) {
  if (level < 0 && IsDamage(jpeg->err->msg_code)) Fail(jpeg);
}

void OnOutput(j_common_ptr) {}

void OnProgress(j_common_ptr jpeg) {
  if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number <= kMostScans) return;
  std::snprintf(reinterpret_cast<Decoder*>(jpeg)->message.data(), JMSG_LENGTH_MAX, "more than %d scans", kMostScans);
  std::longjmp(reinterpret_cast<Decoder*>(jpeg)->back, 1);
}

// Each of these is false where libjpeg failed, with `message` set.

bool ReadHeader(Decoder* decoder, Arena* arena, const uint8_t* bytes, size_t size, bool wants_exif) {
  decoder->jpeg.err = jpeg_std_error(&decoder->errors);
  decoder->errors.error_exit = &Fail;
  decoder->errors.emit_message = &OnMessage;
  decoder->errors.output_message = &OnOutput;
  if (setjmp(decoder->back) != 0) return false;
  jpeg_create_decompress(&decoder->jpeg);
  decoder->memory.Install(&decoder->jpeg, arena);
  decoder->progress.progress_monitor = &OnProgress;
  decoder->jpeg.progress = &decoder->progress;
  jpeg_mem_src(&decoder->jpeg, bytes, static_cast<unsigned long>(size));
  if (wants_exif) jpeg_save_markers(&decoder->jpeg, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&decoder->jpeg, TRUE);
  return true;
}

bool StartDecoding(Decoder* decoder, J_COLOR_SPACE space, JDIMENSION* left, JDIMENSION* width, JDIMENSION top) {
  if (setjmp(decoder->back) != 0) return false;
  jpeg_decompress_struct* jpeg = &decoder->jpeg;
  jpeg->out_color_space = space;
  jpeg_start_decompress(jpeg);
  if (*width < jpeg->output_width) jpeg_crop_scanline(jpeg, left, width);
  if (top > 0) jpeg_skip_scanlines(jpeg, top);
  return true;
}

bool ReadRows(Decoder* decoder, uint8_t* const* rows, int num_rows) {
  if (setjmp(decoder->back) != 0) return false;
  JDIMENSION done = 0;
  const auto wanted = static_cast<JDIMENSION>(num_rows);
  while (done < wanted) {
    done += jpeg_read_scanlines(&decoder->jpeg, const_cast<JSAMPARRAY>(rows + done), wanted - done);
  }
  return true;
}

// x * y / 255, rounded.
uint8_t MultiplyParts(unsigned x, unsigned y) {
  const unsigned product = x * y + 128;
  return static_cast<uint8_t>(((product >> 8) + product) >> 8);
}

// Inks as Adobe writes them (0 is all of it) to colours, as Pillow does it; in place.
void FromInks(uint8_t* row, int64_t pixels) {
  for (int64_t x = 0; x < pixels; ++x) {
    uint8_t* pixel = row + 4 * x;
    const uint8_t light = pixel[3];
    for (int c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(light - MultiplyParts(255U - pixel[c], light));
  }
}

class JpegSource final : public RowSource {
 public:
  JpegSource(const Decode& decode, Arena* arena) : mode_(decode.mode), arena_(arena) {}
  ~JpegSource() override {
    if (decoder_.memory.original != nullptr) decoder_.memory.Remove(&decoder_.jpeg);
    jpeg_destroy_decompress(&decoder_.jpeg);
  }

  arrow::Status ReadHeader(std::span<const uint8_t> encoded, const Decode& decode) {
    if (!image::ReadHeader(&decoder_, arena_, encoded.data(), encoded.size(), decode.use_orientation)) return Failure();
    width_ = decoder_.jpeg.image_width;
    height_ = decoder_.jpeg.image_height;
    orientation_ = ReadOrientation();
    return CheckPixels(width_, height_, decode);
  }

  arrow::Status Start(const Box& box) override {
    const J_COLOR_SPACE stored = decoder_.jpeg.jpeg_color_space;
    is_ink_ = stored == JCS_CMYK || stored == JCS_YCCK;
    if (stored == JCS_UNKNOWN) {
      return arrow::Status::Invalid("a JPEG of ", decoder_.jpeg.num_components, " channels of unknown meaning");
    }
    const bool is_gray = mode_ == Mode::kL && !is_ink_;
    const J_COLOR_SPACE space = is_ink_ ? JCS_CMYK : is_gray ? JCS_GRAYSCALE : JCS_EXT_RGBX;
    // Colours are interpolated between neighbours: the pixels at the border get theirs from beyond it.
    const int64_t margin = decoder_.jpeg.max_h_samp_factor;
    const int64_t wanted_left = std::max<int64_t>(0, box.left - margin);
    auto left = static_cast<JDIMENSION>(wanted_left);
    auto width = static_cast<JDIMENSION>(std::min(width_, box.left + box.width + margin) - wanted_left);
    if (!StartDecoding(&decoder_, space, &left, &width, static_cast<JDIMENSION>(box.top))) return Failure();
    if (width == decoder_.jpeg.image_width) left = 0;
    row_pixels_ = decoder_.jpeg.output_width;
    row_bytes_ = row_pixels_ * decoder_.jpeg.output_components;
    box_offset_ = (box.left - left) * (mode_ == Mode::kL ? 1 : 4);
    return arrow::Status::OK();
  }

  arrow::Status Read(uint8_t* const* rows, int num_rows) override {
    if (!ReadRows(&decoder_, rows, num_rows)) return Failure();
    if (!is_ink_) return arrow::Status::OK();
    for (int row = 0; row < num_rows; ++row) {
      FromInks(rows[row], row_pixels_);
      if (mode_ == Mode::kL) ToGray(rows[row], row_pixels_);
    }
    return arrow::Status::OK();
  }

 private:
  arrow::Status Failure() const {
    if (!arena_->status().ok()) return arena_->status();
    return arrow::Status::Invalid("JPEG: ", decoder_.message.data());
  }

  int ReadOrientation() const {
    constexpr char kMagic[] = "Exif\0";  // And the 0 at its end.
    for (const auto* marker = decoder_.jpeg.marker_list; marker != nullptr; marker = marker->next) {
      if (marker->data_length <= sizeof kMagic || std::memcmp(marker->data, kMagic, sizeof kMagic) != 0) continue;
      return OrientationOf({marker->data + sizeof kMagic, marker->data_length - sizeof kMagic});
    }
    return 1;
  }

  const Mode mode_;
  Arena* const arena_;
  Decoder decoder_ = {};
  bool is_ink_ = false;
  int64_t row_pixels_ = 0;
};

}  // namespace

arrow::Result<std::unique_ptr<RowSource>> OpenJpeg(std::span<const uint8_t> encoded, const Decode& decode,
                                                   Arena* arena) {
  auto source = std::make_unique<JpegSource>(decode, arena);
  ARROW_RETURN_NOT_OK(source->ReadHeader(encoded, decode));
  return source;
}

}  // namespace penstock::image

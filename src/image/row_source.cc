#include "image/row_source.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

namespace penstock::image {
namespace {

bool StartsWith(std::span<const uint8_t> bytes, std::string_view magic, size_t at = 0) {
  return bytes.size() >= at + magic.size() && std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

std::string KindOf(std::span<const uint8_t> bytes) {
  using namespace std::string_view_literals;
  if (bytes.empty()) return "no bytes at all";
  if (StartsWith(bytes, "RIFF") && StartsWith(bytes, "WEBP", 8)) return "WebP";
  if (StartsWith(bytes, "GIF8")) return "GIF";
  if (StartsWith(bytes, "BM")) return "BMP";
  if (StartsWith(bytes, "II*\0"sv) || StartsWith(bytes, "MM\0*"sv)) return "TIFF";
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "bytes that begin with";
  for (size_t i = 0; i < std::min<size_t>(bytes.size(), 8); ++i) {
    text += {' ', kDigits[bytes[i] >> 4], kDigits[bytes[i] & 15]};
  }
  return text;
}

/// Integers of a TIFF header's byte order; 0 beyond the end.
class TiffReader {
 public:
  explicit TiffReader(std::span<const uint8_t> bytes) : bytes_(bytes), is_big_(StartsWith(bytes, "MM")) {}

  uint32_t Get(size_t at, size_t width) const {
    if (at > bytes_.size() || bytes_.size() - at < width) return 0;
    uint32_t value = 0;
    for (size_t i = 0; i < width; ++i) value = value << 8 | bytes_[at + (is_big_ ? i : width - 1 - i)];
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
  bool is_big_;
};

}  // namespace

arrow::Result<std::unique_ptr<RowSource>> RowSource::Open(std::span<const uint8_t> encoded, const Decode& decode,
                                                          Arena* arena) {
  if (StartsWith(encoded, "\xFF\xD8\xFF")) return OpenJpeg(encoded, decode, arena);
  if (StartsWith(encoded, "\x89PNG\r\n\x1A\n")) return OpenPng(encoded, decode, arena);
  return arrow::Status::Invalid("neither JPEG nor PNG, but ", KindOf(encoded));
}

arrow::Status CheckPixels(int64_t width, int64_t height, const Decode& decode) {
  if (width < 1 || height < 1) return arrow::Status::Invalid("the image has no pixels");
  if (width <= decode.max_pixels / height) return arrow::Status::OK();
  return arrow::Status::Invalid("the image has ", width, " x ", height, " pixels, more than max_pixels (",
                                decode.max_pixels, ") of decode");
}

int OrientationOf(std::span<const uint8_t> exif) {
  if (!StartsWith(exif, "II") && !StartsWith(exif, "MM")) return 1;
  const TiffReader tiff(exif);
  const size_t directory = tiff.Get(4, 4);
  const uint32_t entries = tiff.Get(directory, 2);
  for (uint32_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + size_t{12} * i;
    if (entry >= exif.size()) break;
    constexpr uint32_t kOrientation = 0x112, kShort = 3;
    if (tiff.Get(entry, 2) != kOrientation || tiff.Get(entry + 2, 2) != kShort) continue;
    const uint32_t value = tiff.Get(entry + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

void ToGray(uint8_t* row, int64_t pixels) {
  for (int64_t x = 0; x < pixels; ++x) {
    const uint8_t* pixel = row + 4 * x;
    row[x] = static_cast<uint8_t>((pixel[0] * 19595U + pixel[1] * 38470U + pixel[2] * 7471U + 0x8000U) >> 16);
  }
}

}  // namespace penstock::image

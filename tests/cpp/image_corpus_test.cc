#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "../fuzz/try_image.h"

namespace penstock::image {
namespace {

std::vector<uint8_t> ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The fuzzer's corpus, each file whole, cut off anywhere and with bytes changed: no crash, no leak, the same result
// each time.
TEST(ImageCorpusTest, EveryFileGivesAnImageOrAnError) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PENSTOCK_IMAGE_CORPUS)) {
    SCOPED_TRACE(entry.path().filename().string());
    std::vector<uint8_t> bytes = ReadFile(entry.path());
    EXPECT_EQ(TryImage(bytes), "");
    for (size_t part = 1; part < 8; ++part) {
      EXPECT_EQ(TryImage(std::span(bytes).first(bytes.size() * part / 8)), "") << "cut at " << part << "/8";
    }
    for (size_t at = 2; at < bytes.size(); at += 1 + bytes.size() / 16) {
      bytes[at] ^= 0x55;
      EXPECT_EQ(TryImage(bytes), "") << "byte " << at << " changed";
      bytes[at] ^= 0x55;
    }
    ++files;
  }
  EXPECT_GE(files, 20);
}

}  // namespace
}  // namespace penstock::image

// libFuzzer's entry: any bytes as an image. How to run it: HACKING.md.
#include <cstdio>
#include <cstdlib>

#include "try_image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string wrong = penstock::image::TryImage({data, size});
  if (!wrong.empty()) {
    std::fprintf(stderr, "%s\n", wrong.c_str());
    std::abort();
  }
  return 0;
}

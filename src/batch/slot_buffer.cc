#include "batch/slot_buffer.h"

namespace penstock {

int64_t PackBitsInPlace(uint8_t* bytes, int64_t length, uint8_t flip) {
  int64_t ones = 0;
  for (int64_t begin = 0; begin < length; begin += 8) {
    uint8_t packed = 0;
    for (int64_t bit = 0; bit < 8 && begin + bit < length; ++bit) {
      const auto one = static_cast<uint8_t>(bytes[begin + bit] ^ flip);
      packed = static_cast<uint8_t>(packed | (one << bit));
      ones += one;
    }
    bytes[begin / 8] = packed;
  }
  return ones;
}

}  // namespace penstock

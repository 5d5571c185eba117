#include "source/page_runs.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace penstock {
namespace {

constexpr int64_t kGroup = 8;  // Values; a group takes as many bytes as a value has bits.
constexpr int64_t kMaxGroupBytes = 32;
constexpr int64_t kWordBytes = 8;  // Groups are read in words, the last of which may stand out by less than this.

// One group by words of 64 bits, each holding as many values as surely fit. All shifts are constants.
template <int kWidth>
void UnpackGroup(const uint8_t* packed, uint32_t* out) {
  constexpr int kPerWord = kWidth <= 8 ? 8 : kWidth <= 16 ? 4 : kWidth <= 28 ? 2 : 1;
  constexpr uint64_t kMask = (uint64_t{1} << kWidth) - 1;
  for (int i = 0; i < kGroup; i += kPerWord) {
    uint64_t word = 0;
    std::memcpy(&word, packed + i * kWidth / 8, sizeof(word));
    word >>= i * kWidth % 8;
    for (int j = 0; j < kPerWord; ++j) out[i + j] = static_cast<uint32_t>(word >> (j * kWidth) & kMask);
  }
}

template <int kWidth>
void UnpackGroups(const uint8_t* packed, int64_t groups, uint32_t* out) {
  for (int64_t i = 0; i < groups; ++i) UnpackGroup<kWidth>(packed + i * kWidth, out + i * kGroup);
}

using Unpack = void (*)(const uint8_t* packed, int64_t groups, uint32_t* out);
constexpr auto kUnpack = []<size_t... kWidths>(std::index_sequence<kWidths...>) {
  return std::array<Unpack, sizeof...(kWidths)>{&UnpackGroups<static_cast<int>(kWidths)>...};
}(std::make_index_sequence<33>());

// Bit-packed values of a run, any part of them.
class Packed {
 public:
  Packed(const uint8_t* data, const uint8_t* end, int bit_width) : data_(data), end_(end), bit_width_(bit_width) {}

  void Values(int64_t first, int64_t n, uint32_t* out) const {
    const int64_t head = std::min(n, (kGroup - first % kGroup) % kGroup);
    if (head > 0) Part(first, head, out);
    const int64_t group = (first + head) / kGroup;
    const int64_t groups = (n - head) / kGroup;
    const int64_t whole = std::clamp<int64_t>(ReadableGroups() - group, 0, groups);
    kUnpack[static_cast<size_t>(bit_width_)](data_ + group * bit_width_, whole, out + head);
    for (int64_t done = head + whole * kGroup; done < n; done += kGroup) {
      Part(first + done, std::min(kGroup, n - done), out + done);
    }
  }

 private:
  // Groups from the start of the run on that can be read with what stands out of them.
  int64_t ReadableGroups() const {
    return bit_width_ == 0 ? INT32_MAX : std::max<int64_t>(0, end_ - data_ - kWordBytes) / bit_width_;
  }

  // Values of one group.
  void Part(int64_t first, int64_t n, uint32_t* out) const {
    uint8_t bytes[kMaxGroupBytes + kWordBytes] = {};
    uint32_t values[kGroup];
    const uint8_t* group = data_ + first / kGroup * bit_width_;
    std::memcpy(bytes, group, static_cast<size_t>(std::min<int64_t>(bit_width_, end_ - group)));
    kUnpack[static_cast<size_t>(bit_width_)](bytes, 1, values);
    std::copy_n(values + first % kGroup, n, out);
  }

  const uint8_t* const data_;
  const uint8_t* const end_;
  const int bit_width_;
};

}  // namespace

// Runs of length 0 are passed over. Each header is at least one byte, so this comes to an end.
const RunDecoder::Run& RunDecoder::Head() {
  while (run_.length == 0 && at_ < end_) ReadHeader();
  return run_;
}

void RunDecoder::ReadHeader() {
  run_ = Run{};
  uint64_t header = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    if (at_ == end_) return;
    const uint8_t byte = *at_++;
    header |= uint64_t{byte & 0x7FU} << shift;
    if ((byte & 0x80) == 0) break;
  }
  const auto count = static_cast<int64_t>(header >> 1);
  const int64_t left = end_ - at_;
  if ((header & 1) != 0) {
    // The last group may be cut short.
    const int64_t bytes = std::min(count * bit_width_, left);
    run_.packed = at_;
    run_.length = bit_width_ == 0 ? count * kGroup : std::min(count * kGroup, bytes * 8 / bit_width_);
    at_ += bytes;
    return;
  }
  const int64_t bytes = (bit_width_ + 7) / 8;
  if (bytes > left) {
    at_ = end_;
    return;
  }
  std::memcpy(&run_.value, at_, static_cast<size_t>(bytes));
  run_.length = count;
  at_ += bytes;
}

void RunDecoder::Take(int64_t n) {
  run_.length -= n;
  run_.first += n;
}

int64_t RunDecoder::Decode(int64_t n, uint32_t* out) {
  int64_t done = 0;
  while (done < n && Head().length > 0) {
    const int64_t part = std::min(n - done, run_.length);
    if (run_.packed == nullptr) {
      std::fill_n(out + done, part, run_.value);
    } else {
      Packed(run_.packed, end_, bit_width_).Values(run_.first, part, out + done);
    }
    Take(part);
    done += part;
  }
  return done;
}

int64_t RunDecoder::Skip(int64_t n) {
  int64_t done = 0;
  while (done < n && Head().length > 0) {
    const int64_t part = std::min(n - done, run_.length);
    Take(part);
    done += part;
  }
  return done;
}

}  // namespace penstock

#pragma once

#include <cstdint>

namespace penstock {

/// Parquet's hybrid of repeated values and bit-packed groups, in which levels and dictionary indices are stored.
///
/// Ownership: views the page's bytes, and reads nothing outside of them, whatever they say. Threads: one at a time.
class RunDecoder {
 public:
  /// What comes next: `length` times `value`, or `length` values that are packed `bit_width` bits each from
  /// `packed` on, the first of them at position `first`.
  struct Run {
    int64_t length = 0;
    uint32_t value = 0;
    const uint8_t* packed = nullptr;  ///< Null: repeated.
    int64_t first = 0;
  };

  RunDecoder() = default;
  /// \param bit_width  of a value, 0 to 32.
  RunDecoder(const uint8_t* data, int64_t size, int bit_width) : at_(data), end_(data + size), bit_width_(bit_width) {}

  /// The run at the front, or what is left of it; its length is 0 where the data end.
  const Run& Head();
  /// Passes over the first `n` values of the run at the front.
  void Take(int64_t n);

  /// Writes the next `n` values to `out`, as they are: whether they are in range is the caller's to check.
  /// \return how many there were; less than `n` where the data end.
  int64_t Decode(int64_t n, uint32_t* out);
  /// Passes over `n` values. \return as Decode().
  int64_t Skip(int64_t n);

 private:
  void ReadHeader();

  const uint8_t* at_ = nullptr;  // Behind the run at the front.
  const uint8_t* end_ = nullptr;
  int bit_width_ = 0;
  Run run_;
};

}  // namespace penstock

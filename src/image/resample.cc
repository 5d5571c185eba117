#include "image/resample.h"

#include <algorithm>
#include <cstring>

namespace penstock::image {
namespace {

// libjpeg-turbo writes rows that are aligned past the caches, and the next step would wait for the memory: a quarter
// of the whole time.
constexpr int64_t kSkew = 4;

/// One image's rows on their way: decoded, resampled along one axis, then along the other, stored. A ring holds the
/// rows that the next ones along the vertical axis need.
class Resampler {
 public:
  Resampler(RowSource* source, const Store& store, const Passes& passes, Arena* arena)
      : source_(*source), store_(store), passes_(passes), arena_(*arena), pixel_bytes_(store.channels() == 1 ? 1 : 4) {}

  arrow::Status Start(const StoredPlacement& stored) {
    const Placement& p = stored.placement;
    const bool is_reversed = stored.mirrors_x && !stored.is_transposed;
    if (!columns_.Make(p.box.width, p.resized_width, p.window.left, p.window.width, is_reversed, &arena_) ||
        !rows_.Make(p.box.height, p.resized_height, p.window.top, p.window.height, false, &arena_)) {
      return arena_.status();
    }
    is_vertical_first_ = IsVerticalFirst(stored);
    row_end_ = rows_.end - rows_.begin;
    ARROW_RETURN_NOT_OK(source_.Start({p.box.left + columns_.begin, p.box.top + rows_.begin,
                                       columns_.end - columns_.begin, rows_.end - rows_.begin}));
    return MakeBuffers();
  }

  arrow::Status Run(const Store::Target& target, int64_t num_rows) {
    for (int64_t row = 0; row < num_rows; row += 2) {
      const int n = row + 1 < num_rows ? 2 : 1;
      const uint8_t* done[2];
      for (int i = 0; i < n; ++i) {
        // Into the ring first: it must hold what this row needs.
        ARROW_RETURN_NOT_OK(ProduceUpTo(std::min(row_end_, rows_.first[row + i] + int64_t{rows_.taps})));
        done[i] = Vertical(row + i, results_[i]);
        if (!is_vertical_first_) store_.Row(target, row + i, done[i], passes_);
      }
      if (!is_vertical_first_) continue;
      Horizontal(done, decoded_, n);
      for (int i = 0; i < n; ++i) store_.Row(target, row + i, decoded_[i], passes_);
    }
    return arrow::Status::OK();
  }

 private:
  // Pillow 13's rule for the image as it is seen: rows first where their number falls by more than twice as much as
  // that of the columns. (Before, it always took the columns first.)
  static bool IsVerticalFirst(const StoredPlacement& stored) {
    const Placement& p = stored.placement;
    const int64_t rows_less = p.box.height - p.resized_height, columns_less = p.box.width - p.resized_width;
    if (stored.is_transposed) return !(columns_less > 0 && columns_less > 2 * rows_less);
    return rows_less > 0 && rows_less > 2 * columns_less;
  }

  arrow::Status MakeBuffers() {
    // Rows come in pairs: the one behind those that are needed must not overwrite the first of them.
    ring_rows_ = rows_.taps + 2;
    const int64_t out_bytes = columns_.length * pixel_bytes_;
    const int64_t in_bytes = source_.row_bytes() + columns_.taps * pixel_bytes_;
    // Any row may be in any place; they are few.
    const int64_t stride = (std::max(out_bytes, in_bytes) + Passes::kRowRoom + 63) / 64 * 64;
    const int64_t num_rows = ring_rows_ + 4;
    uint8_t* memory = arena_.Array<uint8_t>(num_rows * stride + kSkew);
    inputs_ = arena_.Array<const uint8_t*>(rows_.taps);
    if (memory == nullptr || inputs_ == nullptr) return arena_.status();
    std::memset(memory, 0, static_cast<size_t>(num_rows * stride + kSkew));
    memory += kSkew;
    for (int i = 0; i < 2; ++i) {
      decoded_[i] = memory + i * stride;
      results_[i] = memory + (2 + i) * stride;
    }
    ring_ = memory + 4 * stride;
    stride_ = stride;
    return arrow::Status::OK();
  }

  uint8_t* RingRow(int64_t row) { return ring_ + row % ring_rows_ * stride_; }

  // Rows [0, end) of the source are or were in the ring: as decoded, or resampled to the target's columns.
  arrow::Status ProduceUpTo(int64_t end) {
    while (produced_ < end) {
      const int n = produced_ + 1 < row_end_ ? 2 : 1;
      uint8_t* const ring[2] = {RingRow(produced_), RingRow(produced_ + n - 1)};
      ARROW_RETURN_NOT_OK(source_.Read(is_vertical_first_ ? ring : decoded_, n));
      if (!is_vertical_first_) {
        const uint8_t* const in[2] = {decoded_[0] + source_.box_offset(), decoded_[1] + source_.box_offset()};
        Horizontal(in, ring, n);
      }
      produced_ += n;
    }
    return arrow::Status::OK();
  }

  void Horizontal(const uint8_t* const* in, uint8_t* const* out, int n) {
    if (columns_.is_identity) {
      const auto bytes = static_cast<size_t>((columns_.end - columns_.begin) * pixel_bytes_);
      for (int i = 0; i < n; ++i) std::memcpy(out[i], in[i], bytes);
      return;
    }
    const uint8_t* const from[2] = {in[0], in[n - 1]};
    uint8_t* const to[2] = {out[0], out[n - 1]};
    (pixel_bytes_ == 4 ? passes_.horizontal4 : passes_.horizontal1)(from, columns_, to);
  }

  // A row of the target from those in the ring; in `out`, or still in the ring.
  const uint8_t* Vertical(int64_t row, uint8_t* out) {
    const int64_t offset = is_vertical_first_ ? source_.box_offset() : 0;
    const int64_t first = rows_.first[row];
    if (rows_.is_identity && !is_vertical_first_) return RingRow(first);
    // Taps beyond the last row have no weight; any row will do.
    for (int tap = 0; tap < rows_.taps; ++tap) inputs_[tap] = RingRow(std::min(first + tap, row_end_ - 1)) + offset;
    const int64_t pixels = is_vertical_first_ ? columns_.end - columns_.begin : columns_.length;
    passes_.vertical(inputs_, rows_.high + row * rows_.taps, rows_.low + row * rows_.taps, rows_.taps,
                     pixels * pixel_bytes_, out);
    return out;
  }

  RowSource& source_;
  const Store& store_;
  const Passes& passes_;
  Arena& arena_;
  const int pixel_bytes_;
  Weights columns_, rows_;
  bool is_vertical_first_ = false;
  int64_t row_end_ = 0;
  int64_t produced_ = 0;
  uint8_t* decoded_[2] = {};
  uint8_t* results_[2] = {};
  uint8_t* ring_ = nullptr;
  int64_t ring_rows_ = 0, stride_ = 0;
  const uint8_t** inputs_ = nullptr;
};

}  // namespace

arrow::Status Resample(RowSource* source, const StoredPlacement& stored, const Store& store, void* out,
                       const Passes& passes, Arena* arena) {
  Resampler resampler(source, store, passes, arena);
  ARROW_RETURN_NOT_OK(resampler.Start(stored));
  const Box& window = stored.placement.window;
  Store::Target target{out, window.width, window.height, stored.is_transposed, stored.mirrors_x, stored.mirrors_y};
  if (stored.is_transposed) std::swap(target.width, target.height);
  return resampler.Run(target, window.height);
}

}  // namespace penstock::image

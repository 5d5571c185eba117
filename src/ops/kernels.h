#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ops/number.h"
#include "penstock/ops.h"

namespace penstock {

/// One step of a conversion: a strip of values of one type to values of another. Called once per strip, loops inside.
///
/// Threads: immutable; Run() from any thread.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual DType output() const = 0;

  /// Converts `n` values; in and out do not overlap and are aligned for their types.
  /// \param valid  one byte per value, 0 = missing: such a value is not looked at where it is a kBytes, and never a
  /// misfit.
  /// \return position of the first present value that does not convert, or -1. Past it `out` is unspecified.
  virtual int64_t Run(const void* in, const uint8_t* valid, int64_t n, void* out) const = 0;

  /// Says what is wrong with the value at `position`: "value 300 does not fit int8".
  virtual std::string Complaint(const void* in, int64_t position) const = 0;
};

/// A Kernel from a function of one value. Fn has `using In`, `using Out`, `bool Apply(In, Out*) const` (false: does not
/// convert) and `std::string Complaint(In) const`.
template <typename Fn>
class MapKernel final : public Kernel {
 public:
  using In = typename Fn::In;
  using Out = typename Fn::Out;

  explicit MapKernel(Fn fn) : fn_(std::move(fn)) {}

  DType output() const override { return DTypeOf<Out>(); }

  int64_t Run(const void* in, const uint8_t* valid, int64_t n, void* out) const override {
    const In* __restrict from = static_cast<const In*>(in);
    Out* __restrict to = static_cast<Out*>(out);
    if constexpr (std::is_same_v<In, BytesView>) {
      return RunPresent(from, valid, n, to);
    } else {
      // Missing values are converted like any other: no branch, so that the loop can be vectorised. Only when something
      // did not fit is it asked whether that was a present value.
      uint8_t misfits = 0;
      for (int64_t i = 0; i < n; ++i) misfits |= static_cast<uint8_t>(!fn_.Apply(from[i], &to[i]));
      return misfits == 0 ? -1 : FirstMisfit(from, valid, n);
    }
  }

  std::string Complaint(const void* in, int64_t position) const override {
    return fn_.Complaint(static_cast<const In*>(in)[position]);
  }

 private:
  int64_t RunPresent(const In* from, const uint8_t* valid, int64_t n, Out* to) const {
    for (int64_t i = 0; i < n; ++i) {
      if (valid != nullptr && valid[i] == 0) {
        to[i] = Out{};
      } else if (!fn_.Apply(from[i], &to[i])) {
        return i;
      }
    }
    return -1;
  }

  int64_t FirstMisfit(const In* from, const uint8_t* valid, int64_t n) const {
    Out ignored;
    for (int64_t i = 0; i < n; ++i) {
      if ((valid == nullptr || valid[i] != 0) && !fn_.Apply(from[i], &ignored)) return i;
    }
    return -1;
  }

  const Fn fn_;
};

template <typename Fn>
std::unique_ptr<Kernel> MakeKernel(Fn fn) {
  return std::make_unique<MapKernel<Fn>>(std::move(fn));
}

using KernelResult = arrow::Result<std::unique_ptr<Kernel>>;

/// Factories of the ops. Each is TypeError where the op cannot take `from`, Invalid where its settings make no sense;
/// messages lack "column 'x': ", which is the caller's to add.

KernelResult MakeCast(DType from, DType to);
KernelResult MakeScale(DType from, const ops::Scale& op);
KernelResult MakeClip(DType from, const ops::Clip& op);
KernelResult MakeHashBucket(DType from, const ops::HashBucket& op);
/// For ops::Lookup: int64 positions.
KernelResult MakeLookup(DType from, const ops::Lookup& op);
/// For dictionary columns: int32 codes. Beyond strings and integers it takes floats, which are compared by their bits.
KernelResult MakeCodes(DType from, std::shared_ptr<arrow::Array> vocabulary);

/// Decoders, from the source's physical form.

/// kInt32, kInt64, kDecimal128 or kBytes (big-endian, at most 32 bytes) -> double, as Decimal128::ToDouble rounds.
std::unique_ptr<Kernel> MakeDecimalToDouble(DType from, int32_t scale);
/// kInt32, kInt64 or kBytes (at most 16 bytes) -> kDecimal128 of the same scale.
std::unique_ptr<Kernel> MakeDecimalWiden(DType from);
std::unique_ptr<Kernel> MakeMillisToDays();  ///< int64 -> int32
std::unique_ptr<Kernel> MakeDaysToMillis();  ///< int32 -> int64

/// Writes a fill value as a `type` to `out`. Invalid where it does not fit; TypeError for text; the op is the caller's
/// to name.
arrow::Status EncodeFill(const ops::FillNull& fill, DType type, void* out);
/// The same for kDecimal128.
arrow::Status EncodeDecimalFill(const ops::FillNull& fill, const arrow::DataType& type, void* out);

}  // namespace penstock

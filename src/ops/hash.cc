#include "ops/hash.h"

#define XXH_INLINE_ALL
#include <arrow/util/endian.h>
#include <arrow/vendored/xxhash.h>

#include "ops/kernels.h"
#include "ops/message.h"

namespace penstock {
namespace {

template <typename T>
struct HashFn {
  using In = T;
  using Out = int64_t;

  uint64_t buckets;

  bool Apply(In value, Out* out) const {
    uint64_t hash;
    if constexpr (std::is_same_v<T, BytesView>) {
      hash = Hash64(value.view());
    } else {
      hash = Hash64(static_cast<int64_t>(Arithmetic(value)));
    }
    *out = static_cast<int64_t>(hash % buckets);
    return true;
  }
  std::string Complaint(In) const { return {}; }
};

arrow::Status CannotHash(DType from) {
  return arrow::Status::TypeError("hash_bucket takes integers, bools, strings and binary, not ", ValuesOf(from),
                                  "; use ps.ops.cast first");
}

}  // namespace

uint64_t Hash64(std::string_view bytes) { return XXH64(bytes.data(), bytes.size(), 0); }

uint64_t Hash64(int64_t value) {
  const int64_t little_endian = arrow::bit_util::ToLittleEndian(value);
  return XXH64(&little_endian, sizeof little_endian, 0);
}

KernelResult MakeHashBucket(DType from, const ops::HashBucket& op) {
  if (op.buckets < 1) return arrow::Status::Invalid("hash_bucket: buckets must be at least 1, not ", op.buckets);
  const auto buckets = static_cast<uint64_t>(op.buckets);
  if (from == DType::kBytes) return MakeKernel(HashFn<BytesView>{buckets});
  return VisitNumber(
      from,
      [&](auto in) -> KernelResult {
        using T = decltype(in);
        if constexpr (std::is_floating_point_v<T> || std::is_same_v<T, Half>) {
          return CannotHash(from);
        } else {
          return MakeKernel(HashFn<T>{buckets});
        }
      },
      [&]() -> KernelResult { return CannotHash(from); });
}

}  // namespace penstock

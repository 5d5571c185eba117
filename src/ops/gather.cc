#include "ops/gather.h"

#include <algorithm>
#include <cstring>

#include "ops/number.h"

namespace penstock {
namespace {

template <typename Visit>
void VisitWidth(int64_t width, Visit&& visit) {
  switch (width) {
    case 1:
      return visit(uint8_t{});
    case 2:
      return visit(uint16_t{});
    case 4:
      return visit(uint32_t{});
    case 8:
      return visit(uint64_t{});
    default:
      return visit(Decimal{});
  }
}

// memcpy, as a table of 16-byte elements may be aligned to 8 bytes, and an array of a foreign maker to none.
template <typename T>
T Load(const uint8_t* from, int64_t i) {
  T value;
  std::memcpy(&value, from + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <typename T>
T LoadOrZero(const uint8_t* from) {
  return from == nullptr ? T{} : Load<T>(from, 0);
}

template <typename T>
void GatherPresent(const uint8_t* table, const int32_t* indices, int64_t n, T* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = Load<T>(table, indices[i]);
}

template <typename T>
void GatherNullable(const uint8_t* table, const int32_t* indices, const uint8_t* valid, T missing, int64_t n, T* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = valid[i] != 0 ? Load<T>(table, indices[i]) : missing;
}

}  // namespace

void GatherValues(int64_t width, const uint8_t* table, const int32_t* indices, const uint8_t* valid,
                  const uint8_t* missing, int64_t n, uint8_t* out) {
  VisitWidth(width, [&](auto element) {
    using T = decltype(element);
    if (valid == nullptr) return GatherPresent(table, indices, n, reinterpret_cast<T*>(out));
    GatherNullable(table, indices, valid, LoadOrZero<T>(missing), n, reinterpret_cast<T*>(out));
  });
}

void FillMissing(int64_t width, const uint8_t* valid, const uint8_t* missing, int64_t n, uint8_t* out) {
  VisitWidth(width, [&](auto element) {
    using T = decltype(element);
    const T fill = LoadOrZero<T>(missing);
    T* values = reinterpret_cast<T*>(out);
    for (int64_t i = 0; i < n; ++i) values[i] = valid[i] != 0 ? Load<T>(out, i) : fill;
  });
}

void FillAll(int64_t width, const uint8_t* element, int64_t n, uint8_t* out) {
  VisitWidth(width, [&](auto sample) {
    using T = decltype(sample);
    std::fill_n(reinterpret_cast<T*>(out), n, LoadOrZero<T>(element));
  });
}

}  // namespace penstock

#pragma once

#include <cstdint>

namespace penstock {

/// out[i] = table[indices[i]], elements of `width` bytes (1, 2, 4, 8 or 16).
/// \param valid    where given, 0 marks a missing element: its index is anything, and it becomes `missing`.
/// \param missing  one element; null: zeros.
void GatherValues(int64_t width, const uint8_t* table, const int32_t* indices, const uint8_t* valid,
                  const uint8_t* missing, int64_t n, uint8_t* out);

/// Overwrites the elements that `valid` marks as missing with `missing` (one element; null: zeros).
void FillMissing(int64_t width, const uint8_t* valid, const uint8_t* missing, int64_t n, uint8_t* out);

/// out[i..n) = one element.
void FillAll(int64_t width, const uint8_t* element, int64_t n, uint8_t* out);

}  // namespace penstock

#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "penstock/dtype.h"

namespace penstock {

/// Integers to their positions: open addressing, at most half full. Find is -1 for what is not there.
class IntegerPositions {
 public:
  explicit IntegerPositions(int64_t capacity);
  /// False where `key` is in already.
  bool Insert(int64_t key, int32_t position);
  int32_t Find(int64_t key) const {
    for (uint64_t i = Slot(key);; i = (i + 1) & mask_) {
      if (slots_[i].position < 0 || slots_[i].key == key) return slots_[i].position;
    }
  }

 private:
  struct Entry {
    int64_t key = 0;
    int32_t position = -1;
  };
  uint64_t Slot(int64_t key) const {
    const uint64_t mixed = static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15u;
    return (mixed ^ (mixed >> 32)) & mask_;
  }

  uint64_t mask_;
  std::vector<Entry> slots_;
};

/// The same for strings, which somebody else keeps.
class BytesPositions {
 public:
  explicit BytesPositions(int64_t capacity);
  bool Insert(std::string_view key, int32_t position);
  int32_t Find(std::string_view key) const;

 private:
  struct Entry {
    uint64_t hash = 0;
    std::string_view key;
    int32_t position = -1;
  };
  uint64_t mask_;
  std::vector<Entry> slots_;
};

}  // namespace penstock

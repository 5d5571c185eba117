#pragma once

#include <arrow/array.h>
#include <arrow/json/from_string.h>
#include <arrow/type.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/converter.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the temporaries of designated initialisers for uninitialised.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace penstock {

using arrow::json::ArrayFromJSONString;
using ConverterPtr = std::shared_ptr<const Converter>;
using ArrayPtr = std::shared_ptr<arrow::Array>;

inline ArrayPtr Json(const std::shared_ptr<arrow::DataType>& type, const std::string& json) {
  return ArrayFromJSONString(type, json).ValueOrDie();
}

/// What the tests vary when they make a converter.
struct Setting {
  std::vector<Op> ops = {};
  NullPolicy nulls = {};
  Layout layout = Layout::kTensor;
  ArrayPtr vocabulary = nullptr;
  bool is_nullable = true;
};

inline ops::FillNull Number(double value) { return {value, std::nullopt, std::nullopt}; }
inline ops::FillNull Text(std::string text) { return {0, std::move(text), std::nullopt}; }
inline ops::FillNull Integer(int64_t integer) { return {0, std::nullopt, integer}; }
inline NullPolicy Mask() { return {NullPolicy::Kind::kMask, {}}; }
inline NullPolicy Fill(ops::FillNull fill) { return {NullPolicy::Kind::kError, {{"x", std::move(fill)}}}; }

inline arrow::Result<ConverterPtr> TryMake(const std::shared_ptr<arrow::DataType>& type, const Setting& setting = {}) {
  return Converter::Make("x", *arrow::field("in", type, setting.is_nullable), setting.ops, setting.nulls,
                         setting.layout, setting.vocabulary);
}
inline ConverterPtr Made(const std::shared_ptr<arrow::DataType>& type, const Setting& setting = {}) {
  auto made = TryMake(type, setting);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : nullptr;
}

inline void ExpectMessage(const arrow::Status& status, const std::string& part) {
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
}
inline void ExpectRefused(const std::shared_ptr<arrow::DataType>& type, const Setting& setting,
                          const std::string& part) {
  const auto status = TryMake(type, setting).status();
  ExpectMessage(status, "column 'x': ");
  ExpectMessage(status, part);
}

/// Slot memory with room for `elements`, filled with rubbish so that what is not written shows.
struct Slot {
  Slot(const Converter& converter, int64_t elements)
      : width(ByteWidth(converter.field().dtype)), values(elements * width + 16, 0xAB), mask(elements + 1, 0xAB) {
    target = {values.data(), converter.field().has_mask ? mask.data() : nullptr};
    values.resize(elements * width);
    mask.resize(target.mask != nullptr ? elements : 0);
  }
  int64_t width;
  std::vector<uint8_t> values;
  std::vector<uint8_t> mask;
  SlotTarget target;

  template <typename T>
  std::vector<T> As() const {
    std::vector<T> out(values.size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), values.data(), values.size());
    return out;
  }
};

inline arrow::Result<Slot> TryArray(const Converter& converter, const arrow::Array& array, int64_t offset = 0,
                                    int64_t length = -1) {
  if (length < 0) length = array.length() - offset;
  Slot slot(converter, length * converter.field().items());
  ARROW_RETURN_NOT_OK(converter.ConvertArray(array, offset, length, 0, slot.target));
  return slot;
}

template <typename T>
void ExpectArray(const Converter& converter, const arrow::Array& array, const std::vector<T>& values,
                 const std::vector<uint8_t>& mask = {}) {
  auto slot = TryArray(converter, array);
  ASSERT_TRUE(slot.ok()) << slot.status();
  ASSERT_EQ(slot->As<T>().size(), values.size());
  const auto* expected = reinterpret_cast<const uint8_t*>(values.data());
  EXPECT_EQ(slot->values, std::vector<uint8_t>(expected, expected + slot->values.size())) << array.ToString();
  EXPECT_EQ(slot->mask, mask);
}

inline arrow::Status ArrayError(const Converter& converter, const arrow::Array& array) {
  return TryArray(converter, array).status();
}

}  // namespace penstock

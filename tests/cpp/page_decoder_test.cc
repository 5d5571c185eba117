#include <gtest/gtest.h>
#include <parquet/column_page.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "source/data_page.h"
#include "source/page_levels.h"
#include "source/page_runs.h"
#include "source/page_values.h"

namespace penstock {
namespace {

using Random = std::mt19937_64;
using parquet::Encoding;

// Bytes in an allocation of just their size: AddressSanitizer sees a read behind them.
struct Exact {
  explicit Exact(const std::vector<uint8_t>& bytes) : data(new uint8_t[bytes.size()]), size(std::ssize(bytes)) {
    std::copy(bytes.begin(), bytes.end(), data.get());
  }
  std::unique_ptr<uint8_t[]> data;
  int64_t size;
};

void PutVarint(uint64_t value, std::vector<uint8_t>* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<uint8_t>(value) | 0x80);
  out->push_back(static_cast<uint8_t>(value));
}

// Random runs of both kinds, by the letter of the format, and what they mean.
std::vector<uint8_t> WriteRuns(int bit_width, int runs, Random* random, std::vector<uint32_t>* values) {
  std::vector<uint8_t> out;
  const uint64_t mask = (uint64_t{1} << bit_width) - 1;
  for (int run = 0; run < runs; ++run) {
    if ((*random)() % 2 == 0) {
      const uint64_t length = (*random)() % 3 == 0 ? (*random)() % 5000 : (*random)() % 20;
      const auto value = static_cast<uint32_t>((*random)() & mask);
      PutVarint(length << 1, &out);
      for (int byte = 0; byte < (bit_width + 7) / 8; ++byte) out.push_back(static_cast<uint8_t>(value >> (8 * byte)));
      values->insert(values->end(), length, value);
      continue;
    }
    const uint64_t groups = (*random)() % 64;
    PutVarint(groups << 1 | 1, &out);
    const size_t start = out.size();
    out.resize(start + groups * static_cast<size_t>(bit_width));
    for (uint64_t i = 0; i < groups * 8; ++i) {
      const auto value = static_cast<uint32_t>((*random)() & mask);
      for (int bit = 0; bit < bit_width; ++bit) {
        const uint64_t at = i * static_cast<uint64_t>(bit_width) + static_cast<uint64_t>(bit);
        out[start + at / 8] |= static_cast<uint8_t>((value >> bit & 1) << (at % 8));
      }
      values->push_back(value);
    }
  }
  return out;
}

TEST(RunDecoderTest, EveryWidthInPartsOfAnySize) {
  Random random(1);
  for (int bit_width = 0; bit_width <= 32; ++bit_width) {
    for (int round = 0; round < 10; ++round) {
      std::vector<uint32_t> expected;
      const Exact bytes(WriteRuns(bit_width, 12, &random, &expected));
      RunDecoder runs(bytes.data.get(), bytes.size, bit_width);
      std::vector<uint32_t> decoded;
      while (decoded.size() < expected.size()) {
        const auto left = static_cast<int64_t>(expected.size() - decoded.size());
        const int64_t part = std::min(left, 1 + static_cast<int64_t>(random() % (round % 2 == 0 ? 11 : 3000)));
        if (random() % 4 == 0) {
          ASSERT_EQ(runs.Skip(part), part);
          decoded.insert(decoded.end(), expected.begin() + std::ssize(decoded),
                         expected.begin() + std::ssize(decoded) + part);
        } else {
          decoded.resize(decoded.size() + static_cast<size_t>(part));
          ASSERT_EQ(runs.Decode(part, decoded.data() + decoded.size() - part), part);
        }
      }
      ASSERT_EQ(decoded, expected) << bit_width << " bits";
      uint32_t none = 0;
      EXPECT_EQ(runs.Decode(1, &none), 0);
    }
  }
}

// Whatever the bytes say, nothing outside of them is read, and it ends.
TEST(RunDecoderTest, AnyBytes) {
  Random random(2);
  std::vector<uint32_t> out(3000);
  std::vector<uint8_t> valid(LevelReader::kStrip);
  for (int round = 0; round < 20000; ++round) {
    std::vector<uint8_t> content(random() % 40);
    for (uint8_t& byte : content) byte = static_cast<uint8_t>(random());
    const Exact bytes(content);
    RunDecoder runs(bytes.data.get(), bytes.size, static_cast<int>(random() % 33));
    for (int part = 0; part < 5; ++part) runs.Decode(static_cast<int64_t>(random() % out.size()), out.data());
    LevelReader levels(bytes.data.get(), bytes.size, round % 8 == 0);
    for (int part = 0; part < 5; ++part) {
      const auto rows = static_cast<int64_t>(random() % 4000);
      const auto stretch = levels.Next(rows, valid.data());
      if (!stretch.ok()) break;
      ASSERT_LE(stretch->rows, rows);
      ASSERT_LE(stretch->present, stretch->rows);
    }
  }
}

TEST(LevelReaderTest, RunsAndBitsTellWhatIsPresent) {
  Random random(3);
  std::vector<uint8_t> valid(LevelReader::kStrip);
  for (int round = 0; round < 60; ++round) {
    const bool is_legacy = round % 3 == 0;
    std::vector<uint32_t> expected;
    std::vector<uint8_t> content = WriteRuns(1, 30, &random, &expected);
    if (is_legacy) {
      content.assign(expected.size() / 8 + 1, 0);
      for (size_t i = 0; i < expected.size(); ++i) content[i / 8] |= static_cast<uint8_t>(expected[i] << (7 - i % 8));
    }
    const Exact bytes(content);
    LevelReader levels(bytes.data.get(), bytes.size, is_legacy);
    for (int64_t at = 0; at < std::ssize(expected);) {
      const int64_t rows = std::min(std::ssize(expected) - at, 1 + static_cast<int64_t>(random() % 4000));
      const auto stretch = levels.Next(rows, valid.data());
      ASSERT_TRUE(stretch.ok() && stretch->rows > 0 && stretch->rows <= rows);
      int64_t present = 0;
      for (int64_t i = 0; i < stretch->rows; ++i) present += expected[static_cast<size_t>(at + i)];
      ASSERT_EQ(stretch->present, present);
      for (int64_t i = 0; present < stretch->rows && i < stretch->rows; ++i) {
        ASSERT_EQ(valid[static_cast<size_t>(i)], expected[static_cast<size_t>(at + i)]);
      }
      at += stretch->rows;
    }
  }
}

parquet::DataPageV1 PageOf(const std::vector<uint8_t>& bytes, int rows, Encoding::type levels = Encoding::RLE) {
  return {std::make_shared<arrow::Buffer>(bytes.data(), std::ssize(bytes)),
          rows,
          Encoding::PLAIN,
          levels,
          levels,
          std::ssize(bytes)};
}

parquet::ColumnDescriptor ColumnOf(int16_t definition, int16_t repetition) {
  return {parquet::schema::PrimitiveNode::Make("c", parquet::Repetition::OPTIONAL, parquet::Type::INT32), definition,
          repetition};
}

TEST(DataPageTest, LevelsLongerThanThePageAreAnError) {
  const auto is_error = [](const parquet::Page& page, const parquet::ColumnDescriptor& column) {
    return DataPageParts::Of(page, column).status().IsIOError();
  };
  const auto required = ColumnOf(0, 0), optional = ColumnOf(1, 0), lists = ColumnOf(3, 1);
  for (const std::vector<uint8_t>& bytes : std::vector<std::vector<uint8_t>>{
           {}, {1, 0, 0}, {1, 0, 0, 0}, {0xFF, 0xFF, 0xFF, 0xFF, 1}, {0xFF, 0xFF, 0xFF, 0x7F, 1}}) {
    EXPECT_FALSE(is_error(PageOf(bytes, 8), required));
    const auto buffer = std::make_shared<arrow::Buffer>(bytes.data(), std::ssize(bytes));
    for (const auto& column : {optional, lists}) {
      EXPECT_TRUE(is_error(PageOf(bytes, 8), column));
      EXPECT_TRUE(is_error(parquet::DataPageV2(buffer, 8, 0, 8, Encoding::PLAIN, 9, 0, 9), column));
      EXPECT_TRUE(is_error(parquet::DataPageV2(buffer, 8, 0, 8, Encoding::PLAIN, 0, 9, 9), column));
      EXPECT_TRUE(is_error(parquet::DataPageV2(buffer, 8, 0, 8, Encoding::PLAIN, -1, 0, 9), column));
    }
  }
  EXPECT_TRUE(is_error(PageOf({1}, 9, Encoding::BIT_PACKED), optional));
  EXPECT_FALSE(is_error(PageOf({1, 2}, 9, Encoding::BIT_PACKED), optional));
  EXPECT_TRUE(is_error(PageOf({1, 2}, 9, Encoding::PLAIN), optional));
  // Of lists: repetition levels come first, then definition levels; never as plain bits.
  EXPECT_FALSE(is_error(PageOf({1, 0, 0, 0, 9, 0, 0, 0, 0}, 8), lists));
  EXPECT_TRUE(is_error(PageOf({1, 0, 0, 0, 9, 1, 0, 0, 0}, 8), lists));
  EXPECT_TRUE(is_error(PageOf({1, 0, 0, 0, 9, 0, 0, 0, 0}, 8, Encoding::BIT_PACKED), lists));
}

DataPageParts Parts(const Exact& bytes, Encoding::type encoding, int64_t rows) {
  DataPageParts parts;
  parts.rows = rows;
  parts.encoding = encoding;
  parts.values = bytes.data.get();
  parts.size = bytes.size;
  return parts;
}

class PageValuesTest : public ::testing::Test {
 protected:
  static parquet::ColumnDescriptor Descriptor(parquet::Type::type type) {
    const int length = type == parquet::Type::FIXED_LEN_BYTE_ARRAY ? 3 : -1;
    const auto node = parquet::schema::PrimitiveNode::Make("c", parquet::Repetition::REQUIRED, type,
                                                           parquet::ConvertedType::NONE, length);
    return {node, 0, 0};
  }
  const parquet::ColumnDescriptor ints_ = Descriptor(parquet::Type::INT32);
  const parquet::ColumnDescriptor texts_ = Descriptor(parquet::Type::BYTE_ARRAY);
  const parquet::ColumnDescriptor fixed_ = Descriptor(parquet::Type::FIXED_LEN_BYTE_ARRAY);
  arrow::MemoryPool* const pool_ = arrow::default_memory_pool();
};

TEST_F(PageValuesTest, AnIndexBeyondTheDictionaryIsAnError) {
  PageValues<parquet::Int32Type, int32_t> values(&ints_, pool_);
  int32_t out[8] = {};
  const Exact indices(
      {32, 3, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0});
  EXPECT_TRUE(values.Open(Parts(indices, Encoding::RLE_DICTIONARY, 8)).IsIOError());  // No dictionary yet.
  for (const int64_t length : {0, 1, 2, 3}) {
    values.SetDictionaryLength(length);
    ASSERT_TRUE(values.Open(Parts(indices, Encoding::RLE_DICTIONARY, 8)).ok());
    EXPECT_EQ(values.ReadIndices(8, out).ok(), length == 3) << length;
  }
  for (const uint8_t high : {0x7F, 0x80, 0xFF}) {
    const Exact negative({32, 2, 0xFF, 0xFF, 0xFF, high});
    ASSERT_TRUE(values.Open(Parts(negative, Encoding::PLAIN_DICTIONARY, 1)).ok());
    EXPECT_TRUE(values.ReadIndices(1, out).IsIOError());
  }
  EXPECT_TRUE(values.Open(Parts(Exact({33, 2, 0, 0, 0, 0, 0}), Encoding::RLE_DICTIONARY, 1)).IsIOError());
}

TEST_F(PageValuesTest, FewerValuesThanPromisedAreAnError) {
  const Exact eight({1, 0, 0, 0, 9, 3, 0, 0});
  PageValues<parquet::Int32Type, int32_t> ints(&ints_, pool_);
  int32_t numbers[3] = {};
  ASSERT_TRUE(ints.Open(Parts(eight, Encoding::PLAIN, 3)).ok());
  EXPECT_TRUE(ints.Read(3, numbers).IsIOError());
  EXPECT_TRUE(ints.Read(2, numbers).ok());
  EXPECT_TRUE(ints.Skip(1).IsIOError());

  PageValues<parquet::ByteArrayType, BytesView> texts(&texts_, pool_);
  BytesView views[3] = {};
  ASSERT_TRUE(texts.Open(Parts(eight, Encoding::PLAIN, 2)).ok());
  ASSERT_TRUE(texts.Read(1, views).ok());
  EXPECT_EQ(views[0].size, 1U);
  EXPECT_EQ(*views[0].data, 9);
  EXPECT_TRUE(texts.Read(1, views).IsIOError());

  PageValues<parquet::FLBAType, BytesView> fixed(&fixed_, pool_);
  ASSERT_TRUE(fixed.Open(Parts(eight, Encoding::PLAIN, 3)).ok());
  ASSERT_TRUE(fixed.Skip(1).ok());
  ASSERT_TRUE(fixed.Read(1, views).ok());
  EXPECT_EQ(views[0].data, eight.data.get() + 3);
  EXPECT_TRUE(fixed.Read(1, views).IsIOError());
}

TEST_F(PageValuesTest, ADictionaryShorterThanItSaysIsAnError) {
  const Exact eight({1, 0, 0, 0, 9, 3, 0, 0});
  PageValues<parquet::Int32Type, int32_t> ints(&ints_, pool_);
  EXPECT_TRUE(ints.KeepDictionary(eight.data.get(), eight.size, 2).ok());
  EXPECT_TRUE(ints.KeepDictionary(eight.data.get(), eight.size, 3).IsIOError());
  EXPECT_TRUE(ints.KeepDictionary(eight.data.get(), eight.size, -1).IsIOError());
  PageValues<parquet::ByteArrayType, BytesView> texts(&texts_, pool_);
  EXPECT_TRUE(texts.KeepDictionary(eight.data.get(), eight.size, 1).ok());
  EXPECT_TRUE(texts.KeepDictionary(eight.data.get(), eight.size, 2).IsIOError());
  EXPECT_TRUE(texts.KeepDictionary(eight.data.get(), eight.size, INT32_MAX).IsIOError());
  PageValues<parquet::FLBAType, BytesView> fixed(&fixed_, pool_);
  EXPECT_TRUE(fixed.KeepDictionary(eight.data.get(), eight.size, 2).ok());
  EXPECT_TRUE(fixed.KeepDictionary(eight.data.get(), eight.size, 3).IsIOError());
}

}  // namespace
}  // namespace penstock

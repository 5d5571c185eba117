#include "penstock/image.h"

#include <arrow/array/builder_binary.h>
#include <arrow/memory_pool.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "converter_testing.h"
#include "image/jpeg_library.h"
#include "image/passes.h"
#include "image/weights.h"
#include "memory/scratch_pool.h"

namespace penstock::image {
namespace {

std::vector<uint8_t> RandomBytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(count);
  std::ranges::generate(bytes, [&] { return static_cast<uint8_t>(random()); });
  return bytes;
}

/// A gradient with noise, encoded; a sample of colour for each `across` x `down` pixels.
std::vector<uint8_t> MakeJpeg(int width, int height, bool is_progressive = false, int across = 2, int down = 2) {
  jpeg_compress_struct jpeg{};
  jpeg_error_mgr errors;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&jpeg, &out, &size);
  jpeg.image_width = static_cast<JDIMENSION>(width);
  jpeg.image_height = static_cast<JDIMENSION>(height);
  jpeg.input_components = 3;
  jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg.comp_info[0].h_samp_factor = across;
  jpeg.comp_info[0].v_samp_factor = down;
  if (is_progressive) jpeg_simple_progression(&jpeg);
  jpeg_start_compress(&jpeg, TRUE);
  for (int y = 0; y < height; ++y) {
    auto row = RandomBytes(static_cast<size_t>(3 * width), static_cast<uint32_t>(y));
    for (int x = 0; x < 3 * width; ++x)
      row[static_cast<size_t>(x)] = static_cast<uint8_t>((row[x] & 31) + (x + y) % 200);
    JSAMPROW rows[] = {row.data()};
    jpeg_write_scanlines(&jpeg, rows, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  std::vector<uint8_t> bytes(out, out + size);
  std::free(out);
  return bytes;
}

std::vector<Step> Training(int64_t size) {
  return {Decode{}, RandomResizedCrop{size, size}, RandomHorizontalFlip{}, Normalize{{0.5}, {0.25}}};
}

TEST(ImagePassesTest, AllVersionsGiveTheSameBytes) {
  arrow::ProxyMemoryPool pool(arrow::default_memory_pool());
  const Passes &plain = PlainPasses(), &best = BestPasses();
  for (const auto& [source, resized] : {std::pair{1, 1}, {3, 40}, {100, 33}, {500, 224}, {97, 96}, {4000, 7}}) {
    for (const bool is_reversed : {false, true}) {
      Arena arena(&pool);
      Weights weights;
      ASSERT_TRUE(weights.Make(source, resized, 0, resized, is_reversed, &arena));
      const size_t in_bytes = static_cast<size_t>(4 * (source + weights.taps) + Passes::kRowRoom);
      const auto first = RandomBytes(in_bytes, 1), second = RandomBytes(in_bytes, 2);
      const uint8_t* const rows[2] = {first.data(), second.data()};
      const size_t out_bytes = static_cast<size_t>(4 * weights.length + Passes::kRowRoom);
      std::vector<std::vector<uint8_t>> outs(4, std::vector<uint8_t>(out_bytes));
      plain.horizontal4(rows, weights, std::array{outs[0].data(), outs[1].data()}.data());
      best.horizontal4(rows, weights, std::array{outs[2].data(), outs[3].data()}.data());
      EXPECT_EQ(outs[0], outs[2]);
      EXPECT_EQ(outs[1], outs[3]);

      std::vector<std::vector<uint8_t>> taps;
      std::vector<const uint8_t*> inputs;
      for (int tap = 0; tap < weights.taps; ++tap)
        taps.push_back(RandomBytes(in_bytes, 3 + static_cast<uint32_t>(tap)));
      for (const auto& tap : taps) inputs.push_back(tap.data());
      const int64_t bytes = std::min<int64_t>(4 * source, 1000) / 16 * 16;
      std::vector<uint8_t> plain_out(1100), best_out(1100);
      plain.vertical(inputs.data(), weights.high, weights.low, weights.taps, bytes, plain_out.data());
      best.vertical(inputs.data(), weights.high, weights.low, weights.taps, bytes, best_out.data());
      EXPECT_EQ(plain_out, best_out);
    }
  }
  const auto pixels = RandomBytes(4 * 45, 9);
  const float scale[] = {0.017F, 0.0171F, 0.0169F}, offset[] = {-2.1F, -2.0F, -1.8F};
  std::vector<float> plain_out(3 * 45), best_out(3 * 45);
  const auto planes = [](std::vector<float>& out) { return std::array{out.data(), out.data() + 45, out.data() + 90}; };
  plain.to_planes(pixels.data(), 45, scale, offset, planes(plain_out).data());
  best.to_planes(pixels.data(), 45, scale, offset, planes(best_out).data());
  EXPECT_EQ(plain_out, best_out);
}

TEST(ImageWeightsTest, SumToOneAndStayWithinTheSource) {
  for (const auto& [source, resized] : {std::pair{1, 300}, {7, 7}, {224, 223}, {1000, 3}}) {
    Arena arena(arrow::default_memory_pool());
    Weights weights;
    ASSERT_TRUE(weights.Make(source, resized, 0, resized, false, &arena));
    for (int64_t i = 0; i < resized; ++i) {
      int sum = 0;
      for (int tap = 0; tap < weights.taps; ++tap) {
        const int64_t at = i * weights.taps + tap;
        const int weight = weights.high[at] * 128 + weights.low[at];
        EXPECT_GE(weight, 0);
        if (weight > 0) {
          EXPECT_LT(weights.begin + weights.first[i] + tap, source);
        }
        sum += weight;
      }
      EXPECT_NEAR(sum, 1 << Weights::kBits, weights.taps);
    }
  }
}

TEST(ImagePlanTest, WritesAllOfItsOutputAndNothingBeyond) {
  const Plan plan = Plan::Make(Training(37)).ValueOrDie();
  EXPECT_EQ(plan.dtype(), DType::kFloat32);
  EXPECT_EQ(plan.shape(), (std::vector<int64_t>{3, 37, 37}));
  const auto bytes = MakeJpeg(120, 90);
  constexpr size_t kElements = 3 * 37 * 37;
  for (int64_t row = 0; row < 20; ++row) {
    std::vector<float> first(kElements + 1, 1e9F), second(kElements + 1, -1e9F);
    ASSERT_TRUE(plan.Apply(bytes, row, first.data(), arrow::default_memory_pool()).ok());
    ASSERT_TRUE(plan.Apply(bytes, row, second.data(), arrow::default_memory_pool()).ok());
    EXPECT_EQ(first.back(), 1e9F);
    first.back() = second.back() = 0;
    EXPECT_EQ(first, second);
  }
}

// Whatever the subsampling: 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1, 4:1:0 and 4:4:1.
TEST(ImagePlanTest, CropsAreThePixelsOfTheWholeImage) {
  constexpr int kWidth = 97, kHeight = 61, kCrop = 11;
  const Plan whole = Plan::Make({Decode{}, Resize{kHeight, kWidth}, Order::kHWC}).ValueOrDie();
  const Plan crop = Plan::Make({Decode{}, RandomCrop{kCrop, kCrop}, Order::kHWC}).ValueOrDie();
  for (const auto& [across, down] : {std::pair{1, 1}, {2, 1}, {2, 2}, {1, 2}, {4, 1}, {4, 2}, {1, 4}}) {
    for (const bool is_progressive : {false, true}) {
      SCOPED_TRACE(testing::Message() << across << " x " << down << (is_progressive ? ", progressive" : ""));
      const auto bytes = MakeJpeg(kWidth, kHeight, is_progressive, across, down);
      std::vector<uint8_t> pixels(3 * kWidth * kHeight), part(3 * kCrop * kCrop);
      ASSERT_TRUE(whole.Apply(bytes, 0, pixels.data(), arrow::default_memory_pool()).ok());
      for (int64_t row = 0; row < 100; ++row) {
        ASSERT_TRUE(crop.Apply(bytes, row, part.data(), arrow::default_memory_pool()).ok());
        const Drawn box = crop.Draw(kHeight, kWidth, row).ValueOrDie()[0];
        for (int64_t y = 0; y < kCrop; ++y) {
          const uint8_t* expected = pixels.data() + 3 * ((box.top + y) * kWidth + box.left);
          ASSERT_TRUE(std::equal(expected, expected + 3 * kCrop, part.data() + 3 * kCrop * y))
              << "box at " << box.left << ", " << box.top << ", row " << y;
        }
      }
    }
  }
}

// Every allocation may be refused: an error, nothing leaks, and the next image is none the worse.
TEST(ImagePlanTest, RefusedMemoryIsAnError) {
  const Plan plan = Plan::Make(Training(64)).ValueOrDie();
  for (const bool is_progressive : {false, true}) {
    const auto bytes = MakeJpeg(700, 500, is_progressive);
    std::vector<uint8_t> out(3 * 64 * 64 * sizeof(float));
    int64_t limit = 0;
    for (;; limit += 50'000) {
      arrow::CappedMemoryPool pool(arrow::default_memory_pool(), limit);
      const arrow::Status status = plan.Apply(bytes, 0, out.data(), &pool);
      EXPECT_EQ(pool.bytes_allocated(), 0);
      if (status.ok()) break;
      ASSERT_TRUE(status.IsOutOfMemory()) << status;
    }
    EXPECT_GT(limit, is_progressive ? 700 * 500 * 3 : 100'000);  // All coefficients of a progressive image are counted.
    EXPECT_LT(limit, is_progressive ? 5'000'000 : 500'000);
  }
}

TEST(ImageTransformTest, TakesBinaryColumnsAndNamesTheRow) {
  const auto op = MakeTransform(Plan::Make(Training(8)).ValueOrDie());
  EXPECT_TRUE(op->is_dear());
  for (const auto& type : {arrow::binary(), arrow::large_binary(), arrow::binary_view()}) {
    EXPECT_EQ(op->OutputFor(*arrow::field("image", type)).ValueOrDie().shape, (std::vector<int64_t>{3, 8, 8}));
  }
  EXPECT_TRUE(op->OutputFor(*arrow::field("image", arrow::utf8())).status().IsTypeError());
  const auto jpeg = MakeJpeg(30, 20);
  arrow::BinaryBuilder builder;
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(builder.Append(jpeg.data(), static_cast<int32_t>(jpeg.size())).ok());
  ASSERT_TRUE(builder.AppendNull().ok());
  const auto rows = builder.Finish().ValueOrDie();
  std::vector<uint8_t> out(3 * 3 * 8 * 8 * sizeof(float));
  EXPECT_TRUE(op->Apply(*rows->Slice(0, 2), 0, out.data()).ok());
  const arrow::Status status = op->Apply(*rows, 0, out.data());
  ExpectMessage(status, "the image is missing");
  EXPECT_EQ(static_cast<const RowDetail&>(*status.detail()).row(), 2);
}

// What is drawn for a row is part of the format: runs are repeated with later versions.
TEST(ImageDrawsTest, AreWhatTheyWere) {
  const Plan plan = Plan::Make({Decode{}, RandomResizedCrop{8, 8}, RandomHorizontalFlip{}}).ValueOrDie();
  RowKey key(3);
  key.seed = 42;
  key.epoch = 1;
  key.file = 2;
  key.file_row = 100;
  const auto drawn = plan.Draw(375, 500, key).ValueOrDie();
  ASSERT_EQ(drawn.size(), 2U);
  RowKey same(103);
  same.seed = 42;
  same.epoch = 1;
  same.file = 2;
  const auto again = plan.Draw(375, 500, same).ValueOrDie();
  EXPECT_EQ(drawn[0].top, again[0].top);
  EXPECT_EQ(drawn[0].left, again[0].left);
  EXPECT_EQ(std::vector({drawn[0].top, drawn[0].left, drawn[0].height, drawn[0].width}),
            (std::vector<int64_t>{42, 172, 326, 310}));
}

TEST(ScratchPoolTest, ChargesLittleAlwaysAndMuchOnlyWhereThereIsRoom) {
  const auto ledger = std::make_shared<Ledger>(int64_t{2} << 20);
  ASSERT_TRUE(ledger->TryAdd(Account::kSlots, (int64_t{2} << 20) - 100));
  ScratchPool pool(ledger);
  uint8_t *small = nullptr, *large = nullptr;
  ASSERT_TRUE(pool.Allocate(1000, 64, &small).ok());
  EXPECT_EQ(ledger->Report()[Account::kDecode].current_bytes, 1000);
  EXPECT_EQ(ledger->Report().over_budget_bytes, 900);
  EXPECT_TRUE(pool.Allocate(ScratchPool::kAlwaysBytes, 64, &large).IsOutOfMemory());
  ledger->Sub(Account::kSlots, (int64_t{2} << 20) - 100);
  ASSERT_TRUE(pool.Allocate(ScratchPool::kAlwaysBytes, 64, &large).ok());
  pool.Free(large, ScratchPool::kAlwaysBytes, 64);
  ASSERT_TRUE(pool.Reallocate(1000, 2000, 64, &small).ok());
  EXPECT_EQ(pool.bytes_allocated(), 2000);
  pool.Free(small, 2000, 64);
  EXPECT_EQ(ledger->Report()[Account::kDecode].current_bytes, 0);
}

}  // namespace
}  // namespace penstock::image

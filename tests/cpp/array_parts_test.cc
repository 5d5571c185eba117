#include "source/array_parts.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <thread>
#include <vector>

namespace penstock {
namespace {

constexpr int64_t kBytes = 1 << 16;

class BufferLenderTest : public testing::Test {
 protected:
  std::unique_ptr<arrow::ResizableBuffer> Make(int64_t bytes) { return lender->Make(bytes, &pool).ValueOrDie(); }

  arrow::ProxyMemoryPool pool{arrow::default_memory_pool()};
  std::optional<BufferLender> lender{std::in_place};
};

TEST_F(BufferLenderTest, LendsWhatCameBack) {
  auto buffer = Make(kBytes);
  const uint8_t* const data = buffer->data();
  ASSERT_TRUE(buffer->Resize(kBytes / 2, false).ok());
  auto lent = lender->Lend(std::move(buffer));
  EXPECT_EQ(lent->data(), data);
  EXPECT_EQ(lent->size(), kBytes / 2);
  const auto other = Make(kBytes);
  EXPECT_NE(other->data(), data);  // Somebody still has it.
  auto slice = arrow::SliceBuffer(lent, 8);
  lent.reset();
  EXPECT_NE(Make(kBytes)->data(), data);
  slice.reset();
  const auto again = Make(kBytes / 2);
  EXPECT_EQ(again->data(), data);
  EXPECT_EQ(again->size(), kBytes);  // All the room there is.
}

TEST_F(BufferLenderTest, DoesNotLendWhatDoesNotFit) {
  for (const int64_t bytes : {kBytes + 64, kBytes / 2 - 64}) {
    auto buffer = Make(kBytes);
    lender->Lend(std::move(buffer)).reset();
    EXPECT_EQ(pool.bytes_allocated(), kBytes);
    const auto other = Make(bytes);
    EXPECT_EQ(pool.bytes_allocated(), bytes);  // What does not fit is not kept either.
  }
}

TEST_F(BufferLenderTest, KeepsOne) {
  auto one = lender->Lend(Make(kBytes));
  auto two = lender->Lend(Make(kBytes));
  one.reset();
  two.reset();
  EXPECT_EQ(pool.bytes_allocated(), kBytes);
}

TEST_F(BufferLenderTest, NothingComesBackToALenderThatIsGone) {
  auto one = lender->Lend(Make(kBytes));
  auto two = lender->Lend(Make(kBytes));
  lender->Lend(Make(kBytes)).reset();
  EXPECT_EQ(pool.bytes_allocated(), 3 * kBytes);
  lender.reset();
  EXPECT_EQ(pool.bytes_allocated(), 2 * kBytes);
  one.reset();
  EXPECT_EQ(pool.bytes_allocated(), kBytes);
  two.reset();
  EXPECT_EQ(pool.bytes_allocated(), 0);
}

// As a worker decodes and others let go of what they have copied; what is written is not seen by who looks at the array
// before (run under ThreadSanitizer).
TEST_F(BufferLenderTest, BuffersComeBackFromOtherThreads) {
  constexpr int kPieces = 300;
  std::vector<std::jthread> readers;
  for (int piece = 0; piece < kPieces; ++piece) {
    auto buffer = Make(kBytes);
    std::memset(buffer->mutable_data(), piece % 251, static_cast<size_t>(kBytes));
    readers.emplace_back([piece, lent = lender->Lend(std::move(buffer))]() mutable {
      bool is_same = true;
      for (int64_t i = 0; i < kBytes; i += 997) is_same &= lent->data()[i] == piece % 251;
      EXPECT_TRUE(is_same) << "piece " << piece;
      lent.reset();
    });
  }
  readers.clear();
  lender.reset();
  EXPECT_EQ(pool.bytes_allocated(), 0);
}

}  // namespace
}  // namespace penstock

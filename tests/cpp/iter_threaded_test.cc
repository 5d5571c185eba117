#include "penstock/iter_threaded.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <latch>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace penstock {
namespace {

using Ints = ThreadedIterator<int, int>;

// A test that hangs dies of SIGALRM.
class IterThreadedTest : public ::testing::Test {
 protected:
  IterThreadedTest() { alarm(200); }
  ~IterThreadedTest() override { alarm(0); }
};

// 0 .. n-1. Not thread-safe, and notices when it is entered twice.
class Counter {
 public:
  explicit Counter(int n) : n_(n) {}

  Pull<int> AsPull() {
    return [this]() -> arrow::Result<std::optional<int>> {
      if (is_inside_.exchange(true)) was_shared_ = true;
      std::optional<int> item;
      if (next_ < n_) item = next_++;
      for (int i = 0; i < 20; ++i) std::this_thread::yield();  // Gives others the chance to come in.
      num_fetched_ = next_;
      is_inside_ = false;
      return item;
    };
  }

  int num_fetched() const { return num_fetched_; }
  bool was_shared() const { return was_shared_; }

 private:
  const int n_;
  int next_ = 0;
  std::atomic<int> num_fetched_{0};
  std::atomic<bool> is_inside_{false}, was_shared_{false};
};

// fn that applies `f` to each item.
Ints::Fn Each(std::function<arrow::Result<int>(int)> f) {
  return [f](Pull<int> in) -> arrow::Result<Pull<int>> {
    return [f, in]() -> arrow::Result<std::optional<int>> {
      ARROW_ASSIGN_OR_RAISE(std::optional<int> item, in());
      if (!item) return std::nullopt;
      ARROW_ASSIGN_OR_RAISE(int out, f(*item));
      return out;
    };
  };
}

Ints::Fn Identity() {
  return Each([](int i) { return i; });
}

// Everything up to the end or the first error, which goes to `error`.
template <typename It>
std::vector<int> Drain(It* it, arrow::Status* error = nullptr) {
  std::vector<int> items;
  for (;;) {
    auto got = it->Next();
    if (!got.ok()) {
      EXPECT_NE(error, nullptr) << got.status();
      if (error != nullptr) *error = got.status();
      return items;
    }
    if (!got->has_value()) return items;
    items.push_back(**got);
  }
}

std::vector<int> Range(int n) {
  std::vector<int> items(n);
  std::iota(items.begin(), items.end(), 0);
  return items;
}

class IterThreadedGridTest : public IterThreadedTest, public ::testing::WithParamInterface<std::tuple<int, int>> {};

TEST_P(IterThreadedGridTest, EveryItemExactlyOnceAndBaseEnteredByOneThread) {
  const auto [workers, buffer] = GetParam();
  Counter counter(300);
  auto it = Ints::Make(counter.AsPull(), Identity(), workers, buffer).ValueOrDie();
  std::vector<int> got = Drain(it.get());
  if (workers > 1) std::sort(got.begin(), got.end());  // One worker keeps the order.
  EXPECT_EQ(got, Range(300));
  EXPECT_FALSE(counter.was_shared());
  EXPECT_EQ(it->Next().ValueOrDie(), std::nullopt);
}

// Yields item k k % 3 times, so none for every third.
Ints::Fn SeveralOrNone() {
  return [](Pull<int> in) -> arrow::Result<Pull<int>> {
    auto left = std::make_shared<std::pair<int, int>>(0, 0);
    return [in, left]() -> arrow::Result<std::optional<int>> {
      while (left->second == 0) {
        ARROW_ASSIGN_OR_RAISE(std::optional<int> item, in());
        if (!item) return std::nullopt;
        *left = {*item, *item % 3};
      }
      --left->second;
      return left->first;
    };
  };
}

TEST_P(IterThreadedGridTest, EveryOutputExactlyOnceWhereFnGivesSeveralOrNone) {
  const auto [workers, buffer] = GetParam();
  Counter counter(200);
  auto it = IterThreaded<int, int>(counter.AsPull(), SeveralOrNone(), workers, buffer).ValueOrDie();
  std::vector<int> got = Drain(it.get());
  std::vector<int> want;
  for (int i = 0; i < 200; ++i) want.insert(want.end(), i % 3, i);
  std::sort(got.begin(), got.end());
  EXPECT_EQ(got, want);
}

TEST_P(IterThreadedGridTest, QueueAndInFlightNeverExceedTheBuffer) {
  const auto [workers, buffer] = GetParam();
  const unsigned seed = 20240601u + 10u * workers + buffer;
  SCOPED_TRACE(seed);
  std::minstd_rand rng(seed);
  // Started work against what the consumer has asked for: the consumer frees a slot only within Next().
  std::atomic<int> num_asked{0}, peak{0};
  int num_started = 0;  // Guarded by the turn.
  auto base = [&]() -> arrow::Result<std::optional<int>> {
    if (num_started == 400) return std::nullopt;
    ++num_started;
    peak = std::max(peak.load(), num_started - num_asked.load());
    return num_started;
  };
  auto it = Ints::Make(base, Identity(), workers, buffer).ValueOrDie();
  for (;;) {
    ++num_asked;
    if (!it->Next().ValueOrDie()) break;
    for (unsigned i = rng() % 8; i > 0; --i) std::this_thread::yield();
  }
  EXPECT_LE(peak, buffer);
}

INSTANTIATE_TEST_SUITE_P(WorkersByBuffer, IterThreadedGridTest,
                         ::testing::Combine(::testing::Values(1, 2, 4), ::testing::Values(1, 2, 4)));

// An fn that reads ahead while it is called starts work as well, so it needs a slot.
TEST_F(IterThreadedTest, ReadingAheadWithinTheCallOfFnTakesASlot) {
  Counter counter(100);
  std::atomic<int> live{0}, peak{0};
  auto fn = [&](Pull<int> in) -> arrow::Result<Pull<int>> {
    ARROW_ASSIGN_OR_RAISE(std::optional<int> first, in());
    if (first) peak = std::max(peak.load(), ++live);
    auto held = std::make_shared<std::optional<int>>(first);
    return [&live, in, held]() -> arrow::Result<std::optional<int>> {
      if (!*held) return in();
      --live;
      return std::exchange(*held, std::nullopt);
    };
  };
  auto it = Ints::Make(counter.AsPull(), fn, 4, 1).ValueOrDie();
  EXPECT_EQ(Drain(it.get()).size(), 100u);
  EXPECT_EQ(peak, 1);
}

TEST_F(IterThreadedTest, NumbersBelowOneAreInvalid) {
  Counter counter(1);
  EXPECT_TRUE(Ints::Make(counter.AsPull(), Identity(), 0, 1).status().IsInvalid());
  EXPECT_TRUE(Ints::Make(counter.AsPull(), Identity(), 1, 0).status().IsInvalid());
  EXPECT_TRUE(Ints::Make(nullptr, Identity(), 1, 1).status().IsInvalid());
  EXPECT_EQ(counter.num_fetched(), 0);
}

TEST_F(IterThreadedTest, EmptyBaseIsEmpty) {
  Counter counter(0);
  EXPECT_TRUE(Drain(Ints::Make(counter.AsPull(), Identity(), 4, 4).ValueOrDie().get()).empty());
}

TEST_F(IterThreadedTest, FnIsEnteredOncePerWorker) {
  Counter counter(50);
  std::atomic<int> num_calls{0};
  std::latch all_called(4);
  auto fn = [&](Pull<int> in) -> arrow::Result<Pull<int>> {
    ++num_calls;
    all_called.arrive_and_wait();
    return in;
  };
  auto it = Ints::Make(counter.AsPull(), fn, 4, 1).ValueOrDie();
  EXPECT_EQ(Drain(it.get()).size(), 50u);
  EXPECT_EQ(num_calls, 4);
}

TEST_F(IterThreadedTest, WorkOverlapsTheConsumer) {
  Counter counter(2);
  std::latch second_made(1);
  auto it = Ints::Make(counter.AsPull(), Each([&](int i) {
                         if (i == 1) second_made.count_down();
                         return i;
                       }))
                .ValueOrDie();
  EXPECT_EQ(it->Next().ValueOrDie(), 0);
  second_made.wait();  // Made while item 0 is in hand and nobody asks.
  EXPECT_EQ(it->Next().ValueOrDie(), 1);
}

TEST_F(IterThreadedTest, NestedUseDoesNotDeadlock) {
  for (int buffer : {1, 2}) {
    Counter counter(100);
    auto base = std::shared_ptr<Ints>(Ints::Make(counter.AsPull(), Identity(), 2, buffer).ValueOrDie());
    auto fn = [&](Pull<int> in) -> arrow::Result<Pull<int>> {
      ARROW_ASSIGN_OR_RAISE(auto made, Ints::Make(in, Identity(), 2, buffer));
      return [inner = std::shared_ptr<Ints>(std::move(made))] { return inner->Next(); };
    };
    auto outer = Ints::Make([base] { return base->Next(); }, fn, 2, buffer).ValueOrDie();
    std::vector<int> got = Drain(outer.get());
    std::sort(got.begin(), got.end());
    EXPECT_EQ(got, Range(100));
  }
}

TEST_F(IterThreadedTest, ErrorComesOnceAndBehindFinishedItems) {
  Counter counter(10);
  auto it = Ints::Make(counter.AsPull(), Each([](int i) -> arrow::Result<int> {
                         if (i == 3) return arrow::Status::IOError("item 3");
                         return i;
                       }),
                       1, 8)
                .ValueOrDie();
  arrow::Status error;
  EXPECT_EQ(Drain(it.get(), &error), Range(3));
  EXPECT_TRUE(error.IsIOError()) << error;
  EXPECT_EQ(it->Next().ValueOrDie(), std::nullopt);
}

TEST_F(IterThreadedTest, ErrorOfBaseComesOnceAndBaseIsNotEnteredAgain) {
  std::atomic<int> num_entered{0};
  auto base = [&]() -> arrow::Result<std::optional<int>> {
    ++num_entered;
    return arrow::Status::KeyError("base");
  };
  auto it = Ints::Make(base, Identity(), 4, 4).ValueOrDie();
  arrow::Status error;
  EXPECT_TRUE(Drain(it.get(), &error).empty());
  EXPECT_TRUE(error.IsKeyError()) << error;
  EXPECT_EQ(it->Next().ValueOrDie(), std::nullopt);
  it.reset();
  EXPECT_EQ(num_entered, 1);
}

TEST_F(IterThreadedTest, ErrorWhileFnIsCalledComesOnce) {
  Counter counter(10);
  auto fn = [](Pull<int>) -> arrow::Result<Pull<int>> { return arrow::Status::TypeError("no model"); };
  auto it = Ints::Make(counter.AsPull(), fn, 4, 1).ValueOrDie();
  EXPECT_TRUE(it->Next().status().IsTypeError());
  EXPECT_EQ(it->Next().ValueOrDie(), std::nullopt);
}

TEST_F(IterThreadedTest, ExceptionsBecomeStatuses) {
  Counter counter(10);
  auto thrown = Ints::Make(counter.AsPull(), Each([](int) -> int { throw std::runtime_error("boom"); })).ValueOrDie();
  const arrow::Status error = thrown->Next().status();
  EXPECT_TRUE(error.IsUnknownError() && error.message().find("boom") != std::string::npos) << error;
  auto no_memory = Ints::Make(counter.AsPull(), Each([](int) -> int { throw std::bad_alloc(); })).ValueOrDie();
  EXPECT_TRUE(no_memory->Next().status().IsOutOfMemory());
}

// The worker sits between two fetches for one output: what it asks for after the stop must not reach the base, and the
// consumer, who waits for that output, is woken.
TEST_F(IterThreadedTest, NothingIsFetchedAfterStopAndAWaitingConsumerWakes) {
  Counter counter(100);
  std::latch is_between(1), may_go_on(1);
  auto fn = [&](Pull<int> in) -> arrow::Result<Pull<int>> {
    return [&, in]() -> arrow::Result<std::optional<int>> {
      auto first = in();
      is_between.count_down();
      may_go_on.wait();
      EXPECT_EQ(in().ValueOrDie(), std::nullopt) << "to fn, a stop is the end of its input";
      return first;
    };
  };
  auto it = Ints::Make(counter.AsPull(), fn, 1, 4).ValueOrDie();
  std::thread consumer([&] { EXPECT_EQ(it->Next().ValueOrDie(), std::nullopt); });
  is_between.wait();
  it->Stop();
  consumer.join();
  may_go_on.count_down();
  it.reset();
  EXPECT_EQ(counter.num_fetched(), 1);
}

TEST_F(IterThreadedTest, StopDoesNotWaitForTheTurnLock) {
  std::latch is_inside(1), may_return(1);
  std::atomic<int> num_entered{0};
  auto base = [&]() -> arrow::Result<std::optional<int>> {
    ++num_entered;
    is_inside.count_down();
    may_return.wait();
    return 1;
  };
  auto it = Ints::Make(base, Identity(), 4, 4).ValueOrDie();
  std::thread consumer([&] { EXPECT_EQ(it->Next().ValueOrDie(), std::nullopt); });
  is_inside.wait();
  it->Stop();
  consumer.join();
  EXPECT_EQ(it->Next().ValueOrDie(), std::nullopt);
  may_return.count_down();
  it.reset();
  EXPECT_EQ(num_entered, 1) << "those who waited for their turn must see the flag";
}

TEST_F(IterThreadedTest, StopBeforeTheFirstNextRunsNothing) {
  Counter counter(10);
  std::atomic<int> num_calls{0};
  auto fn = [&](Pull<int> in) -> arrow::Result<Pull<int>> {
    ++num_calls;
    return in;
  };
  auto it = Ints::Make(counter.AsPull(), fn, 4, 4).ValueOrDie();
  it->Stop();
  EXPECT_EQ(it->Next().ValueOrDie(), std::nullopt);
  EXPECT_EQ(num_calls + counter.num_fetched(), 0);
}

TEST_F(IterThreadedTest, ManyAbandonedIteratorsLeaveNoWorkerAndNoItemAndItemsMayBeMoveOnly) {
  struct Live {
    explicit Live(std::atomic<int>* n) : num(n) { ++*num; }
    ~Live() { --*num; }
    std::atomic<int>* num;
  };
  std::atomic<int> num_live{0};
  using Item = std::unique_ptr<Live>;
  for (int round = 0; round < 200; ++round) {
    auto base = [&]() -> arrow::Result<std::optional<Item>> { return std::make_unique<Live>(&num_live); };
    auto same = [](Pull<Item> in) -> arrow::Result<Pull<Item>> { return in; };
    auto it = IterThreaded<Item, Item>(base, same, 4, 1 + round % 4).ValueOrDie();
    for (int i = 0; i < round % 3; ++i) EXPECT_TRUE(it->Next().ValueOrDie().has_value());
  }
  EXPECT_EQ(num_live, 0);
}

// Calls back when it dies, also when it was moved from; under a lock that would never return.
class CallsBack {
 public:
  explicit CallsBack(std::function<void()> f) : f_(std::make_shared<std::function<void()>>(std::move(f))) {}
  CallsBack(const CallsBack&) = default;
  CallsBack(CallsBack&& other) noexcept : f_(other.f_) {}
  CallsBack& operator=(const CallsBack&) = default;
  ~CallsBack() { (*f_)(); }

 private:
  std::shared_ptr<std::function<void()>> f_;
};

TEST_F(IterThreadedTest, ItemsDieOutsideLocks) {
  using It = ThreadedIterator<int, CallsBack>;
  It* target = nullptr;
  std::atomic<bool> is_armed{false};
  std::latch queued(3);
  auto fn = [&](Pull<int> in) -> arrow::Result<Pull<CallsBack>> {
    return [&, in]() -> arrow::Result<std::optional<CallsBack>> {
      ARROW_ASSIGN_OR_RAISE(auto item, in());
      if (!item) return std::nullopt;
      if (*item > 0) queued.count_down();
      return CallsBack([&] {
        if (is_armed) target->Stop();
      });
    };
  };
  Counter counter(4);
  auto it = It::Make(counter.AsPull(), fn, 1, 3).ValueOrDie();
  target = it.get();
  auto first = it->Next().ValueOrDie();
  queued.wait();
  is_armed = true;
  auto second = it->Next().ValueOrDie();  // Its moved-from shell dies within Next() and stops the stream.
  first.reset();
  second.reset();
  EXPECT_FALSE(it->Next().ValueOrDie().has_value());
  it->Stop();
  is_armed = false;
}

}  // namespace
}  // namespace penstock

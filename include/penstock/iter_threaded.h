#pragma once

#include <arrow/result.h>
#include <arrow/status.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "penstock/mutex.h"

namespace penstock {

/// A pull-style iterator: the next item, nullopt at the end, or an error.
template <typename T>
using Pull = std::function<arrow::Result<std::optional<T>>()>;

/// The iterator that IterThreaded() returns: worker threads share one base iterator and feed one consumer.
///
/// Each worker calls `fn` once, with a Pull over the shared base, and then pulls the iterator that `fn` returned; that
/// may give any number of items per input. Every item is delivered once: in order with one worker, else in the order
/// in which they were finished.
///
/// Ownership: owns base, fn, its threads and the items not yet taken. Whatever base and fn refer to must outlive this
///            object (not just Stop()); items that were taken are the caller's.
/// Threads:   base is entered by one thread at a time, under the turn lock; fn and what it returns run on
///            workers, several at once. One thread at a time may call Next(); any thread may call Stop(). Threads
///            start at the first Next().
/// Blocking:  Next() waits for an item. Stop() waits for nothing, not even for the turn lock. The destructor stops and
///            then waits until the user code that runs on workers returns; idle workers end at once.
/// Bound:     items in the making + items waiting to be taken <= output_buffer_size, at any instant.
template <typename T, typename U>
class ThreadedIterator {
 public:
  using Fn = std::function<arrow::Result<Pull<U>>(Pull<T>)>;

  /// \param num_workers         number of threads, >= 1.
  /// \param output_buffer_size  the bound above, >= 1; less than num_workers leaves workers idle.
  /// \return the iterator, or Invalid if a number is below 1 or a function is empty.
  [[nodiscard]] static arrow::Result<std::unique_ptr<ThreadedIterator>> Make(Pull<T> base, Fn fn, int num_workers = 1,
                                                                             int64_t output_buffer_size = 1) {
    if (num_workers < 1) return arrow::Status::Invalid("num_workers must be at least 1, got ", num_workers);
    if (output_buffer_size < 1) {
      return arrow::Status::Invalid("output_buffer_size must be at least 1, got ", output_buffer_size);
    }
    if (!base || !fn) return arrow::Status::Invalid("iter_threaded needs a base iterator and a function");
    auto shared = std::make_shared<Shared>(std::move(base), std::move(fn), num_workers, output_buffer_size);
    return std::unique_ptr<ThreadedIterator>(new ThreadedIterator(std::move(shared), num_workers));
  }

  ~ThreadedIterator() {
    Stop();
    for (std::thread& thread : threads_) {
      // An item may own the iterator and die on one of its own workers, which cannot wait for itself.
      if (thread.get_id() == std::this_thread::get_id()) {
        thread.detach();
      } else {
        thread.join();
      }
    }
  }
  ThreadedIterator(const ThreadedIterator&) = delete;
  ThreadedIterator& operator=(const ThreadedIterator&) = delete;

  /// Waits for an item.
  ///
  /// \return the item, or
  ///   - nullopt       at the end, after an error and after Stop();
  ///   - the error     of base or fn, once, behind the items that were finished before it;
  ///   - UnknownError  if one of them threw (OutOfMemory for std::bad_alloc), or if a thread could not be started.
  [[nodiscard]] arrow::Result<std::optional<U>> Next() {
    if (threads_.empty() && !shared_->is_stopped()) {
      arrow::Status started = Start();
      if (!started.ok()) {
        Stop();
        return started;
      }
    }
    return shared_->Take();
  }

  /// Nothing more is fetched or delivered; what is queued is destroyed. Idempotent.
  void Stop() { shared_->Abandon(); }

 private:
  // Lives as long as the last of the iterator, its workers and the Pulls that fn was given.
  class Shared {
   public:
    Shared(Pull<T> base, Fn fn_in, int num_workers, int64_t num_slots)
        : fn(std::move(fn_in)), base_(std::move(base)), num_slots_(num_slots), num_running_(num_workers) {}

    const Fn fn;

    bool is_stopped() const { return is_stopped_; }

    // Waits for a slot: the right to have one item in the making, then in the queue. False if no work may start.
    bool TakeSlot() PENSTOCK_EXCLUDES(mu_) {
      MutexLock lock(mu_);
      while (!is_stopped_ && num_taken_ == num_slots_) slot_free_.Wait(mu_);
      if (is_stopped_) return false;
      ++num_taken_;
      return true;
    }

    void GiveSlotBack() PENSTOCK_EXCLUDES(mu_) {
      MutexLock lock(mu_);
      --num_taken_;
      slot_free_.NotifyOne();
    }

    arrow::Result<std::optional<T>> Fetch() PENSTOCK_EXCLUDES(turn_) {
      MutexLock turn(turn_);
      if (is_stopped_ || is_base_done_) return std::nullopt;
      is_base_done_ = true;  // Unless an item comes: an error or an exception ends it, too.
      arrow::Result<std::optional<T>> item = base_();
      is_base_done_ = !item.ok() || !item->has_value();
      return item;
    }

    // Queues an item, with the slot that it was made under. `item` is left to the caller if nobody wants it.
    void Put(std::list<U>* item) PENSTOCK_EXCLUDES(mu_) {
      MutexLock lock(mu_);
      if (is_stopped_) return;
      ready_.splice(ready_.end(), *item);
      changed_.NotifyOne();
    }

    void Fail(arrow::Status error) PENSTOCK_EXCLUDES(mu_) {
      MutexLock lock(mu_);
      if (is_stopped_) return;
      is_stopped_ = true;
      std::swap(error_, error);
      slot_free_.NotifyAll();
      changed_.NotifyOne();
    }

    void Leave() PENSTOCK_EXCLUDES(mu_) {
      MutexLock lock(mu_);
      --num_running_;
      changed_.NotifyOne();
    }

    void Abandon() PENSTOCK_EXCLUDES(mu_) {
      std::list<U> doomed;  // Dies after the lock is released, as does the error: destructors may call back.
      arrow::Status error;
      MutexLock lock(mu_);
      is_stopped_ = true;
      is_abandoned_ = true;
      doomed.swap(ready_);
      std::swap(error, error_);
      slot_free_.NotifyAll();
      changed_.NotifyOne();
    }

    arrow::Result<std::optional<U>> Take() PENSTOCK_EXCLUDES(mu_) {
      std::list<U> taken;  // A node of its own, so that not even a moved-from item dies under the lock.
      {
        MutexLock lock(mu_);
        while (ready_.empty() && error_.ok() && num_running_ > 0 && !is_abandoned_) changed_.Wait(mu_);
        if (!ready_.empty()) {
          taken.splice(taken.end(), ready_, ready_.begin());
          --num_taken_;
          slot_free_.NotifyOne();
        } else if (!error_.ok()) {
          is_abandoned_ = true;
          return std::exchange(error_, arrow::Status::OK());
        } else {
          return std::nullopt;
        }
      }
      return std::optional<U>(std::move(taken.front()));
    }

   private:
    Mutex turn_;  // Held while user code runs in base_, so mu_ is never waited for behind it.
    Pull<T> base_ PENSTOCK_GUARDED_BY(turn_);
    bool is_base_done_ PENSTOCK_GUARDED_BY(turn_) = false;

    const int64_t num_slots_;
    Mutex mu_;
    CondVar slot_free_;
    CondVar changed_;  // For the consumer.
    std::list<U> ready_ PENSTOCK_GUARDED_BY(mu_);
    arrow::Status error_ PENSTOCK_GUARDED_BY(mu_);
    int64_t num_taken_ PENSTOCK_GUARDED_BY(mu_) = 0;
    int num_running_ PENSTOCK_GUARDED_BY(mu_);
    bool is_abandoned_ PENSTOCK_GUARDED_BY(mu_) = false;  // The consumer left or got the error.
    std::atomic<bool> is_stopped_{false};  // No work may start. Written under mu_, read under turn_, too.
  };

  // One worker's hold on its slot. Only the thread it was made on touches the slot; others may call Fetch().
  class Worker {
   public:
    explicit Worker(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

    arrow::Result<std::optional<T>> Fetch() {
      // An fn that reads ahead while it is being called starts work, too. A thread that fn itself started (nested
      // use) takes no slot: its worker may be waiting for the one that such a thread would sit on.
      if (owner_.load() == std::this_thread::get_id() && !EnsureSlot()) return std::nullopt;
      return shared_->Fetch();
    }

    bool EnsureSlot() {
      if (!has_slot_) has_slot_ = shared_->TakeSlot();
      return has_slot_;
    }

    void Deliver(U item) {
      std::list<U> node;
      node.push_back(std::move(item));
      has_slot_ = false;  // It belongs to the item now.
      shared_->Put(&node);
    }

    // Whoever kept the Pull gets no slot through it.
    void Retire() {
      owner_ = std::thread::id();
      if (std::exchange(has_slot_, false)) shared_->GiveSlotBack();
    }

   private:
    const std::shared_ptr<Shared> shared_;
    std::atomic<std::thread::id> owner_{std::this_thread::get_id()};
    bool has_slot_ = false;
  };

  ThreadedIterator(std::shared_ptr<Shared> shared, int num_workers)
      : shared_(std::move(shared)), num_workers_(num_workers) {}

  arrow::Status Start() {
    threads_.reserve(static_cast<size_t>(num_workers_));
    try {
      for (int i = 0; i < num_workers_; ++i) threads_.emplace_back(&ThreadedIterator::Run, shared_);
    } catch (const std::system_error& error) {
      return arrow::Status::UnknownError("starting worker ", threads_.size(), " of ", num_workers_, ": ", error.what());
    }
    return arrow::Status::OK();
  }

  static void Run(std::shared_ptr<Shared> shared) {
    auto worker = std::make_shared<Worker>(shared);
    arrow::Status done;
    try {
      done = Work(*shared, worker);
    } catch (const std::bad_alloc&) {
      done = arrow::Status::OutOfMemory("a worker of iter_threaded ran out of memory");
    } catch (const std::exception& error) {
      done = arrow::Status::UnknownError("a worker of iter_threaded threw: ", error.what());
    } catch (...) {
      done = arrow::Status::UnknownError("a worker of iter_threaded threw something that is no std::exception");
    }
    if (!done.ok()) shared->Fail(std::move(done));
    worker->Retire();
    shared->Leave();
  }

  static arrow::Status Work(const Shared& shared, const std::shared_ptr<Worker>& worker) {
    if (shared.is_stopped()) return arrow::Status::OK();
    ARROW_ASSIGN_OR_RAISE(Pull<U> outputs, shared.fn([worker] { return worker->Fetch(); }));
    while (worker->EnsureSlot()) {
      ARROW_ASSIGN_OR_RAISE(std::optional<U> item, outputs());
      if (!item.has_value()) break;
      worker->Deliver(*std::move(item));
    }
    return arrow::Status::OK();
  }

  const std::shared_ptr<Shared> shared_;
  const int num_workers_;
  std::vector<std::thread> threads_;  // Touched by the consumer only.
};

/// Runs `fn` over a shared iterator on worker threads; see ThreadedIterator and its Make().
template <typename T, typename U>
[[nodiscard]] arrow::Result<std::unique_ptr<ThreadedIterator<T, U>>> IterThreaded(
    Pull<T> base, typename ThreadedIterator<T, U>::Fn fn, int num_workers = 1, int64_t output_buffer_size = 1) {
  return ThreadedIterator<T, U>::Make(std::move(base), std::move(fn), num_workers, output_buffer_size);
}

}  // namespace penstock

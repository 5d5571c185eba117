#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

// Clang's thread-safety attributes; nothing elsewhere. `-Wthread-safety` (preset "clang") turns a guarded field that is
// touched without its mutex into an error. See https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#if defined(__clang__)
#define PENSTOCK_ATTRIBUTE(x) __attribute__((x))
#else
#define PENSTOCK_ATTRIBUTE(x)
#endif
#define PENSTOCK_CAPABILITY(x) PENSTOCK_ATTRIBUTE(capability(x))
#define PENSTOCK_SCOPED_CAPABILITY PENSTOCK_ATTRIBUTE(scoped_lockable)
#define PENSTOCK_GUARDED_BY(x) PENSTOCK_ATTRIBUTE(guarded_by(x))
#define PENSTOCK_REQUIRES(...) PENSTOCK_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define PENSTOCK_ACQUIRE(...) PENSTOCK_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define PENSTOCK_RELEASE(...) PENSTOCK_ATTRIBUTE(release_capability(__VA_ARGS__))
#define PENSTOCK_EXCLUDES(...) PENSTOCK_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define PENSTOCK_NO_THREAD_SAFETY_ANALYSIS PENSTOCK_ATTRIBUTE(no_thread_safety_analysis)

namespace penstock {

class CondVar;

/// A std::mutex that the thread-safety analysis knows. Not recursive.
class PENSTOCK_CAPABILITY("mutex") Mutex {
 public:
  void Lock() PENSTOCK_ACQUIRE() { mu_.lock(); }
  void Unlock() PENSTOCK_RELEASE() { mu_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mu_;
};

/// Holds a Mutex for a scope; Unlock() and Lock() open a gap in it.
class PENSTOCK_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mu) PENSTOCK_ACQUIRE(mu) : mu_(mu) { mu_.Lock(); }
  ~MutexLock() PENSTOCK_RELEASE() {
    if (is_held_) mu_.Unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void Unlock() PENSTOCK_RELEASE() {
    mu_.Unlock();
    is_held_ = false;
  }
  void Lock() PENSTOCK_ACQUIRE() {
    mu_.Lock();
    is_held_ = true;
  }

 private:
  Mutex& mu_;
  bool is_held_ = true;
};

/// A condition variable for Mutex. Wait in a `while` over the condition: wake-ups may be spurious.
class CondVar {
 public:
  void Wait(Mutex& mu) PENSTOCK_REQUIRES(mu) PENSTOCK_NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }
  /// Waits for at most `timeout`; returns false where it passed.
  bool WaitFor(Mutex& mu, std::chrono::nanoseconds timeout) PENSTOCK_REQUIRES(mu) PENSTOCK_NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    // Against the system clock: ThreadSanitizer of GCC 12 does not know pthread_cond_clockwait.
    const bool in_time = cv_.wait_until(lock, std::chrono::system_clock::now() + timeout) == std::cv_status::no_timeout;
    lock.release();
    return in_time;
  }
  void NotifyOne() { cv_.notify_one(); }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace penstock

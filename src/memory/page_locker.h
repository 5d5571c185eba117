#pragma once

#include <arrow/status.h>

#include <cstdint>

namespace penstock {

/// Locks pages in memory, so that a device copies from them by itself, while the caller goes on.
///
/// Ownership: by shared_ptr; what is locked keeps it. Threads: any.
/// Blocking:  Lock() and Unlock() take milliseconds for some ten MiB, WaitForDevices() as long as devices have work.
class PageLocker {
 public:
  virtual ~PageLocker() = default;

  /// Called by who uses the memory, before the first Lock(): the device that it works with is the one to lock for.
  /// Idempotent. \return UnknownError where no device can be used; the message says what to do.
  virtual arrow::Status Open() = 0;
  /// Locks whole pages, and touches all of them. \return UnknownError where the driver refuses.
  virtual arrow::Status Lock(uint8_t* data, int64_t bytes) = 0;
  /// Of what was locked, once, before it is unmapped.
  virtual void Unlock(uint8_t* data) = 0;
  /// Returns when the devices have done all that they had been given.
  virtual void WaitForDevices() = 0;
};

}  // namespace penstock

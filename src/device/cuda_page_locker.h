#pragma once

#include <arrow/result.h>

#include <memory>

#include "device/cuda_driver.h"
#include "memory/page_locker.h"
#include "penstock/mutex.h"

namespace penstock {

/// Locks pages through NVIDIA's driver, for all devices (CU_MEMHOSTREGISTER_PORTABLE). It works in the primary context
/// of one device, which is the one that torch and the CUDA runtime use, so that they find the memory page-locked; the
/// context is kept from Open() on, for as long as this lives.
///
/// Fork: not to be used in the child, nor destroyed there: nothing of CUDA may be called in it.
class CudaPageLocker : public PageLocker {
 public:
  /// Looks for the driver, but makes no context yet: that takes some hundred MiB on the device.
  /// \param device  whose context; -1: of the device that is current on the thread that calls Open(), else of the first
  /// that is in use by this process, else device 0.
  /// \return UnknownError where there is no driver or no such device.
  static arrow::Result<std::shared_ptr<CudaPageLocker>> Make(int device);
  ~CudaPageLocker() override;
  CudaPageLocker(const CudaPageLocker&) = delete;
  CudaPageLocker& operator=(const CudaPageLocker&) = delete;

  arrow::Status Open() override PENSTOCK_EXCLUDES(mu_);
  arrow::Status Lock(uint8_t* data, int64_t bytes) override PENSTOCK_EXCLUDES(mu_);
  void Unlock(uint8_t* data) override PENSTOCK_EXCLUDES(mu_);
  void WaitForDevices() override;

 private:
  class Current;

  CudaPageLocker(std::shared_ptr<const CudaDriver> driver, int device);
  CudaDriver::Device ChooseDevice() const;
  CudaDriver::Context context() PENSTOCK_EXCLUDES(mu_);

  const std::shared_ptr<const CudaDriver> driver_;
  const int wanted_device_;

  Mutex mu_;
  CudaDriver::Device device_ PENSTOCK_GUARDED_BY(mu_) = -1;
  CudaDriver::Context context_ PENSTOCK_GUARDED_BY(mu_) = nullptr;  // Retained; null before Open().
};

}  // namespace penstock

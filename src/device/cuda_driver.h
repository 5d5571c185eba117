#pragma once

#include <arrow/result.h>

#include <cstddef>
#include <memory>

namespace penstock {

/// What is needed of NVIDIA's driver, found when the program runs: nothing of CUDA is there when it is built. The
/// declarations are its own, of functions whose binary interface is stable.
///
/// Ownership: by shared_ptr. The driver's library is never unloaded: it has threads and handlers of its own.
/// Threads:   any.
class CudaDriver {
 public:
  using Result = int;
  using Device = int;
  using Context = void*;

  static constexpr Result kSuccess = 0;

  /// \return UnknownError that says what to do where there is no driver, or no device.
  static arrow::Result<std::shared_ptr<const CudaDriver>> Load();

  int num_devices() const { return num_devices_; }
  /// UnknownError with the driver's own words where `result` is one.
  arrow::Status Check(Result result, const char* doing) const;

  Result (*Init)(unsigned flags) = nullptr;
  Result (*DeviceGetCount)(int* count) = nullptr;
  Result (*DeviceGet)(Device* device, int ordinal) = nullptr;
  Result (*PrimaryCtxRetain)(Context* context, Device device) = nullptr;
  Result (*PrimaryCtxRelease)(Device device) = nullptr;
  Result (*PrimaryCtxGetState)(Device device, unsigned* flags, int* is_active) = nullptr;
  Result (*CtxGetCurrent)(Context* context) = nullptr;
  Result (*CtxGetDevice)(Device* device) = nullptr;
  Result (*CtxPushCurrent)(Context context) = nullptr;
  Result (*CtxPopCurrent)(Context* context) = nullptr;
  Result (*CtxSynchronize)() = nullptr;
  Result (*MemHostRegister)(void* data, size_t bytes, unsigned flags) = nullptr;
  Result (*MemHostUnregister)(void* data) = nullptr;
  Result (*GetErrorName)(Result result, const char** name) = nullptr;
  Result (*GetErrorString)(Result result, const char** text) = nullptr;
  Result (*ThreadExchangeStreamCaptureMode)(int* mode) = nullptr;  // Null where the driver is older than CUDA 10.1.

 private:
  CudaDriver() = default;
  arrow::Status FindFunctions(void* library);

  int num_devices_ = 0;
};

}  // namespace penstock

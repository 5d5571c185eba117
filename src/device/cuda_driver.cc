#include "device/cuda_driver.h"

#include <arrow/status.h>
#include <dlfcn.h>

namespace penstock {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";
constexpr const char* kRemedy = "install NVIDIA's driver, run where there is a GPU, or leave pin_memory out";

template <typename Function>
bool Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

}  // namespace

arrow::Status CudaDriver::FindFunctions(void* library) {
  const char* missing = nullptr;
  const auto find = [&](const char* name, auto* function) {
    if (!Find(library, name, function)) missing = name;
  };
  find("cuInit", &Init);
  find("cuDeviceGetCount", &DeviceGetCount);
  find("cuDeviceGet", &DeviceGet);
  find("cuDevicePrimaryCtxRetain", &PrimaryCtxRetain);
  find("cuDevicePrimaryCtxRelease_v2", &PrimaryCtxRelease);
  find("cuDevicePrimaryCtxGetState", &PrimaryCtxGetState);
  find("cuCtxGetCurrent", &CtxGetCurrent);
  find("cuCtxGetDevice", &CtxGetDevice);
  find("cuCtxPushCurrent_v2", &CtxPushCurrent);
  find("cuCtxPopCurrent_v2", &CtxPopCurrent);
  find("cuCtxSynchronize", &CtxSynchronize);
  find("cuMemHostRegister_v2", &MemHostRegister);
  find("cuMemHostUnregister", &MemHostUnregister);
  find("cuGetErrorName", &GetErrorName);
  find("cuGetErrorString", &GetErrorString);
  if (missing == nullptr) {
    Find(library, "cuThreadExchangeStreamCaptureMode", &ThreadExchangeStreamCaptureMode);
    return arrow::Status::OK();
  }
  return arrow::Status::UnknownError("NVIDIA's driver (", kLibrary, ") has no ", missing,
                                     ": it is older than CUDA 11; ", kRemedy);
}

arrow::Result<std::shared_ptr<const CudaDriver>> CudaDriver::Load() {
  void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return arrow::Status::UnknownError("pages are locked by NVIDIA's driver, and there is none (", dlerror(),
                                       "): ", kRemedy);
  }
  std::shared_ptr<CudaDriver> driver(new CudaDriver);
  ARROW_RETURN_NOT_OK(driver->FindFunctions(library));
  CudaDriver::Result result = driver->Init(0);
  if (result == kSuccess) result = driver->DeviceGetCount(&driver->num_devices_);
  const arrow::Status status = driver->Check(result, "looking for GPUs");
  if (!status.ok()) return status.WithMessage(status.message(), "; ", kRemedy);
  if (driver->num_devices_ == 0) {
    return arrow::Status::UnknownError("NVIDIA's driver finds no GPU (is CUDA_VISIBLE_DEVICES empty?): ", kRemedy);
  }
  return driver;
}

arrow::Status CudaDriver::Check(Result result, const char* doing) const {
  if (result == kSuccess) return arrow::Status::OK();
  const char* name = nullptr;
  const char* text = nullptr;
  GetErrorName(result, &name);
  GetErrorString(result, &text);
  return arrow::Status::UnknownError("NVIDIA's driver, ", doing, ": ", text == nullptr ? "unknown error" : text, " (",
                                     name == nullptr ? "" : name, name == nullptr ? "" : ", ", "code ", result, ")");
}

}  // namespace penstock

#include "device/cuda_page_locker.h"

#include <arrow/status.h>

#include <utility>

namespace penstock {
namespace {

constexpr unsigned kPortable = 1;       // CU_MEMHOSTREGISTER_PORTABLE
constexpr int kRelaxedCaptureMode = 2;  // CU_STREAM_CAPTURE_MODE_RELAXED

}  // namespace

/// Makes a context the calling thread's current one, until this dies. Meanwhile the thread may do what would break a
/// CUDA graph that another is capturing: it has no part in that.
class CudaPageLocker::Current {
 public:
  Current(const CudaDriver& driver, CudaDriver::Context context)
      : driver_(driver), is_pushed_(driver.CtxPushCurrent(context) == CudaDriver::kSuccess) {
    if (driver_.ThreadExchangeStreamCaptureMode != nullptr) driver_.ThreadExchangeStreamCaptureMode(&capture_mode_);
  }
  ~Current() {
    if (driver_.ThreadExchangeStreamCaptureMode != nullptr) driver_.ThreadExchangeStreamCaptureMode(&capture_mode_);
    CudaDriver::Context ignored = nullptr;
    if (is_pushed_) driver_.CtxPopCurrent(&ignored);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const CudaDriver& driver_;
  const bool is_pushed_;
  int capture_mode_ = kRelaxedCaptureMode;  // Exchanged with the thread's own, and back.
};

arrow::Result<std::shared_ptr<CudaPageLocker>> CudaPageLocker::Make(int device) {
  ARROW_ASSIGN_OR_RAISE(auto driver, CudaDriver::Load());
  if (device >= driver->num_devices()) {
    return arrow::Status::UnknownError("pages are to be locked for GPU ", device, ", but there are only ",
                                       driver->num_devices());
  }
  return std::shared_ptr<CudaPageLocker>(new CudaPageLocker(std::move(driver), device));
}

CudaPageLocker::CudaPageLocker(std::shared_ptr<const CudaDriver> driver, int device)
    : driver_(std::move(driver)), wanted_device_(device) {}

CudaPageLocker::~CudaPageLocker() {
  if (context_ != nullptr) driver_->PrimaryCtxRelease(device_);
}

// A context on a device that nobody uses would be memory taken there for nothing, by each process of a node.
CudaDriver::Device CudaPageLocker::ChooseDevice() const {
  CudaDriver::Device device = 0;
  if (wanted_device_ >= 0) {
    driver_->DeviceGet(&device, wanted_device_);
    return device;
  }
  CudaDriver::Context current = nullptr;
  if (driver_->CtxGetCurrent(&current) == CudaDriver::kSuccess && current != nullptr &&
      driver_->CtxGetDevice(&device) == CudaDriver::kSuccess) {
    return device;
  }
  for (int i = 0; i < driver_->num_devices(); ++i) {
    unsigned flags = 0;
    int is_active = 0;
    if (driver_->DeviceGet(&device, i) == CudaDriver::kSuccess &&
        driver_->PrimaryCtxGetState(device, &flags, &is_active) == CudaDriver::kSuccess && is_active != 0) {
      return device;
    }
  }
  driver_->DeviceGet(&device, 0);
  return device;
}

arrow::Status CudaPageLocker::Open() {
  if (context() != nullptr) return arrow::Status::OK();
  const CudaDriver::Device device = ChooseDevice();
  CudaDriver::Context context = nullptr;
  ARROW_RETURN_NOT_OK(driver_->Check(driver_->PrimaryCtxRetain(&context, device), "opening a GPU"));
  {
    MutexLock lock(mu_);
    if (context_ == nullptr) {
      device_ = device;
      context_ = context;
      return arrow::Status::OK();
    }
  }
  driver_->PrimaryCtxRelease(device);  // Another thread was quicker.
  return arrow::Status::OK();
}

CudaDriver::Context CudaPageLocker::context() {
  MutexLock lock(mu_);
  return context_;
}

arrow::Status CudaPageLocker::Lock(uint8_t* data, int64_t bytes) {
  const Current current(*driver_, context());
  return driver_->Check(driver_->MemHostRegister(data, static_cast<size_t>(bytes), kPortable), "locking pages");
}

// What it answers changes nothing: at the end of the process the driver may be gone already, and its locks with it.
void CudaPageLocker::Unlock(uint8_t* data) {
  const Current current(*driver_, context());
  driver_->MemHostUnregister(data);
}

// All that this process uses: pages are locked for each of them. An error of a device is whoever's that uses it next.
void CudaPageLocker::WaitForDevices() {
  for (int i = 0; i < driver_->num_devices(); ++i) {
    CudaDriver::Device device = 0;
    unsigned flags = 0;
    int is_active = 0;
    if (driver_->DeviceGet(&device, i) != CudaDriver::kSuccess) continue;
    if (driver_->PrimaryCtxGetState(device, &flags, &is_active) != CudaDriver::kSuccess || is_active == 0) continue;
    CudaDriver::Context context = nullptr;
    if (driver_->PrimaryCtxRetain(&context, device) != CudaDriver::kSuccess) continue;
    {
      const Current current(*driver_, context);
      driver_->CtxSynchronize();
    }
    driver_->PrimaryCtxRelease(device);
  }
}

}  // namespace penstock

// A stand-in for NVIDIA's driver, for machines without a GPU: the functions that Penstock calls, which write down what
// is asked of them. Built as a library whose soname is libcuda.so.1: once a test has loaded it by its path, the
// loader's own dlopen("libcuda.so.1") finds it.
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

using Result = int;

constexpr Result kSuccess = 0;
constexpr Result kInvalidValue = 1;
constexpr Result kOutOfMemory = 2;
constexpr Result kDeinitialized = 4;
constexpr Result kInvalidContext = 201;
constexpr Result kAlreadyRegistered = 712;
constexpr Result kNotRegistered = 713;
constexpr int kMostDevices = 8;

std::mutex mutex;
std::condition_variable changed;
std::map<uintptr_t, size_t> registered;
int num_devices = 2;
int64_t num_registered = 0;    // How often.
int64_t num_unregistered = 0;  // How often.
int64_t num_wrong = 0;         // Calls that a right program does not make.
int64_t refuse_from = -1;      // Locks refused: from the n-th on.
int64_t num_refused = 0;       // How often.
int64_t num_waits = 0;         // Of cuCtxSynchronize.
bool is_busy = false;          // The devices have work: cuCtxSynchronize waits.
bool is_locking_held = false;  // cuMemHostRegister waits.
bool is_down = false;          // As after the driver's own end.
int retained[kMostDevices] = {};
char contexts[kMostDevices];  // Their addresses are the contexts.

struct PerThread {
  std::vector<void*> stack;  // Of contexts.
  int capture_mode = 0;
  int64_t num_locked = 0;
};

// Not thread_local: LeakSanitizer can crash where it looks at those of a library that was loaded late.
PerThread& Mine() {
  static const pthread_key_t key = [] {
    pthread_key_t made{};
    pthread_key_create(&made, [](void* mine) { delete static_cast<PerThread*>(mine); });
    return made;
  }();
  auto* mine = static_cast<PerThread*>(pthread_getspecific(key));
  if (mine == nullptr) {
    mine = new PerThread;
    pthread_setspecific(key, mine);
  }
  return *mine;
}

int DeviceOf(void* context) { return static_cast<int>(static_cast<char*>(context) - contexts); }

Result Wrong(Result result) {
  ++num_wrong;
  return result;
}

bool IsMapped(uintptr_t address, size_t bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((bytes + page - 1) / page);
  return address % page == 0 && mincore(reinterpret_cast<void*>(address), bytes, pages.data()) == 0;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Result cuInit(unsigned flags) { return flags == 0 ? kSuccess : kInvalidValue; }

EXPORT Result cuDeviceGetCount(int* count) {
  const std::lock_guard lock(mutex);
  *count = num_devices;
  return kSuccess;
}

EXPORT Result cuDeviceGet(int* device, int ordinal) {
  const std::lock_guard lock(mutex);
  if (ordinal < 0 || ordinal >= num_devices) return Wrong(101);
  *device = ordinal;
  return kSuccess;
}

EXPORT Result cuDevicePrimaryCtxRetain(void** context, int device) {
  const std::lock_guard lock(mutex);
  ++retained[device];
  *context = contexts + device;
  return kSuccess;
}

EXPORT Result cuDevicePrimaryCtxRelease_v2(int device) {
  const std::lock_guard lock(mutex);
  if (is_down) return kDeinitialized;
  if (retained[device] == 0) return Wrong(kInvalidContext);
  --retained[device];
  return kSuccess;
}

EXPORT Result cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* is_active) {
  const std::lock_guard lock(mutex);
  *flags = 0;
  *is_active = retained[device] > 0 ? 1 : 0;
  return kSuccess;
}

EXPORT Result cuCtxGetCurrent(void** context) {
  *context = Mine().stack.empty() ? nullptr : Mine().stack.back();
  return kSuccess;
}

EXPORT Result cuCtxGetDevice(int* device) {
  if (Mine().stack.empty()) return kInvalidContext;
  *device = DeviceOf(Mine().stack.back());
  return kSuccess;
}

EXPORT Result cuCtxPushCurrent_v2(void* context) {
  const std::lock_guard lock(mutex);
  if (is_down) return kDeinitialized;
  if (context == nullptr || retained[DeviceOf(context)] == 0) return Wrong(kInvalidContext);
  Mine().stack.push_back(context);
  return kSuccess;
}

EXPORT Result cuCtxPopCurrent_v2(void** context) {
  const std::lock_guard lock(mutex);
  if (Mine().stack.empty()) return Wrong(kInvalidContext);
  *context = Mine().stack.back();
  Mine().stack.pop_back();
  return kSuccess;
}

EXPORT Result cuCtxSynchronize() {
  std::unique_lock lock(mutex);
  if (Mine().stack.empty()) return Wrong(kInvalidContext);
  ++num_waits;
  changed.notify_all();
  changed.wait(lock, [] { return !is_busy; });
  return kSuccess;
}

EXPORT Result cuMemHostRegister_v2(void* data, size_t bytes, unsigned flags) {
  std::unique_lock lock(mutex);
  changed.wait(lock, [] { return !is_locking_held; });
  const auto address = reinterpret_cast<uintptr_t>(data);
  // In a context, for all devices, and in the mode in which it breaks no graph that another thread captures.
  if (Mine().stack.empty() || flags != 1 || Mine().capture_mode != 2 || !IsMapped(address, bytes))
    return Wrong(kInvalidValue);
  const auto next = registered.lower_bound(address);
  if (next != registered.end() && next->first < address + bytes) return Wrong(kAlreadyRegistered);
  if (next != registered.begin() && std::prev(next)->first + std::prev(next)->second > address) {
    return Wrong(kAlreadyRegistered);
  }
  if (refuse_from >= 0 && num_registered >= refuse_from) {
    ++num_refused;
    changed.notify_all();
    return kOutOfMemory;
  }
  ++num_registered;
  registered[address] = bytes;
  ++Mine().num_locked;
  return kSuccess;
}

EXPORT Result cuMemHostUnregister(void* data) {
  const std::lock_guard lock(mutex);
  if (is_down) return kDeinitialized;
  const auto found = registered.find(reinterpret_cast<uintptr_t>(data));
  if (Mine().stack.empty() || found == registered.end()) return Wrong(kNotRegistered);
  if (!IsMapped(found->first, found->second)) ++num_wrong;
  ++num_unregistered;
  registered.erase(found);
  return kSuccess;
}

EXPORT Result cuGetErrorName(Result result, const char** name) {
  *name = result == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
  return kSuccess;
}

EXPORT Result cuGetErrorString(Result result, const char** text) {
  *text = result == kOutOfMemory ? "out of memory" : "unknown error";
  return kSuccess;
}

EXPORT Result cuThreadExchangeStreamCaptureMode(int* mode) {
  std::swap(*mode, Mine().capture_mode);
  return kSuccess;
}

// --- For the tests ---

/// Sets "num_devices", "refuse_from", "is_busy", "is_locking_held", "is_down".
EXPORT void fake_cuda_set(const char* name, int64_t value) {
  const std::lock_guard lock(mutex);
  const std::string what(name);
  if (what == "num_devices") num_devices = static_cast<int>(value);
  if (what == "refuse_from") refuse_from = value;
  if (what == "is_busy") is_busy = value != 0;
  if (what == "is_locking_held") is_locking_held = value != 0;
  if (what == "is_down") {
    is_down = value != 0;
    registered.clear();
    for (int& count : retained) count = 0;
  }
  changed.notify_all();
}

/// "locked_now", "locked_bytes", "locks", "unlocks", "refusals", "waits", "locks_here" (by the calling thread),
/// "retained" (contexts); and "wrong": calls that a right program does not make, ranges among them that are locked and
/// not mapped.
EXPORT int64_t fake_cuda_get(const char* name) {
  const std::lock_guard lock(mutex);
  const std::string what(name);
  if (what == "locked_now") return static_cast<int64_t>(registered.size());
  if (what == "locks") return num_registered;
  if (what == "unlocks") return num_unregistered;
  if (what == "refusals") return num_refused;
  if (what == "waits") return num_waits;
  if (what == "locks_here") return Mine().num_locked;
  int64_t sum = 0;
  if (what == "locked_bytes") {
    for (const auto& [address, bytes] : registered) sum += static_cast<int64_t>(bytes);
  } else if (what == "retained") {
    for (int i = 0; i < kMostDevices; ++i) sum += retained[i];
  } else if (what == "retained_1") {
    sum = retained[1];
  } else if (what == "wrong") {
    sum = num_wrong;
    for (const auto& [address, bytes] : registered) sum += IsMapped(address, bytes) ? 0 : 1;
  }
  return sum;
}

/// Whether `address` lies in a range that is locked.
EXPORT int fake_cuda_is_locked(uintptr_t address) {
  const std::lock_guard lock(mutex);
  const auto next = registered.upper_bound(address);
  if (next == registered.begin()) return 0;
  const auto found = std::prev(next);
  return address < found->first + found->second ? 1 : 0;
}

/// As after a start of the process, but for what is locked.
EXPORT void fake_cuda_reset() {
  const std::lock_guard lock(mutex);
  num_devices = 2;
  num_registered = static_cast<int64_t>(registered.size());
  num_unregistered = num_wrong = num_waits = num_refused = 0;
  refuse_from = -1;
  is_busy = is_locking_held = is_down = false;
  Mine().num_locked = 0;
}

/// Makes device `device` the calling thread's current one, as torch.cuda.set_device() does.
EXPORT void fake_cuda_use(int device) {
  const std::lock_guard lock(mutex);
  ++retained[device];
  Mine().stack.push_back(contexts + device);
}

/// Undoes fake_cuda_use().
EXPORT void fake_cuda_leave(int device) {
  const std::lock_guard lock(mutex);
  --retained[device];
  Mine().stack.pop_back();
}

/// Returns when cuCtxSynchronize has been called `count` times.
EXPORT void fake_cuda_await_waits(int64_t count) {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return num_waits >= count; });
}

/// Returns when a lock has been refused; after a long time in any case.
EXPORT void fake_cuda_await_refusal() {
  std::unique_lock lock(mutex);
  changed.wait_for(lock, std::chrono::seconds(100), [] { return num_refused > 0; });
}

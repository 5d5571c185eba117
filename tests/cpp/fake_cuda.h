#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>

namespace penstock {

/// The stand-in for NVIDIA's driver (tests/device/fake_cuda.cc), as it is when the process starts. From here on the
/// library finds it.
class FakeCuda {
 public:
  FakeCuda() : library_(dlopen(PENSTOCK_FAKE_CUDA, RTLD_NOW | RTLD_LOCAL)) {
    EXPECT_NE(library_, nullptr) << dlerror();
    Find<void()>("fake_cuda_reset")();
  }

  void Set(const char* name, int64_t value) const { Find<void(const char*, int64_t)>("fake_cuda_set")(name, value); }
  int64_t Get(const char* name) const { return Find<int64_t(const char*)>("fake_cuda_get")(name); }
  bool IsLocked(const void* address) const {
    return Find<int(uintptr_t)>("fake_cuda_is_locked")(reinterpret_cast<uintptr_t>(address)) != 0;
  }
  void AwaitWaits(int64_t count) const { Find<void(int64_t)>("fake_cuda_await_waits")(count); }
  void AwaitRefusal() const { Find<void()>("fake_cuda_await_refusal")(); }
  void Use(int device) const { Find<void(int)>("fake_cuda_use")(device); }
  void Leave(int device) const { Find<void(int)>("fake_cuda_leave")(device); }

  /// Everything that was locked is unlocked, once and while it was mapped, and no context is kept.
  void ExpectAllIsGivenBack() const {
    EXPECT_EQ(Get("locked_now"), 0);
    EXPECT_EQ(Get("unlocks"), Get("locks"));
    EXPECT_EQ(Get("wrong"), 0);
    EXPECT_EQ(Get("retained"), 0);
  }

 private:
  template <typename Function>
  Function* Find(const char* name) const {
    auto* function = reinterpret_cast<Function*>(dlsym(library_, name));
    EXPECT_NE(function, nullptr) << name;
    return function;
  }

  void* const library_;
};

}  // namespace penstock

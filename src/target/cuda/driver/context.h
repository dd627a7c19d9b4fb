#pragma once
// The primary context of one device: every call of the driver that needs it goes through here, where its result is looked at.
#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "target/cuda/driver/tables/cu.h"
#include "target/device.h"

namespace espalier::target::cuda::driver {

/// Does this error leave a context in which nothing works any more? Source: NVIDIA's CUDA Driver API reference, CUresult ("the process
/// must be terminated and relaunched", "the context cannot be used"), and hardware errors.
bool is_lasting(CuResult error);

class Context {
 public:
  /// Retain the context of device `index`. DeviceError where there is no such device, or it cannot be had.
  Context(const CuApi& cu, int index);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const CuApi& cu() const { return cu_; }
  CuContext handle() const { return context_; }
  CuDevice device() const { return device_; }

  /// Call a function of the driver with this context current on this thread; DeviceError where it fails.
  template <class... P, class... A>
  void call(const char* name, CuResult (*CuApi::*function)(P...), A... arguments) const {
    check(name, answer(name, function, arguments...));
  }
  /// The same, with the result for the caller to look at. DeviceError where the device is lost.
  template <class... P, class... A>
  CuResult answer(const char* name, CuResult (*CuApi::*function)(P...), A... arguments) const {
    enter(name);
    return (cu_.*function)(arguments...);
  }
  /// A call that gives something back and is made whatever happens: the first error. It may say that the device is lost.
  template <class... P, class... A>
  CuResult give_back(const char* name, CuResult (*CuApi::*function)(P...), A... arguments) const noexcept {
    const CuResult current = cu_.CtxSetCurrent(context_);
    note("cuCtxSetCurrent", current);
    const CuResult error = (cu_.*function)(arguments...);
    note(name, error);
    return current != cu_success ? current : error;
  }

  /// Make it current on this thread, for a function `name` that takes the current one. DeviceError where the device is lost.
  void enter(const char* name) const;

  void check(const char* name, CuResult error) const {
    if (error != cu_success) [[unlikely]]
      fail(name, error, "");
  }
  /// DeviceError of the call `name`; `got` says what was asked of it.
  [[noreturn]] void fail(const char* name, CuResult error, const std::string& got) const;
  /// "cuda:0 (NVIDIA H200)".
  const std::string& device_name() const { return device_name_; }
  /// "NVIDIA H200": what equal devices share.
  const std::string& kind() const { return kind_; }

 private:
  void note(const char* name, CuResult error) const noexcept;
  [[noreturn]] void fail_lost(const char* name) const;

  const CuApi& cu_;
  CuDevice device_ = 0;
  CuContext context_ = nullptr;
  std::string device_name_, kind_;
  mutable std::atomic<bool> lost_{false};
  mutable std::mutex loss_;
  mutable std::string reason_;  // of the loss
};

}  // namespace espalier::target::cuda::driver

#pragma once
// The primary context of one device: every call of the driver that needs it goes through here, where its result is looked at. Whatever
// context a thread had before a call is its again after it.
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

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

  /// What enter() changed on this thread.
  struct Entered {
    bool pushed = false;              ///< false: it was current already
    const Context* before = nullptr;  ///< of the scope around
  };
  /// From here on the context is current on this thread, on behalf of the call `name`, and calls and scopes within have nothing to do for
  /// that. DeviceError where the device is lost.
  [[nodiscard]] Entered enter(const char* name) const {
    if (lost_.load(std::memory_order_acquire)) [[unlikely]]
      fail_lost(name);
    CuResult error = cu_success;
    const Entered entered = push(error);
    check("cuCtxPushCurrent", error);
    return entered;
  }
  /// In the reverse order of enter().
  void leave(const Entered& entered) const noexcept {
    if (entered.pushed) pop(entered.before);
  }
  /// enter(), and leave() at its end.
  class Current {
   public:
    Current(const Context& context, const char* name) : context_(context), entered_(context.enter(name)) {}
    /// For what gives something back, whatever happens; `error` of making it current.
    Current(const Context& context, CuResult& error) : context_(context), entered_(context.push(error)) {}
    ~Current() { context_.leave(entered_); }
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    const Context& context_;
    Entered entered_;
  };

  /// Call a function of the driver with this context current on this thread; DeviceError where it fails, or the driver lacks it.
  template <class... P, class... A>
  void call(const char* name, CuResult (*CuApi::*function)(P...), A... arguments) const {
    check(name, answer(name, function, arguments...));
  }
  /// The same, with the result for the caller to look at. DeviceError where the device is lost.
  template <class... P, class... A>
  CuResult answer(const char* name, CuResult (*CuApi::*function)(P...), A... arguments) const {
    if (!(cu_.*function)) [[unlikely]]
      fail_lacking(name);
    const Current now(*this, name);
    return (cu_.*function)(arguments...);
  }
  /// A call that gives something back and is made whatever happens: the first error. It may say that the device is lost.
  template <class... P, class... A>
  CuResult give_back(const char* name, CuResult (*CuApi::*function)(P...), A... arguments) const noexcept {
    CuResult entered = cu_success;
    const Current now(*this, entered);
    const CuResult error = (cu_.*function)(arguments...);
    note(name, error);
    return entered != cu_success ? entered : error;
  }

  void check(const char* name, CuResult error) const {
    if (error != cu_success) [[unlikely]]
      fail(name, error, "");
  }
  /// DeviceError of the call `name`; `got` says what was asked of it.
  [[noreturn]] void fail(const char* name, CuResult error, const std::string& got) const;
  /// The DeviceError of a function that this driver lacks.
  [[noreturn]] void fail_lacking(const char* name) const;
  /// "cuda:0 (NVIDIA H200)".
  const std::string& device_name() const { return device_name_; }
  /// "NVIDIA H200": what equal devices share.
  const std::string& kind() const { return kind_; }

 private:
  Entered push(CuResult& error) const noexcept {
    if (inside_ == this) return {};
    error = cu_.CtxPushCurrent(context_);
    note("cuCtxPushCurrent", error);
    if (error != cu_success) return {};
    return {true, std::exchange(inside_, this)};
  }
  void pop(const Context* before) const noexcept;
  void note(const char* name, CuResult error) const noexcept;
  [[noreturn]] void fail_lost(const char* name) const;
  /// fail() of an error that leaves the device as it is.
  [[noreturn]] void refuse(const char* name, CuResult error, const std::string& got) const;

  static inline constinit thread_local const Context* inside_ = nullptr;  ///< of the innermost scope

  const CuApi& cu_;
  CuDevice device_ = 0;
  CuContext context_ = nullptr;
  std::string device_name_, kind_;
  mutable std::atomic<bool> lost_{false};
  mutable std::mutex loss_;
  mutable std::string reason_;  // of the loss
};

}  // namespace espalier::target::cuda::driver

#pragma once
// What is got from a device and given back with its owner.
#include <utility>

#include "target/device.h"

namespace espalier::run {

/// Something of a device that `release` gives back. The device must live longer.
template <class Handle, void (*release)(target::Device&, Handle)>
class DeviceOwned {
 public:
  DeviceOwned() = default;
  DeviceOwned(target::Device& device, Handle handle) : device_(&device), handle_(handle) {}
  DeviceOwned(DeviceOwned&& o) noexcept : device_(std::exchange(o.device_, nullptr)), handle_(o.handle_) {}
  DeviceOwned& operator=(DeviceOwned&& o) noexcept {
    std::swap(device_, o.device_);
    std::swap(handle_, o.handle_);
    return *this;
  }
  ~DeviceOwned() {
    if (device_) release(*device_, handle_);
  }
  Handle get() const { return handle_; }
  explicit operator bool() const { return device_ != nullptr; }

 private:
  target::Device* device_ = nullptr;
  Handle handle_{};
};

namespace detail {
inline void release_memory(target::Device& d, target::Address a) {
  d.account().remove(a);
  d.release(a);
}
inline void release_pinned(target::Device& d, char* p) { d.release_pinned(p); }
inline void release_stream(target::Device& d, target::Stream s) { d.release(s); }
inline void release_event(target::Device& d, target::Event e) { d.release(e); }
}  // namespace detail

using DeviceMemory = DeviceOwned<target::Address, detail::release_memory>;
using PinnedMemory = DeviceOwned<char*, detail::release_pinned>;
using OwnedStream = DeviceOwned<target::Stream, detail::release_stream>;
using OwnedEvent = DeviceOwned<target::Event, detail::release_event>;

/// UserError where the account says that it is too much; DeviceError where the device does.
inline DeviceMemory device_memory(target::Device& d, int64_t bytes) {
  d.account().check(bytes);
  const target::Address address = d.allocate(bytes);
  d.account().add(address, bytes);
  return {d, address};
}
inline PinnedMemory pinned_memory(target::Device& d, int64_t bytes) {
  return {d, static_cast<char*>(d.allocate_pinned(bytes))};
}
inline OwnedStream owned_stream(target::Device& d) { return {d, d.make_stream()}; }
inline OwnedEvent owned_event(target::Device& d, bool timing = false) { return {d, d.make_event(timing)}; }

}  // namespace espalier::run

#include "tensor/gpu_memory.h"

#include <algorithm>

#include "run/device_program.h"
#include "run/open_device.h"
#include "run/targets.h"

namespace espalier {

namespace {

std::shared_ptr<run::OpenDevice> device_of(const Device& gpu) {
  if (!gpu.is_gpu()) throw UserError({"device " + gpu.name(), "has no memory of its own", "", "a GPU"});
  return run::find_location(gpu.name()).device;
}

std::shared_ptr<run::OpenDevice> device_for(const Device& gpu, int64_t bytes) {
  if (bytes < 0)
    throw UserError(
        {"memory of device " + gpu.name(), "a negative number of bytes", std::to_string(bytes), "0 or more"});
  return device_of(gpu);
}

/// `owned` with the device that it is of.
template <class Owned>
struct Kept {
  Kept(std::shared_ptr<run::OpenDevice> d, Owned o) : device(std::move(d)), owned(std::move(o)) {}
  std::shared_ptr<run::OpenDevice> device;
  Owned owned;
};

}  // namespace

std::shared_ptr<void> gpu_memory(const Device& gpu, int64_t bytes) {
  auto device = device_for(gpu, bytes);
  auto memory = run::device_memory(device->device(), bytes);
  auto kept = std::make_shared<Kept<run::DeviceMemory>>(std::move(device), std::move(memory));
  void* const at = run::as_pointer(kept->owned.get());
  return {std::move(kept), at};
}

std::shared_ptr<void> pinned_memory(const Device& gpu, int64_t bytes) {
  auto device = device_for(gpu, bytes);
  auto memory = run::pinned_memory(device->device(), std::max<int64_t>(bytes, 1));
  auto kept = std::make_shared<Kept<run::PinnedMemory>>(std::move(device), std::move(memory));
  void* const at = kept->owned.get();
  return {std::move(kept), at};
}

struct GpuStream::Impl {
  explicit Impl(std::shared_ptr<run::OpenDevice> d)
      : device(std::move(d)), stream(run::owned_stream(device->device())) {}
  std::shared_ptr<run::OpenDevice> device;
  run::OwnedStream stream;
};

GpuStream::GpuStream(const Device& gpu) : impl_(std::make_unique<Impl>(device_of(gpu))) {}

GpuStream::~GpuStream() {
  if (!impl_) return;
  try {
    wait();
  } catch (const target::DeviceError&) {  // lost: nothing is under way
  }
}
GpuStream::GpuStream(GpuStream&&) noexcept = default;
GpuStream& GpuStream::operator=(GpuStream&& o) noexcept {
  std::swap(impl_, o.impl_);  // whose destructor waits
  return *this;
}

void* GpuStream::handle() const { return impl_->device->device().foreign(impl_->stream.get()); }

void GpuStream::upload(void* to, const void* from, int64_t bytes) {
  impl_->device->device().upload(run::as_address(to), from, bytes, impl_->stream.get());
}

void GpuStream::download(void* to, const void* from, int64_t bytes) {
  impl_->device->device().download(to, run::as_address(from), bytes, impl_->stream.get());
}

void GpuStream::wait() { impl_->device->device().sync(impl_->stream.get()); }

}  // namespace espalier

#include "run/open_device.h"

#include "target/cuda/cuda_target.h"

namespace espalier::run {

OpenDevice::OpenDevice(std::string name, std::shared_ptr<target::Device> device)
    : name_(std::move(name)),
      device_(std::move(device)),
      target_(target::cuda::cuda_target(device_)),
      scratch_(std::make_shared<Scratch>(*device_)),
      stream_(owned_stream(*device_)),
      left_(owned_event(*device_)),
      last_(stream_.get()),
      staging_(*device_, stream_.get()) {}

OpenDevice::Turn::Turn(OpenDevice& open, target::Stream stream) : open_(open), lock_(open.one_) {
  if (stream == open.last_) return;
  if (open.last_ == open.stream_.get()) open.device_->record(open.left_.get(), open.last_);
  open.device_->wait(stream, open.left_.get());
  open.last_ = stream;
}

/// A caller's stream may be gone by the next turn: what it was given is marked now.
OpenDevice::Turn::~Turn() {
  if (open_.last_ == open_.stream_.get()) return;
  try {
    open_.device_->record(open_.left_.get(), open_.last_);
  } catch (const target::DeviceError&) {
    open_.wait_for_last();
  }
}

/// Where its work cannot be marked. A device that is lost says so to the next turn.
void OpenDevice::wait_for_last() {
  try {
    device_->sync(last_);
    last_ = stream_.get();
  } catch (const target::DeviceError&) {
  }
}

void OpenDevice::finish() {
  const Turn now = turn(stream_.get());
  device_->sync(stream_.get());
}

void OpenDevice::upload(target::Address to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  const Turn now = turn(stream_.get());
  staging_.upload(to, from, bytes);
}

void OpenDevice::download(void* to, target::Address from, int64_t bytes) {
  if (bytes == 0) return;
  const Turn now = turn(stream_.get());
  staging_.download(to, from, bytes);
}

}  // namespace espalier::run

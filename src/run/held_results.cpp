#include "run/held_results.h"

namespace espalier::run {

bool Readers::any() const {
  const std::lock_guard lock(one_);
  return count_ > 0;
}

std::vector<OwnedEvent> Readers::take_left() {
  const std::lock_guard lock(one_);
  return std::exchange(left_, {});
}

HeldResults::HeldResults(std::shared_ptr<target::Device> device, std::shared_ptr<const void> memory,
                         std::shared_ptr<Readers> readers, target::Event computed, OwnedStream reader)
    : device_(std::move(device)),
      memory_(std::move(memory)),
      readers_(std::move(readers)),
      reader_(std::move(reader)) {
  if (reader_) {
    left_ = owned_event(*device_);
    device_->wait(reader_.get(), computed);
  } else {
    device_->sync(computed);
  }
  const std::lock_guard lock(readers_->one_);
  ++readers_->count_;
}

/// Where its work cannot be marked. A device that is lost says so to the next run.
void HeldResults::wait_for_reader() const {
  try {
    device_->sync(reader_.get());
  } catch (const target::DeviceError&) {
  }
}

HeldResults::~HeldResults() {
  bool marked = static_cast<bool>(reader_);
  try {
    if (marked) device_->record(left_.get(), reader_.get());
  } catch (const target::DeviceError&) {
    marked = false;
    wait_for_reader();
  }
  const std::lock_guard lock(readers_->one_);
  if (marked) readers_->left_.push_back(std::move(left_));
  --readers_->count_;
}

}  // namespace espalier::run

#include "run/scratch.h"

#include <algorithm>

namespace espalier::run {

int64_t Scratch::growth(int64_t bytes) const {
  const std::lock_guard lock(one_);
  return std::max<int64_t>(bytes - bytes_, 0);
}

void Scratch::shrink(target::Stream stream) {
  const std::lock_guard lock(one_);
  if (bytes_ == 0 || (!wanted_.empty() && *wanted_.rbegin() >= bytes_)) return;
  device_.sync(stream);
  memory_ = {};
  bytes_ = 0;
}

Scratch::Share::Share(std::shared_ptr<Scratch> scratch, int64_t bytes)
    : scratch_(std::move(scratch)), bytes_(bytes) {
  if (bytes_ == 0) return;
  const std::lock_guard lock(scratch_->one_);
  scratch_->wanted_.insert(bytes_);
}

Scratch::Share::~Share() {
  if (bytes_ == 0) return;
  const std::lock_guard lock(scratch_->one_);
  scratch_->wanted_.erase(scratch_->wanted_.find(bytes_));
  if (!scratch_->wanted_.empty()) return;
  scratch_->memory_ = {};
  scratch_->bytes_ = 0;
}

target::Address Scratch::Share::at(target::Stream stream) {
  Scratch& s = *scratch_;
  if (bytes_ == 0) return 0;
  const std::lock_guard lock(s.one_);
  if (s.bytes_ < bytes_) {
    const int64_t wanted = *s.wanted_.rbegin();
    s.device_.sync(stream);
    s.memory_ = {};  // first: there may not be room for both
    s.bytes_ = 0;
    s.memory_ = device_memory(s.device_, wanted);
    s.bytes_ = wanted;
  }
  return s.memory_.get();
}

}  // namespace espalier::run

#include "run/elements.h"

#include <algorithm>

namespace espalier::run {

std::atomic<int64_t> Elements::copies_in_all_ = 0;

Elements::~Elements() { copies_in_all_ -= static_cast<int64_t>(copies_.size()); }

void Elements::check_there() const {
  if (lost_.empty()) return;
  throw UserError({"parameter " + lost_, "is lost: a run on a device failed while it was written", "",
                   "assign to it, or load a checkpoint"});
}

void Elements::fetch() {
  check_there();
  if (host_version_ == newest_) return;
  for (const Copy& c : copies_)
    if (c.version == newest_) c.place->download(host_.write(), c.memory.get(), host_.bytes());
  host_version_ = newest_;
}

const ir::Array& Elements::read() {
  const std::lock_guard lock(one_);
  fetch();
  return host_;
}

void* Elements::write() {
  const std::lock_guard lock(one_);
  fetch();
  if (!copies_.empty()) host_version_ = ++newest_;
  return host_.write();
}

void* Elements::replace() {
  const std::lock_guard lock(one_);
  lost_.clear();
  if (!copies_.empty()) host_version_ = ++newest_;
  return host_.write();
}

void Elements::written_on_host() {
  const std::lock_guard lock(one_);
  if (!copies_.empty()) host_version_ = ++newest_;
}

target::Address Elements::on(const std::shared_ptr<OpenDevice>& device) {
  const std::lock_guard lock(one_);
  for (const Copy& c : copies_)
    if (c.place == device) return c.memory.get();
  copies_.push_back({device, device_memory(device->device(), host_.bytes()), 0});
  ++copies_in_all_;
  return copies_.back().memory.get();
}

Elements::Copy& Elements::copy_on(const OpenDevice& device) {
  const auto it = std::ranges::find_if(copies_, [&](const Copy& c) { return c.place.get() == &device; });
  ESPALIER_CHECK(it != copies_.end(), "the device has no copy");
  return *it;
}

void Elements::bring_to(const OpenDevice& device) {
  const std::lock_guard lock(one_);
  Copy& copy = copy_on(device);
  check_there();
  if (copy.version == newest_) return;
  fetch();
  copy.place->upload(copy.memory.get(), host_.data(), host_.bytes());
  copy.version = newest_;
}

void Elements::written_on(const OpenDevice& device) {
  const std::lock_guard lock(one_);
  copy_on(device).version = ++newest_;
}

bool Elements::torn_on(const OpenDevice& device, const std::string& name) {
  const std::lock_guard lock(one_);
  copy_on(device).version = 0;
  const bool elsewhere = host_version_ == newest_ ||
                         std::ranges::any_of(copies_, [&](const Copy& c) { return c.version == newest_; });
  if (!elsewhere) lost_ = name;
  return !elsewhere;
}

int64_t Elements::missing_on(const OpenDevice& device) const {
  const std::lock_guard lock(one_);
  const bool there = std::ranges::any_of(copies_, [&](const Copy& c) { return c.place.get() == &device; });
  return there ? 0 : host_.bytes();
}

}  // namespace espalier::run

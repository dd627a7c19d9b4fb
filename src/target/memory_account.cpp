#include "target/memory_account.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace espalier::target {

MemoryStatistics MemoryAccount::statistics() const {
  const std::lock_guard lock(one_);
  return now_;
}

void MemoryAccount::set_limit(int64_t bytes) {
  const std::lock_guard lock(one_);
  now_.limit = bytes;
}

int64_t MemoryAccount::usable(int64_t free) const {
  const std::lock_guard lock(one_);
  return now_.limit == 0 ? free : std::min(free, std::max<int64_t>(now_.limit - now_.in_use, 0));
}

void MemoryAccount::check(int64_t bytes) const {
  const std::lock_guard lock(one_);
  if (now_.limit == 0 || now_.in_use + bytes <= now_.limit) return;
  throw UserError({"memory of a device", "is limited",
                   bytes_text(bytes) + " asked for, " + bytes_text(now_.in_use) + " in use",
                   "at most " + bytes_text(now_.limit) + " in all"});
}

void MemoryAccount::add(uint64_t address, int64_t bytes) {
  const std::lock_guard lock(one_);
  live_[address] = bytes;
  now_.in_use += bytes;
  now_.most = std::max(now_.most, now_.in_use);
  now_.allocations = static_cast<int64_t>(live_.size());
}

void MemoryAccount::remove(uint64_t address) {
  const std::lock_guard lock(one_);
  const auto it = live_.find(address);
  if (it == live_.end()) return;
  now_.in_use -= it->second;
  live_.erase(it);
  now_.allocations = static_cast<int64_t>(live_.size());
}

}  // namespace espalier::target

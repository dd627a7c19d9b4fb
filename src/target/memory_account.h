#pragma once
// What this process has of a device's memory, and the most that it may have. Safe from any thread.
#include <cstdint>
#include <limits>
#include <mutex>
#include <unordered_map>

namespace espalier::target {

struct MemoryStatistics {
  int64_t in_use = 0, most = 0;  ///< bytes, now and at most so far
  int64_t allocations = 0;       ///< live ones
  int64_t limit = 0;             ///< bytes; 0: none
  /// Bytes beside them that went since the device was opened: to the context, to modules, graphs and libraries, and to other processes.
  int64_t overhead = 0;
};

class MemoryAccount {
 public:
  MemoryStatistics statistics() const;
  /// At most so many bytes from now on; 0: no limit. What is in use stays.
  void set_limit(int64_t bytes);
  /// Of `free` bytes of the device, those that may be used.
  int64_t usable(int64_t free) const;

  /// UserError where so many more would be over the limit, with all figures.
  void check(int64_t bytes) const;
  void add(uint64_t address, int64_t bytes);
  void remove(uint64_t address);

 private:
  mutable std::mutex one_;
  MemoryStatistics now_;
  std::unordered_map<uint64_t, int64_t> live_;
};

}  // namespace espalier::target

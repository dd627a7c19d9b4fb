#pragma once
// Memory of a simulated device, or pinned memory of the host: each allocation between two red zones, and what was given back is remembered,
// so that every address that is used can be explained.
#include <cstdint>
#include <deque>
#include <map>
#include <string>

namespace espalier::target::cuda::sim {

class MemoryMap {
 public:
  /// `what`: a word for the memory in what is said of it.
  explicit MemoryMap(std::string what) : what_(std::move(what)) {}
  ~MemoryMap();
  MemoryMap(const MemoryMap&) = delete;
  MemoryMap& operator=(const MemoryMap&) = delete;

  /// At a multiple of 256; full of NaN.
  uint64_t allocate(size_t bytes);
  /// Give back what begins at `address`. What is wrong with it, or "": also a red zone that was written.
  std::string release(uint64_t address);
  /// What is wrong with using these bytes, or "".
  std::string check(uint64_t address, size_t bytes) const;
  /// Whether the zones around the allocation that holds `address` are as they were: what is wrong, or "".
  std::string check_zones(uint64_t address) const;
  /// Does it know the address, alive or given back?
  bool knows(uint64_t address) const { return around(address) != nullptr; }

  size_t live() const { return live_; }
  size_t live_bytes() const { return live_bytes_; }

 private:
  struct Block {
    uint64_t first = 0;  // what was given out
    size_t bytes = 0;
    char* mapped = nullptr;
    size_t mapped_bytes = 0;
    int64_t number = 0;
    bool alive = true;
  };
  const Block* around(uint64_t address) const;
  std::string zones_of(const Block& block) const;
  static void unmap(const Block& block);

  std::string what_;
  std::map<uint64_t, Block> blocks_;  // by where their mapping begins
  std::deque<uint64_t> given_back_;   // the oldest first
  size_t live_ = 0, live_bytes_ = 0, kept_bytes_ = 0;
  int64_t next_ = 0;
};

}  // namespace espalier::target::cuda::sim

#include "target/cuda/sim/memory_map.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <new>

#include "target/cuda/sim/stream_work.h"

namespace espalier::target::cuda::sim {

namespace {

constexpr size_t zone = 256, page = 4096;
constexpr size_t kept_limit = size_t{256} << 20;  // of what was given back
constexpr unsigned char zone_byte = 0xa5, fresh_byte = 0xff;

}  // namespace

MemoryMap::~MemoryMap() {
  for (const auto& [at, block] : blocks_) unmap(block);
}

void MemoryMap::unmap(const Block& block) {
  allow(block.mapped, block.mapped_bytes);
  munmap(block.mapped, block.mapped_bytes);
}

uint64_t MemoryMap::allocate(size_t bytes) {
  Block b;
  b.bytes = bytes;
  b.mapped_bytes = (zone + bytes + zone + page - 1) / page * page;
  void* memory = mmap(nullptr, b.mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  b.mapped = static_cast<char*>(memory);
  b.number = next_++;
  char* first = b.mapped + zone;
  const size_t rest = b.mapped_bytes - zone - bytes;
  set_bytes(b.mapped, zone_byte, zone);
  set_bytes(first, fresh_byte, bytes);
  set_bytes(first + bytes, zone_byte, rest);
  forbid(b.mapped, zone);
  forbid(first + bytes, rest);
  b.first = reinterpret_cast<uint64_t>(first);
  blocks_[reinterpret_cast<uint64_t>(b.mapped)] = b;
  ++live_;
  live_bytes_ += bytes;
  return b.first;
}

std::string MemoryMap::release(uint64_t address) {
  const Block* found = around(address);
  if (!found || found->first != address)
    return fmt::format("0x{:x} is given back and is no allocation's beginning", address);
  if (!found->alive) return fmt::format("{} {} is given back twice", what_, found->number);
  std::string problem = zones_of(*found);
  Block& b = blocks_[reinterpret_cast<uint64_t>(found->mapped)];
  b.alive = false;
  --live_;
  live_bytes_ -= b.bytes;
  forbid(b.mapped, b.mapped_bytes);
  given_back_.push_back(reinterpret_cast<uint64_t>(b.mapped));
  kept_bytes_ += b.mapped_bytes;
  while (kept_bytes_ > kept_limit) {
    const auto oldest = blocks_.find(given_back_.front());
    kept_bytes_ -= oldest->second.mapped_bytes;
    unmap(oldest->second);
    blocks_.erase(oldest);
    given_back_.pop_front();
  }
  return problem;
}

const MemoryMap::Block* MemoryMap::around(uint64_t address) const {
  auto it = blocks_.upper_bound(address);
  if (it == blocks_.begin()) return nullptr;
  --it;
  return address < it->first + it->second.mapped_bytes ? &it->second : nullptr;
}

std::string MemoryMap::check(uint64_t address, size_t bytes) const {
  const Block* b = around(address);
  if (!b) return fmt::format("0x{:x} is no {}", address, what_);
  if (!b->alive) return fmt::format("{} {} is used after it was given back", what_, b->number);
  if (address < b->first || address + bytes > b->first + b->bytes)
    return fmt::format("{} bytes at {} of {} {}, which has {}", bytes,
                       static_cast<int64_t>(address - b->first), what_, b->number, b->bytes);
  return "";
}

std::string MemoryMap::check_zones(uint64_t address) const {
  const Block* b = around(address);
  return b && b->alive ? zones_of(*b) : "";
}

std::string MemoryMap::zones_of([[maybe_unused]] const Block& block) const {
#if !defined(__SANITIZE_ADDRESS__)  // which stops at the very access
  const auto* first = reinterpret_cast<const char*>(block.first);
  if (!all_bytes(block.mapped, zone_byte, zone))
    return fmt::format("{} {} of {} bytes was written before its beginning", what_, block.number,
                       block.bytes);
  if (!all_bytes(first + block.bytes, zone_byte, block.mapped_bytes - zone - block.bytes))
    return fmt::format("{} {} of {} bytes was written past its end", what_, block.number, block.bytes);
#endif
  return "";
}

}  // namespace espalier::target::cuda::sim

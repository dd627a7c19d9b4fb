#include "run/memory.h"

#include <sys/mman.h>

#include <new>

namespace espalier::run {

namespace {
constexpr int64_t huge_page = 2 << 20;
}

// Pages of the system are zero and aligned; an arena of some megabytes walks fewer page tables on huge pages.
Memory::Memory(int64_t bytes) : bytes_(bytes) {
  if (bytes_ == 0) return;
  void* at = ::mmap(nullptr, static_cast<size_t>(bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                    -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  if (bytes_ >= 2 * huge_page) ::madvise(at, static_cast<size_t>(bytes_), MADV_HUGEPAGE);
  data_ = static_cast<char*>(at);
}

Memory::~Memory() {
  if (data_) ::munmap(data_, static_cast<size_t>(bytes_));
}

}  // namespace espalier::run

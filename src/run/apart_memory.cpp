#include "run/apart_memory.h"

#include <algorithm>

#include "base/error.h"

namespace espalier::run {

target::Address ApartMemory::place(int64_t bytes, int64_t need) {
  constexpr int64_t given = 256;  // that allocations begin at multiples of
  ESPALIER_CHECK(need > 0 && given % need == 0, "an alignment that no allocation has");
  const auto odd = [&] {
    return 2 * static_cast<int64_t>(draw_() % static_cast<uint64_t>(given / 2 / need)) + 1;
  };
  const int64_t from = draws_ && need < given ? need * odd() : 0, all = from + std::max<int64_t>(bytes, 1);
  memory_.push_back(device_memory(*device_, all));
  bytes_ += all;
  return memory_.back().get() + static_cast<target::Address>(from);
}

}  // namespace espalier::run

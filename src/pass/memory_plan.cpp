#include "pass/memory_plan.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <string>

#include "base/error.h"

namespace espalier::pass {

namespace {

/// Comparisons of buffers that all orders may spend, together.
constexpr int64_t work_limit = 40'000'000;

int64_t largest(std::span<const Lifetime> buffers) {
  std::map<int, int64_t> change;
  for (const Lifetime& b : buffers) {
    change[b.first] += b.bytes;
    change[b.last + 1] -= b.bytes;
  }
  int64_t live = 0, most = 0;
  for (const auto& [_, by] : change) most = std::max(most, live += by);
  return most;
}

/// Buffers as they count in the plan: whole, with what lies behind them; where none are shared, nobody else's at any time.
std::vector<Lifetime> padded(std::span<const Lifetime> all, const ArenaOptions& o) {
  std::vector<Lifetime> out;
  for (const Lifetime& b : all) {
    ESPALIER_CHECK(b.first <= b.last && b.bytes >= 0, "a lifetime ends before it begins");
    const int64_t least = o.apart ? 1 : 0;  // an empty one has a place of its own, too
    out.push_back({round_up(std::max(b.bytes + o.red_zone, least), o.alignment), b.first, b.last});
    if (!o.shares()) out.back().first = 0, out.back().last = std::numeric_limits<int>::max() - 1;
  }
  return out;
}

class Planner {
 public:
  Planner(std::span<const Lifetime> all, const ArenaOptions& options) : buffers_(padded(all, options)) {}

  MemoryPlan plan() {
    const int64_t bound = largest(buffers_);
    best_.offsets.assign(buffers_.size(), 0);
    best_.largest_live_bytes = bound;
    best_.bytes = -1;
    for (const auto& order : {by_size(), by_area(), by_start(), by_pressure()}) {
      attempt(order);
      if (best_.bytes == bound) return best_;
    }
    improve(bound);
    return best_;
  }

 private:
  using Order = std::vector<int>;
  /// How high an order stacked its buffers, and which of them ended there.
  struct Height {
    int64_t bytes = 0;
    int highest = -1;
  };
  const Lifetime& buffer(int b) const { return buffers_[static_cast<size_t>(b)]; }

  /// All buffers, the largest `key` first, then the earliest.
  template <class Key>
  Order sorted(Key key) const {
    Order order;
    for (size_t i = 0; i < buffers_.size(); ++i)
      if (buffers_[i].bytes > 0) order.push_back(static_cast<int>(i));
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return key(buffer(a)) > key(buffer(b)); });
    return order;
  }
  Order by_size() const {
    return sorted([](const Lifetime& b) { return std::pair(b.bytes, b.last - b.first); });
  }
  Order by_area() const {
    return sorted([](const Lifetime& b) { return static_cast<double>(b.bytes) * (b.last - b.first + 1); });
  }
  Order by_start() const {
    return sorted([](const Lifetime& b) { return std::pair(-b.first, b.bytes); });
  }
  /// The buffers of the fullest step first, then those of the next.
  Order by_pressure() const {
    std::map<int, int64_t> change;
    for (const Lifetime& b : buffers_) {
      change[b.first] += b.bytes;
      change[b.last + 1] -= b.bytes;
    }
    std::vector<std::pair<int64_t, int>> steps;
    int64_t live = 0;
    for (const auto& [step, by] : change) steps.emplace_back(-(live += by), step);
    std::sort(steps.begin(), steps.end());
    const Order sizes = by_size();
    std::vector<char> taken(buffers_.size());
    Order order;
    for (const auto& [_, step] : steps) {
      if (order.size() == sizes.size()) break;
      for (const int b : sizes)
        if (!taken[static_cast<size_t>(b)] && buffer(b).first <= step && step <= buffer(b).last) {
          taken[static_cast<size_t>(b)] = 1;
          order.push_back(b);
        }
    }
    return order;
  }

  /// Place the buffers in `order`, each in the tightest gap that holds it, and keep the plan if it is the smallest.
  Height attempt(const Order& order) {
    struct Placed {
      int64_t from, to;
      int first, last;
    };
    std::vector<Placed> placed;  // rising by `from`
    std::vector<int64_t> offsets(buffers_.size(), 0);
    Height height;
    for (const int b : order) {
      const Lifetime& me = buffer(b);
      int64_t end = 0, at = -1, tightest = 0;
      for (const Placed& p : placed) {
        if (p.last < me.first || me.last < p.first) continue;
        const int64_t gap = p.from - end;
        if (gap >= me.bytes && (at < 0 || gap < tightest)) {
          at = end;
          tightest = gap;
        }
        end = std::max(end, p.to);
      }
      work_ += static_cast<int64_t>(placed.size()) + 1;
      if (at < 0) at = end;
      offsets[static_cast<size_t>(b)] = at;
      const auto where = std::upper_bound(placed.begin(), placed.end(), at,
                                          [](int64_t x, const Placed& p) { return x < p.from; });
      placed.insert(where, {at, at + me.bytes, me.first, me.last});
      if (at + me.bytes > height.bytes) height = {at + me.bytes, b};
    }
    if (best_.bytes < 0 || height.bytes < best_.bytes) {
      best_.bytes = height.bytes;
      best_.offsets = std::move(offsets);
    }
    return height;
  }

  /// Bring what sticks out forward in its order, to random places (a fixed sequence), and keep what is no worse.
  void improve(int64_t bound) {
    uint64_t random = 0x9e3779b97f4a7c15ull;
    const auto draw = [&](size_t n) {
      random ^= random << 13;
      random ^= random >> 7;
      random ^= random << 17;
      return static_cast<size_t>(random % n);
    };
    std::vector<Order> orders{by_size(), by_pressure(), by_area()};
    std::vector<Height> heights;
    for (const Order& order : orders) heights.push_back(attempt(order));
    for (int round = 0; round < 1000 && work_ < work_limit && best_.bytes > bound + bound / 200; ++round) {
      const size_t turn = static_cast<size_t>(round) % orders.size();
      Order order = orders[turn];
      const auto at = std::find(order.begin(), order.end(), heights[turn].highest);
      const size_t front = draw(1 + static_cast<size_t>(at - order.begin()));
      std::rotate(order.begin() + static_cast<std::ptrdiff_t>(front), at, at + 1);
      if (round % 4 == 3) std::swap(order[draw(order.size())], order[draw(order.size())]);
      const Height height = attempt(order);
      if (height.bytes > heights[turn].bytes) continue;
      orders[turn] = std::move(order);
      heights[turn] = height;
    }
  }

  std::vector<Lifetime> buffers_;
  MemoryPlan best_;
  int64_t work_ = 0;
};

}  // namespace

int64_t largest_live_set(std::span<const Lifetime> buffers, const ArenaOptions& options) {
  return largest(padded(buffers, options));
}

MemoryPlan plan_memory(std::span<const Lifetime> buffers, const ArenaOptions& options) {
  return Planner(buffers, options).plan();
}

void verify(const MemoryPlan& plan, std::span<const Lifetime> buffers, const ArenaOptions& options) {
  ESPALIER_CHECK(plan.offsets.size() == buffers.size(), "the memory plan has another number of buffers");
  const auto name = [&](size_t i) {
    return "buffer " + std::to_string(i) + " (" + std::to_string(buffers[i].bytes) + " bytes at " +
           std::to_string(plan.offsets[i]) + ", steps " + std::to_string(buffers[i].first) + " to " +
           std::to_string(buffers[i].last) + ")";
  };
  std::vector<size_t> by_offset(buffers.size());
  std::iota(by_offset.begin(), by_offset.end(), 0);
  std::sort(by_offset.begin(), by_offset.end(),
            [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; });
  for (size_t i = 0; i < by_offset.size(); ++i) {
    const size_t a = by_offset[i];
    const int64_t end = plan.offsets[a] + buffers[a].bytes + options.red_zone;
    ESPALIER_CHECK(plan.offsets[a] >= 0 && plan.offsets[a] % options.alignment == 0,
                   name(a) + " is not aligned");
    ESPALIER_CHECK(end <= plan.bytes,
                   name(a) + " ends outside the arena of " + std::to_string(plan.bytes) + " bytes");
    for (size_t k = i + 1; k < by_offset.size() && plan.offsets[by_offset[k]] < end; ++k) {
      const size_t b = by_offset[k];
      ESPALIER_CHECK(options.shares() && (buffers[a].last < buffers[b].first ||
                                          buffers[b].last < buffers[a].first || buffers[b].bytes == 0),
                     name(a) + " overlaps " + name(b));
    }
  }
}

}  // namespace espalier::pass

#include "target/cpu/emit/schedule.h"

#include <algorithm>
#include <cmath>

#include "kernel/nest_transform.h"

namespace espalier::target::cpu {

using kernel::Affine;
using kernel::Instr;
using kernel::LoopNest;
using kernel::points;
using kernel::Stage;

namespace {

constexpr int64_t max_chunks = 256, min_parallel_units = 64;
constexpr double chunk_ns = 4000;

/// Cost of one instruction on one vector, in units of a cheap one.
double weight(const Instr& in) {
  using enum ir::ScalarCode;
  if (in.kind == Instr::Kind::constant || in.kind == Instr::Kind::reduced) return 0;
  if (in.kind != Instr::Kind::scalar) return 1;
  switch (in.code) {
    case exp:
    case expm1:
    case tanh:
    case log: return 14;
    case erf:
    case log1p: return 25;
    case sin:
    case cos: return 40;
    case pow: return 120;
    case tan:
    case atan:
    case rem:
    case atan2: return 400;
    case div:
    case sqrt:
    case rsqrt: return 6;
    default: return 1;
  }
}

double divide_up(double n, double d) { return std::ceil(n / d); }

/// Cost of a stage per point of its loops when `vector` lies across the lanes (-1: scalar), and how many points that leaves.
double stage_cost(const LoopNest& nest, const Stage& stage, int vector, int lanes) {
  double body = 0, accesses = 0;
  const auto access = [&](const Affine& a, bool indirect) {
    const int64_t c = vector < 0 ? 1 : a.coef(vector);
    accesses += c == 1 && !indirect ? 1.0 : c == 0 ? 0.6 : 0.8 * lanes;
  };
  for (const Instr& in : stage.body) {
    body += weight(in);
    if (in.kind == Instr::Kind::load) access(in.address, !in.indirect.empty());
  }
  for (const kernel::Store& st : stage.stores) access(st.address, false);
  body += static_cast<double>(stage.reductions.size());
  double trips = static_cast<double>(points(nest, nest.outer) * points(nest, stage.loops));
  if (vector >= 0) {
    const auto extent = static_cast<double>(nest.extent(vector));
    trips = trips / std::max(1.0, extent) * divide_up(extent, lanes);
  }
  return trips * (body + accesses);
}

/// Extra cost of folding lanes at the end of a stage that is reduced across them.
double fold_cost(const LoopNest& nest, const Stage& stage, int lanes) {
  return static_cast<double>(points(nest, nest.outer)) * static_cast<double>(stage.reductions.size()) *
         std::log2(lanes) * 2.5;
}

/// Put the variable along which a stage's accesses are contiguous last among its loops.
void order_own_loops(const LoopNest& nest, Stage& stage, int lanes) {
  if (stage.loops.size() < 2) return;
  const auto best = std::min_element(stage.loops.rbegin(), stage.loops.rend(), [&](int a, int b) {
    return stage_cost(nest, stage, a, lanes) < stage_cost(nest, stage, b, lanes);
  });
  const int v = *best;
  std::erase(stage.loops, v);
  stage.loops.push_back(v);
}

/// Choose the vector: an outer variable for all stages, or each stage's own last loop.
void choose_vector(Schedule& s) {
  LoopNest& nest = s.nest;
  const bool has_loops =
      std::any_of(nest.stages.begin(), nest.stages.end(), [](const Stage& st) { return !st.loops.empty(); });
  double best = 0;
  s.vector_var = -1;
  for (Stage& stage : nest.stages) {
    Stage own = stage;
    order_own_loops(nest, own, s.lanes);
    best += stage_cost(nest, own, own.loops.empty() ? -1 : own.loops.back(), s.lanes) +
            fold_cost(nest, own, s.lanes);
  }
  if (!has_loops) best = 1e300;
  for (size_t i = nest.outer.size(); i-- > 0;) {
    double cost = 0;
    for (const Stage& stage : nest.stages) cost += stage_cost(nest, stage, nest.outer[i], s.lanes);
    if (cost < best) best = cost, s.vector_var = nest.outer[i];
  }
  if (s.vector_var < 0) {
    for (Stage& stage : nest.stages) order_own_loops(nest, stage, s.lanes);
  } else {
    std::erase(nest.outer, s.vector_var);
    nest.outer.push_back(s.vector_var);
  }
  s.cost_ns = best * 0.25;
}

bool reduces(const LoopNest& nest) {
  return std::any_of(nest.stages.begin(), nest.stages.end(),
                     [](const Stage& s) { return !s.reductions.empty(); });
}

/// Loads in stages with loops that do not move with `var`: what a tile along it would share.
int shared_loads(const LoopNest& nest, int var) {
  int n = 0;
  for (const Stage& stage : nest.stages) {
    if (stage.loops.empty()) continue;
    for (const Instr& in : stage.body)
      if (in.kind == Instr::Kind::load && in.address.coef(var) == 0 && !in.address.terms.empty()) ++n;
  }
  return n;
}

int reductions_of(const LoopNest& nest) {
  size_t n = 1;
  for (const Stage& s : nest.stages) n = std::max(n, s.reductions.size());
  return static_cast<int>(n);
}

/// Registers for accumulators are shared between vectors (along the vector) and rows (along another outer variable).
void choose_tile(Schedule& s) {
  LoopNest& nest = s.nest;
  if (!reduces(nest)) return;
  int64_t along = 0;
  if (s.vector_var >= 0) along = nest.extent(s.vector_var);
  else
    for (const Stage& stage : nest.stages)
      if (!stage.loops.empty()) along = std::max(along, nest.extent(stage.loops.back()));
  const int budget = std::max(1, (s.lanes == 16 ? 24 : 12) / reductions_of(nest));
  s.unroll = static_cast<int>(std::clamp<int64_t>((along + s.lanes - 1) / s.lanes, 1, std::min(4, budget)));
  int best = 0;
  for (int v : nest.outer) {
    if (v == s.vector_var || nest.extent(v) < 2) continue;
    if (const int n = shared_loads(nest, v); n > best) best = n, s.tile_var = v;
  }
  if (s.tile_var < 0) return;
  if (s.vector_var < 0) s.unroll = std::min(s.unroll, 2);
  const int64_t extent = nest.extent(s.tile_var), most = std::clamp<int64_t>(budget / s.unroll, 1, 8);
  s.tile = static_cast<int>(std::min(extent, most));
  for (int t = s.tile; t * 2 > s.tile; --t)
    if (extent % t == 0) {
      s.tile = t;
      break;
    }
  if (s.tile == 1) s.tile_var = -1;
}

/// Number the units of work and put them in chunks of about `chunk_ns`.
void choose_chunks(Schedule& s) {
  s.units = 1;
  for (int v : s.nest.outer) {
    if (v == s.vector_var) continue;
    if (s.units < min_parallel_units) s.parallel.push_back(v), s.units *= s.trips(v);
    else s.sequential.push_back(v);
  }
  const double wanted = std::clamp(s.cost_ns / chunk_ns, 1.0, static_cast<double>(max_chunks));
  if (s.vector_var >= 0) {
    const int64_t extent = s.nest.extent(s.vector_var),
                  step = int64_t{s.lanes} * s.unroll * (reduces(s.nest) ? 1 : 16);
    s.vector_block = extent;
    if (static_cast<double>(s.units) < wanted && extent >= 2 * step) {
      const auto parts = static_cast<int64_t>(wanted / static_cast<double>(std::max<int64_t>(1, s.units)));
      const int64_t block = (extent + parts - 1) / std::max<int64_t>(1, parts);
      s.vector_block = std::min(extent, (block + step - 1) / step * step);
    }
    s.units *= s.blocks();
  }
  const auto chunks = std::min(s.units, static_cast<int64_t>(wanted));
  s.units_per_chunk =
      std::max<int64_t>(1, (s.units + std::max<int64_t>(1, chunks) - 1) / std::max<int64_t>(1, chunks));
  s.chunks = (s.units + s.units_per_chunk - 1) / s.units_per_chunk;
}

}  // namespace

int64_t Schedule::trips(int var) const {
  return var == tile_var ? (nest.extent(var) + tile - 1) / tile : nest.extent(var);
}

int64_t Schedule::blocks() const {
  if (vector_var < 0 || vector_block == 0) return 1;
  return (nest.extent(vector_var) + vector_block - 1) / vector_block;
}

Schedule schedule(const LoopNest& nest, int lanes) {
  Schedule s;
  s.shared.assign(nest.buffers.size(), 0);
  for (size_t out = 0; out < nest.buffers.size(); ++out)
    for (size_t in = 0; in < nest.buffers.size(); ++in)
      if (nest.buffers[out].role == kernel::Role::output && nest.buffers[in].role == kernel::Role::input &&
          can_share(nest, static_cast<int>(out), static_cast<int>(in)))
        s.shared[out] = s.shared[in] = 1;
  s.nest = nest;
  s.lanes = lanes;
  kernel::merge_loops(s.nest);
  choose_vector(s);
  choose_tile(s);
  choose_chunks(s);
  return s;
}

}  // namespace espalier::target::cpu

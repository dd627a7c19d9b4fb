#include "target/cuda/map/mapping.h"

#include <algorithm>
#include <cstdlib>

#include "kernel/nest_transform.h"

namespace espalier::target::cuda {

using kernel::Affine;
using kernel::Guard;
using kernel::Indirect;
using kernel::Instr;
using kernel::LoopNest;
using kernel::Role;
using kernel::Stage;

namespace {

constexpr int widest_access = 16;  // bytes

int64_t element_size(const Mapping& m, int buffer) {
  return ir::dtype_size(m.nest.buffers[static_cast<size_t>(buffer)].dtype);
}

/// f(address, indirect, guards, buffer) for every access to memory.
template <class F>
void each_access(const LoopNest& nest, F&& f) {
  for (const Stage& stage : nest.stages) {
    for (const Instr& in : stage.body)
      if (in.kind == Instr::Kind::load)
        f(in.address, std::span<const Indirect>(in.indirect), std::span<const Guard>(in.guards), in.buffer);
    for (const kernel::Store& st : stage.stores)
      f(st.address, std::span<const Indirect>(), std::span<const Guard>(), st.buffer);
  }
}

/// Sectors that neighbouring threads touch, roughly, when `var` moves fastest: a stride costs one each.
double cost_along(const Mapping& m, int var) {
  double cost = 0;
  each_access(m.nest, [&](const Affine& a, auto, auto, int buffer) {
    const int64_t c = std::abs(a.coef(var));
    cost += c == 0 ? 0.1 : std::min<double>(32.0, static_cast<double>(c * element_size(m, buffer))) / 32.0;
  });
  return cost;
}

/// The variable along which accesses are the most contiguous; the innermost of equals.
int fastest_variable(const Mapping& m) {
  int best = -1;
  double best_cost = 0;
  for (size_t i = m.nest.outer.size(); i-- > 0;) {
    const int v = m.nest.outer[i];
    if (m.nest.extent(v) < 2 && best >= 0) continue;
    const double cost = cost_along(m, v);
    if (best < 0 || m.nest.extent(best) < 2 || cost < best_cost * 0.999) best = v, best_cost = cost;
  }
  return best;
}

/// Accesses that move as one with `vector` lanes.
int vector_accesses(const Mapping& m, int vector) {
  int n = 0;
  each_access(m.nest, [&](const Affine& a, std::span<const Indirect> indirect, std::span<const Guard> guards,
                          int buffer) {
    const bool whole = std::all_of(guards.begin(), guards.end(),
                                   [&](const Guard& g) { return is_vector_guard(g, m.vector_var, vector); });
    n += whole && a.coef(m.vector_var) == 1 && is_vector_access(m, a, indirect, buffer, m.vector_var, vector);
  });
  return n;
}

int choose_vector(const Mapping& m) {
  if (m.vector_var < 0) return 1;
  const int64_t extent = m.nest.extent(m.vector_var);
  int64_t widest = 0;
  each_access(m.nest, [&](const Affine& a, auto, auto, int buffer) {
    if (a.coef(m.vector_var) == 1) widest = std::max(widest, element_size(m, buffer));
  });
  if (widest == 0) return 1;
  int best = 1, most = 0;
  for (int v = static_cast<int>(widest_access / widest); v > 1; v /= 2) {
    if (extent % v != 0) continue;
    if (const int n = vector_accesses(m, v); n > most) best = v, most = n;
  }
  return best;
}

/// Do all indices and addresses stay within the limit?
bool needs_wide_index(const Mapping& m, int64_t limit) {
  const auto beyond = [&](int64_t low, int64_t high) { return low < -limit || high > limit; };
  bool wide = beyond(0, kernel::points(m.nest, m.nest.outer));
  for (const kernel::Buffer& b : m.nest.buffers) wide = wide || beyond(0, b.elements);
  for (const int64_t e : m.nest.extents) wide = wide || e > limit;
  const bool empty =
      std::any_of(m.nest.extents.begin(), m.nest.extents.end(), [](int64_t e) { return e == 0; });
  if (empty) return wide;
  kernel::each_affine(m.nest, [&](const Affine& a) {
    const auto [low, high] = kernel::bounds(a, m.nest.extents);
    wide = wide || beyond(low, high);
    for (const Affine::Term& t : a.terms) wide = wide || beyond(t.coef, t.coef * m.nest.extent(t.var));
  });
  for (const Stage& stage : m.nest.stages)
    for (const Instr& in : stage.body)
      for (const Guard& g : in.guards) wide = wide || beyond(g.low, g.high);
  return wide;
}

std::vector<char> shared_buffers(const LoopNest& nest) {
  std::vector<char> shared(nest.buffers.size(), 0);
  for (size_t out = 0; out < nest.buffers.size(); ++out)
    for (size_t in = 0; in < nest.buffers.size(); ++in)
      if (nest.buffers[out].role == Role::output && nest.buffers[in].role == Role::input &&
          kernel::can_share(nest, static_cast<int>(out), static_cast<int>(in)))
        shared[out] = shared[in] = 1;
  return shared;
}

}  // namespace

bool is_vector_guard(const Guard& g, int var, int vector) {
  const int64_t c = g.index.coef(var);
  if (c == 0) return true;
  if (c != 1 || (g.index.offset - g.low) % vector != 0 || (g.index.offset - g.high) % vector != 0)
    return false;
  return std::all_of(g.index.terms.begin(), g.index.terms.end(),
                     [&](const Affine::Term& t) { return t.var == var || t.coef % vector == 0; });
}

bool is_vector_access(const Mapping& m, const Affine& address, std::span<const Indirect> indirect, int buffer,
                      int var, int vector) {
  const auto divides = [&](int64_t n) { return n % vector == 0; };
  if (m.alignment[static_cast<size_t>(buffer)] % (element_size(m, buffer) * vector) != 0) return false;
  return divides(address.offset) &&
         std::all_of(address.terms.begin(), address.terms.end(),
                     [&](const Affine::Term& t) { return t.var == var || divides(t.coef); }) &&
         std::all_of(indirect.begin(), indirect.end(), [&](const Indirect& i) { return divides(i.stride); });
}

Mapping map(const LoopNest& nest, const MapOptions& options) {
  Mapping m;
  m.shared = shared_buffers(nest);
  m.nest = nest;
  kernel::merge_loops(m.nest);
  m.alignment = options.alignment;
  m.alignment.resize(nest.buffers.size(), widest_access);
  m.vector_var = fastest_variable(m);
  m.vector = choose_vector(m);
  for (int v : m.nest.outer)
    if (v != m.vector_var) m.slower.push_back(v);
  m.units = kernel::points(m.nest, m.nest.outer) / m.vector;
  m.wide_index = needs_wide_index(m, options.index_limit);
  return m;
}

}  // namespace espalier::target::cuda

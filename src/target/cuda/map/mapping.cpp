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
constexpr int block_threads = 256;
constexpr int64_t short_fold = 64;         // one thread folds so many elements by itself
constexpr int64_t narrow = 16;             // values of a variable that make no tile
constexpr int64_t tile_bytes = 40 * 1024;  // of all tiles of a block
constexpr int64_t enough_blocks = 512;     // beside each other
constexpr int64_t enough_units = 1 << 16;  // threads that keep a GPU busy
constexpr int64_t points_of_slice = 16;    // of a thread, at least
constexpr int64_t most_slices = 65535;     // rows of blocks of a launch

int64_t element_size(const Mapping& m, int buffer) {
  return ir::dtype_size(m.nest.buffers[static_cast<size_t>(buffer)].dtype);
}

/// f(address, indirect, guards, buffer) for every access of a stage to memory.
template <class F>
void each_access(const Stage& stage, F&& f) {
  for (const Instr& in : stage.body)
    if (in.kind == Instr::Kind::load)
      f(in.address, std::span<const Indirect>(in.indirect), std::span<const Guard>(in.guards), in.buffer);
  for (const kernel::Store& st : stage.stores)
    f(st.address, std::span<const Indirect>(), std::span<const Guard>(), st.buffer);
}

/// Sectors that neighbouring threads touch at a point of a stage, roughly, when `var` moves from one to the next.
double cost_along(const Mapping& m, const Stage& stage, int var) {
  double cost = 0;
  each_access(stage, [&](const Affine& a, auto, auto, int buffer) {
    const int64_t c = std::abs(a.coef(var));
    cost += c == 0 ? 0.1 : std::min<double>(32.0, static_cast<double>(c * element_size(m, buffer))) / 32.0;
  });
  return cost;
}

/// The same for all points of the nest; `own[i]` moves in stage i, or `var` where that is -1.
double cost_of(const Mapping& m, int var, std::span<const int> own) {
  double cost = 0;
  for (size_t i = 0; i < m.nest.stages.size(); ++i) {
    const Stage& stage = m.nest.stages[i];
    const int moves = own.empty() || own[i] < 0 ? var : own[i];
    cost += cost_along(m, stage, moves) * static_cast<double>(kernel::points(m.nest, stage.loops));
  }
  return cost;
}

/// The outer variable along which accesses are the most contiguous; the innermost of equals.
int fastest_variable(const Mapping& m) {
  int best = -1;
  double best_cost = 0;
  for (size_t i = m.nest.outer.size(); i-- > 0;) {
    const int v = m.nest.outer[i];
    if (m.nest.extent(v) < 2 && best >= 0) continue;
    const double cost = cost_of(m, v, {});
    if (best < 0 || m.nest.extent(best) < 2 || cost < best_cost * 0.999) best = v, best_cost = cost;
  }
  return best;
}

/// The loop of a stage along which its accesses are the most contiguous; the innermost of equals, -1 where there is none.
int fastest_loop(const Mapping& m, const Stage& stage) {
  int best = -1;
  for (size_t i = stage.loops.size(); i-- > 0;)
    if (best < 0 || cost_along(m, stage, stage.loops[i]) < cost_along(m, stage, best) * 0.999)
      best = stage.loops[i];
  return best;
}

/// Lanes along `var` with which the accesses of `stages` are the widest, each counted as often as it happens. No more than make 16 bytes of
/// the smallest elements; bytes, which are masks beside others, go along with those.
int choose_lanes(const Mapping& m, std::span<const Stage> stages, int var) {
  if (var < 0) return 1;
  int64_t smallest = 0;
  for (const Stage& stage : stages)
    each_access(stage, [&](const Affine& a, auto, auto, int buffer) {
      const int64_t size = element_size(m, buffer);
      if (a.coef(var) == 1 && (smallest == 0 || (size < smallest ? size > 1 : smallest == 1)))
        smallest = size;
    });
  if (smallest == 0) return 1;
  int best = 1;
  double widest = 0;
  for (int lanes = 1; lanes * smallest <= widest_access; lanes *= 2) {
    if (m.nest.extent(var) % lanes != 0) break;
    double width = 0;
    for (const Stage& stage : stages)
      each_access(stage, [&](const Affine& a, std::span<const Indirect> indirect,
                             std::span<const Guard> guards, int buffer) {
        if (a.coef(var) != 1) return;
        const bool whole = is_vector_access(m, a, indirect, buffer, var, lanes) &&
                           std::all_of(guards.begin(), guards.end(),
                                       [&](const Guard& g) { return is_vector_guard(g, var, lanes); });
        const int64_t size = element_size(m, buffer),
                      moved = whole ? std::min<int64_t>(lanes * size, widest_access) : size;
        width += static_cast<double>(moved * kernel::points(m.nest, stage.loops));
      });
    if (width > widest * 1.01) best = lanes, widest = width;
  }
  return best;
}

/// Threads for a row of `n` vectors: a few for each thread.
int group_for(int64_t n, int64_t rows) {
  if (n <= 16) return 8;
  if (n <= 128 || (n <= 256 && rows >= 1024)) return 32;
  return n <= 1024 ? 128 : n <= 4096 ? 256 : 512;
}

/// A stage without loops that both folds and stores: all threads of a group compute it, one of them stores too early for the others.
bool forbids_groups(const LoopNest& nest) {
  return std::any_of(nest.stages.begin(), nest.stages.end(), [](const Stage& s) {
    return s.loops.empty() && !s.reductions.empty() && !s.stores.empty();
  });
}

/// Put `var` last among the loops.
std::vector<int> with_last(std::vector<int> loops, int var) {
  std::erase(loops, var);
  loops.push_back(var);
  return loops;
}

/// Rows: every stage along its own contiguous loop.
void map_rows(Mapping& m, std::span<const int> own) {
  m.scheme = Scheme::rows;
  m.vector = 1;
  int64_t longest = 1;
  for (size_t i = 0; i < own.size(); ++i) {
    const Stage& stage = m.nest.stages[i];
    StageMap& s = m.stages[i];
    s = {{}, -1, -1, 1};
    if (own[i] < 0) continue;
    s.loops = with_last(stage.loops, own[i]);
    s.split = s.lane_var = own[i];
    s.lanes = choose_lanes(m, std::span(&stage, 1), own[i]);
    longest = std::max(longest, m.nest.extent(own[i]) / s.lanes);
  }
  m.group = group_for(longest, kernel::points(m.nest, m.nest.outer));
  m.side_by_side = m.group > 32 ? 1 : block_threads / m.group;  // one row for each use of shared memory
}

/// Columns: as pointwise, with the longest loop of each stage cut among the rows of a block.
void map_columns(Mapping& m) {
  m.scheme = Scheme::columns;
  m.side_by_side = 32;
  while (m.side_by_side > 8 && m.units < m.side_by_side * enough_blocks) m.side_by_side /= 2;
  m.group = block_threads / m.side_by_side;
  for (size_t i = 0; i < m.stages.size(); ++i) {
    const auto& loops = m.stages[i].loops;
    const auto longest = std::max_element(loops.begin(), loops.end(),
                                          [&](int a, int b) { return m.nest.extent(a) < m.nest.extent(b); });
    if (longest != loops.end()) m.stages[i].split = *longest;
  }
}

/// Blocks that share a unit, where few units have many points to store and little to fold first.
void choose_slices(Mapping& m) {
  int64_t repeated = 0, shared = 0;
  for (const Stage& s : m.nest.stages) {
    if (!s.reductions.empty() && !s.stores.empty()) return;
    (s.reductions.empty() ? shared : repeated) += s.loops.empty() ? 0 : kernel::points(m.nest, s.loops);
  }
  const int64_t blocks = std::max<int64_t>(1, m.units / m.side_by_side), turns = shared / m.group,
                least = std::max<int64_t>(points_of_slice, 4 * repeated / m.group);
  m.slices = std::clamp<int64_t>(std::min(enough_blocks * 2 / blocks, turns / least), 1, most_slices);
  if (m.slices == 1) return;
  for (size_t i = 0; i < m.stages.size(); ++i)
    m.stages[i].sliced = m.stages[i].split >= 0 && m.nest.stages[i].reductions.empty();
}

/// Does `in` move along `load_var`, and along `store_var` in other steps than one element?
bool crosses(const Instr& in, int load_var, int store_var) {
  return in.kind == Instr::Kind::load && in.indirect.empty() && in.address.coef(load_var) == 1 &&
         in.address.coef(store_var) != 0 && in.address.coef(store_var) != 1;
}

/// Values of either variable in a tile: 64, or 32 where there are no more or that takes too much shared memory; 0: none fits.
int tile_edge(const Mapping& m, int load_var, int store_var) {
  int64_t sizes = 0, widest = 1;
  for (const Instr& in : m.nest.stages[0].body) {
    if (!crosses(in, load_var, store_var)) continue;
    const int64_t size = element_size(m, in.buffer);
    sizes += size;
    widest = std::max(widest, size);
  }
  const bool large = std::min(m.nest.extent(load_var), m.nest.extent(store_var)) > 32;
  for (const int edge : {64, 32})
    if ((large || edge == 32) && widest * edge <= 256 && sizes * edge * (edge + 1) <= tile_bytes) return edge;
  return 0;
}

/// A body of points alone whose stores and some of whose loads are contiguous along different variables.
bool map_transpose(Mapping& m) {
  if (m.nest.stages.size() != 1) return false;
  const Stage& stage = m.nest.stages[0];
  if (!stage.loops.empty() || !stage.reductions.empty() || stage.stores.empty()) return false;
  const auto stores_along = [&](int v) {
    return m.nest.extent(v) >= narrow &&
           std::all_of(stage.stores.begin(), stage.stores.end(),
                       [&](const kernel::Store& st) { return st.address.coef(v) == 1; });
  };
  const auto along = std::find_if(m.nest.outer.begin(), m.nest.outer.end(), stores_along);
  if (along == m.nest.outer.end()) return false;
  int64_t most = 0;
  for (const int v : m.nest.outer) {
    if (v == *along || m.nest.extent(v) < narrow) continue;
    const int64_t loads = std::count_if(stage.body.begin(), stage.body.end(),
                                        [&](const Instr& in) { return crosses(in, v, *along); });
    if (loads > most) m.tile.load_var = v, most = loads;
  }
  if (most == 0) return false;
  for (const Instr& in : stage.body) m.tile.crossed.push_back(crosses(in, m.tile.load_var, *along));
  m.tile.edge = tile_edge(m, m.tile.load_var, *along);
  if (m.tile.edge == 0) return false;

  m.scheme = Scheme::transpose;
  m.vector_var = *along;
  m.vector = choose_lanes(m, m.nest.stages, m.vector_var);
  m.stages = {{{}, -1, m.vector_var, m.vector}};
  const auto loads_together = [&](int lanes) {
    for (size_t t = 0; t < stage.body.size(); ++t) {
      const Instr& in = stage.body[t];
      if (m.tile.crossed[t] && (element_size(m, in.buffer) * lanes > widest_access ||
                                !is_vector_access(m, in.address, {}, in.buffer, m.tile.load_var, lanes) ||
                                !std::all_of(in.guards.begin(), in.guards.end(), [&](const Guard& g) {
                                  return is_vector_guard(g, m.tile.load_var, lanes);
                                })))
        return false;
    }
    return m.nest.extent(m.tile.load_var) % lanes == 0;
  };
  while (m.tile.load_lanes < widest_access && loads_together(2 * m.tile.load_lanes)) m.tile.load_lanes *= 2;
  m.slower.clear();
  m.units = 1;
  for (const int v : m.nest.outer) {
    const bool tiled = v == m.vector_var || v == m.tile.load_var;
    if (!tiled) m.slower.push_back(v);
    m.units *= tiled ? (m.nest.extent(v) + m.tile.edge - 1) / m.tile.edge : m.nest.extent(v);
  }
  m.group = block_threads;
  m.side_by_side = 1;
  return true;
}

void choose_scheme(Mapping& m) {
  int64_t longest = 0;
  std::vector<int> own;
  for (const Stage& stage : m.nest.stages) {
    m.stages.push_back({stage.loops, -1, m.vector_var, m.vector});
    own.push_back(fastest_loop(m, stage));
    if (!stage.loops.empty()) longest = std::max(longest, kernel::points(m.nest, stage.loops));
  }
  if (longest < 2 || forbids_groups(m.nest)) return;
  const bool alone = kernel::points(m.nest, m.nest.outer) < 2;
  if (alone || cost_of(m, m.vector_var, own) < cost_of(m, m.vector_var, {})) return map_rows(m, own);
  if (longest > short_fold && m.units < enough_units) map_columns(m);
}

/// Do all indices and addresses stay within the limit?
bool needs_wide_index(const Mapping& m, int64_t limit) {
  const auto beyond = [&](int64_t low, int64_t high) { return low < -limit || high > limit; };
  bool wide = beyond(0, kernel::points(m.nest, m.nest.outer));
  for (const kernel::Buffer& b : m.nest.buffers) wide = wide || beyond(0, b.elements);
  for (const int64_t e : m.nest.extents) wide = wide || e > limit;
  for (const StageMap& s : m.stages)  // where a loop's variable stands when it ends
    if (s.split >= 0) wide = wide || m.nest.extent(s.split) > limit - m.slices * m.group * s.lanes;
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

std::string_view scheme_name(Scheme scheme) {
  switch (scheme) {
    case Scheme::pointwise: return "pointwise";
    case Scheme::rows: return "rows";
    case Scheme::columns: return "columns";
    default: return "transpose";
  }
}

bool lie_apart(const Mapping& m, int out, int in) {
  if (m.slices == 1) return false;
  for (const Stage& from : m.nest.stages) {
    const bool stores = std::any_of(from.stores.begin(), from.stores.end(),
                                    [&](const kernel::Store& st) { return st.buffer == out; });
    for (const Stage& to : m.nest.stages)
      for (const Instr& i : to.body)
        if (stores && &from != &to && i.kind == Instr::Kind::load && i.buffer == in) return true;
  }
  return false;
}

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
  const int64_t bytes = element_size(m, buffer) * vector;
  if (m.alignment[static_cast<size_t>(buffer)] % std::min<int64_t>(bytes, widest_access) != 0) return false;
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
  m.vector = choose_lanes(m, m.nest.stages, m.vector_var);
  for (int v : m.nest.outer)
    if (v != m.vector_var) m.slower.push_back(v);
  m.units = kernel::points(m.nest, m.nest.outer) / m.vector;
  if (!map_transpose(m)) {
    choose_scheme(m);
    m.units = kernel::points(m.nest, m.nest.outer) / m.vector;
    if (m.group > 1) choose_slices(m);
  }
  m.wide_index = needs_wide_index(m, options.index_limit);
  return m;
}

}  // namespace espalier::target::cuda

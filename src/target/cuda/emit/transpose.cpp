// Tiles of a transpose: a block loads along one variable, waits, and computes and stores along the other.
#include <fmt/format.h>

#include "target/cuda/emit/stage.h"

namespace espalier::target::cuda {

using kernel::Instr;

/// Opens a loop over the tile's points, in which neighbouring threads are neighbours along `fast`: "fast" and "slow" are where the thread
/// stands in the tile, the first of `lanes`.
void StagePrinter::tile_place(int fast, int lanes, int slow) {
  const int edge = m_.tile.edge, across = edge / lanes;
  out_.pragma("#pragma unroll 4");
  out_.open(fmt::format("for (int at = part; at < {}; at += {})", edge * across, m_.threads()));
  out_.line(fmt::format("const int fast = at % {}{}, slow = at / {};", across,
                        lanes > 1 ? fmt::format(" * {}", lanes) : "", across));
  const bool stores_in_lanes = fast == m_.vector_var && lanes > 1;
  out_.line(fmt::format("const {0} {1}{2} = b{2} + fast, v{3} = b{3} + slow;", index_type(),
                        stores_in_lanes ? "w" : "v", fast, slow));
  std::string outside;
  if (m_.nest.extent(fast) % edge != 0)
    outside = fmt::format("{}{} >= {}", stores_in_lanes ? "w" : "v", fast, number(m_.nest.extent(fast)));
  if (m_.nest.extent(slow) % edge != 0)
    outside += fmt::format("{}v{} >= {}", outside.empty() ? "" : " || ", slow, number(m_.nest.extent(slow)));
  if (!outside.empty()) out_.line(fmt::format("if ({}) continue;", outside));
}

/// The values that instruction `t` has for the thread's lanes, into its tile; outside its guards 0.
void StagePrinter::tile_load(size_t t) {
  const Instr& in = current().body[t];
  const int lanes = m_.tile.load_lanes, pitch = m_.tile.edge + 1;
  const char* type = memory_type(m_.nest.buffers[static_cast<size_t>(in.buffer)].dtype);
  accesses(in.buffer, lanes);
  std::string load = fmt::format("esp_load<{}>(p{} + {})", lanes, in.buffer, affine(in.address, false));
  if (!in.guards.empty())
    load = fmt::format("{} ? {} : Vec<{}, {}>{{}}", condition(in.guards, false), load, type, lanes);
  out_.line(fmt::format("const Vec<{}, {}> x{} = {};", type, lanes, t, load));
  out_.pragma("#pragma unroll");
  out_.line(fmt::format("for (int l = 0; l < {0}; ++l) tile{1}[slow * {2} + fast + l] = x{1}.v[l];", lanes, t,
                        pitch));
}

void StagePrinter::transposed() {
  stage_ = 0;
  find_lane_dependence();
  find_fixed();
  const int edge = m_.tile.edge;
  for (size_t t = 0; t < current().body.size(); ++t)
    if (is_crossed(t)) {
      const Dtype d = m_.nest.buffers[static_cast<size_t>(current().body[t].buffer)].dtype;
      share(memory_type(d), fmt::format("tile{}", t), edge * (edge + 1), ir::dtype_size(d));
    }
  tile_place(m_.tile.load_var, m_.tile.load_lanes, m_.vector_var);
  for (size_t t = 0; t < current().body.size(); ++t)
    if (is_crossed(t)) tile_load(t);
  out_.close();
  out_.line("__syncthreads();");
  tile_place(m_.vector_var, m_.vector, m_.tile.load_var);
  body();
  out_.close();
}

}  // namespace espalier::target::cuda

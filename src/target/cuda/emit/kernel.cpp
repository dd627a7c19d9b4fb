#include "target/cuda/emit/kernel.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "kernel/nest_transform.h"
#include "target/cuda/emit/stage.h"

namespace espalier::target::cuda {

using kernel::Affine;
using kernel::Instr;
using kernel::LoopNest;
using kernel::Role;
using kernel::Stage;

namespace {

constexpr size_t max_operands = 500;  // 4 KiB of parameters

/// The buffers a nest touches, in order.
std::vector<int> operands_of(const LoopNest& nest) {
  std::vector<char> used(nest.buffers.size(), 0);
  for (const Stage& stage : nest.stages) {
    for (const Instr& in : stage.body)
      if (in.kind == Instr::Kind::load) used[static_cast<size_t>(in.buffer)] = 1;
    for (const kernel::Store& st : stage.stores) used[static_cast<size_t>(st.buffer)] = 1;
  }
  std::vector<int> out;
  for (size_t b = 0; b < used.size(); ++b)
    if (used[b]) out.push_back(static_cast<int>(b));
  return out;
}

bool is_stored(const LoopNest& nest, int buffer) {
  return std::any_of(nest.stages.begin(), nest.stages.end(), [&](const Stage& s) {
    return std::any_of(s.stores.begin(), s.stores.end(),
                       [&](const kernel::Store& st) { return st.buffer == buffer; });
  });
}

std::string parameters(const Mapping& m, const std::vector<int>& operands) {
  std::string text;
  for (const int b : operands)
    text += fmt::format("{}{}{}*{} p{}", text.empty() ? "" : ", ", is_stored(m.nest, b) ? "" : "const ",
                        memory_type(m.nest.buffers[static_cast<size_t>(b)].dtype),
                        m.shared[static_cast<size_t>(b)] ? "" : " __restrict__", b);
  return text;
}

/// Which unit the thread works on, and what its part in that is.
void place(Source& out, const Mapping& m) {
  const char* type = m.wide_index ? "unsigned long long" : "unsigned";
  const char* suffix = m.wide_index ? "ull" : "u";
  const std::string block = m.wide_index ? "static_cast<unsigned long long>(blockIdx.x)" : "blockIdx.x";
  const auto unit = [&](const std::string& thread) {
    return fmt::format("const {} unit = {} * {}{} + {};", type, block, m.side_by_side, suffix, thread);
  };
  if (m.scheme == Scheme::pointwise) {
    out.line(unit("threadIdx.x"));
    out.line(fmt::format("if (unit >= {}{}) return;", m.units, suffix));
    return;
  }
  if (m.scheme == Scheme::transpose) {
    out.line("const int part = static_cast<int>(threadIdx.x);");
    out.line(fmt::format("const {} unit = blockIdx.x;", type));
    return;
  }
  if (m.scheme == Scheme::columns) {
    out.line(fmt::format("const unsigned column = threadIdx.x % {}u;", m.side_by_side));
    out.line(fmt::format("const int part = static_cast<int>(threadIdx.x / {}u);", m.side_by_side));
    out.line(unit("column"));
  } else if (m.side_by_side == 1) {
    out.line("const int part = static_cast<int>(threadIdx.x);");
    out.line(fmt::format("const {} unit = blockIdx.x;", type));
  } else {
    out.line(fmt::format("const int part = static_cast<int>(threadIdx.x % {}u);", m.group));
    out.line(unit(fmt::format("threadIdx.x / {}u", m.group)));
  }
  out.line(m.units % m.side_by_side == 0 ? "constexpr bool live = true;"
                                         : fmt::format("const bool live = unit < {}{};", m.units, suffix));
}

/// Where the unit's number says that the outer variables stand: a mixed-radix number, the vector's variable lowest.
void decode(Source& out, const Mapping& m, const StagePrinter& printer) {
  const char* suffix = m.wide_index ? "ull" : "u";
  const char* index = printer.index_type();
  int64_t below = 1;
  const auto digit = [&](char name, int var, int64_t radix, int factor) {
    const bool highest = below * radix == m.units;
    std::string text = below == 1 ? "unit" : fmt::format("unit / {}{}", below, suffix);
    if (!highest)
      text = fmt::format("{}{}{} % {}{}", below == 1 ? "" : "(", text, below == 1 ? "" : ")", radix, suffix);
    if (radix == 1) text = "0";
    text = fmt::format("static_cast<{}>({})", index, text);
    if (factor > 1) text += fmt::format(" * {}", factor);
    out.line(fmt::format("const {} {}{} = {};", index, name, var, text));
    below *= radix;
  };
  const auto tiles = [&](int var) {  // 'b': where the tile begins
    digit('b', var, (m.nest.extent(var) + m.tile.edge - 1) / m.tile.edge, m.tile.edge);
  };
  if (m.scheme == Scheme::transpose) {
    tiles(m.vector_var);
    tiles(m.tile.load_var);
  } else if (m.vector_var >= 0) {
    digit(m.vector > 1 ? 'w' : 'v', m.vector_var, m.nest.extent(m.vector_var) / m.vector, m.vector);
  }
  for (size_t i = m.slower.size(); i-- > 0;) digit('v', m.slower[i], m.nest.extent(m.slower[i]), 1);
}

/// Elements of `buffer` that the nest touches, at most: the points of the variables that move its widest access.
int64_t touched(const LoopNest& nest, int buffer) {
  int64_t most = 0;
  const auto see = [&](const Affine& a, bool indirect) {
    int64_t n = 1;
    for (const Affine::Term& t : a.terms) n *= nest.extent(t.var);
    most = std::max(most, indirect ? nest.buffers[static_cast<size_t>(buffer)].elements : n);
  };
  for (const Stage& stage : nest.stages) {
    for (const Instr& in : stage.body)
      if (in.kind == Instr::Kind::load && in.buffer == buffer) see(in.address, !in.indirect.empty());
    for (const kernel::Store& st : stage.stores)
      if (st.buffer == buffer) see(st.address, false);
  }
  return std::min(most, nest.buffers[static_cast<size_t>(buffer)].elements);
}

int64_t operations(const LoopNest& nest) {
  int64_t n = 0;
  for (const Stage& stage : nest.stages) {
    const auto scalars = std::count_if(stage.body.begin(), stage.body.end(),
                                       [](const Instr& in) { return in.kind == Instr::Kind::scalar; });
    n += kernel::points(nest, nest.outer) * kernel::points(nest, stage.loops) *
         (scalars + static_cast<int64_t>(stage.reductions.size()));
  }
  return n;
}

Emitted emit_nest(const LoopNest& nest, const MapOptions& options) {
  const Mapping m = map(nest, options);
  Emitted out;
  out.operands = operands_of(nest);
  Source text(1);
  StagePrinter printer(text, m);
  place(text, m);
  decode(text, m, printer);
  if (m.scheme == Scheme::transpose) printer.transposed();
  else printer.stages();
  const std::string entry = "(" + parameters(m, out.operands) + ") {\n" + text.text() + "}\n";
  const auto threads = static_cast<uint32_t>(m.threads());
  out.source.name = fmt::format("{}_{:016x}", scheme_name(m.scheme), hash_text(entry));
  out.source.text = fmt::format("K_KERNEL({}, {})", out.source.name, threads) + entry;
  out.source.max_threads = m.threads();
  out.source.synchronises = m.scheme != Scheme::pointwise;
  const int64_t blocks = (m.units + m.side_by_side - 1) / m.side_by_side;
  ESPALIER_CHECK(blocks <= 0x7fffffff, "more blocks than a launch has");
  out.call = {out.source.name, {static_cast<uint32_t>(blocks)}, {threads}};
  for (const int b : out.operands)
    out.bytes += touched(nest, b) * ir::dtype_size(nest.buffers[static_cast<size_t>(b)].dtype);
  out.operations = operations(nest);
  return out;
}

}  // namespace

std::variant<std::vector<Emitted>, kernel::Refusal> emit(const kernel::Lowered& lowered,
                                                         const MapOptions& options) {
  std::vector<Emitted> out;
  for (const LoopNest& nest : lowered.nests) {
    if (operands_of(nest).size() > max_operands)
      return kernel::Refusal{"cuda", fmt::format("{} operands; a kernel has at most {}",
                                                 operands_of(nest).size(), max_operands)};
    if (std::any_of(nest.buffers.begin(), nest.buffers.end(),
                    [](const kernel::Buffer& b) { return b.role == Role::local; }))
      return kernel::Refusal{"cuda", "buffers that belong to one point of the loops"};
    if (kernel::points(nest, nest.outer) > 0) out.push_back(emit_nest(nest, options));
  }
  return out;
}

}  // namespace espalier::target::cuda

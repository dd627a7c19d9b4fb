#include "target/cuda/emit/kernel.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "kernel/nest_transform.h"
#include "target/cuda/arch.h"
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
  if (m.slices > 1) out.line("const int slice = static_cast<int>(blockIdx.y);");
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
  out.shared_bytes = printer.shared_bytes();
  const std::string entry = "(" + parameters(m, out.operands) + ") {\n" + text.text() + "}\n";
  const auto threads = static_cast<uint32_t>(m.threads());
  out.source.name = fmt::format("{}_{:016x}", scheme_name(m.scheme), hash_text(entry));
  // Columns hold sums, and what is computed before loops, in many lanes, and long rows have large blocks: asked for threads alone, ptxas would
  // rather spill a few registers than run one block less at a time.
  const char* kind = m.scheme == Scheme::columns || m.threads() > 256 ? "K_KERNEL_LARGE" : "K_KERNEL";
  out.source.text = fmt::format("{}({}, {})", kind, out.source.name, threads) + entry;
  out.source.max_threads = m.threads();
  out.source.synchronises = m.scheme != Scheme::pointwise;
  const int64_t blocks = (m.units + m.side_by_side - 1) / m.side_by_side;
  ESPALIER_CHECK(blocks <= 0x7fffffff, "more blocks than a launch has");
  out.call = {out.source.name, {static_cast<uint32_t>(blocks), static_cast<uint32_t>(m.slices)}, {threads}};
  for (const int b : out.operands) out.call.alignment.push_back(printer.widest(b));
  for (int o = 0; o < static_cast<int>(nest.buffers.size()); ++o)
    for (int i = 0; i < static_cast<int>(nest.buffers.size()); ++i)
      if (lie_apart(m, o, i)) out.apart.emplace_back(o, i);
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
    if (kernel::points(nest, nest.outer) == 0) continue;
    out.push_back(emit_nest(nest, options));
    if (out.back().shared_bytes > shared_without_opt_in)
      return kernel::Refusal{"cuda", fmt::format("{} bytes of shared memory; a block has {}",
                                                 out.back().shared_bytes, shared_without_opt_in)};
  }
  return out;
}

namespace {

/// Members of equal nests, one after the other in the numbers of the blocks.
struct Leaf {
  Mapping mapping;
  std::string key;  ///< equal where one text serves
  std::vector<size_t> members;
  int64_t first = 0;  ///< block

  int64_t blocks_of_one() const { return (mapping.units + mapping.side_by_side - 1) / mapping.side_by_side; }
  int64_t end() const { return first + blocks_of_one() * static_cast<int64_t>(members.size()); }
};

class BatchEmitter {
 public:
  BatchEmitter(std::span<const BatchMember> members, const MapOptions& options)
      : members_(members), options_(options) {}

  std::variant<Emitted, kernel::Refusal> run() {
    for (size_t i = 0; i < members_.size(); ++i)
      if (auto refusal = add(i)) return *refusal;
    if (operands_.size() > max_operands)
      return kernel::Refusal{
          "batch", fmt::format("{} operands; a kernel has at most {}", operands_.size(), max_operands)};
    int64_t blocks = 0;
    for (Leaf& leaf : leaves_) {
      leaf.first = blocks;
      blocks = leaf.end();
    }
    if (blocks == 0 || blocks > 0x7fffffff)
      return kernel::Refusal{"batch", "no work, or more blocks than a launch has"};
    Source text(1);
    choose(text, 0, leaves_.size());
    const std::string entry = "(" + parameters() + ") {\n" + text.text() + "}\n";
    out_.source = {.name = fmt::format("batch_{:016x}", hash_text(entry)),
                   .text = "",
                   .max_threads = leaves_[0].mapping.threads(),
                   .synchronises = false};
    out_.source.text = fmt::format("K_KERNEL({}, {})", out_.source.name, out_.source.max_threads) + entry;
    out_.call = {
        out_.source.name, {static_cast<uint32_t>(blocks)}, {static_cast<uint32_t>(out_.source.max_threads)}};
    for (const auto& [b, operand] : operands_) {
      out_.operands.push_back(b);
      out_.call.alignment.push_back(operand.widest);
    }
    return std::move(out_);
  }

 private:
  struct Parameter {
    Dtype dtype = Dtype::f32;
    bool stored = false, shared = false;
    int64_t widest = 1;  ///< bytes of an access
  };

  std::optional<kernel::Refusal> add(size_t i) {
    const BatchMember& member = members_[i];
    MapOptions options = options_;
    options.alignment.clear();
    for (const int b : member.buffers)
      options.alignment.push_back(static_cast<size_t>(b) < options_.alignment.size()
                                      ? options_.alignment[static_cast<size_t>(b)]
                                      : 16);
    const Mapping m = map(member.nest, options);
    const bool points = m.nest.stages.size() == 1 && m.nest.stages[0].loops.empty() &&
                        m.nest.stages[0].reductions.empty() && m.scheme == Scheme::pointwise;
    if (!points || m.units < 1 || m.wide_index || member.nest.buffers.size() != member.buffers.size())
      return kernel::Refusal{"batch", "a member that is not one of points alone"};
    for (const int b : operands_of(member.nest)) {
      Parameter& p = operands_[member.buffers[static_cast<size_t>(b)]];
      p.dtype = member.nest.buffers[static_cast<size_t>(b)].dtype;
      p.stored = p.stored || is_stored(member.nest, b);
      p.shared = p.shared || m.shared[static_cast<size_t>(b)];
      out_.bytes += touched(member.nest, b) * ir::dtype_size(p.dtype);
    }
    out_.operations += operations(member.nest);
    std::string key = member.nest.text();
    for (const int64_t a : m.alignment) key += fmt::format(" {}", a);
    for (Leaf& leaf : leaves_)
      if (leaf.key == key) return leaf.members.push_back(i), std::nullopt;
    leaves_.push_back({m, std::move(key), {i}});
    return std::nullopt;
  }

  std::string parameters() const {
    std::string text;
    for (const auto& [b, p] : operands_)
      text += fmt::format("{}{}{}*{} q{}", text.empty() ? "" : ", ", p.stored ? "" : "const ",
                          memory_type(p.dtype), p.shared ? "" : " __restrict__", b);
    return text;
  }

  /// The leaves from `low` to before `high`, by halves.
  void choose(Source& out, size_t low, size_t high) {
    if (high - low == 1) return print(out, leaves_[low]);
    const size_t middle = (low + high) / 2;
    out.open(fmt::format("if (blockIdx.x < {}u)", leaves_[middle].first));
    choose(out, low, middle);
    out.close();
    out.open("else");
    choose(out, middle, high);
    out.close();
  }

  void print(Source& out, const Leaf& leaf) {
    const Mapping& m = leaf.mapping;
    const std::vector<int> used = operands_of(m.nest);
    const auto operand = [&](size_t member, int b) {
      return members_[member].buffers[static_cast<size_t>(b)];
    };
    const bool several = leaf.members.size() > 1;
    out.line(fmt::format("const unsigned block = blockIdx.x - {}u;", leaf.first));
    for (const int b : used)
      out.line(fmt::format("{}{}*{} p{} = q{};", is_stored(m.nest, b) ? "" : "const ",
                           memory_type(m.nest.buffers[static_cast<size_t>(b)].dtype),
                           m.shared[static_cast<size_t>(b)] ? "" : " __restrict__", b,
                           operand(leaf.members[0], b)));
    if (several) {
      out.open(fmt::format("switch (block / {}u)", leaf.blocks_of_one()));
      for (size_t i = 1; i < leaf.members.size(); ++i) {
        std::string line = fmt::format("case {}u:", i);
        for (const int b : used)
          if (operand(leaf.members[i], b) != operand(leaf.members[0], b))
            line += fmt::format(" p{} = q{};", b, operand(leaf.members[i], b));
        out.line(line + " break;");
      }
      out.line("default: break;");
      out.close();
    }
    out.line(fmt::format("const unsigned unit = {} * {}u + threadIdx.x;",
                         several ? fmt::format("block % {}u", leaf.blocks_of_one()) : "block",
                         m.side_by_side));
    out.line(fmt::format("if (unit >= {}u) return;", m.units));
    StagePrinter printer(out, m);
    decode(out, m, printer);
    printer.stages();
    for (const size_t member : leaf.members)
      for (const int b : used) {
        int64_t& widest = operands_.at(operand(member, b)).widest;
        widest = std::max(widest, printer.widest(b));
      }
  }

  std::span<const BatchMember> members_;
  const MapOptions& options_;
  std::map<int, Parameter> operands_;
  std::vector<Leaf> leaves_;
  Emitted out_;
};

}  // namespace

std::variant<Emitted, kernel::Refusal> emit_batch(std::span<const BatchMember> members,
                                                  const MapOptions& options) {
  return BatchEmitter(members, options).run();
}

}  // namespace espalier::target::cuda

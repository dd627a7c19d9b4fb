// Every generated kernel of the networks that are trained and served (MLP, ResNet-18, U-Net, training and inference, f32 and bf16), as
// NVRTC compiles it: launch bounds, registers, stack, spills, and how many bytes each access moves.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "kernel/fused.h"
#include "kernel/lower.h"
#include "kernel/nest_transform.h"
#include "op/contraction.h"
#include "run/program.h"
#include "support/network_graphs.h"
#include "support/nvrtc.h"
#include "support/ptx.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/emit/kernel.h"
#include "target/reference/interpreter.h"

namespace espalier::test {
namespace {

using kernel::Affine;
using kernel::Instr;
using kernel::LoopNest;

constexpr int widest = 16;                   // bytes
constexpr int64_t large = int64_t{1} << 16;  // bytes
constexpr int many_registers = 112;
constexpr size_t taken_apart =
    4;  ///< operands whose stores of 16 bytes NVRTC 13.0 makes several of (docs/limits.md)
constexpr const char* architectures[] = {"sm_90", "sm_80", "sm_89", "sm_100", "sm_120"};

struct NetworkKernel {
  target::KernelSource source;
  std::string network;
  std::map<int, int> bytes;           ///< parameter -> what each of its accesses must move
  std::map<int, std::string> exempt;  ///< parameter of large accesses -> why it need not
};

/// The same by buffers of a nest or a step.
struct Rules {
  std::map<int, int> bytes;
  std::map<int, std::string> exempt;

  /// Of what is accessed in several ways the least holds.
  void add(int at, int least) {
    int& held = bytes.emplace(at, least).first->second;
    held = std::min(held, least);
  }
  void add(const Rules& other, const std::vector<int>& place) {
    for (const auto& [b, least] : other.bytes) add(place[static_cast<size_t>(b)], least);
    for (const auto& [b, why] : other.exempt) exempt.emplace(place[static_cast<size_t>(b)], why);
  }
};

/// An access of a nest to a buffer, by what it depends on.
struct Access {
  const Affine* address;
  bool plain;  ///< without guards and places that come from data
  int buffer;
  bool store;
};
std::vector<Access> accesses_of(const kernel::Stage& stage) {
  std::vector<Access> out;
  for (const Instr& in : stage.body)
    if (in.kind == Instr::Kind::load)
      out.push_back({&in.address, in.guards.empty() && in.indirect.empty(), in.buffer, false});
  for (const kernel::Store& st : stage.stores) out.push_back({&st.address, true, st.buffer, true});
  return out;
}

/// The rule. An access is large where it touches 64 KiB or more. Where it is without a guard and without a place that comes from data, and
/// memory's order is one loop's of the nest (coefficient 1), such that 16 bytes divide the loop's extent, the other coefficients and
/// the offset, it moves 16 bytes. Bytes beside wider elements in the same stage (masks) move as many elements as of the smallest of
/// those are 16 bytes: 4 beside f32, 8 beside bf16.
Rules rules_of(LoopNest nest) {
  kernel::merge_loops(nest);
  const auto size_of = [&](int b) {
    return static_cast<int>(ir::dtype_size(nest.buffers[static_cast<size_t>(b)].dtype));
  };
  const auto touched = [&](const Access& a) {
    int64_t n = size_of(a.buffer);
    for (const Affine::Term& t : a.address->terms) n *= nest.extent(t.var);
    return n;
  };
  const auto why_not = [&](const Access& a, int64_t n) -> std::string {
    if (!a.plain) return "a guard, or a place that comes from data";
    int contiguous = -1;
    for (const Affine::Term& t : a.address->terms)
      if (t.coef == 1) contiguous = t.var;
    if (contiguous < 0) return "no neighbours";
    const bool whole =
        nest.extent(contiguous) % n == 0 && a.address->offset % n == 0 &&
        std::all_of(a.address->terms.begin(), a.address->terms.end(),
                    [&](const Affine::Term& t) { return t.var == contiguous || t.coef % n == 0; });
    return whole ? "" : "rows that 16 bytes do not divide";
  };
  Rules out;
  for (const kernel::Stage& stage : nest.stages) {
    const std::vector<Access> all = accesses_of(stage);
    int smallest = widest;
    for (const Access& a : all)
      if (touched(a) >= large && size_of(a.buffer) > 1) smallest = std::min(smallest, size_of(a.buffer));
    for (const Access& a : all) {
      const int size = size_of(a.buffer);
      const int lanes = widest / (size > 1 ? size : smallest == widest ? 1 : smallest);
      const std::string why = why_not(a, lanes);
      if (touched(a) < large) out.exempt.emplace(a.buffer, "");
      else if (!why.empty()) out.exempt[a.buffer] = why;
      else out.add(a.buffer, lanes * size);
    }
  }
  for (const auto& [b, why] : out.exempt) out.bytes.erase(b);
  return out;
}

LoopNest only_nest(const ir::Graph& body) {
  auto lowered = kernel::lower(body, target::cuda::lower_options);
  return std::get<kernel::Lowered>(lowered).nests.at(0);
}

/// The buffers that the parameters of an entry are: "p3" or "q3" each.
std::vector<int> parameters_of(const std::string& text) {
  std::vector<int> out;
  const size_t open = text.find(")(") + 1, close = text.find(')', open);
  for (size_t at = open; at < close;) {
    const size_t end = std::min(text.find(',', at), close), name = text.find_last_of("pq", end);
    out.push_back(std::atoi(text.c_str() + name + 1));
    at = end + 1;
  }
  return out;
}

class Kernels {
 public:
  void add(const NetworkGraph& network, pass::Precision precision) {
    const target::Target& target = target::cuda::cuda_target(90);
    const pass::PassContext context{
        .spec = target.spec(), .evaluate = target::reference::evaluate_node, .precision = precision};
    const ir::Graph fused = pass::run_passes(network.graph, pass::pipeline(), context).graph;
    const std::string name = fmt::format("{} {}", network.name, pass::precision_name(precision));
    for (const ir::Node* n : fused.nodes())
      if (n->op().kind != ir::Kind::leaf) add_rules(target, *n, name);
    run::CompileOptions options;
    options.target = &target;
    const std::shared_ptr<const run::Program> program = run::Program::compile_fused(fused, options);
    for (const run::Step& s : program->steps())
      for (const target::KernelSource& k : s.kernel->sources()) keep(k, name);
  }
  const std::map<std::string, NetworkKernel>& all() const { return all_; }

 private:
  NetworkKernel& keep(const target::KernelSource& k, const std::string& network) {
    return all_.try_emplace(k.name, NetworkKernel{k, network, {}, {}}).first->second;
  }

  /// Kernels of a node that is loops, with what their nests say of accesses.
  void add_rules(const target::Target& target, const ir::Node& n, const std::string& network) {
    const ir::Graph body = kernel::body_of(n);
    for (const ir::Node* inner : body.nodes())
      if (inner->op().kind == ir::Kind::contraction) return;
    const target::Prepared made = target.prepare(n, {}, {});
    ASSERT_TRUE(made.kernel) << n.op().name;
    const auto sources = made.kernel->sources();
    if (made.kernel->name() == "batch") {
      Rules rules;
      for (const ir::Node* member : body.nodes())
        if (const ir::Graph* inner = kernel::fusion_body(*member))
          rules.add(rules_of(only_nest(*inner)), places_of(body, *member));
      return keep(keep(sources[0], network), rules);
    }
    if (made.kernel->name() != "loops") return;
    const auto lowered = std::get<kernel::Lowered>(kernel::lower(body, target::cuda::lower_options));
    ASSERT_EQ(lowered.nests.size(), sources.size());
    for (size_t i = 0; i < sources.size(); ++i) keep(keep(sources[i], network), rules_of(lowered.nests[i]));
  }

  /// Which buffers of the batch a member's are: operands, then results.
  static std::vector<int> places_of(const ir::Graph& batch, const ir::Node& member) {
    std::vector<int> out;
    const auto find = [&](const Value& v) {
      for (size_t i = 0; i < batch.inputs.size(); ++i)
        if (batch.inputs[i] == v) return static_cast<int>(i);
      for (size_t o = 0; o < batch.outputs.size(); ++o)
        if (batch.outputs[o].value == v) return static_cast<int>(batch.inputs.size() + o);
      return -1;
    };
    for (const Value& v : member.inputs()) out.push_back(find(v));
    for (int r = 0; r < member.results(); ++r) out.push_back(find(member.value(r)));
    return out;
  }

  static void keep(NetworkKernel& k, const Rules& rules) {
    const std::vector<int> buffers = parameters_of(k.source.text);
    for (size_t p = 0; p < buffers.size(); ++p) {
      const int at = static_cast<int>(p);
      if (const auto it = rules.bytes.find(buffers[p]); it != rules.bytes.end()) k.bytes[at] = it->second;
      if (const auto it = rules.exempt.find(buffers[p]); it != rules.exempt.end() && !it->second.empty())
        k.exempt[at] = it->second;
    }
  }

  using Value = ir::Value;
  std::map<std::string, NetworkKernel> all_;
};

struct Job {
  const NetworkKernel* kernel;
  std::string arch;
};
struct Answer {
  Nvrtc::Facts facts;
  std::string ptx, wrong;
};

/// What NVRTC says of each, two at a time.
std::vector<Answer> compile(const Nvrtc& nvrtc, const std::vector<Job>& jobs) {
  std::vector<Answer> out(jobs.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < jobs.size(); i = next++) {
      const target::KernelSource& source = jobs[i].kernel->source;
      Nvrtc::Result r = nvrtc.compile(target::cuda::port_text() + source.text, jobs[i].arch);
      const auto facts = r.kernels.find(source.name);
      if (!r.compiled || facts == r.kernels.end() || r.log.find("warning") != std::string::npos)
        out[i].wrong = r.log;
      else out[i] = {facts->second, std::move(r.ptx), ""};
    }
  };
  std::thread other(work);
  work();
  other.join();
  return out;
}

std::string named(const NetworkKernel& k) { return k.source.name + " of " + k.network; }

/// What of the rule the PTX does not keep.
struct Narrow {
  std::string loads, stores;  ///< a line for each parameter
  size_t stored = 0;          ///< parameters in `stores`

  void add(const NetworkKernel& k, const Ptx& ptx) {
    std::map<int, std::string> wrong;
    std::set<int> seen, read;
    for (const PtxAccess& a : ptx.accesses()) {
      EXPECT_FALSE(a.parameters.empty()) << named(k) << ": an access to an unknown place: " << a.text;
      for (const int p : a.parameters) {
        seen.insert(p);
        const auto rule = k.bytes.find(p);
        if (rule == k.bytes.end() || a.bytes >= rule->second) continue;
        if (!a.store) read.insert(p);
        wrong[p] = fmt::format("{}: parameter {} by {} bytes ({}), should be by {}\n", named(k), p, a.bytes,
                               a.text, rule->second);
      }
    }
    for (const auto& [p, bytes] : k.bytes) EXPECT_TRUE(seen.contains(p)) << named(k) << ": parameter " << p;
    for (const auto& [p, line] : wrong) (read.contains(p) ? loads : stores) += line;
    stored += wrong.size() - read.size();
  }
};

/// Launch bounds as promised, registers for a whole block, nothing on the stack.
void expect_sound(const Job& job, const Answer& a) {
  const std::string name = named(*job.kernel) + " " + job.arch;
  const int threads = job.kernel->source.max_threads;
  ASSERT_EQ(a.wrong, "") << name;
  EXPECT_EQ(a.facts.stack_bytes + a.facts.spill_bytes, 0)
      << name << ": " << a.facts.registers << " registers";
  EXPECT_LE(a.facts.registers * threads, 65536) << name;
  EXPECT_EQ(Ptx(a.ptx).max_threads(), threads) << name;
}

/// All kernels for one architecture, and each for one of the others by turns; those of many registers for all.
TEST(NetworkKernels, HaveBoundsNoStackNoSpillsAndWideAccessesHeavy) {
  const Nvrtc* nvrtc = Nvrtc::find();
  if (!nvrtc) GTEST_SKIP() << Nvrtc::why_not();
  Kernels kernels;
  for (const pass::Precision precision : {pass::Precision::f32, pass::Precision::bf16})
    for (const NetworkGraph& n : network_graphs({}, Optimisation::momentum)) kernels.add(n, precision);
  std::vector<Job> jobs;
  for (const auto& [name, k] : kernels.all()) jobs.push_back({&k, architectures[0]});
  std::vector<Answer> answers = compile(*nvrtc, jobs);
  Narrow narrow;
  size_t rules = 0, exempt = 0;
  std::vector<Job> others;
  for (size_t i = 0; i < jobs.size(); ++i) {
    expect_sound(jobs[i], answers[i]);
    narrow.add(*jobs[i].kernel, Ptx(answers[i].ptx));
    rules += jobs[i].kernel->bytes.size();
    exempt += jobs[i].kernel->exempt.size();
    for (size_t arch = 1; arch < std::size(architectures); ++arch)
      if (answers[i].facts.registers > many_registers || arch == 1 + i % 4)
        others.push_back({jobs[i].kernel, architectures[arch]});
  }
  EXPECT_EQ(narrow.loads, "");
  EXPECT_LE(narrow.stored, taken_apart) << narrow.stores;
  EXPECT_LE(exempt, 34u)
      << "large accesses behind guards, by data, or along rows that 16 bytes do not divide";
  EXPECT_GT(jobs.size(), 300u);
  EXPECT_GT(rules, 850u) << "accesses that the rule is about";
  answers = compile(*nvrtc, others);
  for (size_t i = 0; i < others.size(); ++i) expect_sound(others[i], answers[i]);
}

}  // namespace
}  // namespace espalier::test

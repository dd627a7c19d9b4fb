// Every generated kernel of the networks that are trained and served (MLP, ResNet-18, U-Net: inference, training by momentum, Adam and AdamW,
// in f32, bf16 and f16 with a loss scale; ResNet-50 in bf16), as NVRTC compiles it for five architectures: launch bounds, registers,
// stack, spills, and how many bytes each access moves.
// network_kernels.txt has the registers of those that were found sound, by the hash of all that goes into a compilation: what is new or
// changed is compiled for all, of the rest one in twenty, which must come out as it says.
// ESPALIER_UPDATE_GOLDEN=1 compiles what is new or changed and writes the file with it, without those that are no more; to compile
// everything, remove the file before.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "base/text.h"
#include "kernel/fused.h"
#include "kernel/lower.h"
#include "kernel/nest_transform.h"
#include "op/contraction.h"
#include "run/program.h"
#include "support/golden.h"
#include "support/network_variants.h"
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
/// Operands whose stores of 16 bytes NVRTC 13.0 makes several of (docs/limits.md): gradients of the maximum pool (a kernel in f32 and in bf16,
/// in f16 one for each optimiser, as its parameters are numbered otherwise) and of the average over the picture (f32, bf16, ResNet-50's).
constexpr size_t taken_apart = 7;
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

/// Launch bounds as promised, registers for a whole block, nothing on the stack: what is not so, or "".
std::string fault_of(const Job& job, const Answer& a) {
  const int threads = job.kernel->source.max_threads;
  if (!a.wrong.empty()) return a.wrong;
  const Nvrtc::Facts& f = a.facts;
  if (f.stack_bytes + f.spill_bytes > 0 || f.registers * threads > 65536)
    return fmt::format("{} bytes of stack, {} of spills, {} registers for each of {} threads", f.stack_bytes,
                       f.spill_bytes, f.registers, threads);
  if (const int bound = Ptx(a.ptx).max_threads(); bound != threads)
    return fmt::format("launch bounds of {} threads, not of {}", bound, threads);
  return "";
}

/// What the PTX makes of the accesses that the rule is about, a line for each that is not as it says.
struct Accesses {
  std::vector<std::string> faults;  ///< narrow loads, accesses to an unknown place
  std::vector<std::string> narrow;  ///< parameters with narrower stores
};
Accesses ptx_accesses(const NetworkKernel& k, const Ptx& ptx) {
  Accesses out;
  std::map<int, std::string> wrong;
  std::set<int> seen, read;
  for (const PtxAccess& a : ptx.accesses()) {
    if (a.parameters.empty()) out.faults.push_back("an access to an unknown place: " + a.text);
    for (const int p : a.parameters) {
      seen.insert(p);
      const auto rule = k.bytes.find(p);
      if (rule == k.bytes.end() || a.bytes >= rule->second) continue;
      if (!a.store) read.insert(p);
      wrong[p] =
          fmt::format("parameter {} by {} bytes ({}), should be by {}", p, a.bytes, a.text, rule->second);
    }
  }
  for (const auto& [p, bytes] : k.bytes)
    if (!seen.contains(p)) out.faults.push_back(fmt::format("parameter {} is not accessed", p));
  for (const auto& [p, line] : wrong) (read.contains(p) ? out.faults : out.narrow).push_back(line);
  return out;
}

/// What is known of a kernel that was compiled: as a line of the file, the registers for each of `architectures` and how many operands have
/// narrow stores.
struct Known {
  std::array<int, std::size(architectures)> registers{};
  size_t narrow = 0;
  bool operator==(const Known&) const = default;

  std::string text() const {
    std::string out;
    for (const int r : registers) out += fmt::format(" {}", r);
    return out + fmt::format(" {}", narrow);
  }
};

/// Everything that goes into the compilation of a kernel and into what is asked of it.
std::string key_of(const NetworkKernel& k, const std::string& compiler) {
  std::string all = compiler + target::cuda::port_text() + k.source.text;
  for (const std::string_view option : target::cuda::nvrtc_options) all += option;
  for (const auto& [p, bytes] : k.bytes) all += fmt::format(" {}:{}", p, bytes);
  return fmt::format("{}-{:016x}", k.source.name, hash_text(all));
}

const std::filesystem::path known_file =
    std::filesystem::path(ESPALIER_SOURCE_DIR) / "tests/device/network_kernels.txt";

std::map<std::string, Known> read_known() {
  std::map<std::string, Known> out;
  if (!std::filesystem::exists(known_file)) return out;
  std::istringstream in(read_file(known_file));
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string key;
    Known k;
    fields >> key;
    for (int& r : k.registers) fields >> r;
    EXPECT_TRUE(fields >> k.narrow) << known_file << ": " << line;
    out[key] = k;
  }
  return out;
}

void write_known(const std::map<std::string, Known>& all) {
  std::string text =
      "# Kernels that tests/device/network_kernels_test.cpp found sound: the hash of the kernel and its "
      "compiler,\n"
      "# registers for";
  for (const char* arch : architectures) text += fmt::format(" {}", arch);
  text += ", operands whose wide stores the compiler takes apart.\n";
  for (const auto& [key, k] : all) text += key + k.text() + "\n";
  write_file(known_file, text);
}

/// Each for all architectures; none where it is not sound, which is a failure.
std::vector<std::optional<Known>> compile_for_all(const Nvrtc& nvrtc,
                                                  std::span<const NetworkKernel* const> kernels) {
  std::vector<Job> jobs;
  for (const NetworkKernel* k : kernels)
    for (const char* arch : architectures) jobs.push_back({k, arch});
  const std::vector<Answer> answers = compile(nvrtc, jobs);
  std::vector<std::optional<Known>> out(kernels.size());
  for (size_t kernel = 0; kernel < kernels.size(); ++kernel) {
    const NetworkKernel& k = *kernels[kernel];
    const Answer* const of_kernel = &answers[kernel * std::size(architectures)];
    Known known;
    std::string faults;
    for (size_t arch = 0; arch < std::size(architectures); ++arch) {
      known.registers[arch] = of_kernel[arch].facts.registers;
      const Job& job = jobs[kernel * std::size(architectures) + arch];
      if (const std::string fault = fault_of(job, of_kernel[arch]); !fault.empty())
        faults += "\n  " + job.arch + ": " + fault;
    }
    const Accesses accesses = ptx_accesses(k, Ptx(of_kernel[0].ptx));
    for (const std::string& fault : accesses.faults) faults += "\n  " + fault;
    for (const std::string& line : accesses.narrow) fmt::print("{}: {}\n", named(k), line);
    known.narrow = accesses.narrow.size();
    if (faults.empty()) out[kernel] = known;
    else ADD_FAILURE() << named(k) << faults;
  }
  return out;
}

/// Of momentum and inference in f32 and bf16, and with them all others.
struct AllKernels {
  Kernels kernels;
  std::set<std::string> basic;  ///< names of the former
};
AllKernels kernels_of_networks() {
  using pass::Precision;
  AllKernels all;
  Kernels& out = all.kernels;
  const auto add = [&](const std::vector<NetworkGraph>& graphs, Precision precision) {
    for (const NetworkGraph& n : graphs) out.add(n, precision);
  };
  const std::vector<NetworkGraph> momentum = network_graphs({}, Optimisation::momentum),
                                  adam = network_graphs({}, Optimisation::adam),
                                  adamw = training_graphs({}, "adamw", make_adamw, false);
  for (const Precision precision : {Precision::f32, Precision::bf16}) add(momentum, precision);
  for (const auto& [name, k] : out.all()) all.basic.insert(name);
  for (const Precision precision : {Precision::f32, Precision::bf16})
    for (const auto* graphs : {&adam, &adamw}) add(*graphs, precision);
  for (const NetworkGraph& n : momentum)
    if (n.name.ends_with("_infer")) out.add(n, Precision::f16);
  add(training_graphs({}, "momentum", make_momentum, true), Precision::f16);
  add(training_graphs({}, "adam", make_adam, true), Precision::f16);
  add(training_graphs({}, "adamw", make_adamw, true), Precision::f16);
  add(resnet50_graphs(NetworkSizes{}.resnet_batch), Precision::bf16);
  return all;
}

TEST(NetworkKernels, HaveBoundsNoStackNoSpillsAndWideAccessesHeavy) {
  const Nvrtc* nvrtc = Nvrtc::find();
  if (!nvrtc) GTEST_SKIP() << Nvrtc::why_not();
  const auto [kernels, basic] = kernels_of_networks();
  const std::string compiler = "NVRTC " + machine_libraries().nvrtc().report.version;
  const std::map<std::string, Known> known = read_known();
  std::map<std::string, Known> now;
  std::vector<std::string> keys;
  std::vector<const NetworkKernel*> to_compile;
  size_t rules = 0, exempt = 0, basic_exempt = 0, known_ones = 0;
  std::set<std::string> basic_keys;
  for (const auto& [name, k] : kernels.all()) {
    rules += k.bytes.size();
    exempt += k.exempt.size();
    const std::string key = key_of(k, compiler);
    if (basic.contains(name)) {
      basic_exempt += k.exempt.size();
      basic_keys.insert(key);
    }
    const auto it = known.find(key);
    if (it != known.end()) now.insert(*it);
    if (it != known.end() && (updates_golden() || ++known_ones % 20 != 0)) continue;
    keys.push_back(key);
    to_compile.push_back(&k);
  }
  EXPECT_LE(basic_exempt, 34u);
  EXPECT_LE(exempt, 54u)
      << "large accesses behind guards, by data, or along rows that 16 bytes do not divide";
  EXPECT_GT(kernels.all().size(), 800u);
  EXPECT_GT(rules, 3000u) << "accesses that the rule is about";
  constexpr size_t at_once = 40;  // between two writings of the file
  for (size_t from = 0; from < keys.size(); from += at_once) {
    const size_t n = std::min(at_once, keys.size() - from);
    const auto made = compile_for_all(*nvrtc, std::span(to_compile).subspan(from, n));
    for (size_t i = 0; i < n; ++i) {
      const std::string& key = keys[from + i];
      if (!made[i]) continue;
      if (const auto it = now.find(key); it != now.end())
        EXPECT_EQ(made[i]->text(), it->second.text())
            << named(*to_compile[from + i]) << ", as " << known_file << " says";
      now[key] = *made[i];
    }
    if (updates_golden()) write_known(now);
  }
  size_t narrow = 0, basic_narrow = 0;
  for (const auto& [key, k] : now) {
    narrow += k.narrow;
    if (basic_keys.contains(key)) basic_narrow += k.narrow;
  }
  EXPECT_LE(basic_narrow, 4u);
  EXPECT_LE(narrow, taken_apart);
  if (updates_golden()) write_known(now);
}

}  // namespace
}  // namespace espalier::test

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "base/text.h"
#include "gpu_check/check.h"
#include "support/op_samples.h"
#include "support/tolerance.h"
#include "target/reference/interpreter.h"

namespace espalier::gpu_check {

namespace {

using ir::Array;
using ir::Dtype;

/// Samples of an op in every dtype as one program.
struct OpCase {
  ir::Graph graph;
  std::vector<Array> inputs;
  std::vector<ir::Graph> singles;  ///< each sample by itself, for the reference
  std::vector<std::vector<Array>> their_inputs;
  std::vector<Dtype> dtypes;  ///< of each sample
};

bool has_elements(const ir::Graph& sample) {
  for (const auto& output : sample.outputs)
    if (output.value.type().elements() > 0) return true;
  return false;
}

/// The sample whose bits are compared with the log: the first whose results are not all empty.
uint64_t logged_salt(const ir::OpDef& op, Dtype dtype) {
  for (uint64_t salt = 0; salt < 16; ++salt) {
    ir::SampleRng rng = test::rng_of(op, salt);
    if (has_elements(test::graph_of(op, op.sample(rng, dtype)))) return salt;
  }
  return 0;
}

void add_sample(OpCase& c, const ir::OpDef& op, Dtype dtype, uint64_t salt) {
  ir::SampleRng rng = test::rng_of(op, salt);
  const ir::Sample s = op.sample(rng, dtype);
  c.singles.push_back(test::graph_of(op, s));
  c.their_inputs.push_back(s.inputs);
  c.dtypes.push_back(dtype);
  c.inputs.insert(c.inputs.end(), s.inputs.begin(), s.inputs.end());
  std::vector<ir::Value> operands;
  for (const Array& a : s.inputs) {
    operands.push_back(ir::new_input(fmt::format("x{}", c.graph.inputs.size()), a.type()));
    c.graph.inputs.push_back(operands.back());
  }
  for (const ir::Value& v : make_all(op, operands, s.attrs))
    c.graph.outputs.push_back({fmt::format("y{}", c.graph.outputs.size()), v});
}

/// A sample of each dtype, whose bits are compared with the log, and apart three more for a GPU.
std::vector<OpCase> op_cases(const ir::OpDef& op, bool small) {
  std::vector<OpCase> all(small ? 1 : 2);
  for (OpCase& c : all) c.graph.name = std::string(op.name);
  for (const Dtype dtype : test::dtypes_of(op.dtypes)) {
    add_sample(all[0], op, dtype, logged_salt(op, dtype));
    for (uint64_t salt = 1; !small && salt < 4; ++salt) add_sample(all[1], op, dtype, salt);
  }
  return all;
}

std::vector<Wanted> op_programs(const ir::OpDef& op, bool small) {
  std::vector<Wanted> all;
  for (OpCase& c : op_cases(op, small))
    all.push_back({std::move(c.graph), true});  // not exact, gradients of weights in bf16 round twice
  return all;
}

/// NaNs have one pattern here: which one a device makes is its own matter.
uint64_t hash_of(const Array& a, uint64_t hash) {
  if (a.dtype() != Dtype::f32)
    return hash_text({static_cast<const char*>(a.data()), static_cast<size_t>(a.bytes())}, hash);
  for (int64_t i = 0; i < a.size(); ++i) {
    const auto value = static_cast<float>(a.at(i));
    hash = hash_step(hash, std::isnan(value) ? 0x7fc00000u : std::bit_cast<uint32_t>(value));
  }
  return hash;
}

/// Of f32 and integers by kernels of our own, which must be the same on any device; else "- " and why they need not be.
std::string bits_of(const OpCase& c, const run::DeviceProgram& program, const std::vector<Array>& got) {
  for (const target::CallRecord& call : program.calls())
    if (std::holds_alternative<target::GemmCall>(call.work) ||
        std::holds_alternative<target::ConvCall>(call.work))
      return "- a library multiplies, in an order of its own";
  if (c.graph.name.starts_with("atan")) return "- the arc tangent is CUDA's own";
  uint64_t hash = hash_of_nothing;
  size_t at = 0, hashed = 0;
  for (size_t sample = 0; sample < c.singles.size(); ++sample) {
    const bool same = c.dtypes[sample] == Dtype::f32 || !ir::is_float(c.dtypes[sample]);
    for (size_t o = 0; o < c.singles[sample].outputs.size(); ++o, ++at)
      if (same && got[at].size() > 0 && (got[at].dtype() == Dtype::f32 || !ir::is_float(got[at].dtype())))
        hash = hash_of(got[at], hash), ++hashed;
  }
  if (hashed == 0) return "- its sample gives neither f32 nor integers";
  return fmt::format("{:016x}", hash);
}

/// Over poisoned memory, against the reference and the log.
std::string op_agrees(const Place& place, const ir::OpDef& op, const Loaded& programs) {
  size_t count = 0;
  std::string bits;
  Wrong wrong;
  const std::vector<OpCase> cases = op_cases(op, place.small);
  for (size_t i = 0; i < cases.size(); ++i) {
    const OpCase& c = cases[i];
    run::DeviceExecutor e(programs.at(i));
    const std::vector<Array> got = run_once(e, c.inputs);
    size_t at = 0;
    for (size_t sample = 0; sample < c.singles.size(); ++sample)
      for (const Array& want : target::reference::evaluate(c.singles[sample], c.their_inputs[sample])) {
        const std::string off = test::difference(got.at(at++), want, test::tolerance_of(want.dtype()) * 8);
        if (!off.empty()) wrong.add(want.type().text() + ": " + off);
        else ++count;
      }
    if (i > 0) continue;
    try {
      bits = place.logs->compare_bits(std::string(op.name), bits_of(c, *programs[0], got));
    } catch (const UserError& e) {
      wrong.add(e.what());
    }
  }
  wrong.demand_none(fmt::format("{} results right", count));
  return fmt::format("{} results, {}", count, bits);
}

/// Positive and negative floats of every size, the same on every machine.
Array spread_floats(int64_t n) {
  Array a(Dtype::f32, {n});
  const uint64_t step = (uint64_t{1} << 32) / static_cast<uint64_t>(n);
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = static_cast<uint32_t>(static_cast<uint64_t>(i) * step + 1);
    std::memcpy(&a.write<float>()[i], &bits, sizeof bits);
  }
  return a;
}

ir::Graph function_graph(const ir::OpDef& op, Dtype dtype, int64_t n) {
  ir::Graph g;
  g.inputs = {ir::new_input("x", {dtype, {n}})};
  g.outputs = {{"y", make_all(op, {g.inputs[0]}, {})[0]}};
  return g;
}

int64_t floats_of(bool small) { return small ? 4096 : 1 << 20; }

/// Largest distance of an f32 function from the one that is computed in f64, over floats of every size, in units in the last place.
std::string function_error(const Place& place, const ir::OpDef& op, const Loaded& programs) {
  const Array x = spread_floats(floats_of(place.small));
  run::DeviceExecutor e(programs.at(0));
  const Array got = run_once(e, {x})[0];
  const std::vector<Array> wide{x.cast(Dtype::f64)};
  const Array want = target::reference::evaluate(function_graph(op, Dtype::f64, x.size()), wide)[0];
  int64_t worst = 0, where = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const auto w = static_cast<double>(static_cast<float>(want.at(i)));
    if (std::isnan(w) && std::isnan(got.at(i))) continue;
    demand(std::isnan(w) == std::isnan(got.at(i)) && std::isinf(w) == std::isinf(got.at(i)) &&
               (!std::isinf(w) || got.at(i) == w),
           fmt::format("{} of {} is {}, not {}", op.name, x.at(i), got.at(i), w));
    if (std::isinf(w)) continue;
    if (const int64_t d = test::ulp_distance(Dtype::f32, got.at(i), w); d > worst) worst = d, where = i;
  }
  demand(worst <= 8, fmt::format("{} ulp at {}", worst, x.at(where)));
  return fmt::format("{} ulp{}", worst, worst > 0 ? fmt::format(", at {}", x.at(where)) : "");
}

/// Functions of one number that are computed by themselves; of those that are made of others (sigmoid, gelu) the tails are not within ulps.
bool is_function(const ir::OpDef& op) {
  for (const std::string_view name : {"exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin",
                                      "cos", "tan", "atan", "tanh", "erf", "softplus"})
    if (op.name == name) return op.dtypes.has(Dtype::f32);
  return false;
}

}  // namespace

void add_ops(std::vector<Check>& all, bool small) {
  for (const ir::OpDef* op : test::sampled_ops())
    all.push_back({fmt::format("op {}", op->name), [op, small] { return op_programs(*op, small); },
                   [op](const Place& p, const Loaded& l) { return op_agrees(p, *op, l); }});
  for (const ir::OpDef* op : op::all_ops())
    if (is_function(*op))
      all.push_back(
          {fmt::format("error of {}", op->name),
           [op, small] { return std::vector<Wanted>{{function_graph(*op, Dtype::f32, floats_of(small))}}; },
           [op](const Place& p, const Loaded& l) { return function_error(p, *op, l); }});
}

std::vector<Check> kernel_checks(bool small) {
  std::vector<Check> all;
  add_facts(all);
  add_products(all);
  add_device(all);
  add_ops(all, small);
  return all;
}

}  // namespace espalier::gpu_check

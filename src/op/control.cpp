#include "op/control.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "op/elementwise.h"
#include "op/sampling.h"
#include "op/table.h"

namespace espalier::op {

using ir::Array;
using ir::Dtype;
using ir::EvalCtx;
using ir::GradCtx;
using ir::Graph;
using ir::GraphRef;
using ir::InferCtx;
using ir::Kind;
using ir::Node;
using ir::OpDef;
using ir::Sample;
using ir::SampleRng;
using ir::Type;

namespace {

std::vector<Type> output_types(const Graph& g) {
  std::vector<Type> types;
  for (const ir::Output& o : g.outputs) types.push_back(o.value.type());
  return types;
}

void check_body(const InferCtx& c, const char* which, const GraphRef& body, std::span<const Type> operands) {
  if (!body) c.fail(std::string(which) + " is missing", "a graph");
  const std::vector<Type> inputs = body->input_types();
  if (!std::ranges::equal(inputs, operands))
    c.fail("the operands are not what " + std::string(which) + " takes", types_text(inputs),
           types_text(operands));
}

bool flows(const Type& t) { return ir::is_float(t.dtype); }

/// The gradient of a result, or zeros where none came.
Value or_zeros(const Value& gradient, const Value& result) {
  return gradient ? gradient : zeros_like(result);
}

// ---- cond

std::vector<Type> infer_cond(const InferCtx& c) {
  const auto& at = c.attrs.get<CondAttrs>();
  if (c.in[0] != Type{Dtype::boolean, {}})
    c.fail("the condition is no bool scalar", "bool[]", c.in[0].text());
  check_body(c, "if_true", at.if_true, c.in.subspan(1));
  check_body(c, "if_false", at.if_false, c.in.subspan(1));
  std::vector<Type> results = output_types(*at.if_true);
  if (const std::vector<Type> other = output_types(*at.if_false); other != results)
    c.fail("the branches give results of different types", types_text(results), types_text(other));
  return results;
}

std::vector<Value> cond_grad(const GradCtx& c) {
  const auto& at = c.node.attrs<CondAttrs>();
  const std::vector<char> wanted(c.needed.begin() + 1, c.needed.end());
  std::vector<Value> operands(c.node.inputs().begin() + 1, c.node.inputs().end());
  for (int i = 0; i < c.node.results(); ++i)
    if (flows(c.out(i).type())) operands.push_back(or_zeros(c.dout[static_cast<size_t>(i)], c.out(i)));
  const std::vector<Value> given =
      cond(c.in(0), c.body_grad(at.if_true, wanted), c.body_grad(at.if_false, wanted), operands);
  std::vector<Value> grads(1);
  for (size_t i = 0, k = 0; i < wanted.size(); ++i) grads.push_back(wanted[i] ? given[k++] : Value());
  return grads;
}

// ---- scan

size_t size_of(int64_t n) { return static_cast<size_t>(n); }

Type stacked(const Type& t, int64_t length) {
  Type out = t;
  out.dims.insert(out.dims.begin(), length);
  return out;
}

std::vector<Type> infer_scan(const InferCtx& c) {
  const auto& at = c.attrs.get<ScanAttrs>();
  const auto operands = static_cast<int64_t>(c.in.size());
  if (at.carries < 0 || at.slices < 0 || at.carries > operands || at.slices > operands - at.carries)
    c.fail("carries and slices do not fit the operands",
           "at most " + std::to_string(c.in.size()) + " together",
           std::to_string(at.carries) + " and " + std::to_string(at.slices));
  if (at.length < 0) c.fail("length is negative", ">= 0", std::to_string(at.length));
  std::vector<Type> step(c.in.begin(), c.in.end());
  for (size_t i = size_of(at.carries); i < size_of(at.carries + at.slices); ++i) {
    if (step[i].dims.empty() || step[i].dims[0] != ir::Dim(at.length))
      c.fail("operand " + std::to_string(i) + " cannot be walked: its first dim is not length",
             std::to_string(at.length), step[i].text());
    step[i].dims.erase(step[i].dims.begin());
  }
  check_body(c, "body", at.body, step);
  std::vector<Type> results = output_types(*at.body);
  if (results.size() < size_of(at.carries))
    c.fail("the body gives fewer results than carries", std::to_string(at.carries),
           std::to_string(results.size()));
  for (size_t i = 0; i < size_of(at.carries); ++i)
    if (results[i] != step[i])
      c.fail("the body changes the type of carry " + std::to_string(i), step[i].text(), results[i].text());
  for (size_t i = size_of(at.carries); i < results.size(); ++i) results[i] = stacked(results[i], at.length);
  return results;
}

/// Row `i` along axis 0.
Array row_of(const Array& a, int64_t i) {
  Array row(a.dtype(), {a.dims().begin() + 1, a.dims().end()});
  std::memcpy(row.write(), static_cast<const char*>(a.data()) + i * row.bytes(), size_of(row.bytes()));
  return row;
}

void set_row(Array& a, int64_t i, const Array& row) {
  std::memcpy(static_cast<char*>(a.write()) + i * row.bytes(), row.data(), size_of(row.bytes()));
}

std::vector<Array> eval_scan(const EvalCtx& c) {
  const auto& at = c.attrs<ScanAttrs>();
  const auto carries = size_of(at.carries), walked = size_of(at.carries + at.slices);
  std::vector<Array> results(c.in.begin(), c.in.begin() + at.carries);
  for (size_t i = carries; i < c.node.types().size(); ++i)
    results.emplace_back(c.node.types()[i].dtype, ir::static_dims(c.node.types()[i].dims));
  for (int64_t step = 0; step < at.length; ++step) {
    const int64_t at_row = at.reverse ? at.length - 1 - step : step;
    std::vector<Array> in(results.begin(), results.begin() + at.carries);
    for (size_t i = carries; i < c.in.size(); ++i)
      in.push_back(i < walked ? row_of(c.in[i], at_row) : c.in[i]);
    const std::vector<Array> out = c.run_body(*at.body, in);
    for (size_t i = 0; i < out.size(); ++i) {
      if (i < carries) results[i] = out[i];
      else set_row(results[i], at_row, out[i]);
    }
  }
  return results;
}

/// The carries each step of a scan began with, stacked, for those in `which`: the loop again, keeping them.
std::vector<Value> step_carries(const GradCtx& c, const std::vector<size_t>& which) {
  if (which.empty()) return {};
  ScanAttrs at = c.node.attrs<ScanAttrs>();
  Graph body{.name = at.body->name + "_carries",
             .level = at.body->level,
             .inputs = at.body->inputs,
             .outputs = {},
             .state = {},
             .info = {}};
  for (size_t i = 0; i < size_of(at.carries); ++i)
    body.outputs.push_back({"carry" + std::to_string(i), at.body->outputs[i].value});
  for (const size_t i : which) body.outputs.push_back({"begin" + std::to_string(i), at.body->inputs[i]});
  at.body = std::make_shared<const Graph>(std::move(body));
  const std::vector<Value> results = scan(at, c.node.inputs());
  return {results.begin() + at.carries, results.end()};
}

/// One loop that walks a scan backwards. Its carries are the gradients of the float carries and the sums of the gradients
/// of the wanted captures; it walks the kept carries, the slices and the gradients of the stacked results.
class ScanGradient {
 public:
  explicit ScanGradient(const GradCtx& c)
      : c_(c), at_(c.node.attrs<ScanAttrs>()), wanted_(c.needed.begin(), c.needed.end()) {
    for (size_t i = 0; i < carries(); ++i) wanted_[i] = flows(c.in(static_cast<int>(i)).type());
    step_ = c.body_grad(at_.body, wanted_);
    for (const Node* n : step_->nodes()) used_.insert(n);
  }

  std::vector<Value> build() {
    add_gradients();
    const size_t loop_carries = inputs_.size();
    add_walked();
    const size_t walked = inputs_.size() - loop_carries;
    for (size_t i = carries() + size_of(at_.slices); i < c_.node.inputs().size(); ++i) {
      args_[i] = take("capture" + std::to_string(i), c_.node.inputs()[i], false);
    }
    const ScanAttrs at{.body = backward_body(),
                       .carries = static_cast<int64_t>(loop_carries),
                       .slices = static_cast<int64_t>(walked),
                       .length = at_.length,
                       .reverse = !at_.reverse};
    return spread(scan(at, operands_), loop_carries);
  }

 private:
  size_t carries() const { return size_of(at_.carries); }

  /// A new input of the backward body for `operand`, or for a row of it.
  Value take(std::string name, const Value& operand, bool row) {
    Type type = operand.type();
    if (row) type.dims.erase(type.dims.begin());
    inputs_.push_back(ir::new_input(std::move(name), std::move(type)));
    operands_.push_back(operand);
    return inputs_.back();
  }

  /// The backward loop's carries.
  void add_gradients() {
    args_.resize(c_.node.inputs().size());
    for (size_t i = 0; i < args_.size(); ++i)
      args_[i] = step_->inputs[i];  // stays where the step does not read it
    for (size_t i = 0; i < carries(); ++i)
      if (wanted_[i])
        carry_grads_.push_back(
            take("d_carry" + std::to_string(i), or_zeros(c_.dout[i], c_.out(static_cast<int>(i))), false));
    for (size_t i = carries() + size_of(at_.slices); i < wanted_.size(); ++i)
      if (wanted_[i])
        sums_.push_back(take("d_capture" + std::to_string(i), zeros_like(c_.node.inputs()[i]), false));
  }

  /// What the backward loop walks: kept carries, slices, gradients of stacked results.
  void add_walked() {
    std::vector<size_t> kept;
    for (size_t i = 0; i < carries(); ++i)
      if (used_.contains(&step_->inputs[i].node())) kept.push_back(i);
    const std::vector<Value> values = step_carries(c_, kept);
    for (size_t k = 0; k < kept.size(); ++k)
      args_[kept[k]] = take("carry" + std::to_string(kept[k]), values[k], true);
    for (size_t i = carries(); i < carries() + size_of(at_.slices); ++i)
      if (used_.contains(&step_->inputs[i].node()))
        args_[i] = take("slice" + std::to_string(i), c_.node.inputs()[i], true);
    std::vector<Value> stacked_grads;
    for (int i = static_cast<int>(carries()); i < c_.node.results(); ++i)
      if (flows(c_.out(i).type()))
        stacked_grads.push_back(take("d_stacked" + std::to_string(i),
                                     or_zeros(c_.dout[static_cast<size_t>(i)], c_.out(i)), true));
    args_.insert(args_.end(), carry_grads_.begin(), carry_grads_.end());
    args_.insert(args_.end(), stacked_grads.begin(), stacked_grads.end());
  }

  GraphRef backward_body() const {
    Graph body{.name = at_.body->name + "_backward",
               .level = at_.body->level,
               .inputs = inputs_,
               .outputs = {},
               .state = {},
               .info = {}};
    const std::vector<Value> grads = ir::inline_graph(*step_, args_);
    std::vector<Value> carry, sum, slice;
    for (size_t i = 0, k = 0; i < wanted_.size(); ++i) {
      if (!wanted_[i]) continue;
      const Value& g = grads[k++];
      if (i < carries()) carry.push_back(g);
      else if (i < carries() + size_of(at_.slices)) slice.push_back(g);
      else sum.push_back(add(sums_[sum.size()], g));
    }
    for (const std::vector<Value>* part : {&carry, &sum, &slice})
      for (const Value& v : *part) body.outputs.push_back({"out" + std::to_string(body.outputs.size()), v});
    return std::make_shared<const Graph>(std::move(body));
  }

  /// The backward loop's results at the operands they belong to.
  std::vector<Value> spread(const std::vector<Value>& results, size_t loop_carries) const {
    std::vector<Value> grads(wanted_.size());
    size_t carry = 0, sum = carry_grads_.size(), slice = loop_carries;
    for (size_t i = 0; i < wanted_.size(); ++i) {
      if (!wanted_[i]) continue;
      if (i < carries()) grads[i] = results[carry++];
      else if (i < carries() + size_of(at_.slices)) grads[i] = results[slice++];
      else grads[i] = results[sum++];
    }
    return grads;
  }

  const GradCtx& c_;
  const ScanAttrs& at_;
  std::vector<char> wanted_;
  GraphRef step_;  ///< the gradient of one step
  std::unordered_set<const Node*> used_;
  std::vector<Value> inputs_, operands_, args_, carry_grads_, sums_;
};

// ---- while_loop

std::vector<Type> infer_while(const InferCtx& c) {
  const auto& at = c.attrs.get<WhileAttrs>();
  if (at.carries < 0 || at.carries > static_cast<int64_t>(c.in.size()))
    c.fail("carries do not fit the operands", "at most " + std::to_string(c.in.size()),
           std::to_string(at.carries));
  check_body(c, "condition", at.condition, c.in);
  check_body(c, "body", at.body, c.in);
  if (const std::vector<Type> out = output_types(*at.condition); out != std::vector{Type{Dtype::boolean, {}}})
    c.fail("the condition does not give a bool scalar", "bool[]", types_text(out));
  std::vector<Type> carried(c.in.begin(), c.in.begin() + at.carries);
  if (const std::vector<Type> out = output_types(*at.body); out != carried)
    c.fail("the body does not give the carries", types_text(carried), types_text(out));
  return carried;
}

std::vector<Array> eval_while(const EvalCtx& c) {
  const auto& at = c.attrs<WhileAttrs>();
  std::vector<Array> values(c.in.begin(), c.in.end());
  while (c.run_body(*at.condition, values)[0].at(0) != 0) {
    const std::vector<Array> next = c.run_body(*at.body, values);
    std::ranges::copy(next, values.begin());
  }
  values.resize(size_of(at.carries));
  return values;
}

// ---- samples

/// A product and a sum for any dtype (bool: and, xor).
Value times(const Value& a, const Value& b) {
  return a.dtype() == Dtype::boolean ? logical_and(a, b) : mul(a, b);
}
Value plus(const Value& a, const Value& b) {
  return a.dtype() == Dtype::boolean ? logical_xor(a, b) : add(a, b);
}

Sample sample_cond(SampleRng& rng, Dtype) {
  const Dtype dtype = draw_chance(rng, 0.8) ? Dtype::f64 : Dtype::i32;
  const std::vector<int64_t> dims = draw_dims(rng, draw(rng, 0, 2));
  const std::vector<Type> types(2, Type{dtype, ir::to_dims(dims)});
  const GraphRef if_true = body_graph("if_true", types, [](const auto& in) {
    return std::vector{times(in[0], in[1]), in[0]};
  });
  const GraphRef if_false = body_graph("if_false", types, [](const auto& in) {
    return std::vector{plus(in[0], in[1]), in[1]};
  });
  return {{draw_array(rng, Dtype::boolean, {}), draw_array(rng, dtype, dims), draw_array(rng, dtype, dims)},
          CondAttrs{if_true, if_false},
          {}};
}

Sample sample_scan(SampleRng& rng, Dtype dtype) {
  const std::vector<int64_t> dims = draw_dims(rng, draw(rng, 0, 1), 3);
  const int64_t length = draw_dim(rng, 4);
  std::vector<int64_t> rows = dims;
  rows.insert(rows.begin(), length);
  const std::vector<Type> types(3, Type{dtype, ir::to_dims(dims)});
  const GraphRef body = body_graph("step", types, [](const auto& in) {
    const Value next = plus(times(in[0], in[2]), in[1]);
    return std::vector{next, times(next, in[0])};
  });
  return {
      {draw_array(rng, dtype, dims, -1, 1), draw_array(rng, dtype, rows, -1, 1),
       draw_array(rng, dtype, dims, -1, 1)},
      ScanAttrs{.body = body, .carries = 1, .slices = 1, .length = length, .reverse = draw_chance(rng, 0.5)},
      {}};
}

Sample sample_while(SampleRng& rng, Dtype dtype) {
  const std::vector<int64_t> dims = draw_dims(rng, draw(rng, 0, 2), 3);
  const Type x{dtype, ir::to_dims(dims)}, number{Dtype::i64, {}};
  const std::vector<Type> types{x, number, x, number};
  const GraphRef condition =
      body_graph("again", types, [](const auto& in) { return std::vector{lt(in[1], in[3])}; });
  const GraphRef body = body_graph("step", types, [](const auto& in) {
    return std::vector{plus(in[0], in[2]), add(in[1], 1.0)};
  });
  return {{draw_array(rng, dtype, dims), Array::scalar(Dtype::i64, 0), draw_array(rng, dtype, dims),
           draw_array(rng, Dtype::i64, {}, 0, 4)},
          WhileAttrs{condition, body, 2},
          {}};
}

}  // namespace

constinit const OpDef cond_op{
    .name = "cond",
    .doc = "One of two bodies, chosen by a bool scalar, over the operands after it.",
    .kind = Kind::control,
    .arity = {1, -1},
    .dtypes = ir::bool_type,
    .attrs = ir::attr_type<CondAttrs>(),
    .infer = infer_cond,
    .grad = ir::rule(cond_grad),
    .expand = nullptr,
    .scalar = {},
    .eval =
        [](const EvalCtx& c) {
          const auto& at = c.attrs<CondAttrs>();
          return c.run_body(c.in[0].at(0) != 0 ? *at.if_true : *at.if_false, c.in.subspan(1));
        },
    .sample = sample_cond,
};

constinit const OpDef scan_op{
    .name = "scan",
    .doc = "A loop of fixed length over slices with carried values; further results are stacked.",
    .kind = Kind::control,
    .arity = {1, -1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<ScanAttrs>(),
    .infer = infer_scan,
    .grad = ir::rule([](const GradCtx& c) { return ScanGradient(c).build(); }),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_scan,
    .sample = sample_scan,
};

constinit const OpDef while_loop_op{
    .name = "while_loop",
    .doc = "A body repeated over carried values while a condition of them holds.",
    .kind = Kind::control,
    .arity = {1, -1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<WhileAttrs>(),
    .infer = infer_while,
    .grad = ir::not_differentiable,
    .expand = nullptr,
    .scalar = {},
    .eval = eval_while,
    .sample = sample_while,
};

GraphRef body_graph(std::string name, std::span<const Type> inputs,
                    const std::function<std::vector<Value>(const std::vector<Value>&)>& build) {
  Graph g{.name = std::move(name),
          .level = ir::Level::tensor,
          .inputs = {},
          .outputs = {},
          .state = {},
          .info = {}};
  for (size_t i = 0; i < inputs.size(); ++i)
    g.inputs.push_back(ir::new_input("in" + std::to_string(i), inputs[i]));
  for (Value& v : build(g.inputs))
    g.outputs.push_back({"out" + std::to_string(g.outputs.size()), std::move(v)});
  return std::make_shared<const Graph>(std::move(g));
}

std::vector<Value> cond(Value condition, GraphRef if_true, GraphRef if_false, std::vector<Value> operands) {
  operands.insert(operands.begin(), std::move(condition));
  return make_all(cond_op, std::move(operands), CondAttrs{std::move(if_true), std::move(if_false)});
}

std::vector<Value> scan(ScanAttrs attrs, std::vector<Value> operands) {
  return make_all(scan_op, std::move(operands), std::move(attrs));
}

std::vector<Value> while_loop(WhileAttrs attrs, std::vector<Value> operands) {
  return make_all(while_loop_op, std::move(operands), std::move(attrs));
}

std::span<const OpDef* const> control_ops() {
  static constexpr const OpDef* ops[] = {&cond_op, &scan_op, &while_loop_op};
  return ops;
}

}  // namespace espalier::op

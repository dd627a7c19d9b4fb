// What every record of the op table must hold, and what every op must do on random samples.
#include "op/table.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "support/arrays.h"
#include "support/op_samples.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Graph;
using ir::Kind;
using ir::OpDef;
using ir::Sample;

constexpr int samples = 25;

TEST(OpTable, NamesAreUniqueWordsAndDocsAreSentences) {
  std::set<std::string_view> names;
  for (const OpDef* op : op::all_ops()) {
    EXPECT_TRUE(names.insert(op->name).second) << op->name;
    EXPECT_EQ(op->name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"), std::string_view::npos)
        << op->name;
    EXPECT_FALSE(op->doc.empty()) << op->name;
    EXPECT_EQ(op::find_op(op->name), op);
  }
  EXPECT_EQ(op::find_op("no such op"), nullptr);
}

TEST(OpTable, EveryRecordHasAMeaning) {
  for (const OpDef* op : op::all_ops()) {
    if (op->kind == Kind::leaf) continue;
    const int meanings =
        (op->scalar ? 1 : 0) + (op->eval ? 1 : 0) + (op->expand && !op->eval && !op->scalar ? 1 : 0);
    EXPECT_EQ(meanings, 1) << op->name;
    if (op->kind == Kind::composite) EXPECT_TRUE(op->expand) << op->name;
    if (op->grad.kind == ir::GradKind::by_expansion) EXPECT_TRUE(op->expand) << op->name;
    if (op->grad.kind == ir::GradKind::rule) EXPECT_TRUE(op->grad.fn) << op->name;
    if (op->scalar) EXPECT_EQ(op->kind, Kind::elementwise) << op->name;
    EXPECT_TRUE(op->sample) << op->name;
    EXPECT_TRUE(op->arity.max < 0 || op->arity.min <= op->arity.max) << op->name;
  }
}

TEST(OpTable, UserOpsJoinUnderANewName) { EXPECT_THROW(op::register_op(*op::find_op("add")), UserError); }

class EveryOp : public testing::TestWithParam<const OpDef*> {
 protected:
  const OpDef& op() const { return *GetParam(); }
  /// Call f(sample) for `n` samples of every dtype the op takes.
  template <class F>
  void each_sample(int n, uint64_t salt, F&& f) const {
    ir::SampleRng rng = test::rng_of(op(), salt);
    for (const Dtype dtype : test::dtypes_of(op().dtypes))
      for (int i = 0; i < n; ++i) {
        const Sample s = op().sample(rng, dtype);
        SCOPED_TRACE(std::string(op().name) + " of " + std::string(ir::dtype_name(dtype)) + ", sample " +
                     std::to_string(i) + "\n" + ir::print(test::graph_of(op(), s)));
        f(s);
        if (testing::Test::HasFailure()) return;
      }
  }
};

TEST_P(EveryOp, EvaluatesToTheTypesItInfers) {
  each_sample(samples, 1, [&](const Sample& s) {
    const Graph g = test::graph_of(op(), s);
    verify(g);
    const std::vector<Array> out = target::reference::evaluate(g, s.inputs);
    ASSERT_EQ(out.size(), g.outputs.size());
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i].type(), g.outputs[i].value.type());
    const std::vector<Array> again = target::reference::evaluate(g, s.inputs);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(again[i], out[i]) << "not deterministic";
    const std::vector<Array> alone = target::reference::evaluate_node(g.outputs[0].value.node(), s.inputs);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(alone[i], out[i]) << "evaluate_node differs";
  });
}

TEST_P(EveryOp, SamplesReachEdgeDims) {
  std::set<int64_t> seen;
  ir::SampleRng rng = test::rng_of(op(), 2);
  for (const Dtype dtype : test::dtypes_of(op().dtypes))
    for (int i = 0; i < 200; ++i) {
      const Sample s = op().sample(rng, dtype);
      const Graph g = test::graph_of(op(), s);
      const ir::Node& node = g.outputs[0].value.node();
      for (const ir::Type& t : node.types())
        for (const ir::Dim d : t.dims) seen.insert(d.value());
      for (const Array& a : s.inputs) seen.insert(a.dims().begin(), a.dims().end());
    }
  if (op().kind == Kind::control) return;  // their bodies fix most dims
  EXPECT_TRUE(seen.contains(1)) << "no sample has a dim of 1";
  EXPECT_TRUE(seen.contains(0)) << "no sample has a dim of 0";
}

TEST_P(EveryOp, PrintsAndReadsBack) {
  each_sample(5, 3, [&](const Sample& s) {
    const Graph g = test::graph_of(op(), s);
    const std::string text = ir::print(g);
    const Graph back = ir::parse(text);
    EXPECT_TRUE(same_structure(g, back)) << text;
    EXPECT_EQ(structure_hash(g), structure_hash(back));
    EXPECT_EQ(ir::print(back), text);
  });
}

/// `text` with one of its integers replaced.
std::string with_other_number(const std::string& text, ir::SampleRng& rng) {
  constexpr std::string_view extreme[] = {"0",
                                          "-1",
                                          "1",
                                          "2",
                                          "7",
                                          "-9223372036854775808",
                                          "9223372036854775807",
                                          "4611686018427387904",
                                          "2147483648",
                                          "3037000500",
                                          "-2147483649"};
  std::vector<std::pair<size_t, size_t>> numbers;
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    while (end < text.size() && std::isdigit(static_cast<unsigned char>(text[end]))) ++end;
    if (end > i && !std::isalnum(static_cast<unsigned char>(text[i - 1])) && text[i - 1] != '%')
      numbers.emplace_back(i, end);
    i = std::max(end, i + 1);
  }
  if (numbers.empty()) return text;
  const auto [from, to] = numbers[rng() % numbers.size()];
  return text.substr(0, from) + std::string(extreme[rng() % std::size(extreme)]) + text.substr(to);
}

TEST_P(EveryOp, HostileNumbersAreRefusedByAUserErrorOrMakeAGraphThatReadsBack) {
  ir::SampleRng rng = test::rng_of(op(), 8);
  each_sample(10, 7, [&](const Sample& s) {
    const std::string text = ir::print(test::graph_of(op(), s));
    for (int i = 0; i < 10; ++i) {
      const std::string hostile = with_other_number(text, rng);
      try {  // the op infers before the written type is compared
        const Graph g = ir::parse(hostile);
        EXPECT_TRUE(same_structure(g, ir::parse(ir::print(g)))) << hostile;
      } catch (const UserError&) {
      }
    }
  });
}

TEST_P(EveryOp, EqualNodesAreOneNode) {
  each_sample(5, 4, [&](const Sample& s) {
    const Graph g = test::graph_of(op(), s);
    const ir::Value v = g.outputs[0].value;
    EXPECT_EQ(make(op(), v->inputs(), v->attrs()), v);
    const ir::Attrs copy = v->attrs().substituted([](ir::Dim d) { return d; });
    EXPECT_EQ(copy, v->attrs());
    EXPECT_EQ(copy.hash(), v->attrs().hash());
    EXPECT_EQ(make(op(), v->inputs(), copy), v);
  });
}

TEST_P(EveryOp, RefusesOtherDtypesAndNumbersOfOperands) {
  ir::SampleRng rng = test::rng_of(op(), 5);
  const Sample s = op().sample(rng, test::dtypes_of(op().dtypes)[0]);
  if (s.inputs.empty()) return;
  std::vector<ir::Value> operands;
  for (const Array& a : s.inputs) operands.push_back(ir::new_input("x", a.type()));
  const auto refused = [&](const std::vector<ir::Value>& in) {
    try {
      make(op(), in, s.attrs);
    } catch (const UserError& e) {
      EXPECT_EQ(e.fields().where, "op " + std::string(op().name));
      EXPECT_FALSE(e.fields().got.empty());
      return true;
    }
    return false;
  };
  for (int d = 0; d < ir::dtype_count; ++d) {
    if (op().dtypes.has(static_cast<Dtype>(d))) continue;
    std::vector<ir::Value> in = operands;
    in[0] = ir::new_input("x", {static_cast<Dtype>(d), operands[0].dims()});
    EXPECT_TRUE(refused(in)) << ir::dtype_name(static_cast<Dtype>(d));
  }
  EXPECT_EQ(op().arity.min > 0, refused({}));
  if (op().arity.max >= 0) {
    std::vector<ir::Value> in = operands;
    while (static_cast<int>(in.size()) <= op().arity.max) in.push_back(operands[0]);
    EXPECT_TRUE(refused(in));
  }
  EXPECT_THROW(make(op(), std::vector<ir::Value>(operands.size()), s.attrs), UserError) << "empty operands";
}

class EveryExpansion : public EveryOp {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(EveryExpansion);

TEST_P(EveryExpansion, HasTheRecordsTypesAndValues) {
  each_sample(samples, 6, [&](const Sample& s) {
    const Graph g = test::graph_of(op(), s);
    const ir::Node& node = g.outputs[0].value.node();
    const std::vector<ir::Value> expanded = op().expand(node);
    ASSERT_EQ(static_cast<int>(expanded.size()), node.results());
    Graph e = g;
    for (size_t i = 0; i < expanded.size(); ++i) {
      EXPECT_EQ(expanded[i].type(), node.types()[i]);
      e.outputs[i].value = expanded[i];
    }
    const std::vector<Array> want = target::reference::evaluate(g, s.inputs),
                             got = target::reference::evaluate(e, s.inputs);
    test::expect_close(got, want, 4);
  });
}

std::vector<const OpDef*> expanding_ops() {
  std::vector<const OpDef*> ops = test::sampled_ops();
  std::erase_if(ops, [](const OpDef* op) { return !op->expand; });
  return ops;
}

INSTANTIATE_TEST_SUITE_P(Table, EveryOp, testing::ValuesIn(test::sampled_ops()), test::OpName());
INSTANTIATE_TEST_SUITE_P(Table, EveryExpansion, testing::ValuesIn(expanding_ops()), test::OpName());

/// A recorded program, run on doubles.
double run_program(const ir::ScalarProgram& p, const std::vector<double>& arguments) {
  namespace m = ir::math;
  using Code = ir::ScalarCode;
  std::vector<double> v;
  for (const ir::ScalarInstr& in : p.instrs) {
    const auto x = [&](size_t k) { return v[static_cast<size_t>(in.operand[k])]; };
    const auto run = [&]() -> double {
      switch (in.code) {
        case Code::argument: return arguments[static_cast<size_t>(in.index)];
        case Code::constant: return in.value;
        case Code::neg: return -x(0);
        case Code::abs: return m::abs(x(0));
        case Code::sign: return m::sign(x(0));
        case Code::exp: return m::exp(x(0));
        case Code::expm1: return m::expm1(x(0));
        case Code::log: return m::log(x(0));
        case Code::log1p: return m::log1p(x(0));
        case Code::sqrt: return m::sqrt(x(0));
        case Code::rsqrt: return m::rsqrt(x(0));
        case Code::sin: return m::sin(x(0));
        case Code::cos: return m::cos(x(0));
        case Code::tan: return m::tan(x(0));
        case Code::tanh: return m::tanh(x(0));
        case Code::erf: return m::erf(x(0));
        case Code::floor: return m::floor(x(0));
        case Code::ceil: return m::ceil(x(0));
        case Code::round: return m::round(x(0));
        case Code::trunc: return m::trunc(x(0));
        case Code::logical_not: return m::logical_not(x(0));
        case Code::is_nan: return m::is_nan(x(0));
        case Code::atan: return m::atan(x(0));
        case Code::add: return x(0) + x(1);
        case Code::sub: return x(0) - x(1);
        case Code::mul: return x(0) * x(1);
        case Code::div: return x(0) / x(1);
        case Code::rem: return m::rem(x(0), x(1));
        case Code::pow: return m::pow(x(0), x(1));
        case Code::max: return m::max(x(0), x(1));
        case Code::min: return m::min(x(0), x(1));
        case Code::atan2: return m::atan2(x(0), x(1));
        case Code::eq: return x(0) == x(1);
        case Code::ne: return x(0) != x(1);
        case Code::lt: return x(0) < x(1);
        case Code::le: return x(0) <= x(1);
        case Code::gt: return x(0) > x(1);
        case Code::ge: return x(0) >= x(1);
        case Code::logical_and: return m::logical_and(x(0), x(1));
        case Code::logical_or: return m::logical_or(x(0), x(1));
        case Code::logical_xor: return m::logical_xor(x(0), x(1));
        case Code::shift_left: return m::shift_left(x(0), x(1));
        case Code::shift_right: return m::shift_right(x(0), x(1));
        case Code::select: return m::select(x(0) != 0, x(1), x(2));
      }
      return 0;
    };
    v.push_back(run());
  }
  return v.back();
}

TEST(ScalarBodies, WhatIsRecordedIsWhatIsComputed) {
  for (const OpDef* op : test::sampled_ops()) {
    if (!op->scalar) continue;
    const ir::ScalarProgram program = op->scalar.program(op->arity.max);
    for (const double a : {-2.5, -1.0, -0.0, 0.5, 1.0, 3.0, std::nan("")})
      for (const double b : {-2.0, 0.0, 0.75, 3.0}) {
        const std::vector<double> in{a, b, 1.5};
        const double want = op->scalar.f64(in.data()), got = run_program(program, in);
        EXPECT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
            << op->name << "(" << a << ", " << b << "): " << program.text() << " gives " << got << ", not "
            << want;
      }
  }
}

}  // namespace
}  // namespace espalier

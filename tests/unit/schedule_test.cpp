#include "pass/schedule.h"

#include <gtest/gtest.h>

#include <unordered_map>

#include "pass/buffer_plan.h"
#include "pass/storage.h"
#include "support/graph_of.h"
#include "support/random_program.h"

namespace espalier::pass {
namespace {

using ir::Value;
using test::graph_of;

Value input(const std::string& name, ir::Dims dims) {
  return ir::new_input(name, {ir::Dtype::f32, std::move(dims)});
}

std::unordered_map<const ir::Node*, size_t> positions(const Schedule& s) {
  std::unordered_map<const ir::Node*, size_t> at;
  for (size_t i = 0; i < s.order.size(); ++i)
    EXPECT_TRUE(at.emplace(s.order[i], i).second) << "a node stands twice";
  return at;
}

/// Operands before their readers; readers of an old value before the writer of the new one, where the pair is shared.
void check_order(const ir::Graph& g, const Schedule& s) {
  const auto at = positions(s);
  size_t steps = 0;
  for (const ir::Node* n : g.nodes()) {
    if (n->op().kind == ir::Kind::leaf || is_view(*n)) continue;
    ++steps;
    for (const Value& operand : n->inputs()) {
      const Value v = storage_of(operand);
      if (v->op().kind != ir::Kind::leaf) EXPECT_LT(at.at(&v.node()), at.at(n));
      for (size_t p = 0; p < g.state.size(); ++p) {
        if (!s.shared[p] || v != g.inputs[*g.find_input(g.state[p].input)]) continue;
        const Value made = storage_of(g.outputs[*g.find_output(g.state[p].output)].value);
        EXPECT_LE(at.at(n), at.at(&made.node()))
            << "old value of " << g.state[p].input << " is read after it is gone";
      }
    }
  }
  EXPECT_EQ(s.order.size(), steps);
}

TEST(Schedule, RandomGraphsKeepOperandsAndStateInOrder) {
  std::mt19937_64 rng(7);
  for (int round = 0; round < 300; ++round) {
    const ir::Graph g = test::random_program(rng, {.nodes = static_cast<int>(rng() % 60)});
    check_order(g, schedule(g));
  }
}

TEST(Schedule, IsTheSameForTheSameStructure) {
  const auto names = [](uint64_t seed) {
    std::mt19937_64 rng(seed);
    std::string text;
    const ir::Graph g = test::random_program(rng);
    for (const ir::Node* n : schedule(g).order) (text += n->op().name) += " ";
    return text;
  };
  EXPECT_EQ(names(11), names(11));
}

TEST(Schedule, UpdatesRunAsSoonAsTheirGradientIsThere) {
  const Value x = input("x", {1000}), a = input("a", {1000}), b = input("b", {1000});
  const Value grad_a = op::tanh(op::mul(x, 2.0)), grad_b = op::tanh(op::mul(x, 3.0));
  const ir::Graph g = graph_of({x, a, b},
                               {{"loss", op::reduce_sum(x, {0})},
                                {"a2", op::sub(a, op::add(grad_a, grad_b))},
                                {"b2", op::sub(b, grad_b)}},
                               {{"a", "a2"}, {"b", "b2"}});
  const Schedule s = schedule(g);
  check_order(g, s);
  EXPECT_EQ(s.shared, (std::vector<char>{1, 1}));
  // The update of b reads a gradient that the other update still needs; that of a ends its gradient at once.
  const auto at = positions(s);
  EXPECT_EQ(at.at(&g.outputs[1].value.node()), at.at(&g.outputs[1].value->input(1).node()) + 1);
  EXPECT_LE(s.live_bytes, 3 * 4000 + 64);
}

TEST(Schedule, AReaderOfBothSidesForbidsSharing) {
  const Value s = input("s", {8});
  const Value made = op::neg(s), both = op::add(op::tanh(made), op::tanh(s));
  // tanh(s) can come before made; a reader that needs both at once cannot.
  const ir::Graph possible = graph_of({s}, {{"new", made}, {"y", both}}, {{"s", "new"}});
  EXPECT_EQ(schedule(possible).shared, (std::vector<char>{1}));
  const ir::Graph impossible = graph_of({s}, {{"new", made}, {"y", op::mul(made, s)}}, {{"s", "new"}});
  const Schedule plan = schedule(impossible);
  EXPECT_EQ(plan.shared, (std::vector<char>{0}));
  check_order(impossible, plan);
}

TEST(Schedule, TwoPairsThatNeedEachOtherShareOnlyOne) {
  const Value a = input("a", {8}), b = input("b", {8});
  const ir::Graph swap =
      graph_of({a, b}, {{"a2", op::neg(b)}, {"b2", op::neg(a)}}, {{"a", "a2"}, {"b", "b2"}});
  const Schedule s = schedule(swap);
  EXPECT_EQ(s.shared[0] + s.shared[1], 1);
  check_order(swap, s);
}

TEST(Schedule, AStateThatBecomesAnotherStatesOldValueIsNotShared) {
  const Value a = input("a", {8}), b = input("b", {8});
  const ir::Graph g = graph_of({a, b}, {{"a2", b}, {"b2", a}}, {{"a", "a2"}, {"b", "b2"}});
  const Schedule s = schedule(g);
  EXPECT_TRUE(s.order.empty());
  EXPECT_EQ(s.shared, (std::vector<char>{0, 0}));
}

/// Random facts: in-place pairs of equal types, some scratch, constants that are not read.
std::vector<StepFacts> random_facts(std::mt19937_64& rng, const Schedule& s) {
  std::vector<StepFacts> facts;
  for (const ir::Node* n : s.order) {
    StepFacts f;
    for (int r = 0; r < n->results(); ++r)
      for (size_t i = 0; i < n->inputs().size(); ++i)
        if (n->inputs()[i].type() == n->types()[static_cast<size_t>(r)] && rng() % 3)
          f.in_place.emplace_back(r, static_cast<int>(i));
    if (rng() % 4 == 0) f.scratch_bytes = static_cast<int64_t>(rng() % 300);
    for (const Value& v : n->inputs()) f.reads.push_back(!ir::constant_value(storage_of(v)) || rng() % 2);
    facts.push_back(std::move(f));
  }
  return facts;
}

TEST(BufferPlan, RandomGraphsHoldEveryValueWhereItIsRead) {
  std::mt19937_64 rng(8);
  int in_place = 0, copies = 0;
  for (int round = 0; round < 300; ++round) {
    const ir::Graph g = test::random_program(
        rng, {.states = 1 + static_cast<int>(rng() % 4), .nodes = static_cast<int>(rng() % 60)});
    const Schedule s = schedule(g);
    const auto facts = random_facts(rng, s);
    const BufferPlan plan = plan_buffers(g, s, facts);
    verify(plan, g, s, facts);
    EXPECT_LE(static_cast<double>(plan.arena_bytes), 1.05 * static_cast<double>(plan.largest_live_bytes));
    for (const PlannedStep& step : plan.steps) {
      copies += step.node ? 0 : 1;
      for (const Place& p : step.results)
        in_place += step.node && p.kind == Place::Kind::arena &&
                    std::find(step.operands.begin(), step.operands.end(), p) != step.operands.end();
    }
  }
  EXPECT_GT(in_place, 100);
  EXPECT_GT(copies, 100);
}

TEST(BufferPlan, StateOfAnUpdateIsWrittenInPlace) {
  const Value x = input("x", {64}), w = input("w", {64});
  const ir::Graph g = graph_of({x, w}, {{"y", op::mul(x, w)}, {"w2", op::sub(w, x)}}, {{"w", "w2"}});
  const Schedule s = schedule(g);
  std::vector<StepFacts> facts(s.order.size());
  for (StepFacts& f : facts) f.in_place = {{0, 0}};
  const BufferPlan plan = plan_buffers(g, s, facts);
  verify(plan, g, s, facts);
  EXPECT_EQ(plan.arena_bytes, 0);
  ASSERT_EQ(plan.steps.size(), 2u);
  EXPECT_EQ(plan.steps[1].results[0], (Place{Place::Kind::input, 1, 0}));
  // A kernel that may not overwrite its operand writes elsewhere, and the state is copied at the end.
  for (StepFacts& f : facts) f.in_place.clear();
  const BufferPlan copied = plan_buffers(g, s, facts);
  verify(copied, g, s, facts);
  EXPECT_EQ(copied.arena_bytes, 256);
  ASSERT_EQ(copied.steps.size(), 3u);
  EXPECT_EQ(copied.steps[2].node, nullptr);
}

TEST(BufferPlan, SwappedStatesAreCopiedThroughATemporary) {
  const Value a = input("a", {8}), b = input("b", {8});
  const ir::Graph g = graph_of({a, b}, {{"a2", b}, {"b2", a}, {"y", a}}, {{"a", "a2"}, {"b", "b2"}});
  const Schedule s = schedule(g);
  const BufferPlan plan = plan_buffers(g, s, {});
  verify(plan, g, s, {});
  EXPECT_EQ(plan.steps.size(), 5u);
  EXPECT_EQ(plan.output_has_slot, (std::vector<char>{0, 0, 1}));
}

/// Every single place of a plan, moved: the verifier has to see it.
TEST(BufferPlan, VerifierCatchesEverySeededFault) {
  std::mt19937_64 rng(9);
  int caught = 0, seeded = 0;
  for (int round = 0; round < 60; ++round) {
    const ir::Graph g = test::random_program(rng, {.nodes = 20});
    const Schedule s = schedule(g);
    const auto facts = random_facts(rng, s);
    const BufferPlan plan = plan_buffers(g, s, facts);
    for (size_t i = 0; i < plan.steps.size(); ++i) {
      const PlannedStep& step = plan.steps[i];
      if (!step.node) continue;
      for (size_t k = 0; k < step.operands.size(); ++k) {
        if (step.node->inputs()[k].type().bytes() == 0 || step.operands[k].kind == Place::Kind::none)
          continue;
        BufferPlan broken = plan;
        Place& p = broken.steps[i].operands[k];
        if (p.kind == Place::Kind::arena) p.offset += ArenaOptions{}.alignment;
        else p.kind = Place::Kind::arena, p.offset = 0;
        ++seeded;
        try {
          verify(broken, g, s, facts);
        } catch (const InternalError&) {
          ++caught;
        }
      }
      if (step.node->types()[0].bytes() >
          0) {  // a result that lands on the first byte of the arena, or beyond its end
        BufferPlan broken = plan;
        Place& p = broken.steps[i].results[0];
        p = {Place::Kind::arena, 0, plan.arena_bytes};
        EXPECT_THROW(verify(broken, g, s, facts), InternalError);
        std::swap(broken.steps[i].results[0], broken.steps[i].scratch);
        if (facts[0].scratch_bytes > 0) EXPECT_THROW(verify(broken, g, s, facts), InternalError);
      }
    }
    for (size_t i = 0; i + 1 < plan.steps.size(); ++i) {
      if (!plan.steps[i].node) continue;
      BufferPlan broken = plan;
      std::swap(broken.steps[i], broken.steps[i + 1]);
      if (plan.steps[i + 1].node) EXPECT_THROW(verify(broken, g, s, facts), InternalError);
      broken = plan;
      broken.steps.erase(broken.steps.begin() + static_cast<std::ptrdiff_t>(i));
      EXPECT_THROW(verify(broken, g, s, facts), InternalError);
    }
  }
  EXPECT_GT(seeded, 500);
  EXPECT_EQ(caught, seeded);
}

}  // namespace
}  // namespace espalier::pass

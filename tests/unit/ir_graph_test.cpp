// The graph with ops defined outside of op/, as a user's own ops are.
#include "ir/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "op/table.h"
#include "support/graph_of.h"

namespace espalier::ir {
namespace {

using test::graph_of;
using testing::HasSubstr;

const OpDef blend_op{
    .name = "test_blend",
    .doc = "a and b mixed element by element.",
    .kind = Kind::elementwise,
    .arity = {2, 2},
    .dtypes = float_types,
    .attrs = attr_type<NoAttrs>(),
    .infer = [](const InferCtx& c) -> std::vector<Type> {
      if (c.in[0] != c.in[1]) c.fail("operands differ", "equal types");
      return {c.in[0]};
    },
    .grad = not_differentiable,
    .expand = nullptr,
    .scalar = body<2, [](auto a, auto b) { return a + b; }>(),
    .eval = nullptr,
    .sample = nullptr,
};

struct CopiesAttrs {
  int64_t count = 1;
  std::string label;
  std::vector<double> scales;
  GraphRef body;
  bool operator==(const CopiesAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{field("count", &CopiesAttrs::count), field("label", &CopiesAttrs::label),
                      field("scales", &CopiesAttrs::scales), field("body", &CopiesAttrs::body)};
  }
};

const OpDef copies_op{
    .name = "test_copies",
    .doc = "The operand, `count` times.",
    .kind = Kind::movement,
    .arity = {1, 1},
    .dtypes = all_types,
    .attrs = attr_type<CopiesAttrs>(),
    .infer = [](const InferCtx& c) -> std::vector<Type> {
      const auto count = c.attrs.get<CopiesAttrs>().count;
      if (count < 1) c.fail("no result", "count >= 1", std::to_string(count));
      return std::vector<Type>(static_cast<size_t>(count), c.in[0]);
    },
    .grad = not_differentiable,
    .expand = nullptr,
    .scalar = {},
    .eval = nullptr,
    .sample = nullptr,
};

const bool registered = (op::register_op(blend_op), op::register_op(copies_op), true);

Type vector_of(Dim n) { return {Dtype::f32, {n}}; }

Value blend(const Value& a, const Value& b) { return make(blend_op, {a, b}); }

void expect_reads_back(const Graph& g) {
  const std::string text = print(g);
  const Graph again = parse(text);
  EXPECT_TRUE(same_structure(g, again)) << text;
  EXPECT_EQ(structure_hash(g), structure_hash(again));
  EXPECT_EQ(print(again), text);
}

TEST(Node, EqualNodesAreOne) {
  const Value x = new_input("x", vector_of(4)), y = new_input("x", vector_of(4));
  EXPECT_NE(x, y);  // an input is itself
  EXPECT_EQ(blend(x, y), blend(x, y));
  EXPECT_NE(blend(x, y), blend(y, x));
  EXPECT_EQ(constant(Dtype::f32, 1.5), constant(Dtype::f32, 1.5));
  EXPECT_NE(constant(Dtype::f32, 0.0), constant(Dtype::f32, -0.0));
  EXPECT_EQ(make(copies_op, {x}, CopiesAttrs{.count = 2, .label = "a", .scales = {}, .body = {}}),
            make(copies_op, {x}, CopiesAttrs{.count = 2, .label = "a", .scales = {}, .body = {}}));
  EXPECT_NE(make(copies_op, {x}, CopiesAttrs{.count = 2, .label = "a", .scales = {}, .body = {}}),
            make(copies_op, {x}, CopiesAttrs{.count = 2, .label = "b", .scales = {}, .body = {}}));
}

TEST(Node, TheTableIsWeakAndLongChainsAreFine) {
  const int64_t before = live_nodes();
  {
    Value x = new_input("x", vector_of(1));
    for (int i = 0; i < 1000000; ++i) x = blend(x, x);
    EXPECT_EQ(live_nodes(), before + 1000001);
    const Graph g = graph_of({}, {x});
    EXPECT_EQ(g.nodes().size(), 1000001u);
  }
  EXPECT_EQ(live_nodes(), before);
}

TEST(Node, MakeRefusesWithTheOpAndWhatCame) {
  const Value x = new_input("x", vector_of(4)), y = new_input("y", vector_of(5));
  const Value n = new_input("n", {Dtype::i32, {4}});
  for (const auto& [act, words] : std::vector<std::pair<std::function<void()>, std::vector<std::string>>>{
           {[&] { blend(x, y); }, {"test_blend", "operands differ", "f32[4]", "f32[5]"}},
           {[&] { make(blend_op, {x}); }, {"test_blend"}},
           {[&] {
              make(blend_op, {n, n});
            },
            {"test_blend", "i32"}},
           {[&] { make(copies_op, {x}, CopiesAttrs{.count = 0, .label = "", .scales = {}, .body = {}}); },
            {"test_copies", "no result", "0"}}}) {
    try {
      act();
      ADD_FAILURE() << "nothing was thrown for " << words[0];
    } catch (const UserError& error) {
      for (const std::string& word : words) EXPECT_THAT(error.what(), HasSubstr(word));
    }
  }
}

TEST(NodeThreads, EqualNodesFromManyThreadsAreOne) {
  const int64_t before = live_nodes();
  {
    const Value x = new_input("x", vector_of(4));
    std::vector<Value> last(4);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < last.size(); ++t)
      threads.emplace_back([&, t] {
        for (int round = 0; round < 50; ++round) {
          Value v = x;
          for (int i = 0; i < 20; ++i) v = blend(v, x);
          last[t] = v;
        }
      });
    for (std::thread& thread : threads) thread.join();
    for (const Value& v : last) EXPECT_EQ(v, last[0]);
  }
  EXPECT_EQ(live_nodes(), before);
}

TEST(GraphText, ReadsBack) {
  const Value x = new_input("x \"quoted\"", vector_of(Dim::symbol("batch") * 2)),
              s = new_input("s", vector_of(3));
  const Value same = blend(x, x);
  const Graph body = graph_of({s}, {blend(s, s)});
  const std::vector<Value> copies = make_all(
      copies_op, {same},
      CopiesAttrs{
          .count = 3, .label = "tab\tend", .scales = {0.1, -1e300}, .body = std::make_shared<Graph>(body)});
  Graph g = graph_of({x}, {copies[2], copies[0], same, x});
  g.outputs.push_back({"constants", constant(Array::of<float>({2, 2}, {0.1f, -0.0f, 1e-40f, 3e38f}))});
  g.outputs.push_back({"odd", constant(Array::of<double>({3}, {std::nan(""), INFINITY, -INFINITY}))});
  g.outputs.push_back({"flags", constant(Array::of<bool>({3}, {true, false, true}))});
  g.outputs.push_back({"large", constant(Array::of<int64_t>({2}, {INT64_MIN, INT64_MAX}))});
  g.state = {{x->attrs<InputAttrs>().name, "y3"}};
  verify(g);
  expect_reads_back(g);
}

TEST(GraphText, LargeConstantsGoToThePool) {
  const Graph g =
      graph_of({}, {constant(Array::full(Dtype::f32, {100}, 0.5)), constant(Array::full(Dtype::i8, {2}, 1))});
  ConstantPool pool;
  const std::string text = print(g, &pool);
  ASSERT_EQ(pool.size(), 1u);
  EXPECT_TRUE(same_structure(parse(text, &pool), g));
  EXPECT_THROW(parse(text), UserError);
}

TEST(GraphText, RefusalsNameTheLine) {
  const char* const start = "graph \"g\" tensor {\n  %0 = input \"x\" : f32[4]\n";
  for (const auto& [rest, word] : std::vector<std::pair<std::string, std::string>>{
           {"  %1 = nonsense(%0) : f32[4]\n  return\n}\n", "nonsense"},
           {"  %1 = test_blend(%0, %7) : f32[4]\n  return\n}\n", "%7"},
           {"  %1 = test_blend(%0, %0) : f32[5]\n  return\n}\n", "f32[4]"},
           {"  %0 = test_blend(%0, %0) : f32[4]\n  return\n}\n", "%0"},
           {"  %1 = test_copies(%0) {colour=1} : f32[4]\n  return\n}\n", "colour"},
           {"  %1 = input \"x\" : f32[4]\n  return\n}\n", "\"x\""}}) {
    try {
      parse(start + rest);
      ADD_FAILURE() << "nothing was thrown for " << rest;
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr(word));
      EXPECT_THAT(error.what(), HasSubstr("3"));
    }
  }
}

TEST(GraphText, BodiesNestedWithoutEndAreRefused) {
  std::string text;
  for (int i = 0; i < 100000; ++i)
    text += "graph \"g\" tensor {\n %0 = input \"x\" : f32[4]\n %1 = test_copies(%0){body=";
  EXPECT_THROW(parse(text), UserError);
}

TEST(GraphStructure, TellsManyResultsApart) {
  const Value x = new_input("x", vector_of(2));
  const auto copies = [&](const Value& v, const char* label) {
    return make_all(copies_op, {v}, CopiesAttrs{.count = 20, .label = label, .scales = {}, .body = {}});
  };
  const std::vector<Value> a = copies(x, "a"), b = copies(x, "b");
  const Graph one = graph_of({x}, {a[0], b[0], a[17]}), two = graph_of({x}, {a[0], b[0], b[1]});
  EXPECT_FALSE(same_structure(one, two));
  EXPECT_NE(structure_hash(one), structure_hash(two));
}

TEST(GraphVerify, FindsWhatIsWrong) {
  const Value x = new_input("x", vector_of(2)), z = new_input("z", vector_of(2));
  verify(graph_of({x}, {x}));
  EXPECT_THROW(verify(graph_of({}, {x})), InternalError);
  EXPECT_THROW(verify(graph_of({x, x}, {x})), InternalError);
  EXPECT_THROW(verify(graph_of({blend(x, x)}, {x})), InternalError);
  EXPECT_THROW(verify(graph_of({x}, {Value()})), InternalError);
  EXPECT_THROW(verify(graph_of({x}, {blend(x, z)})), InternalError);
  Graph g = graph_of({x}, {x});
  g.state = {{"x", "absent"}};
  EXPECT_THROW(verify(g), InternalError);
}

TEST(GraphSpecialise, BindsSymbolsInInputsAndBodies) {
  const Dim batch = Dim::symbol("batch");
  const Value x = new_input("x", vector_of(batch)), s = new_input("s", vector_of(batch * 3));
  const auto inner = std::make_shared<Graph>(graph_of({s}, {blend(s, s)}));
  const Graph g = graph_of({x}, make_all(copies_op, {blend(x, x)},
                                         CopiesAttrs{.count = 1, .label = "", .scales = {}, .body = inner}));
  EXPECT_EQ(symbols_of(g), std::vector<std::string>{"batch"});
  const Graph bound = specialise(g, {{"batch", 4}, {"other", 5}});
  verify(bound);
  EXPECT_EQ(bound.inputs[0].type(), vector_of(4));
  EXPECT_EQ(bound.outputs[0].value.type(), vector_of(4));
  const GraphRef body = bound.outputs[0].value->attrs<CopiesAttrs>().body;
  EXPECT_EQ(body->inputs[0].type(), vector_of(12));
  EXPECT_EQ(body->outputs[0].value.type(), vector_of(12));
  EXPECT_THROW(specialise(g, {{"batch", -1}}), UserError);
}

TEST(GraphTransform, KeepsTheVeryNodesWhereNothingChanged) {
  const Value x = new_input("x", vector_of(2)), y = new_input("y", vector_of(2));
  const Value left = blend(x, x), root = blend(left, blend(y, y));
  Graph g = graph_of({x, y}, {root});
  g.info[left->id()] = {.name = "left", .location = "here"};
  const Graph same =
      transform(g, [](const Node&, const std::vector<Value>&) { return std::vector<Value>{}; });
  EXPECT_EQ(same.outputs[0].value, root);
  const Graph changed = transform(g, [&](const Node& n, const std::vector<Value>&) {
    return &n == &left.node() ? std::vector<Value>{x} : std::vector<Value>{};
  });
  EXPECT_EQ(changed.outputs[0].value, blend(x, blend(y, y)));
  EXPECT_EQ(changed.info.at(x->id()).name, "left");
  EXPECT_EQ(inline_graph(g, std::vector<Value>{y, y})[0], blend(blend(y, y), blend(y, y)));
}

}  // namespace
}  // namespace espalier::ir

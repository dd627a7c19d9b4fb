// ONNX files: saving is exact, files are clean for other tools, what is malformed is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <random>
#include <set>

#include "base/file.h"
#include "format/onnx.h"
#include "nn/models.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/movement.h"
#include "op/norm.h"
#include "op/reduction.h"
#include "op/window.h"
#include "support/arrays.h"
#include "support/folder.h"
#include "support/graph_of.h"
#include "support/op_samples.h"
#include "support/random_graph.h"
#include "target/reference/interpreter.h"
#include "tensor/input_ranges.h"

namespace espalier {
namespace {

using ir::Dim;
using ir::Value;
using test::graph_of;

Array random_array(const ir::Type& type, const std::map<std::string, int64_t>& symbols, uint32_t seed) {
  std::vector<int64_t> dims;
  for (const Dim& d : type.dims)
    dims.push_back(d.is_static() ? d.value() : d.factor() * symbols.at(std::string(d.symbol_name())));
  Array a(type.dtype, dims);
  std::mt19937 rng(seed);
  for (int64_t i = 0; i < a.size(); ++i)
    a.set(i, is_float(type.dtype) ? std::uniform_real_distribution<>(-1, 1)(rng)
                                  : static_cast<double>(rng() % 2));
  return a;
}

/// Saves, loads, and checks that the loaded graph gives the same bits; gives it back.
ir::Graph round_trip(const ir::Graph& graph, const std::map<std::string, int64_t>& symbols = {}) {
  ir::Graph loaded = format::parse_onnx(format::onnx_bytes(graph), "model");
  EXPECT_EQ(loaded.name, graph.name);
  std::vector<Array> inputs;
  for (const ir::Value& v : graph.inputs)
    inputs.push_back(random_array(v.type(), symbols, static_cast<uint32_t>(inputs.size())));
  const auto want = target::reference::evaluate(graph, inputs),
             got = target::reference::evaluate(loaded, inputs);
  EXPECT_EQ(want.size(), got.size());
  for (size_t i = 0; i < std::min(want.size(), got.size()); ++i)
    EXPECT_TRUE(want[i] == got[i]) << graph.outputs[i].name << ": " << want[i].type().text() << " "
                                   << got[i].type().text();
  return loaded;
}

/// As round_trip, and the loaded graph is the same graph.
ir::Graph exact(const ir::Graph& graph, const std::map<std::string, int64_t>& symbols = {}) {
  ir::Graph loaded = round_trip(graph, symbols);
  ir::ConstantPool a, b;
  EXPECT_TRUE(ir::same_structure(graph, loaded)) << ir::print(graph, &a) << "\n" << ir::print(loaded, &b);
  return loaded;
}

ir::Type f32(ir::Dims dims) { return {ir::Dtype::f32, std::move(dims)}; }
const Dim batch = Dim::symbol("batch");

template <class M>
ir::Graph traced(M& model, const ir::Type& type) {
  parameters_of(model);
  return Model::traced(
             [&](const std::vector<Tensor>& x) -> std::vector<Tensor> {
               if constexpr (requires { model(x[0], nn::Mode::eval); }) return {model(x[0], nn::Mode::eval)};
               else return {model(x[0])};
             },
             std::array{type})
      .frozen();
}

TEST(Onnx, MlpComesBack) {
  nn::Init init(1);
  nn::Mlp model({7, 5, 3}, init);
  const ir::Graph loaded = exact(traced(model, f32({batch, 7})), {{"batch", 4}});
  const Model again(loaded);
  std::set<std::string> names;
  for (const Parameter& p : again.parameters()) names.insert(p.name());
  EXPECT_EQ(names, (std::set<std::string>{"layer1.weight", "layer1.bias", "layer2.weight", "layer2.bias"}));
}

TEST(Onnx, LeNetComesBack) {
  nn::Init init(2);
  nn::LeNet model(init);
  exact(traced(model, f32({batch, 28, 28, 1})), {{"batch", 2}});
}

TEST(Onnx, ResNetComesBack) {
  nn::Init init(3);
  nn::ResNet model({.blocks = {1, 1}, .classes = 5, .width = 4}, init);
  exact(traced(model, f32({batch, 32, 32, 3})), {{"batch", 2}});
}

TEST(Onnx, UNetComesBack) {
  nn::Init init(4);
  nn::UNet model(1, 1, init, 2);
  exact(traced(model, f32({batch, 32, 64, 1})), {{"batch", 1}});
  exact(traced(model, f32({2, 32, 32, 1})));
}

/// How many nodes of this op a file has: its name after the tag of NodeProto.op_type.
size_t count_nodes(const std::string& bytes, const std::string& op) {
  const std::string field = std::string("\x22") + static_cast<char>(op.size()) + op;
  size_t n = 0;
  for (size_t at = bytes.find(field); at != std::string::npos; at = bytes.find(field, at + 1)) ++n;
  return n;
}

TEST(Onnx, FilesAreCleanForOtherTools) {
  nn::Init init(4);
  nn::UNet model(1, 2, init, 2);
  const std::string bytes = format::onnx_bytes(traced(model, f32({1, 32, 32, 1})));
  EXPECT_EQ(count_nodes(bytes, "Transpose"), 2u);  // one behind the input, one before the output
  EXPECT_EQ(count_nodes(bytes, "ConvTranspose"), 5u);
  EXPECT_GT(count_nodes(bytes, "BatchNormalization"), 20u);
  EXPECT_EQ(count_nodes(bytes, "Add"), 8u);  // the residual sums; biases stand in the convolutions
  EXPECT_EQ(bytes.find("espalier", 20),
            std::string::npos);  // but for the producer's name: no op of our domain
}

/// Does a file hold nodes of our domain? It stands behind the producer's name then.
bool has_our_domain(const std::string& bytes) { return bytes.find("espalier", 20) != std::string::npos; }

TEST(Onnx, WhatOnnxCanSayIsNotInOurDomain) {
  const Value x = ir::new_input("x", f32({batch, 6, 4})), y = ir::new_input("y", f32({batch, 6, 4}));
  const Value w = ir::new_input("w", f32({4})), b = ir::new_input("b", f32({4}));
  const Value ids = ir::new_input("ids", {ir::Dtype::i64, {batch, 5}}),
              narrow = ir::new_input("narrow", {ir::Dtype::i32, {batch, 6, 2}});
  const Value table = ir::new_input("table", f32({7, 3}));
  const auto count = op::iota({ir::Dtype::f32, {batch, 6, 4}}, 1);
  const std::map<std::string, Value> results{
      {"square", op::square(x)},
      {"gelu", op::gelu(x)},
      {"gelu tanh", op::gelu(x, true)},
      {"silu", op::silu(x)},
      {"group norm", op::group_norm(x, w, b, 2, 1e-5)},
      {"layer norm", op::layer_norm(x, w, b, 1e-5)},
      {"layer norm of another eps", op::layer_norm(x, w, b, 1.00000000001e-5)},
      {"embedding", op::embedding(table, ids)},
      {"gather",
       op::gather(x,
                  op::clamp(op::reshape(ids, {batch * 5}), op::zeros_like(op::reshape(ids, {batch * 5})),
                            op::ones_like(op::reshape(ids, {batch * 5}))),
                  1)},
      {"gather along", op::gather_along(x, narrow, 2)},
      {"rsqrt", op::rsqrt(op::add(op::square(x), 1))},
      {"trunc", op::trunc(op::mul(x, 3))},
      {"ne", op::ne(x, y)},
      {"iota", op::add(x, count)},
      {"clamp", op::clamp(x, op::min(x, y), y)}};
  for (const auto& [name, value] : results) {
    const ir::Graph g = graph_of({x, y, w, b, ids, narrow, table}, {value});
    round_trip(g, {{"batch", 3}});
    EXPECT_FALSE(has_our_domain(format::onnx_bytes(g))) << name;
  }
  exact(graph_of({table, ids}, {op::gather(table, ids, 0)}), {{"batch", 3}});  // no clipping stays
  for (const ir::Dtype dtype : {ir::Dtype::f32, ir::Dtype::bf16, ir::Dtype::f64}) {
    const ir::Dtype stats = dtype == ir::Dtype::f64 ? dtype : ir::Dtype::f32;
    const Value v = ir::new_input("v", {dtype, {batch, 3, 5, 6}}),
                scale = ir::new_input("scale", {stats, {6}}), shift = ir::new_input("shift", {stats, {6}});
    const Value h = op::group_norm(op::silu(v), scale, shift, 3, 1e-5);
    exact(graph_of({v, scale, shift},
                   {op::gelu(h), op::gelu(h, true), op::group_norm(v, scale, shift, 2, 0.125)}),
          {{"batch", 2}});
  }
  EXPECT_TRUE(has_our_domain(format::onnx_bytes(graph_of({x}, {op::expm1(x)}))));
}

/// Saving and loading adds nothing, whether the dims are known or not, and the indices an argument may hold are still checked.
TEST(Onnx, GatheringsComeBackAsTheyWere) {
  const Value table = ir::new_input("table", f32({7, 3}));
  for (const Dim& n : {Dim(2), batch, Dim(0), Dim(1)})
    for (const ir::Dtype dtype : {ir::Dtype::i64, ir::Dtype::i32}) {
      const Value ids = ir::new_input("ids", {dtype, {n, 3}}), row = ir::new_input("row", {dtype, {n}});
      for (const Value& y : {op::gather(table, ids, 0), op::gather_along(table, ids, 0),
                             op::gather(table, row, 1), op::embedding(table, ids)}) {
        const Value& indices = y->input(1);
        ir::Graph g = graph_of({table, indices}, {y});
        const bool composite = y->op().name == op::embedding_op.name;  // which comes back as a gathering
        if (composite) g = format::parse_onnx(format::onnx_bytes(g), "model");
        const std::string text = ir::print(g), bytes = format::onnx_bytes(g);
        for (int i = 0; i < 3; ++i) {
          g = format::parse_onnx(format::onnx_bytes(g), "model");
          EXPECT_EQ(ir::print(g), text);
          EXPECT_EQ(format::onnx_bytes(g), bytes);
        }
        const auto ranges = input_ranges(g, g.inputs.size());
        ASSERT_EQ(ranges.size(), 1u) << text;
        EXPECT_EQ(ranges[0].high, indices == row ? 3 : 7);
      }
    }
}

/// Indices of another tool that count from either end are that after every saving and loading.
TEST(Onnx, PositionsFromEitherEndDoNotGrow) {
  const Value x = ir::new_input("x", f32({5, 4}));
  for (const Dim& n : {Dim(2), batch}) {
    const Value ids = ir::new_input("ids", {ir::Dtype::i64, {n}});
    const Value rows = op::select(op::lt(ids, op::zeros_like(ids)), op::add(ids, 5), ids);
    ir::Graph g =
        format::parse_onnx(format::onnx_bytes(graph_of({x, ids}, {op::gather(x, rows, 0)})), "model");
    const std::string bytes = format::onnx_bytes(g);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(g.nodes().size(), format::parse_onnx(bytes, "model").nodes().size());
      g = format::parse_onnx(format::onnx_bytes(g), "model");
      EXPECT_EQ(format::onnx_bytes(g), bytes);
    }
  }
}

TEST(Onnx, IndicesOutsideComeBackAsTheNearest) {
  const Value x = ir::new_input("x", f32({3})), ids = ir::new_input("ids", {ir::Dtype::i64, {5}});
  const ir::Graph loaded =
      format::parse_onnx(format::onnx_bytes(graph_of({x, ids}, {op::gather(x, ids, 0)})), "model");
  const std::vector<Array> inputs{Array::of<float>({3}, {1, 2, 3}),
                                  Array::of<int64_t>({5}, {-9, -1, 0, 2, 7})};
  EXPECT_EQ(target::reference::evaluate(loaded, inputs)[0], (Array::of<float>({5}, {1, 1, 1, 3, 3})));
}

TEST(Onnx, AnyResizeOfASymbolicBatchComesBack) {
  for (const auto& [from, to] :
       std::vector<std::pair<int64_t, int64_t>>{{8, 12}, {8, 16}, {7, 10}, {12, 5}, {3, 3}})
    for (const op::ResizeMode mode : {op::ResizeMode::nearest, op::ResizeMode::linear})
      for (const bool align : {false, true}) {
        const Value x = ir::new_input("x", f32({batch, from, 2 * from, 3}));
        const ir::Graph g =
            graph_of({x}, {op::resize(x, {.spatial = {to, 5}, .mode = mode, .align_corners = align})});
        exact(g, {{"batch", 2}});
        EXPECT_FALSE(has_our_domain(format::onnx_bytes(g))) << from << " to " << to;
      }
}

class OnnxOp : public testing::TestWithParam<const ir::OpDef*> {};

/// Every op of the table, in every dtype it takes: the loaded graph gives the same bits.
TEST_P(OnnxOp, ComesBack) {
  const ir::OpDef& op = *GetParam();
  ir::SampleRng rng = test::rng_of(op);
  for (const ir::Dtype dtype : test::dtypes_of(op.dtypes))
    for (int i = 0; i < 6; ++i) {
      const ir::Sample sample = op.sample(rng, dtype);
      const ir::Graph graph = test::graph_of(op, sample);
      const ir::Graph loaded = format::parse_onnx(format::onnx_bytes(graph), "op");
      const auto want = target::reference::evaluate(graph, sample.inputs),
                 got = target::reference::evaluate(loaded, sample.inputs);
      for (size_t k = 0; k < want.size(); ++k)
        ASSERT_TRUE(want[k] == got[k]) << ir::print(graph) << "\n" << ir::print(loaded);
    }
}
INSTANTIATE_TEST_SUITE_P(All, OnnxOp, testing::ValuesIn(test::sampled_ops()), test::OpName());

TEST(Onnx, RandomGraphsComeBack) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    ir::SampleRng rng(seed);
    const test::RandomGraph made =
        test::random_graph(rng, {.nodes = 15, .dtypes = ir::number_types, .stable = false, .use = {}});
    const ir::Graph loaded = format::parse_onnx(format::onnx_bytes(made.graph), "random");
    const auto got = target::reference::evaluate(loaded, made.inputs);
    ASSERT_EQ(got.size(), made.want.size());
    for (size_t k = 0; k < got.size(); ++k)
      ASSERT_TRUE(got[k] == made.want[k])
          << "seed " << seed << ", output " << made.graph.outputs[k].name << "\n"
          << ir::print(made.graph) << "\n"
          << ir::print(loaded);
  }
}

TEST(Onnx, LayoutsMeetAndPart) {
  const Value x = ir::new_input("x", f32({2, 4, 6, 3})), w = ir::new_input("w", f32({5, 3, 3, 3}));
  const Value h = ir::new_input("h", f32({4, 1})), c = ir::new_input("c", f32({5}));
  op::ConvAttrs a = op::plain_conv(2, ir::Dtype::f32);
  a.pad_low = a.pad_high = {1, 1};
  const Value y = op::conv(x, w, a);
  const Value rows = op::add(y, op::broadcast_in(op::reshape(h, {4}), y.dims(), {1}));  // along H
  const Value plane = op::mul(rows, op::broadcast_in(op::reduce_sum(y, {0, 3}), y.dims(), {1, 2}));
  const Value scaled = op::mul(plane, op::broadcast_in(c, y.dims(), {3}));
  const Value shown = op::transpose(scaled, {0, 3, 1, 2});  // the user's own
  const Value mean = op::reduce_mean(scaled, {1, 2});
  round_trip(graph_of({x, w, h, c},
                      {y, rows, shown, mean, op::reshape(scaled, {2, 120}), op::reduce_max(scaled, {2}),
                       op::softmax(scaled, 3), op::reverse(scaled, {1, 3}), op::concat({scaled, x}, 3)}));
}

TEST(Onnx, StateMetadataAndNamesComeBack) {
  const test::TemporaryFolder folder;
  const Value w = ir::new_input("w", f32({3})), x = ir::new_input("x", f32({3})),
              unused = ir::new_input("unused", f32({1}));
  const Value next = op::add(w, x);
  ir::Graph g{.name = "step",
              .inputs = {w, x, unused},
              .outputs = {{"w", next}, {"again", next}, {"copy", x}},
              .state = {{"w", "w"}},
              .info = {}};
  exact(g);
  const auto path = folder / "meta.onnx";
  format::save_onnx(path, g, {.metadata = {{"author", "none"}}});
  EXPECT_EQ(format::load_onnx(path).state, g.state);
  format::set_onnx_metadata(path, {{"calibration", std::string("a\0b", 3)}, {"author", ""}});
  const auto metadata = format::onnx_metadata(path);
  EXPECT_EQ(metadata.at("calibration"), std::string("a\0b", 3));
  EXPECT_FALSE(metadata.contains("author"));
  EXPECT_EQ(format::load_onnx(path).state, g.state);
}

TEST(Onnx, ParametersOfEqualValuesStayApart) {
  nn::Init init(1);
  nn::LeNet net(init);
  parameters_of(net);
  const Model model = Model::traced([&](const std::vector<Tensor>& in) { return std::vector{net(in[0])}; },
                                    std::vector{f32({2, 28, 28, 1})});
  for (const Parameter& p : model.parameters()) p.assign(p.tensor() * 0 + 0.5);
  const ir::Graph frozen = model.frozen();
  const Model again(exact(frozen), model.metadata());
  ASSERT_EQ(again.parameters().size(), model.parameters().size());
  for (size_t i = 0; i < again.parameters().size(); ++i)
    EXPECT_EQ(again.parameters()[i].name(), model.parameters()[i].name());
}

TEST(Onnx,
     AParameterInSeveralFormsIsOne) {  // as a matrix, transposed, as an image, as a filter and as a bias
  const Value x = ir::new_input("x", f32({4, 4})), image = ir::new_input("image", f32({1, 4, 4, 1}));
  const Value w = ir::constant(random_array(f32({4, 4}), {}, 1), "w"),
              b = ir::constant(random_array(f32({4}), {}, 2), "b");
  const Value product = op::matmul(op::matmul(x, w), op::transpose(w, {1, 0}));
  const Value filter = op::transpose(op::reshape(w, {2, 2, 2, 2}), {1, 0, 3, 2});
  const Value twice = op::broadcast_in(image, {1, 4, 4, 1, 2}, {0, 1, 2, 3});
  const Value conv = op::conv(op::reshape(twice, {1, 4, 4, 2}), filter, op::plain_conv(2, ir::Dtype::f32));
  const Value added = op::add(product, op::broadcast_in(b, {4, 4}, {1}));
  const Value shifted = op::add(op::reshape(added, {1, 2, 2, 4}), op::broadcast_in(b, {1, 2, 2, 4}, {3}));
  const Value side = op::mul(op::transpose(added, {1, 0}), op::broadcast_in(b, {4, 4}, {0}));
  const ir::Graph graph = graph_of({x, image}, {conv,
                                                op::max_pool(shifted, {.window = {2, 2},
                                                                       .stride = {1, 1},
                                                                       .pad_low = {0, 0},
                                                                       .pad_high = {0, 0},
                                                                       .count_pad = false,
                                                                       .spatial = {}})[0],
                                                side});
  const Model model(round_trip(graph));
  ASSERT_EQ(model.parameters().size(), 2u);
  for (const Parameter& p : model.parameters()) {
    const bool is_w = p.name() == "w";
    EXPECT_TRUE(is_w || p.name() == "b") << p.name();
    EXPECT_TRUE(p.storage() == *ir::constant_value(is_w ? w : b)) << p.name() << " came back in another form";
  }
}

TEST(Onnx, WeightsLieBesideALargeModel) {
  const test::TemporaryFolder folder;
  nn::Init init(1);
  nn::Mlp model({70, 50, 3}, init);
  const ir::Graph g = traced(model, f32({2, 70}));
  const auto path = folder / "large.onnx";
  format::save_onnx(path, g, {.metadata = {}, .weights_beside_above = 100});
  EXPECT_LT(std::filesystem::file_size(path), 3000u);
  EXPECT_TRUE(std::filesystem::exists(path.string() + ".safetensors"));
  EXPECT_TRUE(ir::same_structure(format::load_onnx(path), g));
  EXPECT_THROW(format::parse_onnx(read_file(path), "bytes"), UserError);
  std::filesystem::resize_file(path.string() + ".safetensors", 5000);
  EXPECT_THROW(format::load_onnx(path), UserError);
}

TEST(Onnx, SymbolsAreBoundOnDemand) {
  const test::TemporaryFolder folder;
  nn::Init init(1);
  nn::Mlp model({7, 3}, init);
  const auto path = folder / "m.onnx";
  format::save_onnx(path, traced(model, f32({batch, 7})));
  EXPECT_EQ(format::load_onnx(path, {.symbols = {{"batch", 5}}}).outputs[0].value.type().text(), "f32[5,3]");
  EXPECT_EQ(format::load_onnx(path).outputs[0].value.type().text(), "f32[batch,3]");
}

/// A model with the parts that files have: initializers, standard nodes, symbols, a node of our domain with a body.
std::string varied_model() {
  const Value x = ir::new_input("x", f32({batch, 8, 8, 3})), steps = ir::new_input("steps", f32({4, 3}));
  const Value w = ir::constant(random_array(f32({4, 3, 3, 3}), {}, 1)),
              b = ir::constant(random_array(f32({4}), {}, 2));
  op::ConvAttrs a = op::plain_conv(2, ir::Dtype::f32);
  const Value y = op::conv(x, w, a);
  const Value pooled =
      op::max_pool(op::relu(op::add(y, op::broadcast_in(b, y.dims(), {3}))), {.window = {2, 2},
                                                                              .stride = {2, 2},
                                                                              .pad_low = {0, 0},
                                                                              .pad_high = {1, 1},
                                                                              .count_pad = false,
                                                                              .spatial = {}})[0];
  const Value flat = op::reshape(pooled, {batch, 36});
  const ir::GraphRef body =
      op::body_graph("sum", std::array{f32({3}), f32({3})}, [](const std::vector<Value>& v) {
        const Value next = op::add(v[0], v[1]);
        return std::vector<Value>{next, op::rsqrt(next)};
      });
  const std::vector<Value> scanned =
      op::scan({.body = body, .carries = 1, .slices = 1, .length = 4, .reverse = false},
               {ir::constant(Array::of<float>({3}, {1, 2, 3})), steps});
  return format::onnx_bytes(graph_of({x, steps}, {op::softmax(flat, 1), scanned[1]}));
}

TEST(Onnx, MutatedFilesLoadOrAreRefused) {
  const std::string model = varied_model();
  std::mt19937 rng(7);
  int loaded = 0, refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = model;
    const size_t changes = 1 + rng() % 3;
    for (size_t k = 0; k < changes; ++k) {
      const size_t at = rng() % bytes.size();
      switch (rng() % 4) {
        case 0: bytes.resize(at + 1); break;
        case 1: bytes[at] = static_cast<char>(rng()); break;
        case 2: bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng() % 8)); break;
        default: bytes.erase(at, 1 + rng() % 4);
      }
    }
    try {
      static_cast<void>(format::parse_onnx(bytes, "mutated"));
      ++loaded;
    } catch (const UserError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 2000);
  EXPECT_GT(loaded, 100);  // weights may change
}

TEST(Onnx, ErrorsNameTheNode) {
  const std::string good = varied_model();
  const auto message = [](const std::string& bytes) -> std::string {
    try {
      static_cast<void>(format::parse_onnx(bytes, "model.onnx"));
    } catch (const UserError& e) {
      return e.what();
    }
    return "";
  };
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    const size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? bytes : bytes.replace(at, from.size(), to);
  };
  EXPECT_THAT(message("not a model"), testing::HasSubstr("no ONNX model"));
  EXPECT_THAT(message(good.substr(0, good.size() / 2)), testing::HasSubstr("no ONNX model"));
  EXPECT_THAT(message(""), testing::HasSubstr("no graph"));
  const std::string unknown = message(replaced("Softmax", "Softmin"));
  EXPECT_THAT(unknown, testing::AllOf(testing::HasSubstr("model.onnx, node \"y0\", op Softmin (opset 17)"),
                                      testing::HasSubstr("not supported"), testing::HasSubstr("LogSoftmax")));
  EXPECT_THAT(message(replaced("strides", "stridez")),
              testing::HasSubstr("attribute is not supported (got stridez"));
  EXPECT_THAT(message(replaced(std::string("\x22\x04Relu"), std::string("\x22\x04Tanh"))), "");
}

}  // namespace
}  // namespace espalier

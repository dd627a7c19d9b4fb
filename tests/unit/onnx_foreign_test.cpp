// Nodes of foreign ONNX models at the edges of their ranges: against double maths, and what ONNX Runtime gives.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"
#include "format/onnx.h"
#include "support/arrays.h"
#include "support/onnx_file.h"
#include "target/reference/interpreter.h"
#include "tensor/input_ranges.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
namespace onnx = test::onnx;

constexpr float inf = std::numeric_limits<float>::infinity();
const float nan = std::nanf("");

Array run_model(const std::string& bytes, const std::vector<Array>& inputs) {
  return target::reference::evaluate(format::parse_onnx(bytes, "model"), inputs).at(0);
}

/// The result of one node of one input "x" and initializers.
Array run(const std::string& node, const Array& x, const std::vector<std::string>& initializers = {}) {
  std::vector<std::variant<int64_t, std::string>> dims;
  for (const int64_t d : x.dims()) dims.emplace_back(d);
  return run_model(onnx::model({node}, initializers, {onnx::info("x", dims)}, {onnx::info("y", dims)}), {x});
}

Array floats(const std::vector<int64_t>& dims, const std::vector<float>& v) {
  return Array::of<float>(dims, std::span<const float>(v));
}

TEST(OnnxForeign, HyperbolicFunctionsAreRightOverTheirWholeRange) {
  struct Row {
    const char* op;
    double (*exact)(double);
    double low;
  };
  for (const Row& row :
       {Row{"Sinh", std::sinh, -90}, Row{"Cosh", std::cosh, -90}, Row{"Asinh", std::asinh, -3e38},
        Row{"Acosh", std::acosh, 1}, Row{"Atanh", std::atanh, -1}}) {
    std::vector<float> x{0.0f,   1.0f, inf,   nan,        89.0f,  1e20f, 3e38f,
                         1e-30f, 0.5f, -2.0f, 1.0000001f, -1e30f, -5.0f};
    for (double a = 1e-12; a < 3e38; a *= 1.37)
      for (const double v : {a, -a, 1 + a, 1 - a}) x.push_back(static_cast<float>(v));
    x.push_back(-inf);
    const auto n = static_cast<int64_t>(x.size());
    const Array got = run(onnx::node(row.op, {"x"}, {"y"}), floats({n}, x));
    for (int64_t i = 0; i < n; ++i) {
      const double want = row.exact(static_cast<double>(x[static_cast<size_t>(i)])), have = got.at(i);
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(have)) << row.op << " of " << x[static_cast<size_t>(i)] << " gives " << have;
      } else if (std::fabs(want) > 3.4e38) {
        EXPECT_EQ(have, want > 0 ? inf : -inf) << row.op << " of " << x[static_cast<size_t>(i)];
      } else {
        EXPECT_NEAR(have, want, std::fabs(want) * 1e-6) << row.op << " of " << x[static_cast<size_t>(i)];
      }
    }
  }
}

TEST(OnnxForeign, ScalesAreF32) {
  struct Row {
    int64_t n;
    float scale;
    int64_t want;
  };
  for (const Row& row :
       {Row{10, 0.7f, 7}, Row{10, 1.3f, 13}, Row{10, 1.9f, 19}, Row{20, 0.35f, 7}, Row{100, 0.1f, 10}})
    for (const char* mode : {"nearest", "linear", "cubic"}) {
      std::vector<float> x;
      for (int64_t i = 0; i < row.n; ++i) x.push_back(static_cast<float>(i));
      const Array y =
          run(onnx::node("Resize", {"x", "", "s"}, {"y"},
                         {{"mode", std::string(mode)},
                          {"coordinate_transformation_mode", std::string("asymmetric")},
                          {"nearest_mode", std::string("floor")}}),
              floats({1, 1, 1, row.n}, x), {onnx::tensor("s", floats({4}, {1, 1, 1, row.scale}))});
      ASSERT_EQ(y.size(), row.want) << row.n << " by " << row.scale;
      if (row.n == 100)
        for (int64_t i = 0; i < 10; ++i) EXPECT_NEAR(y.at(i), static_cast<double>(10 * i), 1e-4) << mode;
    }
}

TEST(OnnxForeign, WhatIsNotFiniteStaysWhereItIs) {
  const Array x = floats({6}, {1, 2, nan, 4, 5, 6});
  const auto finite = [](const Array& y) {
    std::string out;
    for (int64_t i = 0; i < y.size(); ++i) out += std::isfinite(y.at(i)) ? '1' : '0';
    return out;
  };
  const std::string axis = onnx::tensor("a", Array::of<int64_t>({}, {0}));
  EXPECT_EQ(finite(run(onnx::node("CumSum", {"x", "a"}, {"y"}), x, {axis})), "110000");
  EXPECT_EQ(finite(run(onnx::node("CumSum", {"x", "a"}, {"y"}, {{"reverse", 1}}), x, {axis})), "000111");
  EXPECT_EQ(finite(run(onnx::node("CumSum", {"x", "a"}, {"y"}, {{"exclusive", 1}}), x, {axis})), "111000");
  EXPECT_EQ(finite(run(onnx::node("LRN", {"x"}, {"y"}, {{"size", 3}}), x.reshaped({1, 6, 1}))), "100011");
  EXPECT_EQ(finite(run(onnx::node("LRN", {"x"}, {"y"}, {{"size", 2}}), x.reshaped({1, 6, 1}))), "100111");
  const std::string scale = onnx::tensor("s", floats({3}, {1, 1, 2}));
  EXPECT_EQ(finite(run(onnx::node("Resize", {"x", "", "s"}, {"y"}, {{"mode", std::string("cubic")}}),
                       x.reshaped({1, 1, 6}), {scale})),
            "100000000111");
  EXPECT_EQ(finite(run(onnx::node("Resize", {"x", "", "s"}, {"y"},
                                  {{"mode", std::string("linear")},
                                   {"coordinate_transformation_mode", std::string("asymmetric")}}),
                       x.reshaped({1, 1, 6}), {scale})),
            "110000111111");
}

TEST(OnnxForeign, DimNamesThatDifferStaySymbolsThatDiffer) {
  const auto types = [](const std::vector<std::vector<std::variant<int64_t, std::string>>>& dims) {
    std::vector<std::string> nodes, inputs, outputs;
    for (size_t i = 0; i < dims.size(); ++i) {
      const std::string x = "x" + std::to_string(i), y = "y" + std::to_string(i);
      nodes.push_back(onnx::node("Relu", {x}, {y}));
      inputs.push_back(onnx::info(x, dims[i]));
      outputs.push_back(onnx::info(y, dims[i]));
    }
    const ir::Graph g = format::parse_onnx(onnx::model(nodes, {}, inputs, outputs), "model");
    std::string text;
    for (const ir::Value& v : g.inputs) text += v.type().text() + " ";
    return text;
  };
  EXPECT_EQ(types({{"seq-len", "batch"}, {"seq_len", "batch"}, {"seq-len", "4*batch"}}),
            "f32[seq_len_2,batch] f32[seq_len,batch] f32[seq_len_2,4*batch] ");
  EXPECT_EQ(types({{"?", "?"}, {"", "?"}, {"x1_0", 3}}), "f32[x0_0,x0_1] f32[x1_0_2,x1_1] f32[x1_0,3] ");
  EXPECT_EQ(types({{"高", "宽"}, {"宽", "2d"}}), "f32[_,__2] f32[__2,_2d] ");
}

/// A gathering along `axis` of x: dims as given, its indices an initializer.
ir::Graph gathered(const std::vector<std::variant<int64_t, std::string>>& dims, int64_t axis,
                   const Array& indices) {
  std::vector<std::variant<int64_t, std::string>> left = dims;
  left.erase(left.begin() + axis);
  return format::parse_onnx(
      onnx::model({onnx::node("Gather", {"x", "i"}, {"y"}, {{"axis", axis}})}, {onnx::tensor("i", indices)},
                  {onnx::info("x", dims)}, {onnx::info("y", left)}),
      "model");
}

TEST(OnnxForeign, KnownIndicesNeedNoKnownAxis) {
  const Array x = floats({2, 3, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  const ir::Graph of_length = gathered({"batch", "length", 2}, 1, Array::scalar(Dtype::i64, 0)),
                  of_batch = gathered({"batch", "length", 2}, 0, Array::scalar(Dtype::i64, 1));
  EXPECT_EQ(target::reference::evaluate(of_length, std::vector{x}).at(0), floats({2, 2}, {0, 1, 6, 7}));
  EXPECT_EQ(target::reference::evaluate(of_batch, std::vector{x}).at(0),
            floats({3, 2}, {6, 7, 8, 9, 10, 11}));
  EXPECT_THROW(gathered({"batch", "length", 2}, 1, Array::scalar(Dtype::i64, -1)), UserError);
}

TEST(OnnxForeign, AClipOfIndicesStaysAndAllowsThemAll) {
  const std::variant<int64_t, std::string> n[] = {int64_t{4}, std::string("n")};
  for (const auto& length : n)
    for (const char* op : {"Gather", "GatherElements"}) {
      const std::string bytes = onnx::model(
          {onnx::node("Clip", {"ids", "low", "high"}, {"rows"}), onnx::node(op, {"x", "rows"}, {"y"})},
          {onnx::tensor("low", Array::scalar(Dtype::i64, 0)),
           onnx::tensor("high", Array::scalar(Dtype::i64, 2))},
          {onnx::info("x", {3}), onnx::info("ids", {length}, 7)}, {onnx::info("y", {length})});
      ir::Graph g = format::parse_onnx(bytes, "model");
      const std::vector<Array> inputs{floats({3}, {5, 6, 7}), Array::of<int64_t>({4}, {-9, 1, 2, 50})};
      const std::string text = ir::print(g);
      for (int i = 0; i < 3; ++i) {
        EXPECT_TRUE(input_ranges(g, g.inputs.size()).empty());
        EXPECT_EQ(target::reference::evaluate(g, inputs).at(0), floats({4}, {5, 6, 7, 7}));
        g = format::parse_onnx(format::onnx_bytes(g), "model");
        EXPECT_EQ(ir::print(g), text);
      }
    }
}

TEST(OnnxForeign, IntegersAroundASiluStayWhatTheyAre) {
  const std::string bytes =
      onnx::model({onnx::node("Cast", {"x"}, {"f"}, {{"to", 1}}), onnx::node("Sigmoid", {"f"}, {"s"}),
                   onnx::node("Mul", {"f", "s"}, {"p"}), onnx::node("Cast", {"p"}, {"y"}, {{"to", 7}})},
                  {}, {onnx::info("x", {3}, 7)}, {onnx::info("y", {3}, 7)});
  EXPECT_EQ(run_model(bytes, {Array::of<int64_t>({3}, {-9, 0, 9})}), Array::of<int64_t>({3}, {0, 0, 8}));
}

TEST(OnnxForeign, CumSumsOfEveryLength) {
  for (int64_t n = 1; n <= 20; ++n)
    for (const int64_t exclusive : {0, 1})
      for (const int64_t reverse : {0, 1}) {
        std::vector<float> x;
        for (int64_t i = 0; i < n; ++i) x.push_back(static_cast<float>(i * i + 1));
        const Array y =
            run(onnx::node("CumSum", {"x", "a"}, {"y"}, {{"exclusive", exclusive}, {"reverse", reverse}}),
                floats({n}, x), {onnx::tensor("a", Array::of<int64_t>({}, {0}))});
        for (int64_t i = 0; i < n; ++i) {
          double want = 0;
          for (int64_t k = 0; k < n; ++k)
            if ((reverse ? k > i : k < i) || (k == i && !exclusive))
              want += static_cast<double>(x[static_cast<size_t>(k)]);
          ASSERT_EQ(y.at(i), want) << n << " " << exclusive << reverse << " at " << i;
        }
      }
}

}  // namespace
}  // namespace espalier

// What the opsets after 18 say otherwise or anew: single nodes against results worked out by hand or by double maths.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"
#include "format/onnx.h"
#include "support/arrays.h"
#include "support/onnx_file.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
namespace onnx = test::onnx;

constexpr float inf = std::numeric_limits<float>::infinity();

std::vector<std::variant<int64_t, std::string>> dims_of(const Array& x) {
  return {x.dims().begin(), x.dims().end()};
}

/// Result "y" of nodes on one input "x" and initializers.
Array run(const std::string& node, const Array& x, const std::vector<std::string>& initializers = {},
          int64_t opset = 28) {
  const std::string bytes =
      onnx::model({node}, initializers, {onnx::info("x", dims_of(x))}, {onnx::info("y", {})}, opset);
  return target::reference::evaluate(format::parse_onnx(bytes, "model"), std::vector{x}).at(0);
}

Array floats(const std::vector<int64_t>& dims, const std::vector<float>& v) {
  return Array::of<float>(dims, std::span<const float>(v));
}

/// What an error says; "" where there is none.
std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

void expect_near(const Array& got, const Array& want) {
  const auto same = test::close(got, want, {1e-6, 1e-6, 8});
  EXPECT_TRUE(same) << same.message();
}

TEST(OnnxOpset, NewerOpsetsAndFilesAreRefusedByNumber) {
  const Array x = floats({1}, {1});
  EXPECT_EQ(run(onnx::node("Relu", {"x"}, {"y"}), x), x);
  const std::string opset = refusal([&] { run(onnx::node("Relu", {"x"}, {"y"}), x, {}, 29); });
  EXPECT_NE(opset.find("opset is not supported"), std::string::npos) << opset;
  EXPECT_NE(opset.find("1 to 28"), std::string::npos) << opset;
  std::string bytes =
      onnx::model({onnx::node("Relu", {"x"}, {"y"})}, {}, {onnx::info("x", {1})}, {onnx::info("y", {1})}, 20);
  bytes += onnx::number(1, 15);  // the last one counts
  const std::string version = refusal([&] { format::parse_onnx(bytes, "model"); });
  EXPECT_NE(version.find("IR version is not supported"), std::string::npos) << version;
}

TEST(OnnxOpset, ElementTypesThatAreNotOursAreNamed) {
  for (const auto& [number, name] : std::map<int, std::string>{
           {8, "STRING"}, {17, "FLOAT8E4M3FN"}, {20, "FLOAT8E5M2FNUZ"}, {22, "INT4"}, {26, "INT2"}}) {
    const std::string as_input = onnx::model({onnx::node("Identity", {"x"}, {"y"})}, {},
                                             {onnx::info("x", {1}, number)}, {onnx::info("y", {1})}, 28);
    EXPECT_NE(refusal([&] { format::parse_onnx(as_input, "model"); }).find(name), std::string::npos) << name;
    const std::string cast = onnx::node("Cast", {"x"}, {"y"}, {{"to", int64_t{number}}, {"saturate", 0}});
    EXPECT_NE(refusal([&] { run(cast, floats({1}, {1})); }).find(name), std::string::npos) << name;
  }
}

TEST(OnnxOpset, GeluAndSwish) {
  const Array x = floats({4}, {-2, -0.5, 0.25, 3});
  std::vector<float> exact, tanh_form, swish;
  for (int64_t i = 0; i < 4; ++i) {
    const double v = x.at(i);
    exact.push_back(static_cast<float>(v * 0.5 * (1 + std::erf(v / std::sqrt(2.0)))));
    tanh_form.push_back(static_cast<float>(
        v * 0.5 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v)))));
    swish.push_back(static_cast<float>(v / (1 + std::exp(-2 * v))));
  }
  expect_near(run(onnx::node("Gelu", {"x"}, {"y"}), x, {}, 20), floats({4}, exact));
  expect_near(run(onnx::node("Gelu", {"x"}, {"y"}, {{"approximate", std::string("tanh")}}), x),
              floats({4}, tanh_form));
  expect_near(run(onnx::node("Swish", {"x"}, {"y"}, {{"alpha", 2.0f}}), x), floats({4}, swish));
  EXPECT_NE(refusal([&] { run(onnx::node("Gelu", {"x"}, {"y"}), x, {}, 19); }), "");
}

TEST(OnnxOpset, AveragePoolsWithDilationsAndRoundedUp) {
  const Array x = floats({1, 1, 5}, {1, 2, 3, 4, 5});
  const auto pool = [&](std::map<std::string, onnx::Attr> attrs) {
    attrs["kernel_shape"] = std::vector<int64_t>{2};
    return run(onnx::node("AveragePool", {"x"}, {"y"}, attrs), x, {}, 19);
  };
  EXPECT_EQ(pool({{"dilations", std::vector<int64_t>{2}}}), floats({1, 1, 3}, {2, 3, 4}));
  const std::map<std::string, onnx::Attr> padded{{"dilations", std::vector<int64_t>{2}},
                                                 {"pads", std::vector<int64_t>{1, 1}}};
  EXPECT_EQ(pool(padded), floats({1, 1, 5}, {2, 2, 3, 4, 4}));
  auto counted = padded;
  counted["count_include_pad"] = 1;
  EXPECT_EQ(pool(counted), floats({1, 1, 5}, {1, 2, 3, 4, 2}));
  // The third window has 5 and what only rounding up adds, which does not count.
  EXPECT_EQ(pool({{"strides", std::vector<int64_t>{2}}, {"ceil_mode", 1}, {"count_include_pad", 1}}),
            floats({1, 1, 3}, {1.5, 3.5, 5}));
}

TEST(OnnxOpset, PadsWrap) {
  const Array x = floats({3}, {1, 2, 3});
  const std::string pads = onnx::tensor("p", Array::of<int64_t>({2}, {4, 2}));
  const std::string node = onnx::node("Pad", {"x", "p"}, {"y"}, {{"mode", std::string("wrap")}});
  EXPECT_EQ(run(node, x, {pads}, 19), floats({9}, {3, 1, 2, 3, 1, 2, 3, 1, 2}));
  EXPECT_NE(refusal([&] { run(node, x, {pads}, 18); }), "");
}

TEST(OnnxOpset, GroupsAreScaledAndLaterChannels) {
  const Array x = floats({1, 4, 1}, {1, 3, 10, 30});
  const auto norm = [&](const std::vector<float>& scale, int64_t opset) {
    const auto n = static_cast<int64_t>(scale.size());
    return run(
        onnx::node("GroupNormalization", {"x", "s", "b"}, {"y"}, {{"num_groups", 2}, {"epsilon", 0.0f}}), x,
        {onnx::tensor("s", floats({n}, scale)),
         onnx::tensor("b", floats({n}, std::vector<float>(scale.size(), 0)))},
        opset);
  };
  expect_near(norm({2, 5}, 18), floats({1, 4, 1}, {-2, 2, -5, 5}));
  expect_near(norm({1, 2, 3, 4}, 21), floats({1, 4, 1}, {-1, 2, -3, 4}));
  EXPECT_NE(refusal([&] { norm({2, 5}, 21); }), "");
}

TEST(OnnxOpset, RemaindersOfFloatsHaveTheDivisorsSign) {
  const Array x = floats({6}, {-4.5, 4.5, 4.5, -1, 0, 6});
  const Array got =
      run(onnx::node("Mod", {"x", "d"}, {"y"}), x, {onnx::tensor("d", floats({6}, {2, 2, -2, inf, -3, 3}))});
  EXPECT_EQ(got, floats({6}, {1.5, 0.5, -1.5, inf, -0.0f, 0}));
  EXPECT_TRUE(std::signbit(got.at(4)));
}

TEST(OnnxOpset, ExtremesOfBools) {
  const auto extreme = [](const char* op) {
    const std::string bytes = onnx::model({onnx::node(op, {"x", "a"}, {"y"}, {{"keepdims", 0}})},
                                          {onnx::tensor("a", Array::of<int64_t>({1}, {1}))},
                                          {onnx::info("x", {2, 2}, 9)}, {onnx::info("y", {2}, 9)}, 20);
    const Array x = Array::of<int64_t>({2, 2}, {0, 1, 1, 1}).cast(Dtype::boolean);
    return target::reference::evaluate(format::parse_onnx(bytes, "model"), std::vector{x}).at(0);
  };
  EXPECT_EQ(extreme("ReduceMax"), Array::of<int64_t>({2}, {1, 1}).cast(Dtype::boolean));
  EXPECT_EQ(extreme("ReduceMin"), Array::of<int64_t>({2}, {0, 1}).cast(Dtype::boolean));
}

TEST(OnnxOpset, ResizesOfSomeAxesKeepTheRatioAndDoNotAlias) {
  const Array row = floats({1, 1, 1, 4}, {0, 4, 8, 12});
  // One axis is named; shrunk by half, each result weighs 4 elements by 1/8, 3/8, 3/8, 1/8.
  const Array half =
      run(onnx::node("Resize", {"x", "", "s"}, {"y"},
                     {{"mode", std::string("linear")}, {"antialias", 1}, {"axes", std::vector<int64_t>{3}}}),
          row, {onnx::tensor("s", floats({1}, {0.5}))});
  expect_near(half, floats({1, 1, 1, 2}, {2.5, 9.5}));
  const Array image = floats({2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
  for (const auto& [policy, columns] :
       std::map<std::string, int64_t>{{"not_larger", 6}, {"not_smaller", 16}}) {
    const Array y =
        run(onnx::node("Resize", {"x", "", "", "n"}, {"y"}, {{"keep_aspect_ratio_policy", policy}}), image,
            {onnx::tensor("n", Array::of<int64_t>({2}, {8, 6}))});
    EXPECT_EQ(y.dims(), (std::vector<int64_t>{columns / 2, columns})) << policy;
  }
  // 4 * 0.6 = 2.4 elements become 2, in the middle: positions 4/2 * (1 - 2/2.4) + (i + 0.5) / 0.6 - 0.5.
  const Array middle =
      run(onnx::node("Resize", {"x", "", "s"}, {"y"},
                     {{"mode", std::string("linear")},
                      {"coordinate_transformation_mode", std::string("half_pixel_symmetric")}}),
          row, {onnx::tensor("s", floats({4}, {1, 1, 1, 0.6f}))});
  expect_near(middle, floats({1, 1, 1, 2}, {8.0f / 3, 28.0f / 3}));
}

TEST(OnnxOpset, NumbersOutOfRangeAreRefused) {
  constexpr int64_t huge = int64_t{1} << 62;
  const Array image = floats({2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
  const auto refused = [&](const std::string& node, const Array& x, const std::vector<std::string>& tensors) {
    const std::string why = refusal([&] { run(node, x, tensors); });
    EXPECT_NE(why.find("out of range"), std::string::npos) << why;
  };
  refused(onnx::node("Resize", {"x", "", "", "n"}, {"y"},
                     {{"keep_aspect_ratio_policy", std::string("not_smaller")}}),
          image, {onnx::tensor("n", Array::of<int64_t>({2}, {huge, 1}))});
  for (const int64_t size : {huge, int64_t{-1}})
    refused(onnx::node("QuantizeLinear", {"x", "s"}, {"y"}, {{"block_size", size}}), image,
            {onnx::tensor("s", floats({2, 4}, std::vector<float>(8, 1)))});
  refused(onnx::node("RotaryEmbedding", {"x", "c", "c"}, {"y"},
                     {{"num_heads", 1}, {"rotary_embedding_dim", huge}}),
          image.reshaped({1, 2, 4}), {onnx::tensor("c", floats({1, 2, 2}, {1, 1, 1, 1}))});
}

TEST(OnnxOpset, BlocksOfDepthInEitherOrder) {
  const Array x = floats({1, 2, 2, 2}, {0, 1, 2, 3, 4, 5, 6, 7});
  const auto deep = [&](const char* mode) {
    return run(onnx::node("SpaceToDepth", {"x"}, {"y"}, {{"blocksize", 2}, {"mode", std::string(mode)}}), x);
  };
  EXPECT_EQ(deep("DCR"), floats({1, 8, 1, 1}, {0, 4, 1, 5, 2, 6, 3, 7}));
  EXPECT_EQ(deep("CRD"), floats({1, 8, 1, 1}, {0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(OnnxOpset, BlocksOfQuantisedNumbersHaveScalesOfTheirOwn) {
  const Array x = floats({1, 5}, {1, 2, 30, 40, 500});
  const std::vector<std::string> scale{onnx::tensor("s", floats({1, 3}, {0.5, 10, 100}))};
  const std::map<std::string, onnx::Attr> attrs{{"axis", 1}, {"block_size", 2}};
  auto signed_bytes = attrs;
  signed_bytes["output_dtype"] = 3;
  const Array q = run(onnx::node("QuantizeLinear", {"x", "s"}, {"y"}, signed_bytes), x, scale, 21);
  EXPECT_EQ(q, Array::of<int64_t>({1, 5}, {2, 4, 3, 4, 5}).cast(Dtype::i8));
  const std::string back = onnx::model({onnx::node("QuantizeLinear", {"x", "s"}, {"q"}, attrs),
                                        onnx::node("DequantizeLinear", {"q", "s"}, {"y"}, attrs)},
                                       scale, {onnx::info("x", {1, 5})}, {onnx::info("y", {1, 5})}, 21);
  EXPECT_EQ(target::reference::evaluate(format::parse_onnx(back, "model"), std::vector{x}).at(0), x);
}

TEST(OnnxOpset, RmsNorm) {
  expect_near(run(onnx::node("RMSNormalization", {"x", "s"}, {"y"}, {{"epsilon", 0.0f}}),
                  floats({1, 2}, {1, 7}), {onnx::tensor("s", floats({2}, {1, 10}))}, 23),
              floats({1, 2}, {0.2f, 14}));
}

TEST(OnnxOpset, RotaryPairsTurn) {
  const Array x = floats({1, 2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
  const std::vector<std::string> quarter{onnx::tensor("c", floats({1, 2, 2}, {1, 1, 0, 0})),
                                         onnx::tensor("s", floats({1, 2, 2}, {0, 0, 1, 1}))};
  const auto turned = [&](int64_t interleaved) {
    return run(onnx::node("RotaryEmbedding", {"x", "c", "s"}, {"y"},
                          {{"num_heads", 1}, {"interleaved", interleaved}}),
               x, quarter, 23);
  };
  EXPECT_EQ(turned(0), floats({1, 2, 4}, {1, 2, 3, 4, -7, -8, 5, 6}));
  EXPECT_EQ(turned(1), floats({1, 2, 4}, {1, 2, 3, 4, -6, 5, -8, 7}));
}

TEST(OnnxOpset, AttentionWithMasksAndWindows) {
  // Equal scores: each query means the values of the keys that it sees.
  const Array v = floats({1, 1, 4, 1}, {1, 2, 4, 8});
  const auto attended = [&](const std::map<std::string, onnx::Attr>& attrs, const std::string& mask = "") {
    std::vector<std::string> inputs{"q", "k", "x"}, tensors;
    tensors.push_back(onnx::tensor("q", floats({1, 2, 4, 1}, std::vector<float>(8, 0))));
    tensors.push_back(onnx::tensor("k", floats({1, 1, 4, 1}, {1, 2, 3, 4})));
    if (!mask.empty()) inputs.push_back("m"), tensors.push_back(mask);
    return run(onnx::node("Attention", inputs, {"y"}, attrs), v, tensors, 25);
  };
  expect_near(attended({{"is_causal", 1}}),
              floats({1, 2, 4, 1}, {1, 1.5, 7.0f / 3, 3.75, 1, 1.5, 7.0f / 3, 3.75}));
  expect_near(attended({{"left_window_size", 1}, {"right_window_size", 0}}),
              floats({1, 2, 4, 1}, {1, 1.5, 3, 6, 1, 1.5, 3, 6}));
  // The mask has two columns: keys behind it are hidden; a row that sees none gives 0.
  expect_near(attended({}, onnx::tensor("m", floats({4, 2}, {0, 0, 0, -inf, -inf, 0, -inf, -inf}))),
              floats({1, 2, 4, 1}, {1.5, 1, 2, 0, 1.5, 1, 2, 0}));
}

}  // namespace
}  // namespace espalier

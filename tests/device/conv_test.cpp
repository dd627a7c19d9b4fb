// Convolutions on the CUDA target: what becomes a record, and that the record says all, by running it alone.
#include "target/cuda/match/conv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "support/cuda_calls.h"
#include "support/errors.h"
#include "support/op_samples.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/driver/cuda_device.h"
#include "target/cuda/sim/sim_compiler.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::test {
namespace {

using namespace target::cuda::driver;  // NOLINT: what is watched
using ir::Value;
using target::CallRecord;
using target::ConvCall;
using target::ConvDirection;
using target::ConvStep;
using target::cuda::CallList;
using target::cuda::conv_calls;
using target::cuda::ConvOptions;
using testing::HasSubstr;

constexpr int64_t small_workspace = 1000;  // enough to notice a store into it

/// Eighths between -2 and 2, which every dtype holds and whose sums f32 holds.
Array numbers(Dtype dtype, const ir::Dims& dims, std::mt19937& rng) {
  Array a(Dtype::f32, ir::static_dims(dims));
  auto* p = a.write<float>();
  std::uniform_int_distribution<int> pick(-16, 16);
  for (int64_t i = 0; i < a.size(); ++i)
    p[i] = static_cast<float>(pick(rng)) / (ir::is_float(dtype) ? 8.0F : 1.0F);
  return a.cast(dtype);
}

std::vector<Array> numbers(const ir::Graph& body, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<Array> all;
  for (const Value& v : body.inputs) all.push_back(numbers(v.dtype(), v.dims(), rng));
  return all;
}

/// What a body is made of besides its root.
struct Shape {
  std::vector<int64_t> x{2, 7, 6, 8}, w{12, 3, 3, 8};
  op::ConvAttrs at = op::plain_conv(2, Dtype::f32);
};

/// A convolution of `dtype` with results of `out`, then what `epilogue` makes of it; its further inputs are appended.
using Epilogue = std::function<Value(Value, std::vector<Value>&)>;
ir::Graph conv_body(const Shape& s, Dtype dtype, Dtype out, const Epilogue& epilogue = {}) {
  const auto dims = [](const std::vector<int64_t>& d) { return ir::Dims(d.begin(), d.end()); };
  std::vector<Value> inputs{ir::new_input("x", {dtype, dims(s.x)}), ir::new_input("w", {dtype, dims(s.w)})};
  op::ConvAttrs at = s.at;
  at.out = out;
  Value y = op::conv(inputs[0], inputs[1], at);
  if (epilogue) y = epilogue(y, inputs);
  return body_of(inputs, {y});
}

Value channels(const Value& like, Dtype dtype, std::vector<Value>& inputs) {
  inputs.push_back(ir::new_input("v" + std::to_string(inputs.size()), {dtype, {like.dims().back()}}));
  return op::broadcast_to(inputs.back(), like.dims());
}
Value tensor_like(const Value& like, std::vector<Value>& inputs) {
  inputs.push_back(ir::new_input("r" + std::to_string(inputs.size()), like.type()));
  return inputs.back();
}
/// Bias, residual, relu, with `low` rounded to after the bias.
Value bias_residual_relu(Value y, std::vector<Value>& inputs, Dtype low) {
  Value v = op::add(y, channels(y, y.dtype(), inputs));
  if (low != v.dtype()) v = op::cast(v, low);
  return op::relu(op::add(v, tensor_like(v, inputs)));
}

CallList calls(const ir::Graph& body, ConvOptions options = {.workspace = small_workspace}) {
  auto made = conv_calls(body, options);
  if (const auto* r = std::get_if<kernel::Refusal>(&made)) {
    ADD_FAILURE() << r->reason << "\n" << ir::print(body);
    return {};
  }
  return std::get<CallList>(std::move(made));
}
std::string refusal(const ir::Graph& body, const ConvOptions& options = {}) {
  auto made = conv_calls(body, options);
  const auto* r = std::get_if<kernel::Refusal>(&made);
  return r ? r->reason : "";
}

std::string texts(const CallList& list) {
  std::string all;
  for (const CallRecord& c : list.calls) all += target::text(c) + "\n";
  return all;
}

// ---- records -------------------------------------------------------------------------------------------------------

TEST(ConvCalls, Texts) {
  Shape s;
  EXPECT_EQ(texts(calls(conv_body(s, Dtype::f32, Dtype::f32))),
            "conv forward x f32[2,8,7,6] w f32[12,8,3,3] y f32[2,12,5,4] : b0 b1 b2 b3\n");
  s.at.stride = {2, 1};
  s.at.pad_low = {1, 0};
  s.at.pad_high = {1, 2};
  s.at.dilation = {1, 2};
  s.w = {12, 3, 3, 4};
  s.at.groups = 2;
  const auto epilogue = [](Value y, std::vector<Value>& in) {
    return bias_residual_relu(y, in, Dtype::bf16);
  };
  EXPECT_EQ(
      texts(calls(conv_body(s, Dtype::bf16, Dtype::f32, epilogue))),
      "conv forward x bf16[2,8,7,6] w bf16[12,4,3,3] y bf16[2,12,4,4] stride 2,1 pad 1,0..1,2 dilation 1,2 "
      "groups 2 add_channel add_residual relu : b0 b1 b4 b2 b3 b5\n");
  EXPECT_THAT(texts(calls(conv_body(s, Dtype::f32, Dtype::f32), {.tf32 = true})),
              HasSubstr(" groups 2 tf32 :"));
  EXPECT_THAT(texts(calls(conv_body(s, Dtype::f32, Dtype::f32), {.exact = true, .tf32 = true})),
              HasSubstr(" groups 2 exact :"));
}

TEST(ConvCalls, GradientsInF32OfALowDtype) {
  const Value x = ir::new_input("x", {Dtype::bf16, {2, 5, 4}}),
              dy = ir::new_input("dy", {Dtype::bf16, {2, 4, 6}});
  op::ConvAttrs at = op::plain_conv(1, Dtype::f32);
  at.spatial = {2};
  const ir::Graph body = body_of({x, dy}, {op::conv_weight_grad(x, dy, at)});
  const CallList rounded = calls(body);
  ASSERT_EQ(rounded.calls.size(), 2u);
  EXPECT_EQ(target::text(rounded.calls[0]),
            "conv weight_grad x bf16[2,4,5] w bf16[6,4,2] y bf16[2,6,4] : b0 b3 b1 b3+256");
  EXPECT_THAT(target::text(rounded.calls[1]), testing::EndsWith(": b3 b2"));
  const CallList exact = calls(body, {.exact = true, .workspace = small_workspace});
  ASSERT_EQ(exact.calls.size(), 3u);
  EXPECT_EQ(target::text(exact.calls[2]),
            "conv weight_grad x f32[2,4,5] w f32[6,4,2] y f32[2,6,4] tf32 exact : b3 b2 b3+256 b3+512");
}

TEST(ConvCalls, AbsentElements) {
  Shape s;
  s.x = {0, 7, 6, 8};
  EXPECT_TRUE(calls(conv_body(s, Dtype::f32, Dtype::f32)).calls.empty());
  s.x = {2, 0, 0, 8};
  s.at.pad_low = {2, 2};
  s.at.pad_high = {1, 1};
  EXPECT_EQ(texts(calls(conv_body(s, Dtype::bf16, Dtype::bf16))), "fill 48 bytes with 0 : b2\n");
}

TEST(ConvCalls, Refusals) {
  const Shape s;
  const auto with = [&](Dtype dtype, Dtype out, const Epilogue& e) {
    return refusal(conv_body(s, dtype, out, e));
  };
  EXPECT_EQ(with(Dtype::f32, Dtype::f32, [](Value y, auto&) { return op::exp(y); }), "epilogue op exp");
  EXPECT_EQ(with(Dtype::f32, Dtype::f32, [](Value y, auto&) { return op::cast(y, Dtype::bf16); }),
            "cast of the result");
  EXPECT_EQ(with(Dtype::f32, Dtype::f32, [](Value y, auto& in) { return op::mul(y, tensor_like(y, in)); }),
            "a product with a tensor");
  EXPECT_EQ(with(Dtype::bf16, Dtype::bf16,
                 [](Value y, auto& in) { return op::add(y, channels(y, y.dtype(), in)); }),
            "epilogue operand of dtype bf16");
  EXPECT_EQ(with(Dtype::i64, Dtype::i64, {}), "i64 operands");
  EXPECT_EQ(refusal(conv_body(s, Dtype::bf16, Dtype::f32,
                              [](Value y, auto& in) { return bias_residual_relu(y, in, Dtype::bf16); }),
                    {.exact = true}),
            "a value inside is rounded");
}

TEST(ConvCalls, TheTargetTakesThem) {
  const auto& target = target::cuda::cuda_target(90);
  const Shape s;
  const ir::Graph body = conv_body(s, Dtype::bf16, Dtype::f32, [](Value y, std::vector<Value>& in) {
    return bias_residual_relu(y, in, Dtype::bf16);
  });
  EXPECT_FALSE(target.spec().accepts(kernel::FusionKind::contraction, body, {}, false));
  const auto refused = target.spec().accepts(kernel::FusionKind::contraction, body, {}, true);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->by, "cudnn");
  const ir::Graph bare = conv_body(s, Dtype::f32, Dtype::f32);
  const auto kernel = target.prepare(bare.outputs[0].value.node(), {}, {}).kernel;
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->name(), "cudnn conv");
  EXPECT_EQ(kernel->scratch_bytes(), target::cuda::conv_workspace);
  ASSERT_EQ(kernel->calls().size(), 1u);
  EXPECT_EQ(kernel->calls()[0].cost.flops, 2.0 * 2 * 5 * 4 * 12 * 3 * 3 * 8);
  EXPECT_EQ(kernel->calls()[0].cost.bytes, 4 * (2 * 7 * 6 * 8 + 12 * 3 * 3 * 8 + 2 * 5 * 4 * 12));
}

// ---- values --------------------------------------------------------------------------------------------------------

class RandomConv : public testing::TestWithParam<const ir::OpDef*> {};

TEST_P(RandomConv, MatchesTheReference) {
  const ir::OpDef& op = *GetParam();
  CallCases cases;
  size_t refused = 0, matched = 0;
  for (const Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16, Dtype::i8}) {
    ir::SampleRng rng = rng_of(op, static_cast<uint64_t>(dtype));
    for (unsigned seed = 0; seed < 40; ++seed) {
      const ir::Graph body = graph_of(op, op.sample(rng, dtype));
      const bool exact = seed % 4 == 3;
      auto made = conv_calls(body, {.exact = exact, .workspace = seed % 3 ? small_workspace : 0});
      if (const auto* r = std::get_if<kernel::Refusal>(&made)) {
        ++refused;
        EXPECT_EQ(r->reason, "i8 convolutions give i32 sums, forward and without steps") << ir::print(body);
        continue;
      }
      const bool widened = dtype == Dtype::bf16 && !exact && &op != &op::conv_op &&
                           body.outputs[0].value.dtype() == Dtype::f32;
      CallCases::Options run;
      if (widened) run.rounds = Dtype::bf16;
      cases.add(body, numbers(body, seed), std::get<CallList>(std::move(made)), run);
      ++matched;
    }
  }
  EXPECT_EQ(cases.run(), "");
  EXPECT_GE(matched, 160u);
  EXPECT_EQ(matched + refused, 200u);
}

INSTANTIATE_TEST_SUITE_P(Ops, RandomConv,
                         testing::Values(&op::conv_op, &op::conv_data_grad_op, &op::conv_weight_grad_op),
                         OpName());

/// Shapes that samples rarely reach.
std::vector<Shape> shapes() {
  std::vector<Shape> all(4);
  all[1].x = {1, 9, 8, 6}, all[1].w = {6, 3, 3, 1}, all[1].at.groups = 6;  // depthwise
  all[1].at.pad_low = all[1].at.pad_high = {1, 1};
  all[2].x = {1, 9, 8, 6}, all[2].w = {12, 2, 3, 1}, all[2].at.groups = 6;  // with two filters a channel
  all[2].at.stride = {2, 3};
  all[3].x = {2, 5, 6, 4, 3}, all[3].w = {4, 3, 2, 2, 3}, all[3].at = op::plain_conv(3, Dtype::f32);
  all[3].at.pad_low = {2, 0, 1}, all[3].at.pad_high = {0, 1, 1}, all[3].at.stride = {2, 1, 1};
  return all;
}

TEST(ConvCalls, EpiloguesMatchTheReference) {
  const std::vector<std::pair<const char*, Epilogue>> epilogues{
      {"bias", [](Value y, auto& in) { return op::add(y, channels(y, Dtype::f32, in)); }},
      {"bias_relu", [](Value y, auto& in) { return op::relu(op::add(channels(y, Dtype::f32, in), y)); }},
      {"scale_bias_sigmoid",
       [](Value y, auto& in) {
         const Value scaled = op::mul(y, channels(y, Dtype::f32, in));
         return op::sigmoid(op::add(scaled, channels(y, Dtype::f32, in)));
       }},
      {"tanh_residual", [](Value y, auto& in) { return op::add(tensor_like(y, in), op::tanh(y)); }},
      {"bias_residual_relu", [](Value y, auto& in) { return bias_residual_relu(y, in, y.dtype()); }}};
  CallCases cases;
  unsigned seed = 0;
  for (const Shape& s : shapes())
    for (const auto& [name, epilogue] : epilogues) {
      const ir::Graph body = conv_body(s, Dtype::f32, Dtype::f32, epilogue);
      cases.add(body, numbers(body, ++seed), calls(body), {.scale = 4});
      if (s.w.back() == 1) continue;
      const ir::Graph low = conv_body(s, Dtype::bf16, Dtype::f32, [&, e = epilogue](Value y, auto& in) {
        return std::string_view(name).ends_with("relu") ? op::relu(op::cast(e(y, in), Dtype::bf16))
                                                        : op::cast(y, Dtype::bf16);
      });
      if (std::string_view(name) == "bias_relu")
        cases.add(low, numbers(low, ++seed), calls(low), {.scale = 4});
    }
  EXPECT_EQ(cases.run(), "");
}

TEST(ConvCalls, TransposedWithBiasAndRelu) {
  const Value dy = ir::new_input("x", {Dtype::f32, {2, 3, 4, 8}}),
              w = ir::new_input("w", {Dtype::f32, {8, 2, 2, 6}});
  op::ConvAttrs at = op::plain_conv(2, Dtype::f32);
  at.stride = {2, 2};
  at.spatial = {6, 9};  // the last column of the padded input is met by no window
  std::vector<Value> inputs{dy, w};
  const Value y = op::conv_data_grad(dy, w, at);
  const ir::Graph body = [&] {
    const Value biased = op::relu(op::add(y, channels(y, Dtype::f32, inputs)));
    return body_of(inputs, {biased});
  }();
  CallCases cases;
  cases.add(body, numbers(body, 5), calls(body), {});
  EXPECT_EQ(cases.run(), "");
}

/// Where operands and results lie at odd places, as rows of arrays that a loop walks do.
TEST(ConvCalls, WhatLiesBadlyIsCopied) {
  const Shape s;
  const ir::Graph body = conv_body(s, Dtype::f32, Dtype::f32);
  const CallList list = calls(body, {.workspace = 0, .alignment = {4, 16, 8}});
  EXPECT_EQ(texts(list),
            "copy 2688 bytes : b0 b3\n"
            "conv forward x f32[2,8,7,6] w f32[12,8,3,3] y f32[2,12,5,4] : b3 b1 b3+2816\n"
            "copy 1920 bytes : b3+2816 b2\n");
  const Value x = ir::new_input("x", {Dtype::bf16, {2, 5, 4}}),
              dy = ir::new_input("dy", {Dtype::bf16, {2, 4, 6}});
  op::ConvAttrs at = op::plain_conv(1, Dtype::f32);
  at.spatial = {2};
  const ir::Graph grad = body_of({x, dy}, {op::conv_weight_grad(x, dy, at)});
  CallCases cases;
  cases.add(body, numbers(body, 1), list, {});
  for (const bool exact : {false, true})
    cases.add(grad, numbers(grad, 2), calls(grad, {.exact = exact, .workspace = 0, .alignment = {2, 2, 4}}),
              {.rounds = Dtype::bf16});
  EXPECT_EQ(cases.run(), "");
}

// ---- the simulated library -------------------------------------------------------------------------------------------

/// The record of a body with every kind of field in use, and its operands.
struct Prepared {
  ir::Graph body;
  CallList list;
  std::vector<Array> inputs;
};
Prepared rich() {
  Shape s;
  s.x = {2, 7, 7, 8};
  s.w = {8, 3, 3, 4};
  s.at.stride = {2, 2};
  s.at.pad_low = {1, 0};
  s.at.pad_high = {2, 2};
  s.at.dilation = {1, 2};
  s.at.groups = 2;
  ir::Graph body = conv_body(s, Dtype::f32, Dtype::f32, [](Value y, std::vector<Value>& in) {
    const Value scaled = op::mul(y, channels(y, Dtype::f32, in));
    return bias_residual_relu(scaled, in, Dtype::f32);
  });
  CallList list = calls(body);
  std::vector<Array> inputs = numbers(body, 3);
  return {std::move(body), std::move(list), std::move(inputs)};
}

/// How the run of `p` fails with a changed record: what is thrown, or "differs", or "" where nothing is noticed.
std::string with_changed(const Prepared& p, const std::function<void(ConvCall&, CallRecord&)>& change) {
  Prepared changed = p;
  CallRecord& record = changed.list.calls.at(0);
  change(std::get<ConvCall>(record.work), record);
  CallCases cases;
  cases.add(changed.body, changed.inputs, changed.list, {});
  try {
    const std::string wrong = cases.run();
    return wrong.empty() || wrong.find("internal error") != std::string::npos ? wrong : "differs";
  } catch (const InternalError& e) {
    return e.what();
  }
}

TEST(ConvCalls, ErrorsInARecordAreSeen) {
  const Prepared p = rich();
  EXPECT_EQ(with_changed(p, [](ConvCall&, CallRecord&) {}), "");
  const auto differs = [&](const char* what, const std::function<void(ConvCall&, CallRecord&)>& change) {
    EXPECT_EQ(with_changed(p, change), "differs") << what;
  };
  const auto fails = [&](const char* why, const std::function<void(ConvCall&, CallRecord&)>& change) {
    EXPECT_THAT(with_changed(p, change), HasSubstr(why));
  };
  differs("padding moved", [](ConvCall& c, CallRecord&) { c.pad_low = {2, 1, 0}, c.pad_high = {1, 1, 0}; });
  differs("axes swapped", [](ConvCall& c, CallRecord&) { std::swap(c.x.strides[2], c.x.strides[3]); });
  differs("weights channels-first", [](ConvCall& c, CallRecord&) { c.w.strides = {36, 9, 3, 1, 0}; });
  differs("result's strides", [](ConvCall& c, CallRecord&) { c.y.strides = {96, 1, 8, 32, 0}; });
  differs("steps in another order", [](ConvCall& c, CallRecord&) { std::swap(c.steps[0], c.steps[1]); });
  differs("no relu", [](ConvCall& c, CallRecord&) { --c.step_count; });
  differs("vectors swapped", [](ConvCall&, CallRecord& r) { std::swap(r.operands[3], r.operands[4]); });
  fails("spatial axis 1 of y has", [](ConvCall& c, CallRecord&) { c.dilation[1] = 1; });
  fails("spatial axis 0 of y has", [](ConvCall& c, CallRecord&) { c.stride[0] = 1; });
  fails("channels do not follow", [](ConvCall& c, CallRecord&) { c.groups = 1; });
  fails("f32 computed in f64", [](ConvCall& c, CallRecord&) { c.compute = Dtype::f64; });
  fails("two dtypes", [](ConvCall& c, CallRecord&) { c.w.dtype = Dtype::bf16; });
  fails("elements share their place", [](ConvCall& c, CallRecord&) { c.y.strides[3] = 4; });
  fails("operand 2 has", [](ConvCall& c, CallRecord&) { c.y.strides[0] *= 2; });
  fails("operand 1 has", [](ConvCall&, CallRecord& r) { r.operands[1].offset = 16; });
  fails("not 16-byte aligned", [](ConvCall&, CallRecord& r) { r.operands[0].offset = 4; });
  fails("operand 5 lies in the result", [](ConvCall&, CallRecord& r) { r.operands[5] = r.operands[2]; });
  fails("7 operands, 6 needed", [](ConvCall& c, CallRecord&) { c.workspace = 0; });
}

// ---- on a device -----------------------------------------------------------------------------------------------------

/// The result of `list` by a device: every buffer an allocation of its own.
Array on_device(target::Device& device, const CallList& list, const std::vector<Array>& inputs,
                const ir::Type& result) {
  const auto stream = device.make_stream();
  std::vector<target::Address> buffers;
  for (const Array& a : inputs) {
    buffers.push_back(device.allocate(a.bytes()));
    void* const pinned = device.allocate_pinned(a.bytes());
    std::memcpy(pinned, a.data(), static_cast<size_t>(a.bytes()));
    device.upload(buffers.back(), pinned, a.bytes(), stream);
    device.sync(stream);
    device.release_pinned(pinned);
  }
  buffers.push_back(device.allocate(result.bytes()));
  buffers.push_back(device.allocate(std::max<int64_t>(list.scratch_bytes, 1)));
  {
    const auto ready = device.load(list.sources, list.calls);
    for (size_t i = 0; i < list.calls.size(); ++i) {
      std::vector<target::Address> operands;
      for (const target::Operand& o : list.calls[i].operands)
        operands.push_back(buffers[static_cast<size_t>(o.buffer)] + static_cast<target::Address>(o.offset));
      device.launch(*ready, i, operands, stream);
    }
    device.sync(stream);
  }
  void* const pinned = device.allocate_pinned(result.bytes());
  device.download(pinned, buffers[inputs.size()], result.bytes(), stream);
  device.sync(stream);
  Array out(result.dtype, ir::static_dims(result.dims));
  std::memcpy(out.write(), pinned, static_cast<size_t>(out.bytes()));
  device.release_pinned(pinned);
  device.release(stream);
  for (const target::Address b : buffers) device.release(b);
  return out;
}

/// Through cuDNN's descriptors, which the simulated library reads back.
TEST(ConvCalls, RunOnASimulatedDevice) {
  const auto driver = std::make_shared<target::cuda::sim::SimDriver>();
  const auto device = target::cuda::sim::make_sim_device(driver);
  std::vector<ir::Graph> bodies{rich().body};
  for (const Shape& s : shapes())
    for (const Dtype d : {Dtype::f32, Dtype::bf16, Dtype::f64}) bodies.push_back(conv_body(s, d, d));
  for (const ir::OpDef* op : {&op::conv_data_grad_op, &op::conv_weight_grad_op}) {
    ir::SampleRng rng = rng_of(*op);
    for (int i = 0; i < 8; ++i)
      for (const Dtype d : {Dtype::f32, Dtype::bf16}) bodies.push_back(graph_of(*op, op->sample(rng, d)));
  }
  unsigned seed = 0;
  for (const ir::Graph& body : bodies) {
    const std::vector<Array> inputs = numbers(body, ++seed);
    const ir::Type& type = body.outputs[0].value.type();
    if (type.elements() == 0 || inputs[0].size() == 0 || inputs[1].size() == 0) continue;
    const bool rounds = inputs[0].dtype() == Dtype::bf16;
    EXPECT_TRUE(close(on_device(*device, calls(body), inputs, type),
                      target::reference::evaluate(body, inputs)[0],
                      tolerance_of(rounds ? Dtype::bf16 : type.dtype)))
        << ir::print(body);
  }
  EXPECT_EQ(driver->live().dnn, 1);  // the handle
}

/// cuDNN of a simulated driver, with its calls looked at. One at a time.
struct WatchedDnn {
  explicit WatchedDnn(const target::cuda::sim::SimDriver& of) : api(of.dnn()) {
    driver = &of;
    stream = nullptr;
    plans = plans_with_stream = executions = 0;
    destroyed_without_context = 0;
    keeps_nan = true;
    api.SetStream = [](DnnHandle handle, void* to) {
      stream = to;
      return driver->dnn().SetStream(handle, to);
    };
    api.BackendSetAttribute = [](DnnDescriptor descriptor, DnnAttribute name, DnnType type, int64_t count,
                                 const void* values) {
      if (name == DnnAttribute::plan_handle) ++plans, plans_with_stream += stream != nullptr;
      if (name == DnnAttribute::pointwise_nan && !keeps_nan) return dnn_success;
      return driver->dnn().BackendSetAttribute(descriptor, name, type, count, values);
    };
    api.BackendExecute = [](DnnHandle handle, DnnDescriptor plan, DnnDescriptor pack) {
      if (stream) ++executions;
      return driver->dnn().BackendExecute(handle, plan, pack);
    };
    api.BackendDestroyDescriptor = [](DnnDescriptor descriptor) {
      if (!driver->current()) ++destroyed_without_context;
      return driver->dnn().BackendDestroyDescriptor(descriptor);
    };
  }

  DnnApi api;
  static inline const target::cuda::sim::SimDriver* driver = nullptr;
  static inline void* stream = nullptr;  ///< the handle's
  static inline int plans = 0, plans_with_stream = 0, executions = 0;
  static inline int destroyed_without_context = 0;
  static inline bool keeps_nan = true;
};

ir::Graph conv_with_relu() {
  return conv_body({}, Dtype::f32, Dtype::f32, [](Value y, std::vector<Value>&) { return op::relu(y); });
}

TEST(ConvCalls, PlansAreMadeByAHandleWithoutAStream) {
  const auto driver = std::make_shared<target::cuda::sim::SimDriver>();
  const WatchedDnn dnn(*driver);
  CudaDevice device({.cu = driver->api(),
                     .dnn = [&]() -> const DnnApi& { return dnn.api; },
                     .compiler = std::make_shared<target::cuda::sim::SimCompiler>(),
                     .keeps = driver},
                    0);
  const ir::Graph body = conv_with_relu();
  const ir::Type& type = body.outputs[0].value.type();
  const std::vector<Array> inputs = numbers(body, 1);
  const Array want = target::reference::evaluate(body, inputs)[0];
  EXPECT_TRUE(close(on_device(device, calls(body), inputs, type), want, tolerance_of(type.dtype)));
  ConvCall other = std::get<ConvCall>(calls(body).calls[0].work);
  other.workspace /= 2;
  other.exact = !other.exact;
  (void)device.ask(other);  // behind an execution
  EXPECT_EQ(WatchedDnn::executions, 1);
  EXPECT_GE(WatchedDnn::plans, 2);
  EXPECT_EQ(WatchedDnn::plans_with_stream, 0);
  EXPECT_EQ(WatchedDnn::destroyed_without_context, 0);
  EXPECT_EQ(driver->live().dnn, 1);  // the handle
  WatchedDnn::keeps_nan = false;
  EXPECT_THAT(error_of([&] { on_device(device, calls(body), inputs, type); }), HasSubstr("not supported"));
}

/// The last of a plan may go when the library is gone, on any thread.
TEST(ConvCalls, APlanOutlivesItsLibrary) {
  const target::cuda::sim::SimDriver driver;
  const WatchedDnn dnn(driver);
  const ConvCall call = std::get<ConvCall>(calls(conv_with_relu()).calls[0].work);
  std::shared_ptr<const DnnPlan> plan;
  {
    const auto context = std::make_shared<const Context>(driver.api(), 0);
    const DnnLibrary library(context, dnn.api, nullptr);
    plan = library.plan(call);
    EXPECT_EQ(library.plan(call), plan);
  }
  EXPECT_EQ(driver.live().dnn, 1);
  std::thread([&] { plan.reset(); }).join();
  EXPECT_EQ(driver.live(), target::cuda::sim::LiveCounts{});
  EXPECT_EQ(WatchedDnn::destroyed_without_context, 0);
}

TEST(ConvCalls, WhatADeviceRefuses) {
  const auto device = target::cuda::sim::make_sim_device();
  const ir::Graph body = conv_body({}, Dtype::f32, Dtype::f32);
  const std::vector<Array> inputs = numbers(body, 1);
  CallList list = calls(body, {.workspace = 0});
  const auto run = [&] {
    return error_of([&] { on_device(*device, list, inputs, body.outputs[0].value.type()); });
  };
  EXPECT_THAT(run(),
              HasSubstr("convolution x 2,8,7,6 w 12,8,3,3 y 2,12,5,4: none of its 5 configurations serves; 1 "
                        "are not precise or not deterministic; 1 want reordered operands; 3 want 512 bytes "
                        "of workspace or more"));
  list = calls(body);
  std::get<ConvCall>(list.calls[0].work).y.dims[2] = 4;
  EXPECT_THAT(run(), HasSubstr("not supported"));
  list = calls(body);
  list.calls[0].operands[1].offset = 64;  // past the end of the weights
  EXPECT_THAT(run(), HasSubstr("a convolution: "));
}

}  // namespace
}  // namespace espalier::test

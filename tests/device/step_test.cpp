// Compiled functions on a GPU as users call them: results, parameters that live in several places, runs under way, a caller's memory and
// stream.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "op/elementwise.h"
#include "run/runner.h"
#include "support/arrays.h"
#include "support/environment.h"
#include "support/errors.h"
#include "support/sim_plugin.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"
#include "tensor/compile.h"

namespace espalier {
namespace {

using target::cuda::sim::make_sim_device;
using target::cuda::sim::SimDriver;
using testing::HasSubstr;

const CompileOptions on_gpu{.device = Device::cuda()};

class StepOnGpu : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(test::use_sim_gpu()); }
};

Tensor filled(double value, int64_t n = 64) { return Tensor(Array::full(Dtype::f32, {n}, value)); }
double first(const Parameter& p) { return p.storage().at(0); }

TEST_F(StepOnGpu, GivesWhatTheHostGives) {
  const TensorFn fn = [](const std::vector<Tensor>& in) {
    return std::vector{matmul(in[0], in[1]), in[0].exp() + 1.0};
  };
  const std::vector<Tensor> arguments{Tensor::randn({5, 7}, 1), Tensor::randn({7, 3}, 2)};
  Compiled gpu = compile(fn, on_gpu), host = compile(fn);
  for (int i = 0; i < 3; ++i) {
    const std::vector<Tensor> got = gpu(arguments), want = host(arguments);
    for (size_t r = 0; r < want.size(); ++r)
      test::expect_close(got[r].array(), want[r].array(), test::tolerance_of(Dtype::f32) * 10);
  }
}

/// The next run's input is written while a run is under way, which is waited for after that.
TEST(Step, InputsGivenAheadAreTheNextRuns) {
  ASSERT_TRUE(test::use_sim_gpu());
  for (const Device& device : {Device::cpu(), Device::cuda()}) {
    Compiled fn =
        compile([](const std::vector<Tensor>& in) { return std::vector{in[0] * 2.0}; }, {.device = device});
    const std::vector<ir::Type> types{{Dtype::f32, {ir::Dim(64)}}};
    Step& step = fn.step(types);
    step.set_input(0, Array::full(Dtype::f32, {64}, 0));
    int64_t run = step.submit();
    for (int i = 1; i < 6; ++i) {
      if (device.is_gpu()) step.set_input(0, Array::full(Dtype::f32, {64}, i));
      step.wait(run);
      EXPECT_EQ(step.result(0).at(63), 2.0 * (i - 1)) << device.name();
      if (!device.is_gpu()) step.set_input(0, Array::full(Dtype::f32, {64}, i));
      run = step.submit();
    }
    step.wait(run);
    EXPECT_EQ(step.result(0).at(63), 10) << device.name();
  }
}

/// On the host, too, an input that is bound is only read.
TEST(Step, ABoundInputIsNotWrittenTo) {
  Compiled fn = compile([](const std::vector<Tensor>& in) { return std::vector{in[0] * 2.0}; });
  const std::vector<ir::Type> types{{Dtype::f32, {ir::Dim(64)}}};
  Step& step = fn.step(types);
  const Array theirs = Array::full(Dtype::f32, {64}, 3);
  step.bind_input(0, theirs.data());
  EXPECT_THAT(test::error_of([&] { step.set_input(0, Array::full(Dtype::f32, {64}, 1)); }),
              HasSubstr("is bound to memory of the caller's"));
  step.run();
  EXPECT_EQ(step.result(0).at(0), 6);
  EXPECT_EQ(theirs.at(0), 3);
}

TEST_F(StepOnGpu, ParametersAreWhereTheyAreWanted) {
  const Parameter p(Array::full(Dtype::f32, {64}, 1), true, "p");
  const TensorFn add = [&](const std::vector<Tensor>& in) {
    p.assign(p.tensor() + in[0]);
    return std::vector{p.tensor() * 1.0};
  };
  const TensorFn look = [&](const std::vector<Tensor>&) { return std::vector{p.tensor() * 2.0}; };
  Compiled gpu_add = compile(add, on_gpu), gpu_look = compile(look, on_gpu), host_add = compile(add);
  const auto value = [](const std::vector<Tensor>& results) { return results[0].array().at(63); };
  EXPECT_EQ(value(gpu_add({filled(1)})), 2);
  EXPECT_EQ(value(gpu_look({})), 4) << "another program reads what the first wrote";
  EXPECT_EQ(first(p), 2) << "fetched when it is looked at";
  EXPECT_EQ(value(host_add({filled(10)})), 12);
  EXPECT_EQ(value(gpu_look({})), 24) << "written by a program of the host";
  p.assign(filled(100));
  EXPECT_EQ(value(gpu_add({filled(1)})), 101);
  EXPECT_EQ(value(host_add({filled(1)})), 102);
  static_cast<float*>(p.write())[63] = 7;
  EXPECT_EQ(value(gpu_look({})), 14);
  EXPECT_EQ(p.tensor().array().at(0), 102);
}

TEST_F(StepOnGpu, ParametersGoFromDeviceToDevice) {
  const test::Variable two("ESPALIER_FAKE_GPU", "gpus=2");
  const Parameter p(Array::full(Dtype::f32, {64}, 1), true, "p");
  const TensorFn add = [&](const std::vector<Tensor>& in) {
    p.assign(p.tensor() + in[0]);
    return std::vector{in[0] * 1.0};
  };
  Compiled first_gpu = compile(add, {.device = Device::cuda(0)}),
           second_gpu = compile(add, {.device = Device::cuda(1)});
  for (int i = 0; i < 3; ++i) {
    first_gpu({filled(1)});
    second_gpu({filled(10)});
  }
  EXPECT_EQ(first(p), 34);
}

/// Two runs under way, each with the rate that the host had when it was begun.
TEST_F(StepOnGpu, RunsUnderWayKeepTheirSmallParameters) {
  const Parameter sum(Array(Dtype::f32, {64}), true, "sum"),
      rate(Array::scalar(Dtype::f32, 1), false, "rate");
  Compiled fn = compile(
      [&](const std::vector<Tensor>& in) {
        sum.assign(sum.tensor() + in[0] * rate.tensor());
        return std::vector{in[0] * rate.tensor()};
      },
      on_gpu);
  const std::vector<ir::Type> types{{Dtype::f32, {ir::Dim(64)}}};
  Step& step = fn.step(types);
  EXPECT_THAT(test::error_of([&] { step.output(0); }), HasSubstr("has no output yet"));
  const auto begin = [&](double x, float r) {
    step.set_input(0, Array::full(Dtype::f32, {64}, x));
    *static_cast<float*>(rate.write()) = r;
    return step.submit();
  };
  for (int round = 0; round < 3; ++round) {
    const int64_t a = begin(1, 10), b = begin(2, 100);
    step.wait(a);
    EXPECT_EQ(step.result(0).at(5), 10);
    step.wait(b);
    EXPECT_EQ(step.result(0).at(5), 200);
  }
  EXPECT_EQ(sum.storage().at(5), 3 * 210);
}

TEST_F(StepOnGpu, InputsStayWhereTheyAreWhenEveryRunIsWaitedFor) {
  Compiled fn = compile([](const std::vector<Tensor>& in) { return std::vector{in[0] + 1.0}; }, on_gpu);
  const std::vector<ir::Type> types{{Dtype::f32, {ir::Dim(4)}}};
  Step& step = fn.step(types);
  auto* const x = static_cast<float*>(step.input(0));
  for (int i = 0; i < 5; ++i) {
    x[0] = static_cast<float>(i);
    step.run();
    EXPECT_EQ(static_cast<const float*>(step.output(0))[0], static_cast<float>(i + 1));
    EXPECT_EQ(step.input(0), x);
  }
}

TEST_F(StepOnGpu, ReadsTheCallersMemory) {
  const auto gpu = run::find_location("cuda").device;
  const run::DeviceMemory x = run::device_memory(gpu->device(), 256);
  const std::vector<float> values(64, 3);
  gpu->upload(x.get(), values.data(), 256);
  Compiled fn = compile([](const std::vector<Tensor>& in) { return std::vector{in[0] + in[1]}; }, on_gpu);
  const std::vector<ir::Type> types(2, {Dtype::f32, {ir::Dim(64)}});
  Step& step = fn.step(types);
  step.bind_input(0, run::as_pointer(x.get()));
  step.set_input(1, Array::full(Dtype::f32, {64}, 4));
  step.run();
  EXPECT_EQ(step.result(0).at(63), 7);
  EXPECT_THAT(test::error_of([&] { step.set_input(0, Array(Dtype::f32, {64})); }),
              HasSubstr("is bound to memory"));
  EXPECT_THAT(test::error_of([&] { step.bind_input(0, run::as_pointer(x.get() + 4)); }),
              HasSubstr("4 bytes past a boundary"));
  EXPECT_THAT(test::error_of([&] { step.executor(); }), HasSubstr("is of a GPU"));
}

TEST_F(StepOnGpu, MemoryIsCountedAndLimited) {
  const Device gpu = Device::cuda();
  const test::Variable fresh("ESPALIER_FAKE_GPU", "gpus=1;capability=90");
  EXPECT_EQ(gpu.memory().in_use, 0);
  gpu.set_memory_limit(100'000);
  const Parameter p(Array(Dtype::f32, {4096}), true, "p");
  const TensorFn add = [&](const std::vector<Tensor>& in) {
    p.assign(p.tensor() + in[0]);
    return std::vector{in[0] * 2.0};
  };
  {
    Compiled fits = compile(add, on_gpu);
    fits({filled(1, 4096)});
    const target::MemoryStatistics m = gpu.memory();
    EXPECT_EQ(m.allocations, 2) << "the program's, and the parameter";
    EXPECT_GE(m.in_use, 5 * 16384) << "two slots with an input and a result, and the parameter";
    EXPECT_LE(m.in_use, 100'000);
    EXPECT_EQ(m.most, m.in_use);
    EXPECT_EQ(m.overhead, 0) << "the simulator takes nothing beside";
    Compiled too_much =
        compile([](const std::vector<Tensor>& in) { return std::vector{in[0] + 1.0}; }, on_gpu);
    EXPECT_THAT(test::error_of([&] { too_much({filled(1, 4096)}); }),
                testing::AllOf(HasSubstr("needs more memory than is free"), HasSubstr("2 slots of 32.0 KiB"),
                               HasSubstr("within the limit of 97.7 KiB")));
    EXPECT_EQ(gpu.memory().in_use, m.in_use);
  }
  gpu.set_memory_limit(0);
  EXPECT_LE(gpu.memory().in_use, 16384) << "only the parameter is left";
  EXPECT_THAT(test::error_of([&] { gpu.set_memory_limit(-1); }), HasSubstr("is negative"));
  EXPECT_THAT(test::error_of([] { Device::cpu().memory(); }), HasSubstr("has no memory of its own"));
}

/// A caller with the context of GPU 0 and streams of its own beside a device of ours; all is given back in the end.
struct Caller {
  explicit Caller(const target::cuda::sim::SimOptions& options = {})
      : driver(std::make_shared<SimDriver>(options)), cu(driver->api()) {
    EXPECT_EQ(cu.Init(0), 0);
    EXPECT_EQ(cu.DevicePrimaryCtxRetain(&context, 0), 0);
    EXPECT_EQ(cu.CtxPushCurrent(context), 0);
    open = std::make_shared<run::OpenDevice>("cuda:0", make_sim_device(driver));
  }
  ~Caller() {
    open = nullptr;
    for (const auto stream : streams) EXPECT_EQ(cu.StreamDestroy(stream), 0);
    EXPECT_EQ(cu.CtxPopCurrent(&context), 0);
    EXPECT_EQ(cu.DevicePrimaryCtxRelease(0), 0);
    EXPECT_EQ(driver->leaked(), "");
  }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;
  target::cuda::driver::CuStream stream(unsigned flags) {
    EXPECT_EQ(cu.StreamCreate(&streams.emplace_back(), flags), 0);
    return streams.back();
  }
  run::Location where() const { return {&open->target(), open}; }

  std::shared_ptr<SimDriver> driver;
  const target::cuda::driver::CuApi& cu;
  std::shared_ptr<run::OpenDevice> open;
  target::cuda::driver::CuContext context = nullptr;
  std::vector<target::cuda::driver::CuStream> streams;
};

/// Programs in the caller's stream and in the device's own see each other's parameters.
void expect_order(Caller& caller, void* theirs_is) {
  ir::Graph g{.name = "twice"};
  const ir::Value x = ir::new_input("x", {Dtype::f32, {ir::Dim(64)}});
  g.inputs = {x};
  g.outputs = {{"next", op::add(x, x)}};
  g.state = {{"x", "next"}};
  const auto program = run::Program::compile(g, {.target = caller.where().target});
  const auto cell = std::make_shared<run::Elements>(Array::full(Dtype::f32, {64}, 1));
  const auto own = run::make_runner(program, caller.where(), {{0, cell}}),
             theirs = run::make_runner(program, caller.where(), {{0, cell}}, {.stream = theirs_is});
  for (int i = 0; i < 4; ++i) {
    own->submit();
    theirs->submit();
  }
  EXPECT_EQ(cell->read().at(63), 256);
  EXPECT_EQ(caller.driver->live().allocations, 1) << "one copy of the cell, and nothing else to keep";
  EXPECT_EQ(theirs->on_device()->why_no_graphs(), theirs_is ? "" : "the default stream cannot be captured");
  EXPECT_EQ(theirs->on_device()->replays() > 0, theirs_is != nullptr);
}

TEST(StepStreams, OfTheCallersAreInOrderThreads) {
  Caller caller;
  expect_order(caller, caller.stream(1));
}

TEST(StepStreams, TheDefaultStreamIsInOrderThreads) {
  Caller caller({.default_stream = true});
  expect_order(caller, nullptr);
  expect_order(caller, nullptr);
}

TEST(StepStreams, TheDefaultStreamOfEachThreadIsRefused) {
  Caller caller({.default_stream = true});
  EXPECT_THAT(
      test::error_of([&] { caller.open->device().adopt_stream(target::cuda::driver::cu_stream_per_thread); }),
      HasSubstr("another one on every thread"));
}

/// A caller writes an input in a stream of its own, and reads what the program writes there; what comes out in the end.
float through_default_stream(unsigned flags, target::cuda::sim::Others others) {
  Caller caller({.default_stream = true, .others = others});
  const auto theirs = caller.stream(flags);
  target::Device& device = caller.open->device();
  const run::DeviceMemory first = run::device_memory(device, 256), x = run::device_memory(device, 256),
                          s = run::device_memory(device, 256), last = run::device_memory(device, 256);
  const std::vector<float> threes(64, 3), zeros(64, 0);
  run::upload_and_wait(device, first.get(), threes.data(), 256);
  for (const run::DeviceMemory* m : {&x, &s, &last})
    run::upload_and_wait(device, m->get(), zeros.data(), 256);

  ir::Graph g{.name = "copies"};
  const ir::Value in = ir::new_input("x", {Dtype::f32, {ir::Dim(64)}}), old = ir::new_input("s", in.type());
  g.inputs = {in, old};
  g.outputs = {{"next", op::add(in, in)}};
  g.state = {{"s", "next"}};
  const auto program = run::Program::compile(g, {.target = caller.where().target});
  {
    const run::OwnedStream compute(device, device.adopt_stream(nullptr));
    run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(program, caller.open->shared()),
                          {.own_state = false, .stream = compute.get()});
    e.bind_input(0, x.get());
    e.bind_state("s", s.get());
    EXPECT_EQ(caller.cu.MemcpyDtoDAsync(x.get(), first.get(), 256, theirs), 0);
    e.submit();
    EXPECT_EQ(caller.cu.MemcpyDtoDAsync(last.get(), s.get(), 256, theirs), 0);
    EXPECT_EQ(caller.cu.StreamSynchronize(theirs), 0);
  }
  std::vector<float> out(64);
  run::download_and_wait(device, out.data(), last.get(), 256);
  return out[63];
}

/// It waits for streams that were made to block and they for it; others are the caller's to order.
TEST(StepStreams, TheDefaultStreamWaitsForBlockingStreamsThreads) {
  for (const auto others : {target::cuda::sim::Others::late, target::cuda::sim::Others::first})
    EXPECT_EQ(through_default_stream(0, others), 6);
#if !defined(__SANITIZE_THREAD__)  // to which it is a race
  EXPECT_NE(through_default_stream(1, target::cuda::sim::Others::late), 6);
#endif
}

/// What compile() is given.
TEST_F(StepOnGpu, TheDefaultStreamHasItsName) {
  const test::Variable settings("ESPALIER_FAKE_GPU", "default_stream=1");
  Compiled fn = compile([](const std::vector<Tensor>& in) { return std::vector{in[0] * 2.0}; },
                        {.device = Device::cuda(), .stream = nullptr});
  const std::vector<ir::Type> types{{Dtype::f32, {ir::Dim(64)}}};
  Step& step = fn.step(types);
  for (int i = 0; i < 3; ++i) {
    step.set_input(0, Array::full(Dtype::f32, {64}, i));
    step.run();
    EXPECT_EQ(step.result(0).at(63), 2 * i);
  }
  EXPECT_EQ(step.runner().on_device()->why_no_graphs(), "the default stream cannot be captured");
}

}  // namespace
}  // namespace espalier

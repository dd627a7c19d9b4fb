// Tensors of other libraries in place: of the host and of a GPU, whose deleters are called once, at the end.
#include "tensor/dlpack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "op/elementwise.h"
#include "run/runner.h"
#include "support/errors.h"
#include "support/sim_plugin.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::dlpack {
namespace {

using test::error_of;
using testing::HasSubstr;

/// A tensor as another library would give it.
struct Foreign {
  Foreign(void* data, std::vector<int64_t> d) : dims(std::move(d)) {
    managed.tensor = {.data = data, .rank = static_cast<int32_t>(dims.size()), .shape = dims.data()};
    managed.context = this;
    managed.deleter = [](ManagedTensor* self) { ++static_cast<Foreign*>(self->context)->deleted; };
  }
  std::vector<int64_t> dims, strides;
  ManagedTensor managed;
  int deleted = 0;
};

TEST(DlPack, OfTheHostInPlace) {
  std::vector<float> data{0, 1, 2, 3, 4, 5, 6};
  Foreign f(data.data(), {2, 3});
  f.managed.tensor.byte_offset = 4;
  f.strides = {3, 1};
  f.managed.tensor.strides = f.strides.data();
  {
    const Array a = array_of(&f.managed);
    EXPECT_EQ(a, Array::of<float>({2, 3}, {1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(a.data(), data.data() + 1);
    const Tensor sum = Tensor(a) + 1.0;
    EXPECT_EQ(sum.array().at(5), 7);
    EXPECT_EQ(f.deleted, 0);
  }
  EXPECT_EQ(f.deleted, 1);
}

TEST(DlPack, OursForOthers) {
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::i64, Dtype::i32,
                            Dtype::i8, Dtype::u8, Dtype::boolean}) {
    ManagedTensor* out = nullptr;
    {
      const Array a = Array::full(dtype, {2, 1, 3}, 1);
      out = share(a);
      EXPECT_EQ(out->tensor.data, a.data());
    }
    EXPECT_EQ(array_of(out), Array::full(dtype, {2, 1, 3}, 1)) << ir::dtype_name(dtype);  // which takes it
  }
}

TEST(DlPack, WhatIsNotOursIsRefusedAndNotTaken) {
  float data[6] = {};
  const auto refused = [&](const auto& change) {
    Foreign f(data, {2, 3});
    change(f);
    std::string text = error_of([&] { array_of(&f.managed); });
    EXPECT_EQ(f.deleted, 0) << text;
    return text;
  };
  EXPECT_THAT(refused([](Foreign& f) {
                f.managed.tensor.dtype = {5, 64, 1};
              }),
              HasSubstr("code 5, 64 bits, 1 lanes"));
  EXPECT_THAT(refused([](Foreign& f) { f.managed.tensor.dtype.lanes = 4; }), HasSubstr("4 lanes"));
  EXPECT_THAT(refused([](Foreign& f) {
                f.managed.tensor.device = {DeviceKind::cuda, 1};
              }),
              HasSubstr("cuda:1"));
  EXPECT_THAT(refused([](Foreign& f) {
                f.managed.tensor.device = {DeviceKind{10}, 0};
              }),
              HasSubstr("device kind 10"));
  EXPECT_THAT(refused([](Foreign& f) { f.dims[1] = -3; }), HasSubstr("negative dim"));
  EXPECT_THAT(refused([](Foreign& f) { f.managed.tensor.shape = nullptr; }), HasSubstr("has no shape"));
  EXPECT_THAT(refused([](Foreign& f) {
                f.strides = {1, 2};
                f.managed.tensor.strides = f.strides.data();
              }),
              HasSubstr("dims 2,3, strides 1,2"));
  EXPECT_THAT(refused([](Foreign& f) { f.dims[0] = int64_t{1} << 62; }), HasSubstr("too many elements"));
  EXPECT_THAT(refused([](Foreign& f) { f.managed.tensor.data = nullptr; }), HasSubstr("has no memory"));
  EXPECT_THAT(error_of([] { array_of(nullptr); }), HasSubstr("is null"));
}

TEST(DlPack, OfAGpu) {
  ASSERT_TRUE(test::use_sim_gpu());
  const Device gpu = Device::cuda();
  const Parameter theirs(Array::full(Dtype::f32, {4, 8}, 3), true, "theirs");
  ManagedTensor* shared = share(theirs, gpu);
  EXPECT_EQ(shared->tensor.device.kind, DeviceKind::cuda);
  Compiled fn =
      compile([](const std::vector<Tensor>& in) { return std::vector{in[0] * 2.0}; }, {.device = gpu});
  const std::vector<ir::Type> types{{Dtype::f32, {ir::Dim(4), ir::Dim(8)}}},
      others{{Dtype::f32, {ir::Dim(32)}}};
  Step& step = fn.step(types);
  EXPECT_THAT(error_of([&] { array_of(shared); }), HasSubstr("cuda:0"));
  EXPECT_THAT(error_of([&] { bind_input(fn.step(others), 0, shared); }), HasSubstr("f32[4,8]"));
  Foreign host(nullptr, {4, 8});
  EXPECT_THAT(error_of([&] { bind_input(step, 0, &host.managed); }),
              HasSubstr("lies elsewhere than the step runs"));
  EXPECT_EQ(host.deleted, 0);
  {
    const std::shared_ptr<const void> kept = bind_input(step, 0, shared);
    step.run();
    EXPECT_EQ(step.result(0).at(31), 6);
  }
  {  // what a run that is under way will have written
    Compiled more = compile(
        [&](const std::vector<Tensor>&) {
          theirs.assign(theirs.tensor() + 1.0);
          return std::vector{theirs.tensor() * 1.0};
        },
        {.device = gpu});
    Step& under_way = more.step({});
    under_way.submit();
    ManagedTensor* now = share(theirs, gpu);
    EXPECT_EQ(static_cast<const float*>(now->tensor.data)[31], 4)
        << "memory of a simulated GPU is the host's";
    now->deleter(now);
  }
  Foreign at(run::as_pointer(4100), {4, 8});
  at.managed.tensor.device = {DeviceKind::cuda, 0};
  EXPECT_THAT(error_of([&] { bind_input(step, 0, &at.managed); }), HasSubstr("4 bytes past a boundary"));
  EXPECT_EQ(at.deleted, 0);
}

/// A stream of someone else's in the simulated GPU's context.
struct TheirStream {
  TheirStream() {
    EXPECT_EQ(driver->api().Init(0), 0);
    EXPECT_EQ(driver->api().DevicePrimaryCtxRetain(&context, 0), 0);
    EXPECT_EQ(driver->api().CtxPushCurrent(context), 0);
    EXPECT_EQ(driver->api().StreamCreate(&handle, 1), 0);
  }
  ~TheirStream() {
    EXPECT_EQ(driver->api().StreamDestroy(handle), 0);
    EXPECT_EQ(driver->api().CtxPopCurrent(&context), 0);
    EXPECT_EQ(driver->api().DevicePrimaryCtxRelease(0), 0);
    EXPECT_EQ(driver->leaked(), "");
  }
  std::shared_ptr<target::cuda::sim::SimDriver> driver = std::make_shared<target::cuda::sim::SimDriver>();
  target::cuda::driver::CuContext context = nullptr;
  target::cuda::driver::CuStream handle = nullptr;
};

/// x, twice, over a device of `driver`, which may be recorded.
struct Twice {
  explicit Twice(std::shared_ptr<target::Device> on) {
    const auto open = std::make_shared<run::OpenDevice>("cuda:0", std::move(on));
    const run::Location where{&open->target(), open};
    ir::Graph g{.name = "twice"};
    g.inputs = {ir::new_input("x", {Dtype::f32, {ir::Dim(64)}})};
    g.outputs = {{"y", op::add(g.inputs[0], g.inputs[0])}};
    step = std::make_unique<Step>(
        run::make_runner(run::Program::compile(g, {.target = where.target}), where, {}), 1, 1);
  }
  int64_t begin(double x) {
    step->set_input(0, Array::full(Dtype::f32, {64}, x));
    return step->submit();
  }
  double run(double x) {
    step->wait(begin(x));
    return step->result(0).at(63);
  }
  std::unique_ptr<Step> step;
};

TEST(DlPack, AResultOnAGpuStaysWhileItIsHeld) {
  TheirStream theirs;
  ManagedTensor* last = nullptr;
  {
    Twice twice(target::cuda::sim::make_sim_device(theirs.driver));
    Step& step = *twice.step;
    const auto value = [](const ManagedTensor* t) { return static_cast<const float*>(t->tensor.data)[63]; };
    for (int round = 0; round < 3; ++round) {                         // launched, captured, replayed
      ManagedTensor* held = share(step, 0, twice.begin(1), nullptr);  // which waits
      EXPECT_EQ(held->tensor.device.kind, DeviceKind::cuda);
      EXPECT_EQ(held->tensor.rank, 1);
      for (int r = 2; r < 6; ++r) {
        EXPECT_EQ(twice.run(r), 2 * r);
        EXPECT_EQ(value(held), 2) << "another run has written there";
      }
      const int64_t under_way = twice.begin(7);
      EXPECT_THAT(error_of([&] { twice.begin(8); }),
                  testing::AllOf(HasSubstr("program twice: has no place for another run"),
                                 HasSubstr("each of its 2")));
      step.wait(under_way);
      ManagedTensor* other = share(step, 0, under_way, nullptr);
      EXPECT_THAT(error_of([&] { twice.begin(8); }), HasSubstr("giving a result back"));
      EXPECT_EQ(value(other), 14);
      held->deleter(held);
      EXPECT_EQ(twice.run(8), 16);
      EXPECT_EQ(value(other), 14);
      other->deleter(other);
      EXPECT_EQ(twice.run(9), 18);
    }
    step.set_input(0, Array::full(Dtype::f32, {64}, 5));  // of the next run, in the place that is held then
    last = share(step, 0, step.runner().on_device()->runs() - 1, nullptr);
    step.run();
    EXPECT_EQ(step.result(0).at(63), 10);
    EXPECT_EQ(value(last), 18);
    EXPECT_THAT(error_of([&] { share(step, 0, 0, nullptr); }), HasSubstr("a later run has taken the place"));
    EXPECT_THAT(error_of([&] { share(step, 0, 1000, nullptr); }),
                HasSubstr("there is no run of that number"));
    EXPECT_THAT(error_of([&] { share(step, 1, 0, nullptr); }), HasSubstr("there is none of that number"));
  }
  EXPECT_EQ(static_cast<const float*>(last->tensor.data)[63], 18) << "the step is gone";
  EXPECT_EQ(theirs.driver->live().allocations, 1);
  std::thread([&] { last->deleter(last); }).join();
  EXPECT_EQ(theirs.driver->live().allocations, 0);
}

/// By vector clocks: their stream waits for the run and the host does not; what is computed there later waits for their stream.
TEST(DlPack, AResultOnAGpuIsReadInAStreamOfTheReaders) {
  TheirStream theirs;
  const auto device =
      std::make_shared<test::RecordedDevice>(target::cuda::sim::make_sim_device(theirs.driver));
  Twice twice(device);
  for (int r = 0; r < 6; ++r) EXPECT_EQ(twice.run(r), 2 * r);  // in one place, captured
  twice.begin(0);
  twice.step->wait(twice.begin(0));  // and in the other
  const run::OwnedStream reading(*device, device->adopt_stream(theirs.handle));
  const run::PinnedMemory copy = run::pinned_memory(*device, 256);

  device->forget();
  ManagedTensor* held = share(*twice.step, 0, twice.begin(3), theirs.handle);
  EXPECT_EQ(device->host_waits().size(), 0u);
  device->download(copy.get(), run::as_address(held->tensor.data), 256, reading.get());
  held->deleter(held);
  for (int r = 0; r < 3; ++r) twice.begin(4);
  const std::vector<test::RecordedDevice::Work>& work = device->work();
  std::vector<size_t> launches;
  size_t read = 0;
  for (size_t i = 0; i < work.size(); ++i) {
    if (work[i].kind == test::RecordedDevice::Kind::launch) launches.push_back(i);
    else if (work[i].kind == test::RecordedDevice::Kind::download && read == 0 && !launches.empty() &&
             work[i].line == device->line_of(reading.get()))
      read = i;
  }
  ASSERT_EQ(launches.size(), 4u);
  ASSERT_GT(read, 0u);
  const auto before = test::RecordedDevice::before;
  EXPECT_TRUE(before(work[launches[0]], work[read])) << "read before it is computed";
  EXPECT_FALSE(before(work[read], work[launches[1]])) << "the other place has nobody to wait for";
  EXPECT_TRUE(before(work[read], work[launches[2]])) << "computed anew while it is read";
  device->sync(reading.get());
  EXPECT_EQ(reinterpret_cast<const float*>(copy.get())[63], 6);
}

}  // namespace
}  // namespace espalier::dlpack

// Tensors of other libraries in place: of the host and of a GPU, whose deleters are called once, at the end.
#include "tensor/dlpack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run/runner.h"
#include "support/errors.h"
#include "support/sim_plugin.h"

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

}  // namespace
}  // namespace espalier::dlpack

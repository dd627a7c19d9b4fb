// What only bites on a GPU, refused by the simulator, each with a fault that shows it: shared memory above 48 KiB without asking for it,
// more than 4 KiB of parameters, wide accesses at odd places, one place under two names of which a kernel is told that there is one.
// Pageable copies and calls while a stream is captured are in streams_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "op/elementwise.h"
#include "support/device_run.h"
#include "support/errors.h"
#include "support/loops.h"
#include "target/cuda/sim/sim_compiler.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::target::cuda::sim {
namespace {

using test::DeviceThings;
using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t large = 60 << 10;

/// Turns 15360 floats round, through shared memory that the launch asks for.
KernelSource turns_round() {
  return {"turns_round", R"(
K_KERNEL(turns_round, 256)(const float* __restrict__ x, float* __restrict__ y) {
  K_SHARED_REST(float, all);
  K_SHARED(float, first, 1);
  if (threadIdx.x == 0) first[0] = x[0];
  for (int i = threadIdx.x; i < 15360; i += 256) all[i] = x[i];
  __syncthreads();
  for (int i = threadIdx.x; i < 15360; i += 256) y[i] = i == 15359 ? first[0] : all[15359 - i];
}
)",
          256, true};
}

CallRecord launch_of(const KernelSource& source, int64_t shared_bytes) {
  return {KernelCall{source.name, {1}, {static_cast<uint32_t>(source.max_threads)}, shared_bytes},
          {{0}, {1}},
          {}};
}

TEST(Limits, SharedMemoryAboveFortyEightKiBIsAskedForThreads) {
  const auto device = make_sim_device();
  const KernelSource sources[] = {turns_round()};
  const CallRecord call = launch_of(sources[0], large);
  const auto program = device->load(sources, std::span(&call, 1));
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Address x = things.memory(large), y = things.memory(large);
  auto* data = things.pinned<float>(large / 4);
  for (int i = 0; i < large / 4; ++i) data[i] = static_cast<float>(i);
  device->upload(x, data, large, stream);
  device->launch(*program, 0, std::vector{x, y}, stream);
  device->download(data, y, large, stream);
  device->sync(stream);
  for (int i = 0; i < large / 4; ++i) ASSERT_EQ(data[i], static_cast<float>(large / 4 - 1 - i));
}

TEST(Limits, MoreSharedMemoryThanTheDeviceHasIsRefusedWhenLoaded) {
  const KernelSource sources[] = {turns_round()};
  const auto words = [&](const SimOptions& options, int64_t bytes) {
    const auto device = make_sim_device(options);
    const CallRecord call = launch_of(sources[0], bytes);
    return test::error_of([&] { device->load(sources, std::span(&call, 1)); });
  };
  EXPECT_THAT(
      words({.capability = 89}, 100 << 10),
      AllOf(HasSubstr("kernel turns_round"), HasSubstr("102400 bytes"), HasSubstr("at most 101376 bytes")));
  EXPECT_THAT(words({.shared_limit = 56 << 10}, large), HasSubstr("at most 57344 bytes"));
  EXPECT_EQ(words({.capability = 90}, 100 << 10), "no error");
}

/// A driver under nothing: its context is current, and `kernel` is loaded.
struct Bare {
  explicit Bare(const KernelSource& kernel, const SimOptions& options = {})
      : sim(std::make_shared<SimDriver>(options)), cu(sim->api()) {
    EXPECT_EQ(cu.Init(0), 0);
    EXPECT_EQ(cu.DevicePrimaryCtxRetain(&context, 0), 0);
    EXPECT_EQ(cu.CtxPushCurrent(context), 0);
    EXPECT_EQ(cu.StreamCreate(&stream, 0), 0);
    EXPECT_EQ(cu.MemAlloc(&memory, 1 << 20), 0);
    const auto image = SimCompiler().compile(std::span(&kernel, 1), 90);
    EXPECT_EQ(cu.ModuleLoadData(&module, image[0].bytes.c_str()), 0);
    EXPECT_EQ(cu.ModuleGetFunction(&function, module, kernel.name.c_str()), 0);
  }
  ~Bare() {
    cu.ModuleUnload(module);
    cu.MemFree(memory);
    cu.StreamDestroy(stream);
    cu.CtxPopCurrent(&context);
    cu.DevicePrimaryCtxRelease(0);
  }
  Bare(const Bare&) = delete;
  Bare& operator=(const Bare&) = delete;

  /// Launched with these addresses: "" or what the driver said of it.
  std::string launch(std::vector<driver::CuAddress> operands, unsigned shared_bytes = 0) const {
    std::vector<void*> parameters;
    for (driver::CuAddress& o : operands) parameters.push_back(&o);
    parameters.push_back(nullptr);
    return words(
        cu.LaunchKernel(function, 1, 1, 1, 32, 1, 1, shared_bytes, stream, parameters.data(), nullptr));
  }
  std::string words(driver::CuResult error) const {
    const char* text = "";
    if (error != 0) EXPECT_EQ(cu.GetErrorString(error, &text), 0);
    return text;
  }

  std::shared_ptr<SimDriver> sim;
  const driver::CuApi& cu;
  driver::CuContext context = nullptr;
  driver::CuStream stream = nullptr;
  driver::CuAddress memory = 0;
  driver::CuModule module = nullptr;
  driver::CuFunction function = nullptr;
};

TEST(Limits, ALaunchThatDidNotAskForItsSharedMemory) {
  const Bare bare(turns_round(), {.capability = 89});
  const auto attribute = driver::CuFunctionAttribute::max_dynamic_shared_bytes;
  const std::vector<driver::CuAddress> operands{bare.memory, bare.memory + (1 << 19)};
  EXPECT_THAT(bare.launch(operands, large),
              HasSubstr("kernel turns_round: 61440 bytes of shared memory, and 49152 "
                        "without asking for more"));
  EXPECT_THAT(bare.words(bare.cu.FuncSetAttribute(bare.function, attribute, 100 << 10)),
              HasSubstr("102400 bytes of shared memory; a block has 101376"));
  EXPECT_EQ(bare.words(bare.cu.FuncSetAttribute(bare.function, attribute, large)), "");
  EXPECT_EQ(bare.launch(operands, large), "");
  EXPECT_EQ(bare.cu.StreamSynchronize(bare.stream), 0);
  EXPECT_EQ(bare.launch(operands, 0), "");  // which the kernel finds out
  EXPECT_THAT(bare.words(bare.cu.StreamSynchronize(bare.stream)),
              HasSubstr("that the launch does not ask for"));
}

KernelSource of_parameters(int count) {
  std::string list;
  for (int i = 0; i < count; ++i) list += (i > 0 ? ", const float* p" : "const float* p") + std::to_string(i);
  return {"many", "K_KERNEL(many, 32)(" + list + ") {}\n", 32, false};
}

TEST(Limits, FourKiBOfParameters) {
  for (const int count : {512, 513}) {
    const KernelSource source = of_parameters(count);
    {
      const Bare bare(source);
      const std::string words =
          bare.launch(std::vector<driver::CuAddress>(static_cast<size_t>(count), bare.memory));
      EXPECT_EQ(words, count == 512 ? "" : "kernel many: more than 4 KiB of parameters");
    }
    const auto device = make_sim_device();
    CallRecord call{KernelCall{"many", {1}, {32}}, {}, {}};
    for (int i = 0; i < count; ++i) call.operands.push_back({i});
    const auto load = [&] { device->load(std::span(&source, 1), std::span(&call, 1)); };
    if (count == 512) EXPECT_NO_THROW(load());
    else EXPECT_THROW(load(), InternalError);
  }
}

/// y[i] = x[i], four elements at once.
const KernelSource fours{"fours", R"(
K_KERNEL(fours, 32)(const float* __restrict__ x, float* __restrict__ y) {
  esp_store<4>(y + 4 * threadIdx.x, esp_load<4>(x + 4 * threadIdx.x));
}
)",
                         32, false};

TEST(Limits, SixteenByteAccessesAtOddPlacesThreads) {
  for (const bool store : {false, true})
    for (const driver::CuAddress off : {4ull, 8ull, 12ull, 16ull}) {
      const Bare bare(fours);
      EXPECT_EQ(bare.launch({bare.memory + (store ? 0 : off), bare.memory + 4096 + (store ? off : 0)}), "");
      const std::string words = bare.words(bare.cu.StreamSynchronize(bare.stream));
      EXPECT_EQ(words, off == 16 ? "" : "kernel fours: simulated kernel: a misaligned access of 16 bytes");
    }
}

KernelSource adds(const char* first, const char* second, const char* result) {
  const std::string entry = std::string("(const float*") + first + " x, const float*" + second +
                            " y, float*" + result +
                            " z) {\n  z[threadIdx.x] = x[threadIdx.x] + y[threadIdx.x];\n}\n";
  return {"adds", "K_KERNEL(adds, 32)" + entry, 32, false};
}

TEST(Limits, OnePlaceUnderTwoNames) {
  const char *const none = "", *const restricted = " __restrict__";
  struct Case {
    const char *x, *y, *z;
    bool in_place;  ///< may z be x?
  };
  for (const Case& c : {Case{restricted, restricted, restricted, false},
                        Case{none, restricted, restricted, false}, Case{restricted, none, none, false},
                        Case{none, restricted, none, true}, Case{none, none, none, true}}) {
    const KernelSource source = adds(c.x, c.y, c.z);
    EXPECT_EQ(parameters_of(source), (std::vector<KernelParameter>{
                                         {false, c.x != none}, {false, c.y != none}, {true, c.z != none}}));
    const Bare bare(source);
    const driver::CuAddress a = bare.memory, b = bare.memory + 256, d = bare.memory + 512;
    EXPECT_EQ(bare.launch({a, b, d}), "");
    EXPECT_EQ(bare.launch({a, a, d}), "") << "nobody writes there";
    const std::string words = bare.launch({a, b, a});
    if (c.in_place) EXPECT_EQ(words, "");
    else EXPECT_THAT(words, HasSubstr("kernel adds: operands 0 and 2 are one place that is written"));
    EXPECT_EQ(bare.cu.StreamSynchronize(bare.stream), 0);
  }
}

/// Planned only: nothing of that size is here.
TEST(Limits, IndicesOf32BitsEndBelowTwoToThe31Elements) {
  const auto is_wide = [](int64_t elements, int64_t limit) {
    const ir::Value x = ir::new_input("x", {ir::Dtype::f32, {elements}});
    const auto made = loop_calls(test::body_of({x}, {op::neg(x)}), {.alignment = {}, .index_limit = limit});
    return std::get<CallList>(made).sources.at(0).text.find("unsigned long long unit") != std::string::npos;
  };
  EXPECT_FALSE(is_wide(64, 64));
  EXPECT_TRUE(is_wide(64, 63));
  constexpr int64_t end = int64_t{1} << 31;
  EXPECT_FALSE(is_wide(end - 256, MapOptions{}.index_limit));
  EXPECT_TRUE(is_wide(end, MapOptions{}.index_limit));
}

}  // namespace
}  // namespace espalier::target::cuda::sim

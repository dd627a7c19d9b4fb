// Every call of the driver in steps of training fails once: forward, backward and update in f16 with a loss scale that finds its size, of
// linear layers and of a block of cuDNN's convolutions with batch norms, whose running statistics are states, too; uploads, downloads, the
// run that is launched, the one that is captured, those that are replayed. Whatever fails, the parameters, the moments, the loss scale and
// the random numbers are all of one step, and training goes on to the bits of a training without the fault.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <span>

#include "nn/layers.h"
#include "nn/losses.h"
#include "nn/models.h"
#include "nn/optim.h"
#include "run/runner.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/driver/context.h"
#include "target/cuda/sim/sim_driver.h"
#include "tensor/compile.h"

namespace espalier {
namespace {

using target::DeviceError;
using target::cuda::sim::make_sim_device;
using target::cuda::sim::SimDriver;
using testing::HasSubstr;

/// The step of a network's training in f16, as a program, with what it begins with.
struct Training {
  using Loss = std::function<Tensor(const Tensor& x, const Tensor& y)>;

  Training(const std::vector<int64_t>& x, const std::vector<Parameter>& parameters, const Loss& loss) {
    data[0] = Array(Dtype::f32, x);
    data[1] = Array(Dtype::i64, {x[0]});
    for (int64_t i = 0; i < data[0].size(); ++i) data[0].set(i, static_cast<double>(i * 7 % 11) / 5 - 1);
    for (int64_t i = 0; i < data[1].size(); ++i) data[1].set(i, static_cast<double>(i % 3));
    nn::Adam optimiser{parameters, {.rate = 0.05}};
    nn::LossScale scale{1024, 2};  // which changes every second step
    const Trace t = trace(
        [&](const std::vector<Tensor>& in) {
          const Tensor value = loss(in[0], in[1]);
          optimiser.minimise(value, {.loss_scale = &scale});
          return std::vector<Tensor>{value};
        },
        std::vector<ir::Type>{data[0].type(), data[1].type()});
    program = run::Program::compile(t.graph, {.target = planner.get(), .precision = pass::Precision::f16});
    for (size_t p = 0; p < t.parameters.size(); ++p)
      for (size_t i = 0; i < program->inputs().size(); ++i)
        if (program->inputs()[i].name == t.inputs[p])
          cells.push_back({i, t.parameters[p].storage().copied()});
  }

  struct Cell {
    size_t input;
    Array initial;
  };
  std::shared_ptr<target::Device> device = make_sim_device();  ///< which it is planned for
  std::shared_ptr<const target::Target> planner = target::cuda::cuda_target(device);
  Array data[2];
  std::shared_ptr<const run::Program> program;
  std::vector<Cell> cells;
};

/// All parameters of these layers.
template <class... Layers>
std::vector<Parameter> parameters_of_all(Layers&... layers) {
  std::vector<Parameter> all;
  const auto add = [&](const std::vector<Parameter>& some) {
    all.insert(all.end(), some.begin(), some.end());
  };
  (add(parameters_of(layers)), ...);
  return all;
}

Training linear_training() {
  nn::Init init{1};
  nn::Linear first{6, 8, init}, second{8, 3, init};
  nn::Dropout dropout{0.25, Generator(5)};
  return {{4, 6}, parameters_of_all(first, second), [&](const Tensor& x, const Tensor& y) {
            const Tensor hidden = dropout(nn::relu(first(x)), nn::Mode::train);
            return nn::cross_entropy(second(hidden), y);
          }};
}

/// A residual block: cuDNN runs its three convolutions and both kinds of gradients, behind each of which is a batch norm.
Training conv_training() {
  nn::Init init{1};
  nn::ResidualBlock block{2, 4, 1, false, init};
  nn::Linear head{4, 3, init};
  Training out{{3, 4, 4, 2}, parameters_of_all(block, head), [&](const Tensor& x, const Tensor& y) {
                 return nn::cross_entropy(head(nn::global_avg_pool(block(x, nn::Mode::train))), y);
               }};
  std::map<target::ConvDirection, int> convs;
  for (const run::Step& s : out.program->steps())
    for (const target::CallRecord& c : s.kernel->calls())
      if (const auto* conv = std::get_if<target::ConvCall>(&c.work)) ++convs[conv->direction];
  EXPECT_EQ(convs[target::ConvDirection::forward], 3);
  EXPECT_EQ(convs[target::ConvDirection::data_grad], 1);
  EXPECT_EQ(convs[target::ConvDirection::weight_grad], 3);
  return out;
}

/// It on a GPU, from the beginning.
class OnGpu {
 public:
  OnGpu(const Training& training, const std::shared_ptr<SimDriver>& driver, const run::RunnerOptions& options)
      : training_(training) {
    const auto open = std::make_shared<run::OpenDevice>("cuda:0", make_sim_device(driver));
    for (const Training::Cell& c : training.cells)
      cells_.push_back({c.input, std::make_shared<run::Elements>(c.initial)});
    runner_ = run::make_runner(training.program, {&open->target(), open}, cells_, options);
  }
  run::Ticket begin() const {
    for (size_t i = 0; i < 2; ++i)
      std::memcpy(runner_->input(i), training_.data[i].data(),
                  static_cast<size_t>(training_.data[i].bytes()));
    return runner_->submit();
  }
  float end(run::Ticket ticket) const {
    runner_->wait(ticket);
    return *static_cast<const float*>(runner_->output(0));
  }
  float step() const { return end(begin()); }
  int64_t replays() const { return runner_->on_device()->replays(); }
  /// Of all cells.
  std::string bits() const {
    std::string all;
    for (const run::BoundCell& c : cells_) {
      const Array& now = c.elements->read();
      all.append(static_cast<const char*>(now.data()), static_cast<size_t>(now.bytes()));
    }
    return all;
  }
  void set_bits(const std::string& all) const {
    const char* at = all.data();
    for (const run::BoundCell& c : cells_) {
      const int64_t bytes = c.elements->host().bytes();
      std::memcpy(c.elements->replace(), at, static_cast<size_t>(bytes));
      at += bytes;
    }
  }

 private:
  const Training& training_;
  std::vector<run::BoundCell> cells_;
  std::unique_ptr<run::Runner> runner_;
};

/// A CUresult, and what NVIDIA's reference of the driver says of it: does it leave a process in which CUDA does nothing any more? (So does an
/// error of the hardware's memory or links, and one that is unknown.)
struct Known {
  int error;
  bool lasting;
};
namespace cu = target::cuda::driver;
/// Those of the table of the driver (tables/cu.h), and of launches, of PTX and of captures that it does not name.
constexpr Known known[] = {
    {cu::cu_error_invalid_value, false},
    {cu::cu_error_out_of_memory, false},
    {cu::cu_error_not_initialized, false},
    {cu::cu_error_device_unavailable, false},
    {cu::cu_error_no_device, false},
    {cu::cu_error_invalid_device, false},
    {cu::cu_error_invalid_image, false},
    {cu::cu_error_invalid_context, false},
    {cu::cu_error_ecc_uncorrectable, true},
    {cu::cu_error_nvlink_uncorrectable, true},
    {cu::cu_error_contained, true},
    {cu::cu_error_invalid_handle, false},
    {cu::cu_error_not_found, false},
    {cu::cu_error_not_ready, false},
    {cu::cu_error_illegal_address, true},
    {cu::cu_error_launch_out_of_resources, false},
    {cu::cu_error_launch_timeout, true},
    {cu::cu_error_context_is_destroyed, true},
    {cu::cu_error_assert, true},
    {cu::cu_error_hardware_stack, true},
    {cu::cu_error_launch_failed, true},
    {cu::cu_error_tensor_memory_leak, true},
    {cu::cu_error_mps_client_terminated, true},
    {cu::cu_error_capture_unsupported, false},
    {cu::cu_error_capture_invalidated, false},
    {cu::cu_error_external_device, true},
    {cu::cu_error_unknown, true},
    {218, false},  // CUDA_ERROR_INVALID_PTX
    {222, false},  // CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    {715, true},   // CUDA_ERROR_ILLEGAL_INSTRUCTION
    {716, true},   // CUDA_ERROR_MISALIGNED_ADDRESS
    {717, true},   // CUDA_ERROR_INVALID_ADDRESS_SPACE
    {718, true},   // CUDA_ERROR_INVALID_PC
    {902, false},  // CUDA_ERROR_STREAM_CAPTURE_MERGE
    {903, false},  // CUDA_ERROR_STREAM_CAPTURE_UNMATCHED
    {904, false},  // CUDA_ERROR_STREAM_CAPTURE_UNJOINED
    {905, false},  // CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    {906, false},  // CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
    {907, false},  // CUDA_ERROR_CAPTURED_EVENT
    {908, false},  // CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
};

bool is_lasting(int error) {
  return std::any_of(std::begin(known), std::end(known),
                     [&](const Known& k) { return k.error == error && k.lasting; });
}
constexpr auto every_error = [] {
  std::array<int, std::size(known)> all{};
  std::transform(std::begin(known), std::end(known), all.begin(), [](const Known& k) { return k.error; });
  return all;
}();

constexpr size_t steps = 4;

/// What a training without a fault gives.
struct Want {
  std::vector<float> losses;
  std::vector<std::string> bits;  ///< after so many steps
};

Want without_fault(const Training& training, const run::RunnerOptions& options) {
  const auto driver = std::make_shared<SimDriver>();
  Want out;
  {
    const OnGpu gpu(training, driver, options);
    for (size_t s = 0; s < steps; ++s) out.losses.push_back(gpu.step());
  }
  const OnGpu gpu(training, driver, options);
  out.bits.push_back(gpu.bits());
  for (size_t s = 0; s < steps; ++s) {
    gpu.step();
    out.bits.push_back(gpu.bits());
  }
  EXPECT_NE(out.bits[0], out.bits[1]);
  return out;
}

/// What came of a training with a fault.
struct Came {
  bool failed = false;
  bool lost = false;  ///< the parameters
  bool device_lost = false;
  int64_t calls = 0;    ///< of the driver, from the first step's to the last one's
  int64_t replays = 0;  ///< steps that were launched as one
};

/// After all steps; a device that its very last call has lost says so only now.
void expect_trained(const OnGpu& gpu, const Want& want, Came& came) {
  try {
    EXPECT_TRUE(gpu.bits() == want.bits[steps]);
  } catch (const DeviceError& e) {
    EXPECT_TRUE(e.lost()) << e.what();
    came.failed = came.device_lost = true;
  }
}

/// The fault is over, and what it threw is of it: it has the driver's number, or is what cuDNN said.
void expect_of_fault(SimDriver& driver, Came& came, const DeviceError& e,
                     const target::cuda::sim::Fault& fault) {
  driver.fail({});
  EXPECT_FALSE(came.failed) << "it fails twice: " << e.what();
  came.failed = true;
  EXPECT_THAT(e.what(), testing::AnyOf(HasSubstr(fmt::format("({})", fault.error)), HasSubstr(", cuDNN: ")));
  EXPECT_EQ(e.lost(), is_lasting(fault.error)) << e.what();
}

/// One training with one fault: what it has left is of one step, the rest is as without.
Came train_with_fault(const Training& training, const Want& want, const target::cuda::sim::Fault& fault,
                      const run::RunnerOptions& options) {
  const auto driver = std::make_shared<SimDriver>();
  Came out;
  {
    const OnGpu gpu(training, driver, options);
    const int64_t before = driver->calls();
    driver->fail(fault);
    size_t done = 0;
    while (done < steps && !testing::Test::HasFailure()) {
      try {
        EXPECT_EQ(gpu.step(), want.losses[done]) << "step " << done;
        ++done;
      } catch (const DeviceError& e) {
        expect_of_fault(*driver, out, e, fault);
        if (e.lost()) {
          EXPECT_THROW(gpu.step(), DeviceError);
          break;
        }
        std::string bits;
        try {
          bits = gpu.bits();
        } catch (const UserError& gone) {
          out.lost = true;
          EXPECT_THAT(gone.what(), HasSubstr("is lost: a run on a device failed while it was written"));
          EXPECT_THROW(gpu.step(), UserError);
          gpu.set_bits(bits = want.bits[done]);  // as from a checkpoint
        }
        if (bits == want.bits[done + 1]) {
          EXPECT_THAT(e.what(), HasSubstr("parameters are as after the run"));
          ++done;
        } else {
          EXPECT_TRUE(bits == want.bits[done]) << "parameters are of no step: " << e.what();
          if (out.lost) EXPECT_THAT(e.what(), HasSubstr("which are lost"));
          else EXPECT_THAT(e.what(), testing::Not(HasSubstr("as after the run")));
        }
      }
    }
    out.calls = driver->calls() - before;
    out.replays = gpu.replays();
    driver->fail({});
    if (done == steps) expect_trained(gpu, want, out);
  }
  EXPECT_EQ(driver->leaked(), "");
  EXPECT_EQ(driver->live(), target::cuda::sim::LiveCounts{});
  if (out.failed && is_lasting(fault.error))
    EXPECT_EQ(OnGpu(training, driver, options).step(), want.losses[0]) << "a new context works";
  return out;
}

/// A training that begins each step while the one before it is under way. After a fault every step has the loss that it has without one, and the
/// parameters are of the last step that was begun.
class TwoUnderWay {
 public:
  TwoUnderWay(const OnGpu& gpu, const Want& want, SimDriver& driver)
      : gpu_(gpu), want_(want), driver_(driver) {}

  /// To the end, or until the device is lost. `look`: at the parameters after the fault, which waits for what is under way.
  Came train(const target::cuda::sim::Fault& fault, bool look) {
    while ((begun_ < steps || !under_way_.empty()) && !came_.device_lost && !testing::Test::HasFailure()) {
      try {
        if (begun_ < steps && under_way_.size() < 2) begin();
        else end();
      } catch (const DeviceError& e) {
        expect_of_fault(driver_, came_, e, fault);
        came_.device_lost = e.lost();
        if (e.lost()) EXPECT_THROW(gpu_.step(), DeviceError);
        else after_fault(e, look);
      }
    }
    return came_;
  }

 private:
  void begin() {
    beginning_ = true;
    const run::Ticket ticket = gpu_.begin();
    under_way_.push_back({ticket, begun_++});
  }
  void end() {
    beginning_ = false;
    const auto [ticket, step] = under_way_.front();
    EXPECT_EQ(gpu_.end(ticket), want_.losses[step]) << "step " << step;
    under_way_.pop_front();
  }
  /// A step whose parameters are written counts, though its loss is not to be had.
  void after_fault(const DeviceError& e, bool look) {
    const bool counts = std::string(e.what()).find("parameters are as after the run") != std::string::npos;
    if (!beginning_) {
      EXPECT_TRUE(counts) << e.what();
      under_way_.pop_front();
    } else if (counts) {
      ++begun_;
    }
    if (look) EXPECT_TRUE(gpu_.bits() == want_.bits[begun_]) << "of another step: " << e.what();
  }

  struct Begun {
    run::Ticket ticket;
    size_t step;
  };
  const OnGpu& gpu_;
  const Want& want_;
  SimDriver& driver_;
  std::deque<Begun> under_way_;
  size_t begun_ = 0;
  bool beginning_ = false;  ///< is it a step's beginning that failed, or its end?
  Came came_;
};

Came train_two_with_fault(const Training& training, const Want& want, const target::cuda::sim::Fault& fault,
                          const run::RunnerOptions& options) {
  const auto driver = std::make_shared<SimDriver>();
  Came out;
  {
    const OnGpu gpu(training, driver, options);
    const int64_t before = driver->calls();
    driver->fail(fault);
    out = TwoUnderWay(gpu, want, *driver).train(fault, fault.call % 2 == 0);
    out.calls = driver->calls() - before;
    out.replays = gpu.replays();
    driver->fail({});
    if (!out.device_lost) expect_trained(gpu, want, out);
  }
  EXPECT_EQ(driver->leaked(), "");
  EXPECT_EQ(driver->live(), target::cuda::sim::LiveCounts{});
  return out;
}

struct Counts {
  int64_t calls = 0, failed = 0, lost = 0, devices_lost = 0;
  int64_t not_captured =
      0;  ///< trainings without an error, of which a step was launched record by record for it
};

using Attempt = Came (*)(const Training& training, const Want& want, const target::cuda::sim::Fault& fault,
                         const run::RunnerOptions& options);

/// Each call, with each of these errors.
Counts fail_everywhere(const Training& training, std::span<const int> errors,
                       const run::RunnerOptions& options, Attempt attempt = train_with_fault) {
  const Want want = without_fault(training, options);
  const Came clean = attempt(training, want, {}, options);
  Counts out{.calls = clean.calls};
  for (const int error : errors)
    for (int64_t call = 1; call <= out.calls && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE(testing::Message() << "call " << call << " of " << out.calls << " fails with " << error);
      const Came came = attempt(training, want, {.call = call, .error = error}, options);
      out.failed += came.failed;
      out.lost += came.lost;
      out.devices_lost += came.device_lost;
      out.not_captured += !came.failed && came.replays < clean.replays;
    }
  return out;
}

TEST(StepFaults, WhatLastsIsAsTheDriversReferenceSays) {
  for (const Known& k : known) EXPECT_EQ(cu::is_lasting(k.error), k.lasting) << k.error;
}

TEST(StepFaults, AnyCallOfATrainingStepMayFailHeavy) {
  const Counts c = fail_everywhere(linear_training(), every_error, {});
  EXPECT_GT(c.calls, 60);
  EXPECT_GT(c.failed, c.calls * std::ssize(every_error) * 3 / 4)
      << "what gives something back has nobody to tell";
  EXPECT_EQ(c.lost, 0) << "runs that are launched as one are never half done";
}

/// The errors of each kind: such as pass and such as lose the device, one that says that something is not done yet, and of captures.
constexpr std::array of_each_kind{
    cu::cu_error_invalid_value,   cu::cu_error_out_of_memory,           cu::cu_error_not_ready,
    cu::cu_error_illegal_address, cu::cu_error_launch_out_of_resources, cu::cu_error_capture_invalidated};

TEST(StepFaults, AnyCallMayFailWhileTwoStepsAreUnderWayHeavy) {
  const Counts c = fail_everywhere(linear_training(), of_each_kind, {}, train_two_with_fault);
  EXPECT_GT(c.calls, 60);
  EXPECT_GT(c.failed + c.not_captured, c.calls * std::ssize(of_each_kind) * 3 / 4);
  EXPECT_GT(c.devices_lost, c.calls * 3 / 4) << "by the one error that says so";
}

/// Record by record a later run may fail between two updates: then it is said that parameters are lost.
TEST(StepFaults, WithoutGraphsWhatIsHalfWrittenIsSaidToBeLostHeavy) {
  for (const Training& training : {linear_training(), conv_training()}) {
    const Counts c = fail_everywhere(training, std::array{cu::cu_error_out_of_memory}, {.graphs = false});
    EXPECT_GT(c.failed, c.calls / 2);
    EXPECT_LT(c.lost, c.calls / 4);
  }
}

/// Such as pass, one of captures, and one that loses the device; cuDNN's own calls fail as well.
TEST(StepFaults, AnyCallOfAStepWithConvolutionsMayFailHeavy) {
  constexpr std::array errors{cu::cu_error_out_of_memory, cu::cu_error_not_ready,
                              cu::cu_error_capture_invalidated, cu::cu_error_illegal_address};
  const Counts c = fail_everywhere(conv_training(), errors, {});
  EXPECT_GT(c.calls, 200);
  EXPECT_GT(c.failed + c.not_captured, c.calls * std::ssize(errors) * 3 / 4);
  EXPECT_EQ(c.lost, 0);
}

TEST(StepFaults, AnyCallMayFailWhileTwoStepsWithConvolutionsAreUnderWayHeavy) {
  constexpr std::array errors{cu::cu_error_out_of_memory, cu::cu_error_illegal_address};
  const Counts c = fail_everywhere(conv_training(), errors, {}, train_two_with_fault);
  EXPECT_GT(c.calls, 200);
  EXPECT_GT(c.failed + c.not_captured, c.calls * std::ssize(errors) * 3 / 4);
  EXPECT_GT(c.devices_lost, c.calls * 3 / 4) << "by the one error that says so";
}

/// A kernel that does what none may: every one of four steps, launched alone or with its run, ends so. The device is lost, says which error it
/// was, and nothing of it stays; a new context trains.
TEST(StepFaults, AnyKernelOfAStepWithConvolutionsMayEndWithAnErrorHeavy) {
  const Training training = conv_training();
  const Want want = without_fault(training, {});
  const auto clean = std::make_shared<SimDriver>();
  {
    const OnGpu gpu(training, clean, {});
    for (size_t s = 0; s < steps; ++s) gpu.step();
    EXPECT_EQ(gpu.replays(), static_cast<int64_t>(steps) - 1);
  }
  ASSERT_GT(clean->launches(), 40);
  for (const int error : {715, 716, 717, 718})
    for (int64_t kernel = 1; kernel <= clean->launches() && !HasFailure(); ++kernel) {
      SCOPED_TRACE(testing::Message()
                   << "kernel " << kernel << " of " << clean->launches() << " ends with " << error);
      const auto driver = std::make_shared<SimDriver>();
      {
        const OnGpu gpu(training, driver, {});
        driver->fail_kernel(kernel, error);
        size_t done = 0;
        try {
          for (; done < steps; ++done) EXPECT_EQ(gpu.step(), want.losses[done]);
          ADD_FAILURE() << "no error";
        } catch (const DeviceError& e) {
          EXPECT_TRUE(e.lost()) << e.what();
          EXPECT_THAT(e.what(), HasSubstr(fmt::format("({})", error)));
          EXPECT_EQ(done,
                    static_cast<size_t>((kernel - 1) * static_cast<int64_t>(steps) / clean->launches()));
        }
        EXPECT_THROW(gpu.step(), DeviceError);
        driver->fail_kernel(0, 0);
      }
      EXPECT_EQ(driver->leaked(), "");
      EXPECT_EQ(driver->live(), target::cuda::sim::LiveCounts{});
      EXPECT_EQ(OnGpu(training, driver, {}).step(), want.losses[0]) << "a new context works";
    }
}

}  // namespace
}  // namespace espalier

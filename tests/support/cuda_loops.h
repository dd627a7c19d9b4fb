#pragma once
// Fusion bodies through lowering and the CUDA emitter, run by the simulator with every buffer beside a guard page and outputs
// poisoned, and compared with the reference. Cases are gathered, so that one call of the compiler serves them all.
#include <set>
#include <string>
#include <vector>

#include "support/arrays.h"
#include "support/loops.h"
#include "target/cuda/emit/kernel.h"
#include "target/cuda/sim/kernel_library.h"

namespace espalier::test {

/// An operand on the simulated device: NaN all over, 16-byte aligned, its end (to 16 bytes) or its beginning at an inaccessible page.
class DeviceBuffer {
 public:
  DeviceBuffer(int64_t bytes, bool at_end) : bytes_(bytes), edge_((bytes + 15) / 16 * 16, at_end) {
    std::memset(edge_.data(), 0xFF, static_cast<size_t>((bytes + 15) / 16 * 16));
  }
  void* data() const { return edge_.data(); }
  int64_t bytes() const { return bytes_; }
  /// Are the bytes between its end and the page untouched?
  bool tail_is_clean() const {
    for (int64_t i = bytes_; i % 16 != 0; ++i)
      if (static_cast<const unsigned char*>(data())[i] != 0xFF) return false;
    return true;
  }

 private:
  int64_t bytes_;
  EdgeBuffer edge_;
};

class CudaCases {
 public:
  struct Options {
    double scale = 1;       ///< of the tolerance
    bool in_place = false;  ///< results lie where an operand does, as far as they may
    kernel::LowerOptions lower = target::cuda::lower_options;
    target::cuda::MapOptions map{};
  };

  /// Lower and emit; "refused: ..." where the body has no loops.
  std::string add(const ir::Graph& body, std::vector<Array> inputs, const Options& options) {
    auto lowered = kernel::lower(body, options.lower);
    if (const auto* refusal = std::get_if<kernel::Refusal>(&lowered)) return "refused: " + refusal->reason;
    Case c{body, std::move(inputs), std::get<kernel::Lowered>(std::move(lowered)), {}, options};
    auto emitted = target::cuda::emit(c.lowered, options.map);
    if (const auto* refusal = std::get_if<kernel::Refusal>(&emitted)) return "refused: " + refusal->reason;
    c.kernels = std::get<0>(std::move(emitted));
    cases_.push_back(std::move(c));
    return "";
  }

  /// Compile all, run each in an order of threads of its own, compare: "" or what differs first.
  std::string run() const {
    std::vector<target::KernelSource> sources;
    for (const Case& c : cases_)
      for (const auto& k : c.kernels) sources.push_back(k.source);
    if (sources.empty()) return "";
    const target::cuda::sim::KernelLibrary library(sources);
    for (size_t i = 0; i < cases_.size(); ++i)
      if (std::string wrong = run(cases_[i], library, i); !wrong.empty()) return wrong;
    return "";
  }

  /// The kernels of all cases.
  std::vector<target::cuda::Emitted> kernels() const {
    std::vector<target::cuda::Emitted> all;
    for (const Case& c : cases_) all.insert(all.end(), c.kernels.begin(), c.kernels.end());
    return all;
  }

 private:
  struct Case {
    ir::Graph body;
    std::vector<Array> inputs;
    kernel::Lowered lowered;
    std::vector<target::cuda::Emitted> kernels;
    Options options;
  };

  static std::string run(const Case& c, const target::cuda::sim::KernelLibrary& library, size_t salt) {
    std::vector<std::shared_ptr<DeviceBuffer>> memory;
    for (const kernel::Buffer& b : c.lowered.buffers)
      memory.push_back(std::make_shared<DeviceBuffer>(b.elements * ir::dtype_size(b.dtype), salt % 2 == 0));
    if (c.options.in_place) share(c, memory);
    for (size_t i = 0; i < c.inputs.size(); ++i)
      std::memcpy(memory[i]->data(), c.inputs[i].data(), static_cast<size_t>(c.inputs[i].bytes()));
    for (const auto& k : c.kernels) {
      std::vector<void*> operands;
      for (const int b : k.operands) operands.push_back(memory[static_cast<size_t>(b)]->data());
      library.launch(k.source, k.call, operands, {static_cast<target::cuda::sim::Order>(salt % 3), salt + 1});
    }
    const std::vector<Array> want = target::reference::evaluate(c.body, c.inputs);
    for (size_t i = 0; i < want.size(); ++i) {
      const DeviceBuffer& b = *memory[c.inputs.size() + i];
      Array got(want[i].dtype(), want[i].dims());
      if (got.bytes()) std::memcpy(got.write(), b.data(), static_cast<size_t>(got.bytes()));
      const auto same = close(got, want[i], tolerance_of(want[i].dtype()) * c.options.scale);
      if (!same || !b.tail_is_clean()) return describe(c, i, same ? "written past the end" : same.message());
    }
    return "";
  }

  static void share(const Case& c, std::vector<std::shared_ptr<DeviceBuffer>>& memory) {
    std::vector<char> taken(c.inputs.size(), 0);
    for (size_t o = c.inputs.size(); o < memory.size(); ++o)
      for (size_t i = 0; i < taken.size() && c.lowered.buffers[o].role == kernel::Role::output; ++i)
        if (!taken[i] &&
            kernel::can_share(c.lowered, static_cast<int>(o - taken.size()), static_cast<int>(i)) &&
            std::ranges::none_of(c.kernels, [&](const auto& k) {
              return std::ranges::count(k.apart, std::pair(static_cast<int>(o), static_cast<int>(i))) > 0;
            })) {
          memory[o] = memory[i];
          taken[i] = 1;
          break;
        }
  }

  static std::string describe(const Case& c, size_t output, const std::string& what) {
    std::string text = "output " + std::to_string(output) + ": " + what + "\n" + ir::print(c.body);
    for (const auto& nest : c.lowered.nests) text += nest.text();
    for (const auto& k : c.kernels) text += k.source.text;
    return text;
  }

  std::vector<Case> cases_;
};

}  // namespace espalier::test

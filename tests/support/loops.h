#pragma once
// Runs a fusion body through lowering and the CPU's emitter with every buffer against a guard page and outputs poisoned, and
// compares with the reference.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "kernel/lower.h"
#include "support/arrays.h"
#include "target/cpu/compile.h"
#include "target/reference/interpreter.h"

namespace espalier::test {

using ir::Array;
using ir::Dtype;
using ir::Value;

/// `bytes` that end (or begin) right at an inaccessible page.
class EdgeBuffer {
 public:
  EdgeBuffer(int64_t bytes, bool at_end) : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    const size_t inner = (static_cast<size_t>(std::max<int64_t>(bytes, 1)) + page_ - 1) / page_ * page_;
    size_ = inner + 2 * page_;
    base_ = static_cast<std::byte*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + page_, inner, PROT_READ | PROT_WRITE);
    std::memset(base_ + page_, 0xa5, inner);
    data_ = base_ + page_ + (at_end ? inner - static_cast<size_t>(bytes) : 0);
  }
  ~EdgeBuffer() { munmap(base_, size_); }
  EdgeBuffer(const EdgeBuffer&) = delete;
  EdgeBuffer& operator=(const EdgeBuffer&) = delete;
  void* data() const { return data_; }

 private:
  size_t page_, size_;
  std::byte *base_, *data_;
};

inline ir::Graph body_of(std::vector<Value> inputs, std::vector<Value> outputs) {
  ir::Graph g;
  g.inputs = std::move(inputs);
  for (size_t i = 0; i < outputs.size(); ++i) g.outputs.push_back({"y" + std::to_string(i), outputs[i]});
  return g;
}

/// Chunks in a shuffled order: none may depend on another.
inline std::vector<Array> run_lowered(const kernel::Lowered& lowered, std::span<const Array> inputs,
                                      std::span<const ir::Type> outputs,
                                      const target::cpu::CpuFeatures& features, bool at_end) {
  std::vector<std::unique_ptr<EdgeBuffer>> memory;
  std::vector<void*> buffers;
  for (const kernel::Buffer& b : lowered.buffers) {
    memory.push_back(std::make_unique<EdgeBuffer>(b.elements * ir::dtype_size(b.dtype), at_end));
    buffers.push_back(memory.back()->data());
  }
  for (size_t i = 0; i < inputs.size(); ++i)
    std::memcpy(buffers[i], inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
  std::mt19937 rng(1);
  for (const target::cpu::CompiledKernel& k : target::cpu::compile(lowered.nests, features)) {
    std::vector<int64_t> order(static_cast<size_t>(k.chunks));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
    std::shuffle(order.begin(), order.end(), rng);
    for (int64_t c : order) k.fn(buffers.data(), c);
  }
  std::vector<Array> out;
  for (size_t i = 0; i < outputs.size(); ++i) {
    Array a(outputs[i].dtype, ir::static_dims(outputs[i].dims));
    if (a.bytes()) std::memcpy(a.write(), buffers[inputs.size() + i], static_cast<size_t>(a.bytes()));
    out.push_back(std::move(a));
  }
  return out;
}

/// "" when the body's loops agree with the reference at every width of vectors; refusals are differences too.
inline std::string check_loops(const ir::Graph& body, std::span<const Array> inputs, double scale = 1,
                               const kernel::LowerOptions& options = {}) {
  const auto lowered = kernel::lower(body, options);
  if (const auto* refusal = std::get_if<kernel::Refusal>(&lowered))
    return "refused: " + refusal->reason + "\n" + ir::print(body);
  const auto& low = std::get<kernel::Lowered>(lowered);
  const std::vector<Array> want = target::reference::evaluate(body, inputs);
  std::vector<ir::Type> types;
  for (const ir::Output& o : body.outputs) types.push_back(o.value.type());
  const target::cpu::CpuFeatures host = target::cpu::detect_cpu();
  bool at_end = true;
  for (const char* level : {"native", "avx2"}) {
    at_end = !at_end;
    const std::vector<Array> got = run_lowered(low, inputs, types, target::cpu::masked(host, level), at_end);
    for (size_t i = 0; i < want.size(); ++i) {
      const testing::AssertionResult same = close(got[i], want[i], tolerance_of(types[i].dtype) * scale);
      if (same) continue;
      std::string text = std::string(level) + ", output " + std::to_string(i) + ": " + same.message() + "\n" +
                         ir::print(body);
      for (const auto& nest : low.nests) text += nest.text();
      return text;
    }
  }
  return "";
}

}  // namespace espalier::test

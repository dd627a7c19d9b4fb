#pragma once
// Lists of calls, as a target plans them, run by the simulator with every buffer beside a guard page and outputs and scratch poisoned,
// in three orders of threads that must give the same bits, and compared with the reference.
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "support/cuda_loops.h"
#include "support/op_samples.h"
#include "target/cuda/call_kernel.h"
#include "target/cuda/sim/sim_engine_conv.h"
#include "target/cuda/sim/sim_gemm.h"

namespace espalier::test {

class CallCases {
 public:
  struct Options {
    double scale = 1;       ///< of the tolerance
    bool in_place = false;  ///< results lie where an operand does, as far as the list says they may
    bool all_orders = true;
    std::optional<Dtype> rounds{};  ///< the lowest dtype on the way, where the result's is wider
  };

  /// `graph` is one node over its inputs; `list` are its calls.
  void add(const ir::Graph& graph, std::vector<Array> inputs, target::cuda::CallList list, Options options) {
    cases_.push_back({graph, std::move(inputs), std::move(list), options});
  }

  /// Compile all, run each, compare: "" or what differs first.
  std::string run() const {
    const Library library = compiled();
    for (size_t i = 0; i < cases_.size(); ++i) try {
        if (std::string wrong = run(cases_[i], library, i); !wrong.empty()) return wrong;
      } catch (const InternalError& e) {
        return describe(cases_[i], e.what());
      }
    return "";
  }

  /// What each case gives, threads in order.
  std::vector<std::vector<Array>> results() const {
    const Library library = compiled();
    std::vector<std::vector<Array>> out;
    bool clean = true;
    for (const Case& c : cases_) out.push_back(outputs(c, library, {}, true, clean));
    return out;
  }

  /// Those of all cases, equal ones once.
  std::vector<target::KernelSource> sources() const {
    std::vector<target::KernelSource> all;
    std::set<std::string> names;
    for (const Case& c : cases_)
      for (const target::KernelSource& s : c.list.sources)
        if (names.insert(s.name).second) all.push_back(s);
    return all;
  }

 private:
  struct Case {
    ir::Graph graph;
    std::vector<Array> inputs;
    target::cuda::CallList list;
    Options options;
  };
  using Memory = std::vector<std::shared_ptr<DeviceBuffer>>;
  using Library = std::optional<target::cuda::sim::KernelLibrary>;  // none where no list has a kernel

  Library compiled() const {
    const std::vector<target::KernelSource> all = sources();
    return all.empty() ? Library() : Library(std::in_place, all);
  }

  static std::vector<Array> outputs(const Case& c, const Library& library,
                                    const target::cuda::sim::KernelLibrary::Options& options, bool at_end,
                                    bool& clean) {
    Memory memory = fresh(c, at_end);
    for (const target::CallRecord& call : c.list.calls) launch(c, library, call, memory, options);
    std::vector<Array> got;
    for (size_t i = 0; i < c.graph.outputs.size(); ++i) {
      const DeviceBuffer& b = *memory[c.inputs.size() + i];
      const ir::Type type = c.graph.outputs[i].value.type();
      got.emplace_back(type.dtype, ir::static_dims(type.dims));
      if (got[i].bytes()) std::memcpy(got[i].write(), b.data(), static_cast<size_t>(got[i].bytes()));
      clean = clean && b.tail_is_clean();
    }
    return got;
  }

  static std::string run(const Case& c, const Library& library, size_t salt) {
    using target::cuda::sim::Order;
    std::vector<Array> first;
    for (const Order order : {Order::forward, Order::reverse, Order::shuffled}) {
      if (!c.options.all_orders && static_cast<size_t>(order) != salt % 3) continue;
      bool clean = true;
      const std::vector<Array> got = outputs(c, library, {order, salt + 1}, salt % 2 == 0, clean);
      if (!clean) return describe(c, "written past the end");
      if (first.empty()) first = got;
      else if (first != got) return describe(c, "other bits in another order of threads");
    }
    const std::vector<Array> want = target::reference::evaluate(c.graph, c.inputs);
    for (size_t i = 0; i < want.size(); ++i)
      if (const auto same = close(first[i], want[i],
                                  tolerance_of(c.options.rounds.value_or(want[i].dtype())) * c.options.scale);
          !same)
        return describe(c, same.message());
    return "";
  }

  static Memory fresh(const Case& c, bool at_end) {
    Memory memory;
    for (const Array& a : c.inputs) {
      memory.push_back(std::make_shared<DeviceBuffer>(a.bytes(), at_end));
      std::memcpy(memory.back()->data(), a.data(), static_cast<size_t>(a.bytes()));
    }
    for (const ir::Output& o : c.graph.outputs)
      memory.push_back(std::make_shared<DeviceBuffer>(o.value.type().bytes(), at_end));
    memory.push_back(std::make_shared<DeviceBuffer>(c.list.scratch_bytes, at_end));
    if (c.options.in_place)
      for (const target::InPlace& p : c.list.in_place)
        memory[c.inputs.size() + static_cast<size_t>(p.result)] = memory[static_cast<size_t>(p.operand)];
    return memory;
  }

  static void launch(const Case& c, const Library& library, const target::CallRecord& call,
                     const Memory& memory, const target::cuda::sim::KernelLibrary::Options& options) {
    std::vector<void*> operands;
    std::vector<target::cuda::sim::Extent> extents;
    for (const target::Operand& o : call.operands) {
      const DeviceBuffer& b = *memory[static_cast<size_t>(o.buffer)];
      operands.push_back(static_cast<char*>(b.data()) + o.offset);
      extents.push_back({operands.back(), b.bytes() - o.offset});
    }
    if (const auto* conv = std::get_if<target::ConvCall>(&call.work))
      return target::cuda::sim::run_conv(*conv, extents);
    if (const auto* fill = std::get_if<target::FillCall>(&call.work)) {
      std::memset(operands[0], fill->byte, static_cast<size_t>(fill->bytes));
      return;
    }
    if (const auto* copy = std::get_if<target::CopyCall>(&call.work)) {
      std::memcpy(operands[1], operands[0], static_cast<size_t>(copy->bytes));
      return;
    }
    if (const auto* gemm = std::get_if<target::GemmCall>(&call.work)) {
      return multiply(*gemm, operands, memory);
    }
    const auto& kernel = std::get<target::KernelCall>(call.work);
    for (const target::KernelSource& s : c.list.sources)
      if (s.name == kernel.kernel) return library->launch(s, kernel, operands, options);
    throw InternalError("no source of " + kernel.kernel);
  }

  static void multiply(const target::GemmCall& call, std::span<void* const> operands, const Memory& memory) {
    std::vector<target::Address> addresses;
    for (const void* p : operands) addresses.push_back(reinterpret_cast<target::Address>(p));
    target::cuda::sim::run_gemm(call, addresses, [&](target::Address at, int64_t bytes) {
      return std::any_of(memory.begin(), memory.end(), [&](const std::shared_ptr<DeviceBuffer>& b) {
        const auto begin = reinterpret_cast<target::Address>(b->data());
        return at >= begin &&
               at + static_cast<target::Address>(bytes) <= begin + static_cast<target::Address>(b->bytes());
      });
    });
  }

  static std::string describe(const Case& c, const std::string& what) {
    std::string text = what + "\n" + ir::print(c.graph);
    for (const target::CallRecord& call : c.list.calls) text += target::text(call) + "\n";
    for (const target::KernelSource& s : c.list.sources) text += s.text;
    return text;
  }

  std::vector<Case> cases_;
};

}  // namespace espalier::test

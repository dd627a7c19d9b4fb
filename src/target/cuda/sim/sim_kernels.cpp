// The simulated driver's functions of modules, launches and graphs.
#include <fmt/format.h>

#include <cstring>
#include <map>
#include <utility>

#include "target/cuda/sim/sim_compiler.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/cuda/sim/sim_state.h"

namespace espalier::target::cuda::sim {

using namespace driver;

namespace {

constexpr size_t parameter_bytes = 4096;

}  // namespace

CuResult SimState::module_load_data(CuModule* module, const void* image) {
  if (const CuResult capturing = unless_capturing("cuModuleLoadData"); capturing != cu_success)
    return capturing;
  CuResult error = cu_success;
  SimContext* c = current(error);
  if (!c) return error;
  const auto kernels = read_image(static_cast<const char*>(image));
  if (!kernels) return refuse(cu_error_invalid_image, "no image of the simulator's compiler");
  auto made = std::make_shared<SimModule>(kernels->file);
  for (const SimImage::Kernel& k : kernels->kernels)
    made->functions[k.name] = {k.name, made->library.find(k.name), k.max_threads, k.synchronises,
                               k.parameters};
  *module = reinterpret_cast<CuModule>(made.get());
  c->modules[*module] = std::move(made);
  return cu_success;
}

CuResult SimState::module_unload(CuModule module) {
  if (const CuResult capturing = unless_capturing("cuModuleUnload"); capturing != cu_success)
    return capturing;
  for (const auto& c : contexts) {
    if (!c || c->modules.count(module) == 0) continue;
    c->for_streams([](SimStream& stream) { stream.run_to(stream.put); });  // as the driver does
    c->modules.at(module)->loaded = false;
    c->modules.erase(module);
    return c->lost;
  }
  return refuse(cu_error_invalid_handle, "a module is unloaded twice");
}

CuResult SimState::module_get_function(CuFunction* function, CuModule module, const char* name) {
  CuResult error = cu_success;
  SimContext* c = current(error);
  if (!c) return error;
  const auto m = c->modules.find(module);
  if (m == c->modules.end()) return cu_error_invalid_handle;
  const auto f = m->second->functions.find(name);
  if (f == m->second->functions.end() || !f->second.code.entry)
    return refuse(cu_error_not_found, fmt::format("no kernel {} in the module", name));
  *function = reinterpret_cast<CuFunction>(&f->second);
  return cu_success;
}

CuResult SimState::func_get_attribute(int* value, CuFunctionAttribute attribute, CuFunction function) {
  CuResult error = cu_success;
  SimContext* c = current(error);
  if (!c) return error;
  const SimFunction* f = c->find(function).function;
  if (!f) return cu_error_invalid_handle;
  switch (attribute) {
    case CuFunctionAttribute::max_threads_per_block: *value = f->max_threads; return cu_success;
    case CuFunctionAttribute::max_dynamic_shared_bytes:
      *value = static_cast<int>(f->shared_bytes);
      return cu_success;
  }
  return cu_error_invalid_value;
}

CuResult SimState::func_set_attribute(CuFunction function, CuFunctionAttribute attribute, int value) {
  CuResult error = cu_success;
  const SimContext* c = current(error);
  if (!c) return error;
  const auto [module, f] = c->find(function);
  if (!f) return cu_error_invalid_handle;
  if (attribute != CuFunctionAttribute::max_dynamic_shared_bytes) return cu_error_invalid_value;
  if (value < 0 || value > shared_limit())
    return refuse(cu_error_invalid_value, fmt::format("kernel {}: {} bytes of shared memory; a block has {}",
                                                      f->name, value, shared_limit()));
  module->functions.find(f->name)->second.shared_bytes = value;
  return cu_success;
}

namespace {

/// What is wrong with the shape of a launch, or "".
std::string shape_problem(const SimFunction& f, const Grid& grid, const Grid& block) {
  if (grid.count() < 1 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return fmt::format("a grid of {} x {} x {}", grid.x, grid.y, grid.z);
  if (block.count() < 1 || block.count() > f.max_threads || block.z > 64)
    return fmt::format("blocks of {} x {} x {} threads, of at most {}", block.x, block.y, block.z,
                       f.max_threads);
  return "";
}

/// What is wrong with addresses that several parameters have, or "". Whether what they reach overlaps otherwise nobody tells a driver: in
/// a plan buffers either begin in one place or lie apart, which its own verifier holds.
std::string sharing_problem(const SimFunction& f, const std::vector<uint64_t>& values) {
  struct Place {
    size_t first = 0, others = 0;
    bool written = false, restricted = false;
  };
  std::map<uint64_t, Place> places;
  for (size_t i = 0; i < values.size() && i < f.parameters.size(); ++i) {
    if (f.code.parameters[i] != 0 || values[i] == 0) continue;
    const auto [it, added] = places.try_emplace(values[i], Place{i, 0});
    Place& p = it->second;
    if (!added) p.others = i;
    p.written |= f.parameters[i].written;
    p.restricted |= f.parameters[i].restricted;
    if (p.others > 0 && p.written && p.restricted)
      return fmt::format(
          "operands {} and {} are one place that is written, and a parameter of it is __restrict__", p.first,
          p.others);
  }
  return "";
}

/// The values of the parameters, which end with null.
std::string read_parameters(const SimFunction& f, void** parameters, std::vector<uint64_t>& values) {
  if (f.code.parameters.size() * sizeof(uint64_t) > parameter_bytes) return "more than 4 KiB of parameters";
  for (size_t i = 0; i < f.code.parameters.size(); ++i) {
    if (!parameters[i]) return fmt::format("{} parameters of {}", i, f.code.parameters.size());
    const unsigned bytes = f.code.parameters[i];
    values.push_back(0);
    std::memcpy(&values.back(), parameters[i], bytes == 0 ? sizeof(uint64_t) : bytes);
  }
  if (parameters[f.code.parameters.size()])
    return fmt::format("more than {} parameters", f.code.parameters.size());
  return "";
}

}  // namespace

CuResult SimState::launch_kernel(CuFunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                 unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                 CuStream stream, void** parameters, void** extra) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  const auto [module, f] = s->context.find(function);
  if (!f) return refuse(cu_error_invalid_handle, "no kernel of this context");
  const Grid grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
  std::vector<uint64_t> values;
  std::string wrong = shape_problem(*f, grid, block);
  if (wrong.empty() && extra) wrong = "parameters in a buffer";
  if (wrong.empty() && shared_bytes > f->shared_bytes)
    wrong = fmt::format("{} bytes of shared memory, and {} without asking for more", shared_bytes,
                        f->shared_bytes);
  if (wrong.empty()) wrong = read_parameters(*f, parameters, values);
  if (wrong.empty()) wrong = sharing_problem(*f, values);
  if (!wrong.empty()) return refuse(cu_error_invalid_value, fmt::format("kernel {}: {}", f->name, wrong));

  const auto problem = [module = module, f = f, c = &s->context, values](bool after) -> std::string {
    if (!module->loaded) return fmt::format("kernel {}: its module was unloaded", f->name);
    for (size_t i = 0; i < values.size(); ++i) {
      if (f->code.parameters[i] != 0 || values[i] == 0) continue;
      const std::string what = after ? c->memory.check_zones(values[i]) : c->memory.check(values[i], 0);
      if (!what.empty()) return fmt::format("kernel {}, operand {}: {}", f->name, i, what);
    }
    return "";
  };
  if (wrong = problem(false); !wrong.empty())
    return lose(s->context, cu_error_illegal_address, std::move(wrong));
  s->add([this, f = f, grid, block, values, problem, shared_bytes](SimStream& self) {
    SimContext& c = self.context;
    if (std::string what = problem(false); !what.empty())
      return void(lose(c, cu_error_illegal_address, std::move(what)));
    if (++launches == failing_launch)
      return void(lose(c, launch_error, fmt::format("kernel {}: it was made to fail", f->name)));
    const Launch launch{f->code.entry, nullptr,         grid,        block, options.order,
                        options.seed,  f->synchronises, shared_bytes};
    if (std::string what = self.worker.launch(launch, values.data(), values.size()); !what.empty())
      return void(lose(c, cu_error_launch_failed, fmt::format("kernel {}: {}", f->name, what)));
    if (std::string what = problem(true); !what.empty())
      return void(lose(c, cu_error_illegal_address, std::move(what)));
  });
  return cu_success;
}

// --- graphs ---

CuResult SimState::begin_capture(CuStream stream, CuCaptureMode mode) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  if (!stream) return refuse(cu_error_capture_unsupported, "the default stream cannot be captured");
  if (s->capture || mode != CuCaptureMode::thread_local_) return cu_error_invalid_value;
  s->capture = std::make_shared<SimGraph>();
  s->capture->thread = std::this_thread::get_id();
  return cu_success;
}

CuResult SimState::end_capture(CuStream stream, CuGraph* graph) {
  for (const auto& c : contexts)  // a context that is lost captures nothing any more
    if (c && c->lost != cu_success && c->streams.contains(stream)) {
      c->streams[stream]->capture = nullptr;
      return c->lost;
    }
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  if (!s->capture) return refuse(cu_error_invalid_value, "the stream is not captured");
  const auto made = std::exchange(s->capture, nullptr);
  *graph = nullptr;
  if (made->invalid) return cu_error_capture_invalidated;
  *graph = reinterpret_cast<CuGraph>(made.get());
  s->context.graphs[*graph] = made;
  return cu_success;
}

CuResult SimState::graph_instantiate(CuGraphExec* ready, CuGraph graph, unsigned long long flags) {
  CuResult error = cu_success;
  SimContext* c = current(error);
  if (!c) return error;
  const auto it = c->graphs.find(graph);
  if (it == c->graphs.end() || flags != 0) return cu_error_invalid_value;
  auto made = std::make_shared<SimGraph>(*it->second);
  *ready = reinterpret_cast<CuGraphExec>(made.get());
  c->ready_graphs[*ready] = std::move(made);
  return cu_success;
}

CuResult SimState::graph_destroy(CuGraph graph) {
  for (const auto& c : contexts)
    if (c && c->graphs.erase(graph) > 0) return c->lost;
  return refuse(cu_error_invalid_value, "a graph is destroyed twice");
}

CuResult SimState::graph_launch(CuGraphExec ready, CuStream stream) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  const auto it = s->context.ready_graphs.find(ready);
  if (it == s->context.ready_graphs.end()) return cu_error_invalid_handle;
  s->add([graph = it->second](SimStream& self) {
    for (const SimAction& action : graph->actions)
      if (self.context.lost == cu_success) action(self);
  });
  return cu_success;
}

CuResult SimState::graph_exec_destroy(CuGraphExec ready) {
  for (const auto& c : contexts)
    if (c && c->ready_graphs.erase(ready) > 0) return c->lost;
  return refuse(cu_error_invalid_value, "a graph is destroyed twice");
}

}  // namespace espalier::target::cuda::sim

#include "target/cuda/sim/sim_driver.h"

#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "target/cuda/driver/cuda_device.h"
#include "target/cuda/driver/open_device.h"
#include "target/cuda/sim/sim_compiler.h"
#include "target/cuda/sim/sim_dnn.h"
#include "target/cuda/sim/sim_lt.h"
#include "target/cuda/sim/sim_state.h"

namespace espalier::target::cuda::sim {

using namespace driver;

namespace {

constexpr int most_drivers = 8;

/// How a call is treated.
enum class Role {
  plain,
  tells,       ///< of versions and errors: neither counted nor made to fail
  gives_back,  ///< done even where it is made to fail
};

}  // namespace

/// One driver behind its own functions: a table holds plain pointers, so each of the drivers has functions of its own.
struct SimDriver::Slot {
  explicit Slot(const SimOptions& o) : options(o), state(options), lt(state), dnn(state) {}
  SimState& part(const SimState*) { return state; }
  SimLt& part(const SimLt*) { return lt; }
  SimDnn& part(const SimDnn*) { return dnn; }

  template <class F>
  CuResult answer(Role role, const F& function) {
    const std::lock_guard lock(one_call);
    if (role == Role::tells) return function();
    ++calls;
    if (taking_call != 0 && --taking_call == 0) state.taken = taking;
    const bool fails = fault.call != 0 && --fault.call == 0;
    if (!fails) return function();
    if (role == Role::gives_back) function();
    if (is_lasting(fault.error))
      for (const auto& c : state.contexts)
        if (c) state.lose(*c, fault.error, "");
    return fault.error;
  }

  const SimOptions options;
  SimState state;
  SimLt lt;
  SimDnn dnn;
  std::mutex one_call;
  Fault fault;
  Taken taking;
  int64_t taking_call = 0;
  int64_t calls = 0;
  int number = -1;
  const CuApi* api = nullptr;
  const LtApi* lt_api = nullptr;
  const DnnApi* dnn_api = nullptr;
};

namespace {

std::array<std::atomic<void*>, most_drivers> slots;  // SimDriver::Slot, or null

template <class Slot, int number, auto method, Role role>
struct Thunk;
template <class Slot, int number, class Part, class... A, CuResult (Part::*method)(A...), Role role>
struct Thunk<Slot, number, method, role> {
  static CuResult call(A... arguments) {
    auto* slot = static_cast<Slot*>(slots[number].load(std::memory_order_acquire));
    if (!slot) return cu_error_not_initialized;
    return slot->answer(
        role, [&] { return (slot->part(static_cast<const Part*>(nullptr)).*method)(arguments...); });
  }
};

template <class Slot, int number>
struct Bind {
  template <auto method>
  static constexpr auto plain = &Thunk<Slot, number, method, Role::plain>::call;
  template <auto method>
  static constexpr auto tells = &Thunk<Slot, number, method, Role::tells>::call;
  template <auto method>
  static constexpr auto gives_back = &Thunk<Slot, number, method, Role::gives_back>::call;
};

template <class Slot, int number>
const CuApi* table() {
  using S = SimState;
  using B = Bind<Slot, number>;
  static const CuApi api{.Init = B::template plain<&S::init>,
                         .DriverGetVersion = B::template tells<&S::driver_get_version>,
                         .GetErrorName = B::template tells<&S::get_error_name>,
                         .GetErrorString = B::template tells<&S::get_error_string>,
                         .DeviceGetCount = B::template plain<&S::device_get_count>,
                         .DeviceGet = B::template plain<&S::device_get>,
                         .DeviceGetName = B::template plain<&S::device_get_name>,
                         .DeviceGetUuid = B::template plain<&S::device_get_uuid>,
                         .DeviceGetPCIBusId = B::template plain<&S::device_get_bus_id>,
                         .DeviceTotalMem = B::template plain<&S::device_total_mem>,
                         .DeviceGetAttribute = B::template plain<&S::device_get_attribute>,
                         .DeviceCanAccessPeer = B::template plain<&S::device_can_access_peer>,
                         .DevicePrimaryCtxRetain = B::template plain<&S::primary_retain>,
                         .DevicePrimaryCtxRelease = B::template gives_back<&S::primary_release>,
                         .CtxPushCurrent = B::template plain<&S::ctx_push>,
                         .CtxPopCurrent = B::template gives_back<&S::ctx_pop>,
                         .MemGetInfo = B::template plain<&S::mem_get_info>,
                         .MemAlloc = B::template plain<&S::mem_alloc>,
                         .MemFree = B::template gives_back<&S::mem_free>,
                         .MemAllocHost = B::template plain<&S::mem_alloc_host>,
                         .MemFreeHost = B::template gives_back<&S::mem_free_host>,
                         .StreamCreate = B::template plain<&S::stream_create>,
                         .StreamDestroy = B::template gives_back<&S::stream_destroy>,
                         .StreamGetCtx = B::template plain<&S::stream_get_ctx>,
                         .StreamSynchronize = B::template plain<&S::stream_synchronize>,
                         .StreamWaitEvent = B::template plain<&S::stream_wait_event>,
                         .EventCreate = B::template plain<&S::event_create>,
                         .EventDestroy = B::template gives_back<&S::event_destroy>,
                         .EventRecord = B::template plain<&S::event_record>,
                         .EventSynchronize = B::template plain<&S::event_synchronize>,
                         .EventQuery = B::template plain<&S::event_query>,
                         .EventElapsedTime = B::template plain<&S::event_elapsed_time>,
                         .MemcpyHtoDAsync = B::template plain<&S::copy_to_device>,
                         .MemcpyDtoHAsync = B::template plain<&S::copy_to_host>,
                         .MemcpyDtoDAsync = B::template plain<&S::copy_on_device>,
                         .MemsetD8Async = B::template plain<&S::memset_d8>,
                         .ModuleLoadData = B::template plain<&S::module_load_data>,
                         .ModuleUnload = B::template gives_back<&S::module_unload>,
                         .ModuleGetFunction = B::template plain<&S::module_get_function>,
                         .FuncGetAttribute = B::template plain<&S::func_get_attribute>,
                         .FuncSetAttribute = B::template plain<&S::func_set_attribute>,
                         .LaunchKernel = B::template plain<&S::launch_kernel>,
                         .StreamBeginCapture = B::template plain<&S::begin_capture>,
                         .StreamEndCapture = B::template gives_back<&S::end_capture>,
                         .GraphInstantiate = B::template plain<&S::graph_instantiate>,
                         .GraphDestroy = B::template gives_back<&S::graph_destroy>,
                         .GraphLaunch = B::template plain<&S::graph_launch>,
                         .GraphExecDestroy = B::template gives_back<&S::graph_exec_destroy>};
  return &api;
}

template <class Slot, int number>
const LtApi* lt_table() {
  using L = SimLt;
  using B = Bind<Slot, number>;
  static const LtApi api{.GetVersion = &sim_lt_version,
                         .GetStatusString = &sim_lt_status,
                         .Create = B::template plain<&L::create>,
                         .Destroy = B::template gives_back<&L::destroy>,
                         .MatmulDescCreate = B::template plain<&L::desc_create>,
                         .MatmulDescDestroy = B::template gives_back<&L::desc_destroy>,
                         .MatmulDescSetAttribute = B::template plain<&L::desc_set>,
                         .MatrixLayoutCreate = B::template plain<&L::layout_create>,
                         .MatrixLayoutDestroy = B::template gives_back<&L::layout_destroy>,
                         .MatrixLayoutSetAttribute = B::template plain<&L::layout_set>,
                         .MatmulPreferenceCreate = B::template plain<&L::preference_create>,
                         .MatmulPreferenceDestroy = B::template gives_back<&L::preference_destroy>,
                         .MatmulPreferenceSetAttribute = B::template plain<&L::preference_set>,
                         .MatmulAlgoGetHeuristic = B::template plain<&L::heuristic>,
                         .MatmulAlgoCheck = B::template plain<&L::check>,
                         .Matmul = B::template plain<&L::matmul>};
  return &api;
}

template <class Slot, int number>
const DnnApi* dnn_table() {
  using D = SimDnn;
  using B = Bind<Slot, number>;
  static const DnnApi api{.GetVersion = &sim_dnn_version,
                          .GetCudartVersion = &sim_dnn_cudart_version,
                          .GetErrorString = &sim_dnn_error,
                          .GetLastErrorString = &sim_dnn_last_error,
                          .Create = B::template plain<&D::create>,
                          .Destroy = B::template gives_back<&D::destroy>,
                          .SetStream = B::template plain<&D::set_stream>,
                          .BackendCreateDescriptor = B::template plain<&D::create_descriptor>,
                          .BackendDestroyDescriptor = B::template gives_back<&D::destroy_descriptor>,
                          .BackendFinalize = B::template plain<&D::finalize>,
                          .BackendSetAttribute = B::template plain<&D::set_attribute>,
                          .BackendGetAttribute = B::template plain<&D::get_attribute>,
                          .BackendExecute = B::template plain<&D::execute>};
  return &api;
}

template <class Slot, int... number>
void set_tables(Slot& slot, std::integer_sequence<int, number...>) {
  const CuApi* const tables[] = {table<Slot, number>()...};
  const LtApi* const lt_tables[] = {lt_table<Slot, number>()...};
  const DnnApi* const dnn_tables[] = {dnn_table<Slot, number>()...};
  slot.api = tables[slot.number];
  slot.lt_api = lt_tables[slot.number];
  slot.dnn_api = dnn_tables[slot.number];
}

}  // namespace

SimDriver::SimDriver(const SimOptions& options) : slot_(std::make_unique<Slot>(options)) {
  for (int i = 0; i < most_drivers; ++i) {
    void* none = nullptr;
    if (!slots[static_cast<size_t>(i)].compare_exchange_strong(none, slot_.get())) continue;
    slot_->number = i;
    set_tables(*slot_, std::make_integer_sequence<int, most_drivers>());
    return;
  }
  throw InternalError("more than 8 simulated drivers at once");
}

SimDriver::~SimDriver() { slots[static_cast<size_t>(slot_->number)].store(nullptr); }

const SimOptions& SimDriver::options() const { return slot_->options; }
const CuApi& SimDriver::api() const { return *slot_->api; }
const LtApi& SimDriver::lt() const { return *slot_->lt_api; }
const DnnApi& SimDriver::dnn() const { return *slot_->dnn_api; }

void* SimDriver::find(const char* name) const {
  if (slot_->options.lacks.contains(name)) return nullptr;
  void* found = nullptr;
  const auto look = [&](const auto& entry) {
    if (std::strcmp(entry.name, name) == 0) found = reinterpret_cast<void*>(api().*entry.member);
  };
  std::apply([&](const auto&... entry) { (look(entry), ...); }, cu_entries);
  return found;
}

void SimDriver::fail_kernel(int64_t kernel, CuResult error) {
  const std::lock_guard lock(slot_->one_call);
  slot_->state.failing_launch = kernel == 0 ? 0 : slot_->state.launches + kernel;
  slot_->state.launch_error = error;
}

void SimDriver::take(Taken taken, int64_t call) {
  const std::lock_guard lock(slot_->one_call);
  slot_->taking_call = call;
  (call == 0 ? slot_->state.taken : slot_->taking) = taken;
}

CuContext SimDriver::current() const { return SimState::handle_on_this_thread(); }

void SimDriver::fail(Fault fault) {
  const std::lock_guard lock(slot_->one_call);
  slot_->fault = fault;
}

int64_t SimDriver::calls() const {
  const std::lock_guard lock(slot_->one_call);
  return slot_->calls;
}

LiveCounts SimDriver::live() const {
  const std::lock_guard lock(slot_->one_call);
  LiveCounts out;
  out.lt = slot_->lt.live();
  out.dnn = slot_->dnn.live();
  out.pinned = static_cast<int64_t>(slot_->state.pinned.live());
  for (const auto& c : slot_->state.contexts) {
    if (!c) continue;
    ++out.contexts;
    out.allocations += static_cast<int64_t>(c->memory.live());
    out.bytes += static_cast<int64_t>(c->memory.live_bytes());
    out.streams += static_cast<int64_t>(c->streams.size());
    out.events += static_cast<int64_t>(c->events.size());
    out.modules += static_cast<int64_t>(c->modules.size());
    out.graphs += static_cast<int64_t>(c->graphs.size() + c->ready_graphs.size());
  }
  return out;
}

std::map<std::string, int64_t> SimDriver::ways_taken() const {
  const std::lock_guard lock(slot_->one_call);
  return slot_->state.ways_taken;
}

int64_t SimDriver::launches() const {
  const std::lock_guard lock(slot_->one_call);
  return slot_->state.launches;
}

std::string SimDriver::leaked() const {
  const std::lock_guard lock(slot_->one_call);
  return slot_->state.leaked;
}

namespace {

/// A driver with the table that the product fills from it.
struct Opened {
  std::shared_ptr<SimDriver> driver;
  CuApi api{};
};

}  // namespace

std::unique_ptr<Device> make_sim_device(std::shared_ptr<SimDriver> driver, int index) {
  const auto opened = std::make_shared<Opened>(Opened{driver});
  const std::string refusal = fill_driver(opened->api, driver->options().driver_version,
                                          [&](const char* name) { return driver->find(name); });
  check_driver(index, refusal);
  const auto there = [](const char* name, const std::string& missing) {
    if (!missing.empty()) throw DeviceError({name, "there is none", missing, ""}, false);
  };
  const FindLt lt = [there, &driver = *driver]() -> const LtApi& {
    there("cuBLASLt", driver.options().lt_missing);
    return driver.lt();
  };
  const FindDnn dnn = [there, &driver = *driver]() -> const DnnApi& {
    there("cuDNN", driver.options().dnn_missing);
    return driver.dnn();
  };
  ObjectCache* const plans = driver->options().plans;
  const auto* const tool = driver->options().nvtx;
  std::shared_ptr<KernelCompiler> compiler = driver->options().compiler;
  if (!compiler) compiler = std::make_shared<SimCompiler>();
  return std::make_unique<CudaDevice>(CudaDevice::Parts{.cu = opened->api,
                                                        .nvml = nullptr,
                                                        .lt = lt,
                                                        .dnn = dnn,
                                                        .compiler = std::move(compiler),
                                                        .plans = plans,
                                                        .nvtx = tool,
                                                        .keeps = opened},
                                      index);
}

std::unique_ptr<Device> make_sim_device(const SimOptions& options) {
  return make_sim_device(std::make_shared<SimDriver>(options), 0);
}

}  // namespace espalier::target::cuda::sim

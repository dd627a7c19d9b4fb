#include "target/cuda/driver/cuda_device.h"

#include <fmt/format.h>

#include "target/cuda/driver/device_list.h"
#include "target/cuda/driver/executable.h"

namespace espalier::target::cuda::driver {

namespace {

int capability_of(const Context& context, int index) {
  CuDevice device = 0;
  int major = 0, minor = 0;
  context.call("cuDeviceGet", &CuApi::DeviceGet, &device, index);
  context.call("cuDeviceGetAttribute", &CuApi::DeviceGetAttribute, &major, CuAttribute::capability_major,
               device);
  context.call("cuDeviceGetAttribute", &CuApi::DeviceGetAttribute, &minor, CuAttribute::capability_minor,
               device);
  return 10 * major + minor;
}

/// Before there is a context, which takes some; only NVML can tell.
std::optional<int64_t> free_without_context(const CuApi& cu, const NvmlApi* nvml, int index) {
  return nvml ? describe_device(cu, nvml, index).memory_free_bytes : std::nullopt;
}

}  // namespace

CudaDevice::CudaDevice(const Parts& parts, int index)
    : keeps_(parts.keeps),
      nvml_(parts.nvml),
      nvtx_(parts.nvtx),
      index_(index),
      free_before_(free_without_context(parts.cu, parts.nvml, index).value_or(-1)),
      context_(std::make_shared<const Context>(parts.cu, index)),
      compiler_(parts.compiler),
      capability_(capability_of(*context_, index)),
      lt_(context_, parts.lt),
      dnn_(context_, parts.dnn, parts.plans) {
  if (free_before_ < 0) free_before_ = free_bytes();
}

CudaDevice::~CudaDevice() {
  CuResult ignored = cu_success;
  const Context::Current here(*context_, ignored);
  for (const auto& [number, event] : events_)
    context_->give_back("cuEventDestroy", &CuApi::EventDestroy, event.handle);
  for (const auto& [number, stream] : streams_)
    if (!stream.foreign) context_->give_back("cuStreamDestroy", &CuApi::StreamDestroy, stream.handle);
}

DeviceInfo CudaDevice::info() const { return describe_device(context_->cu(), nvml_, index_); }

int64_t CudaDevice::free_bytes() const {
  size_t free = 0, total = 0;
  context_->call("cuMemGetInfo", &CuApi::MemGetInfo, &free, &total);
  return static_cast<int64_t>(free);
}

// --- libraries ---

namespace {

template <class Lazy>
DeviceLibrary described(const char* name, Lazy& library) {
  try {
    return {name, library.get()->version(), ""};
  } catch (const DeviceError& e) {
    if (e.lost()) throw;
    const ErrorFields& why = e.fields();
    return {name, "", why.got.empty() ? why.problem : why.problem + ": " + why.got};
  }
}

}  // namespace

std::vector<DeviceLibrary> CudaDevice::libraries() {
  return {described("cublaslt", lt_), described("cudnn", dnn_)};
}

LibraryAnswer CudaDevice::ask(const CallRecord::Work& work) {
  const auto ways = used();
  const std::string_view name = ways ? ways->find(work) : std::string_view();
  if (const auto* product = std::get_if<GemmCall>(&work)) return ask_lt(*lt_.get(), *product, name);
  const auto* conv = std::get_if<ConvCall>(&work);
  ESPALIER_CHECK(conv != nullptr, "a library was asked of a record that is none of its");
  return dnn_.get()->ask(*conv, name);
}

std::string CudaDevice::described_by(std::string_view library) {
  return library == "cudnn" ? dnn_.get()->device_json() : "";
}

std::vector<std::string> CudaDevice::choices(const CallRecord::Work& work, int most) {
  if (const auto* conv = std::get_if<ConvCall>(&work)) return dnn_.get()->choices(*conv, most);
  const auto* product = std::get_if<GemmCall>(&work);
  ESPALIER_CHECK(product != nullptr, "a library was asked of a record that is none of its");
  const auto library = lt_.get();
  std::vector<std::string> names;
  for (const LtHeuristic& found : lt_choices(*library, LtDescriptors(library->api(), *product), most))
    names.push_back(lt_name(found.algo));
  return names;
}

void CudaDevice::use(std::shared_ptr<const Ways> ways) {
  const std::lock_guard lock(numbers_);
  ways_ = std::move(ways);
}

std::shared_ptr<const Ways> CudaDevice::used() const {
  const std::lock_guard lock(numbers_);
  return ways_;
}

// --- memory ---

Address CudaDevice::allocate(int64_t bytes) {
  ESPALIER_CHECK(bytes >= 0, "a negative number of bytes");
  CuAddress address = 0;
  const CuResult error = context_->answer("cuMemAlloc", &CuApi::MemAlloc, &address,
                                          static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  if (error == cu_success) return address;
  std::string got = fmt::format("{} bytes asked for", bytes);
  size_t free = 0, total = 0;
  if (error == cu_error_out_of_memory &&
      context_->answer("cuMemGetInfo", &CuApi::MemGetInfo, &free, &total) == cu_success)
    got += fmt::format(", {} of {} free", free, total);
  context_->fail("cuMemAlloc", error, got);
}

void CudaDevice::release(Address address) noexcept {
  if (address != 0) context_->give_back("cuMemFree", &CuApi::MemFree, address);
}

void* CudaDevice::allocate_pinned(int64_t bytes) {
  ESPALIER_CHECK(bytes >= 0, "a negative number of bytes");
  void* data = nullptr;
  const CuResult error = context_->answer("cuMemAllocHost", &CuApi::MemAllocHost, &data,
                                          static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  if (error != cu_success)
    context_->fail("cuMemAllocHost", error,
                   fmt::format("{} bytes of pinned memory of the host asked for", bytes));
  return data;
}

void CudaDevice::release_pinned(void* data) noexcept {
  if (data) context_->give_back("cuMemFreeHost", &CuApi::MemFreeHost, data);
}

void CudaDevice::upload(Address to, const void* from, int64_t bytes, Stream stream) {
  if (bytes > 0)
    context_->call("cuMemcpyHtoDAsync", &CuApi::MemcpyHtoDAsync, to, from, static_cast<size_t>(bytes),
                   handle_of(stream));
}

void CudaDevice::download(void* to, Address from, int64_t bytes, Stream stream) {
  if (bytes > 0)
    context_->call("cuMemcpyDtoHAsync", &CuApi::MemcpyDtoHAsync, to, from, static_cast<size_t>(bytes),
                   handle_of(stream));
}

// --- streams and events ---

CuStream CudaDevice::handle_of(Stream stream) const {
  const std::lock_guard lock(numbers_);
  const auto it = streams_.find(static_cast<int32_t>(stream));
  ESPALIER_CHECK(it != streams_.end(),
                 fmt::format("no stream {} on this device", static_cast<int32_t>(stream)));
  return it->second.handle;
}

CudaDevice::OwnedEvent CudaDevice::known(Event event) const {
  const std::lock_guard lock(numbers_);
  const auto it = events_.find(static_cast<int32_t>(event));
  ESPALIER_CHECK(it != events_.end(), fmt::format("no event {} on this device", static_cast<int32_t>(event)));
  return it->second;
}

Stream CudaDevice::make_stream() {
  CuStream handle = nullptr;
  context_->call("cuStreamCreate", &CuApi::StreamCreate, &handle, cu_stream_non_blocking);
  const std::lock_guard lock(numbers_);
  streams_.emplace(next_, OwnedStream{handle, false});
  return Stream{next_++};
}

Stream CudaDevice::adopt_stream(void* foreign) {
  auto handle = static_cast<CuStream>(foreign);
  if (handle == cu_stream_legacy) handle = nullptr;  // one and the same
  if (handle == cu_stream_per_thread)
    throw DeviceError({fmt::format("device {}, the caller's stream", context_->device_name()),
                       "is another one on every thread", "the default stream of each thread",
                       "a stream that was made, or the default stream (null)"},
                      false);
  CuContext its = nullptr;
  context_->call("cuStreamGetCtx", &CuApi::StreamGetCtx, handle, &its);
  if (its != context_->handle())
    throw DeviceError({fmt::format("device {}, the caller's stream", context_->device_name()),
                       "belongs to another context", "", "a stream of the device's primary context"},
                      false);
  const std::lock_guard lock(numbers_);
  streams_.emplace(next_, OwnedStream{handle, true});
  return Stream{next_++};
}

void CudaDevice::release(Stream stream) noexcept {
  const std::lock_guard lock(numbers_);
  const auto it = streams_.find(static_cast<int32_t>(stream));
  if (it == streams_.end()) return;
  if (!it->second.foreign) context_->give_back("cuStreamDestroy", &CuApi::StreamDestroy, it->second.handle);
  streams_.erase(it);
}

Event CudaDevice::make_event(bool timing) {
  CuEvent handle = nullptr;
  context_->call("cuEventCreate", &CuApi::EventCreate, &handle, timing ? 0 : cu_event_disable_timing);
  const std::lock_guard lock(numbers_);
  events_.emplace(next_, OwnedEvent{handle, timing});
  return Event{next_++};
}

void CudaDevice::release(Event event) noexcept {
  const std::lock_guard lock(numbers_);
  const auto it = events_.find(static_cast<int32_t>(event));
  if (it == events_.end()) return;
  context_->give_back("cuEventDestroy", &CuApi::EventDestroy, it->second.handle);
  events_.erase(it);
}

void CudaDevice::record(Event event, Stream stream) {
  context_->call("cuEventRecord", &CuApi::EventRecord, known(event).handle, handle_of(stream));
}

void CudaDevice::wait(Stream stream, Event event) {
  context_->call("cuStreamWaitEvent", &CuApi::StreamWaitEvent, handle_of(stream), known(event).handle, 0u);
}

void CudaDevice::sync(Stream stream) {
  context_->call("cuStreamSynchronize", &CuApi::StreamSynchronize, handle_of(stream));
}

void CudaDevice::sync(Event event) {
  context_->call("cuEventSynchronize", &CuApi::EventSynchronize, known(event).handle);
}

bool CudaDevice::finished(Event event) {
  const CuResult answer = context_->answer("cuEventQuery", &CuApi::EventQuery, known(event).handle);
  if (answer == cu_error_not_ready) return false;
  context_->check("cuEventQuery", answer);
  return true;
}

double CudaDevice::elapsed_ms(Event from, Event to) {
  const OwnedEvent first = known(from), last = known(to);
  ESPALIER_CHECK(first.timing && last.timing, "the time between events that were made without timing");
  float ms = 0;
  context_->call("cuEventElapsedTime", &CuApi::EventElapsedTime, &ms, first.handle, last.handle);
  return ms;
}

// --- programs ---

std::unique_ptr<Executable> CudaDevice::load(std::span<const KernelSource> sources,
                                             std::span<const CallRecord> calls) {
  const auto ways = used();
  return load_executable({context_, *compiler_, capability_, lt_, dnn_, ways.get()}, sources, calls);
}

void CudaDevice::launch(const Executable& executable, size_t call, std::span<const Address> operands,
                        Stream stream) {
  const auto& loaded = dynamic_cast<const CudaExecutable&>(executable);
  loaded.enqueue(call, operands, handle_of(stream));
}

// --- graphs ---

namespace {

class CudaGraph final : public DeviceGraph {
 public:
  CudaGraph(std::shared_ptr<const Context> context, CuGraphExec ready)
      : context_(std::move(context)), ready_(ready) {}
  ~CudaGraph() override { context_->give_back("cuGraphExecDestroy", &CuApi::GraphExecDestroy, ready_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  CuGraphExec ready() const { return ready_; }

 private:
  std::shared_ptr<const Context> context_;
  CuGraphExec ready_;
};

}  // namespace

std::string CudaDevice::why_no_capture(Stream stream) const {
  const CuApi& cu = context_->cu();
  std::string lacks;
  const auto look = [&](const char* name, bool there) {
    if (!there && lacks.empty()) lacks = name;
  };
  look("cuStreamBeginCapture", cu.StreamBeginCapture);
  look("cuStreamEndCapture", cu.StreamEndCapture);
  look("cuGraphInstantiateWithFlags", cu.GraphInstantiate);
  look("cuGraphDestroy", cu.GraphDestroy);
  look("cuGraphLaunch", cu.GraphLaunch);
  look("cuGraphExecDestroy", cu.GraphExecDestroy);
  if (!lacks.empty()) {
    int version = 0;
    cu.DriverGetVersion(&version);
    return fmt::format("the driver for CUDA {} lacks {}", cuda_version(version), lacks);
  }
  return handle_of(stream) ? "" : "the default stream cannot be captured";
}

void CudaDevice::begin_capture(Stream stream) {
  context_->call("cuStreamBeginCapture", &CuApi::StreamBeginCapture, handle_of(stream),
                 CuCaptureMode::thread_local_);
}

std::unique_ptr<DeviceGraph> CudaDevice::end_capture(Stream stream) {
  const CuStream handle = handle_of(stream);
  const auto destroy = [&](CuGraph* graph) {
    if (*graph) context_->give_back("cuGraphDestroy", &CuApi::GraphDestroy, *graph);
  };
  CuGraph graph = nullptr;
  const std::unique_ptr<CuGraph, decltype(destroy)> captured(&graph, destroy);
  context_->check("cuStreamEndCapture",
                  context_->give_back("cuStreamEndCapture", &CuApi::StreamEndCapture, handle, &graph));
  CuGraphExec ready = nullptr;
  context_->call("cuGraphInstantiate", &CuApi::GraphInstantiate, &ready, graph, 0ull);
  return std::make_unique<CudaGraph>(context_, ready);
}

void CudaDevice::launch(const DeviceGraph& graph, Stream stream) {
  context_->call("cuGraphLaunch", &CuApi::GraphLaunch, dynamic_cast<const CudaGraph&>(graph).ready(),
                 handle_of(stream));
}

// --- the caller's context ---

Device::Entered CudaDevice::enter() {
  const Context::Entered entered = context_->enter("cuCtxPushCurrent");
  return {entered.pushed, entered.before};
}

void CudaDevice::leave(const Entered& entered) noexcept {
  context_->leave({entered.did, static_cast<const Context*>(entered.around)});
}

}  // namespace espalier::target::cuda::driver

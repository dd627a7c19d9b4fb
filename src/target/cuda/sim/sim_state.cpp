#include "target/cuda/sim/sim_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "target/cuda/arch.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::target::cuda::sim {

using namespace driver;

namespace {

constexpr CuResult not_supported = 801;

/// On each thread: the contexts that were pushed; the last is current.
thread_local std::vector<const SimContext*> on_this_thread;

CuContext handle_of(const SimContext* context) {
  return reinterpret_cast<CuContext>(const_cast<SimContext*>(context));
}
void* pointer(CuAddress address) { return reinterpret_cast<void*>(address); }
uint64_t address_of(const void* data) { return reinterpret_cast<uint64_t>(data); }

struct ErrorName {
  CuResult error;
  const char *name, *text;
};
constexpr ErrorName error_names[] = {
    {cu_error_invalid_value, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {cu_error_out_of_memory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {cu_error_not_initialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {cu_error_device_unavailable, "CUDA_ERROR_DEVICE_UNAVAILABLE",
     "all CUDA-capable devices are busy or unavailable"},
    {cu_error_no_device, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {cu_error_invalid_device, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {cu_error_invalid_image, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {cu_error_invalid_context, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {cu_error_invalid_handle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {cu_error_not_found, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {cu_error_not_ready, "CUDA_ERROR_NOT_READY", "device not ready"},
    {cu_error_illegal_address, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {cu_error_launch_out_of_resources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {cu_error_launch_failed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {cu_error_tensor_memory_leak, "CUDA_ERROR_TENSOR_MEMORY_LEAK",
     "tensor memory not completely deallocated"},
    {cu_error_mps_client_terminated, "CUDA_ERROR_MPS_CLIENT_TERMINATED",
     "the MPS client has been terminated by the server"},
    {cu_error_capture_unsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {cu_error_capture_invalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {cu_error_external_device, "CUDA_ERROR_EXTERNAL_DEVICE", "an error in a device outside of CUDA"},
    {cu_error_unknown, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

const ErrorName* name_of(CuResult error) {
  for (const ErrorName& e : error_names)
    if (e.error == error) return &e;
  return nullptr;
}

void put_into(SimStream& stream, SimAction action) {
  stream.queue.push_back({std::move(action), std::make_unique<TimeTag>()});
  stream.queue.back().given->release();
  ++stream.put;
}

}  // namespace

// --- streams ---

void SimStream::add(SimAction action) {
  if (capture) return capture->actions.push_back(std::move(action));
  context.order_default(*this);
  put_into(*this, std::move(action));
}

void SimStream::run_to(uint64_t position) {
  while (done < position) {
    const SimWork work = std::move(queue.front());
    queue.pop_front();
    worker.acquire(*work.given);
    if (context.lost == cu_success) work.run(*this);
    ++done;
  }
}

SimContext::Found SimContext::find(CuFunction function) const {
  for (const auto& [handle, module] : modules)
    for (const auto& [name, f] : module->functions)
      if (reinterpret_cast<CuFunction>(const_cast<SimFunction*>(&f)) == function) return {module, &f};
  return {};
}

void SimContext::run_others(const SimStream& waited_for) {
  for_streams([&](SimStream& stream) {
    if (&stream != &waited_for) stream.run_to(stream.put);
  });
}

namespace {

/// What `later` is given from here on comes after all that `earlier` was given; `seen`: how much of it that was so for before.
void put_after(SimStream& later, SimStream& earlier, uint64_t& seen) {
  if (earlier.put == seen) return;
  const auto tag = std::make_shared<TimeTag>();
  put_into(earlier, [tag](SimStream& self) { self.worker.release(*tag); });
  seen = earlier.put;
  put_into(later, [tag, other = earlier.shared_from_this(), position = seen](SimStream& self) {
    other->run_to(position);
    self.worker.acquire(*tag);
  });
}

}  // namespace

void SimContext::order_default(SimStream& stream) {
  if (!default_stream) return;
  if (&stream == default_stream.get()) {
    for_streams([&](SimStream& other) {
      if (&other == &stream || !other.blocking) return;
      if (other.capture) other.capture->invalid = true;
      put_after(stream, other, other.seen_by_default);
    });
  } else if (stream.blocking) {
    put_after(stream, *default_stream, stream.seen_of_default);
  }
}

// --- the driver ---

SimState::SimState(const SimOptions& options) : options(options), taken{.device = options.taken_bytes} {
  contexts.resize(static_cast<size_t>(options.devices));
}
SimState::~SimState() = default;

CuResult SimState::refuse(CuResult error, std::string text) {
  words[error] = std::move(text);
  return error;
}

CuResult SimState::lose(SimContext& context, CuResult error, std::string text) {
  if (context.lost != cu_success) return context.lost;
  context.lost = error;
  if (!text.empty()) words[error] = std::move(text);
  return error;
}

CuResult SimState::init(unsigned flags) {
  if (flags != 0) return cu_error_invalid_value;
  initialised = true;
  return options.devices > 0 ? cu_success : cu_error_no_device;
}

CuResult SimState::driver_get_version(int* version) {
  *version = options.driver_version;
  return cu_success;
}

CuResult SimState::get_error_name(CuResult error, const char** name) {
  const ErrorName* e = name_of(error);
  *name = e ? e->name : nullptr;
  return e ? cu_success : cu_error_invalid_value;
}

CuResult SimState::get_error_string(CuResult error, const char** text) {
  const ErrorName* e = name_of(error);
  const auto it = words.find(error);
  *text = it != words.end() ? it->second.c_str() : e ? e->text : nullptr;
  return *text ? cu_success : cu_error_invalid_value;
}

CuResult SimState::device_get_count(int* count) {
  if (!initialised) return cu_error_not_initialized;
  *count = options.devices;
  return cu_success;
}

CuResult SimState::device_get(CuDevice* device, int index) {
  if (!initialised) return cu_error_not_initialized;
  if (index < 0 || index >= options.devices) return cu_error_invalid_device;
  *device = index;
  return cu_success;
}

CuResult SimState::device_get_name(char* name, int size, CuDevice device) {
  std::snprintf(name, static_cast<size_t>(size), "simulated sm_%d number %d", options.capability, device);
  return cu_success;
}

CuResult SimState::device_get_uuid(CuUuid* uuid, CuDevice device) {
  *uuid = {};
  uuid->bytes[15] = static_cast<unsigned char>(device);
  return cu_success;
}

CuResult SimState::device_get_bus_id(char* id, int size, CuDevice device) {
  std::snprintf(id, static_cast<size_t>(size), "0000:%02x:00.0", device);
  return cu_success;
}

CuResult SimState::device_total_mem(size_t* bytes, CuDevice) {
  *bytes = static_cast<size_t>(options.memory_bytes);
  return cu_success;
}

CuResult SimState::device_get_attribute(int* value, CuAttribute attribute, CuDevice) {
  switch (attribute) {
    case CuAttribute::capability_major: *value = options.capability / 10; return cu_success;
    case CuAttribute::capability_minor: *value = options.capability % 10; return cu_success;
    case CuAttribute::shared_per_block: *value = shared_without_opt_in; return cu_success;
    case CuAttribute::shared_per_block_opt_in: *value = shared_limit(); return cu_success;
    case CuAttribute::multiprocessors: *value = 1; return cu_success;
    case CuAttribute::compute_mode: *value = options.held_by_another ? 3 : 0; return cu_success;
    case CuAttribute::ecc_enabled:
    case CuAttribute::integrated: *value = 0; return cu_success;
    default: return not_supported;
  }
}

int SimState::shared_limit() const {
  if (options.shared_limit > 0) return options.shared_limit;
  int bytes = shared_without_opt_in;
  for (const Arch& a : arches)
    if (a.capability <= options.capability) bytes = a.shared_per_block;
  return bytes;
}

CuResult SimState::device_can_access_peer(int* can, CuDevice, CuDevice) {
  *can = 0;
  return cu_success;
}

// --- contexts ---

CuResult SimState::primary_retain(CuContext* context, CuDevice device) {
  if (!initialised) return cu_error_not_initialized;
  if (options.held_by_another) return cu_error_device_unavailable;
  std::unique_ptr<SimContext>& c = contexts.at(static_cast<size_t>(device));
  if (!c) c = std::make_unique<SimContext>();
  c->device = device;
  ++c->retained;
  *context = handle_of(c.get());
  return cu_success;
}

CuResult SimState::primary_release(CuDevice device) {
  std::unique_ptr<SimContext>& c = contexts.at(static_cast<size_t>(device));
  if (!c) return cu_error_invalid_context;
  if (--c->retained > 0) return cu_success;
  const auto note = [&](const std::string& what) { leaked += (leaked.empty() ? "" : ", ") + what; };
  const bool was_lost = c->lost != cu_success;
  for (const auto& stream : c->destroyed) stream->run_to(stream->put);
  if (!was_lost && c->lost != cu_success) note("work of a destroyed stream went wrong: " + words[c->lost]);
  const auto count = [&](size_t n, const char* what) {
    if (n > 0 && c->lost == cu_success) note(fmt::format("{} {}", n, what));
  };
  count(c->memory.live(), "allocations");
  count(c->streams.size(), "streams");
  count(c->events.size(), "events");
  count(c->modules.size(), "modules");
  count(c->graphs.size() + c->ready_graphs.size(), "graphs");
  c->for_streams([](SimStream& stream) { stream.queue.clear(); });  // which may hold each other
  c.reset();
  return cu_success;
}

CuResult SimState::ctx_push(CuContext context) {
  for (const auto& c : contexts)
    if (c && handle_of(c.get()) == context) {
      on_this_thread.push_back(c.get());
      return cu_success;
    }
  return cu_error_invalid_context;
}

CuResult SimState::ctx_pop(CuContext* context) {
  if (on_this_thread.empty()) return refuse(cu_error_invalid_context, "no context is current on this thread");
  *context = handle_of(on_this_thread.back());
  on_this_thread.pop_back();
  return cu_success;
}

CuContext SimState::handle_on_this_thread() {
  return on_this_thread.empty() ? nullptr : handle_of(on_this_thread.back());
}

SimContext* SimState::current(CuResult& error) {
  for (const auto& c : contexts)
    if (c && !on_this_thread.empty() && c.get() == on_this_thread.back()) {
      error = c->lost;
      return c->lost == cu_success ? c.get() : nullptr;
    }
  error = refuse(cu_error_invalid_context, "no context of this driver is current on this thread");
  return nullptr;
}

// --- memory ---

CuResult SimState::mem_get_info(size_t* free, size_t* total) {
  CuResult error = cu_success;
  const SimContext* c = current(error);
  if (!c) return error;
  *total = static_cast<size_t>(options.memory_bytes);
  *free = static_cast<size_t>(std::max<int64_t>(
      options.memory_bytes - taken.device - static_cast<int64_t>(c->memory.live_bytes()), 0));
  return cu_success;
}

CuResult SimState::mem_alloc(CuAddress* address, size_t bytes) {
  if (const CuResult capturing = unless_capturing("cuMemAlloc"); capturing != cu_success) return capturing;
  CuResult error = cu_success;
  SimContext* c = current(error);
  if (!c) return error;
  if (bytes == 0) return cu_error_invalid_value;
  if (bytes + c->memory.live_bytes() + static_cast<size_t>(taken.device) >
      static_cast<size_t>(options.memory_bytes))
    return cu_error_out_of_memory;
  *address = c->memory.allocate(bytes);
  return cu_success;
}

CuResult SimState::mem_free(CuAddress address) {
  if (const CuResult capturing = unless_capturing("cuMemFree"); capturing != cu_success) return capturing;
  CuResult error = cu_success;
  for (const auto& c : contexts) {
    if (!c || !c->memory.knows(address)) continue;
    std::string problem = c->memory.release(address);
    if (!problem.empty()) return lose(*c, cu_error_illegal_address, std::move(problem));
    return c->lost;
  }
  SimContext* c = current(error);
  return c ? refuse(cu_error_invalid_value, fmt::format("0x{:x} is no allocation", address)) : error;
}

CuResult SimState::mem_alloc_host(void** data, size_t bytes) {
  if (const CuResult capturing = unless_capturing("cuMemAllocHost"); capturing != cu_success)
    return capturing;
  CuResult error = cu_success;
  if (!current(error)) return error;
  if (bytes == 0) return cu_error_invalid_value;
  if (bytes + pinned.live_bytes() + static_cast<size_t>(taken.pinned) >
      static_cast<size_t>(options.pinned_bytes))
    return cu_error_out_of_memory;
  *data = pointer(pinned.allocate(bytes));
  return cu_success;
}

CuResult SimState::mem_free_host(void* data) {
  if (const CuResult capturing = unless_capturing("cuMemFreeHost"); capturing != cu_success) return capturing;
  std::string problem = pinned.release(address_of(data));
  return problem.empty() ? cu_success : refuse(cu_error_invalid_value, std::move(problem));
}

CuResult SimState::unless_capturing(const char* what) {
  for (const auto& c : contexts) {
    if (!c) continue;
    for (const auto& [handle, stream] : c->streams)
      if (stream->capture && stream->capture->thread == std::this_thread::get_id())
        return unless_captured(*stream, what);
  }
  return cu_success;
}

CuResult SimState::unless_captured(SimStream& stream, const char* what) {
  if (!stream.capture) return cu_success;
  stream.capture->invalid = true;
  return refuse(cu_error_capture_unsupported, fmt::format("{} while the stream is captured", what));
}

// --- streams and events ---

std::shared_ptr<SimStream> SimState::find(CuStream stream, CuResult& error) {
  SimContext* c = current(error);
  if (!c) return nullptr;
  if (!stream && options.default_stream) {
    if (!c->default_stream) c->default_stream = std::make_shared<SimStream>(*c);
    return c->default_stream;
  }
  const auto it = c->streams.find(stream);
  if (it != c->streams.end()) return it->second;
  error =
      refuse(cu_error_invalid_handle, stream ? "no stream of this context" : "the default stream is used");
  return nullptr;
}

SimEvent* SimState::find(CuEvent event, CuResult& error) {
  SimContext* c = current(error);
  if (!c) return nullptr;
  const auto it = c->events.find(event);
  if (it != c->events.end()) return it->second.get();
  error = refuse(cu_error_invalid_handle, "no event of this context");
  return nullptr;
}

CuResult SimState::stream_create(CuStream* stream, unsigned flags) {
  CuResult error = cu_success;
  SimContext* c = current(error);
  if (!c) return error;
  if (flags > cu_stream_non_blocking) return cu_error_invalid_value;
  auto made = std::make_shared<SimStream>(*c, (flags & cu_stream_non_blocking) == 0);
  *stream = reinterpret_cast<CuStream>(made.get());
  c->streams[*stream] = std::move(made);
  return cu_success;
}

CuResult SimState::stream_destroy(CuStream stream) {
  for (const auto& c : contexts) {
    if (!c) continue;
    const auto it = c->streams.find(stream);
    if (it == c->streams.end()) continue;
    if (it->second->done < it->second->put) c->destroyed.push_back(std::move(it->second));
    c->streams.erase(it);
    return c->lost;
  }
  return refuse(cu_error_invalid_handle, "a stream is destroyed twice");
}

CuResult SimState::stream_get_ctx(CuStream stream, CuContext* context) {
  if (CuResult error = cu_success; !stream) {  // of whichever context is current
    *context = handle_of(current(error));
    return error;
  }
  for (const auto& c : contexts)
    if (c && c->streams.count(stream)) {
      *context = handle_of(c.get());
      return cu_success;
    }
  return refuse(cu_error_invalid_handle, "no stream of this driver");
}

CuResult SimState::stream_synchronize(CuStream stream) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  if (error = unless_captured(*s, "cuStreamSynchronize"); error != cu_success) return error;
  if (options.others == Others::first) s->context.run_others(*s);
  s->run_to(s->put);
  const TimeTag now;
  s->worker.release(now);
  now.acquire();
  return s->context.lost;
}

CuResult SimState::stream_wait_event(CuStream stream, CuEvent event, unsigned flags) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  const SimEvent* e = s ? find(event, error) : nullptr;
  if (!e) return error;
  if (flags != 0) return cu_error_invalid_value;
  if (error = unless_captured(*s, "cuStreamWaitEvent"); error != cu_success) return error;
  if (!e->last) return cu_success;  // an event that was never recorded has happened
  s->add([moment = e->last](SimStream& self) {
    if (moment->stream.get() != &self) moment->stream->run_to(moment->position);
    self.worker.acquire(moment->tag);
  });
  return cu_success;
}

CuResult SimState::event_create(CuEvent* event, unsigned flags) {
  CuResult error = cu_success;
  SimContext* c = current(error);
  if (!c) return error;
  auto made = std::make_unique<SimEvent>();
  made->timing = (flags & cu_event_disable_timing) == 0;
  *event = reinterpret_cast<CuEvent>(made.get());
  c->events[*event] = std::move(made);
  return cu_success;
}

CuResult SimState::event_destroy(CuEvent event) {
  for (const auto& c : contexts)
    if (c && c->events.erase(event) > 0) return c->lost;
  return refuse(cu_error_invalid_handle, "an event is destroyed twice");
}

CuResult SimState::event_record(CuEvent event, CuStream stream) {
  CuResult error = cu_success;
  SimEvent* e = find(event, error);
  const auto s = e ? find(stream, error) : nullptr;
  if (!s) return error;
  if (error = unless_captured(*s, "cuEventRecord"); error != cu_success) return error;
  auto moment = std::make_shared<SimMoment>();
  moment->stream = s;
  s->add([m = std::weak_ptr(moment)](SimStream& self) {
    const auto now = m.lock();
    if (!now) return;  // recorded anew, and nobody waits for this time
    self.worker.release(now->tag);
    now->time = std::chrono::steady_clock::now();
  });
  moment->position = s->put;
  e->last = std::move(moment);
  return cu_success;
}

CuResult SimState::event_synchronize(CuEvent event) {
  CuResult error = cu_success;
  const SimEvent* e = find(event, error);
  if (!e) return error;
  if (!e->last) return cu_success;
  SimMoment& m = *e->last;
  if (options.others == Others::first) m.stream->context.run_others(*m.stream);
  m.stream->run_to(m.position);
  m.tag.acquire();
  return m.stream->context.lost;
}

CuResult SimState::event_query(CuEvent event) {
  CuResult error = cu_success;
  const SimEvent* e = find(event, error);
  if (!e) return error;
  if (!e->last) return cu_success;
  SimMoment& m = *e->last;
  if (!m.passed()) {
    m.stream->run_to(m.stream->done + 1);  // who asks again and again is answered at last
    return m.stream->context.lost != cu_success ? m.stream->context.lost : cu_error_not_ready;
  }
  m.tag.acquire();
  return cu_success;
}

CuResult SimState::event_elapsed_time(float* ms, CuEvent from, CuEvent to) {
  CuResult error = cu_success;
  const SimEvent* a = find(from, error);
  const SimEvent* b = a ? find(to, error) : nullptr;
  if (!b) return error;
  if (!a->timing || !b->timing || !a->last || !b->last) return cu_error_invalid_handle;
  if (!a->last->passed() || !b->last->passed()) return cu_error_not_ready;
  *ms = std::chrono::duration<float, std::milli>(b->last->time - a->last->time).count();
  return cu_success;
}

// --- copies ---

/// `problem` is asked now, and again when the stream comes to it.
void SimState::add_copy(SimStream& stream, void* to, const void* from, size_t bytes,
                        std::function<std::string()> problem) {
  stream.add([this, to, from, bytes, check = std::move(problem)](SimStream& s) {
    std::string wrong = check();
    if (wrong.empty()) s.worker.copy(to, from, bytes);
    else lose(s.context, cu_error_illegal_address, "a copy: " + std::move(wrong));
  });
}

CuResult SimState::copy_to_device(CuAddress to, const void* from, size_t bytes, CuStream stream) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  const auto problem = [this, to, from, bytes, c = &s->context] {
    std::string wrong = pinned.check(address_of(from), bytes);
    return wrong.empty() ? c->memory.check(to, bytes) : wrong;
  };
  if (std::string wrong = problem(); !wrong.empty()) return refuse(cu_error_invalid_value, std::move(wrong));
  add_copy(*s, pointer(to), from, bytes, problem);
  return cu_success;
}

CuResult SimState::copy_to_host(void* to, CuAddress from, size_t bytes, CuStream stream) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  const auto problem = [this, to, from, bytes, c = &s->context] {
    std::string wrong = pinned.check(address_of(to), bytes);
    return wrong.empty() ? c->memory.check(from, bytes) : wrong;
  };
  if (std::string wrong = problem(); !wrong.empty()) return refuse(cu_error_invalid_value, std::move(wrong));
  add_copy(*s, to, pointer(from), bytes, problem);
  return cu_success;
}

CuResult SimState::copy_on_device(CuAddress to, CuAddress from, size_t bytes, CuStream stream) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  const auto problem = [to, from, bytes, c = &s->context] {
    std::string wrong = c->memory.check(from, bytes);
    if (wrong.empty()) wrong = c->memory.check(to, bytes);
    if (wrong.empty() && from < to + bytes && to < from + bytes) wrong = "the two places overlap";
    return wrong;
  };
  if (std::string wrong = problem(); !wrong.empty()) return refuse(cu_error_invalid_value, std::move(wrong));
  add_copy(*s, pointer(to), pointer(from), bytes, problem);
  return cu_success;
}

CuResult SimState::memset_d8(CuAddress to, unsigned char byte, size_t bytes, CuStream stream) {
  CuResult error = cu_success;
  const auto s = find(stream, error);
  if (!s) return error;
  if (std::string wrong = s->context.memory.check(to, bytes); !wrong.empty())
    return refuse(cu_error_invalid_value, std::move(wrong));
  s->add([this, to, byte, bytes](SimStream& self) {
    std::string wrong = self.context.memory.check(to, bytes);
    if (wrong.empty()) self.worker.fill(pointer(to), byte, bytes);
    else lose(self.context, cu_error_illegal_address, "a fill: " + std::move(wrong));
  });
  return cu_success;
}

}  // namespace espalier::target::cuda::sim

#pragma once
// What a simulated driver keeps: contexts, streams with the work that waits in them, events, modules.
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "target/cuda/driver/tables/cu.h"
#include "target/cuda/sim/kernel_library.h"
#include "target/cuda/sim/memory_map.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/cuda/sim/stream_work.h"

namespace espalier::target::cuda::sim {

struct SimContext;
struct SimStream;

/// What a stream does in one piece.
using SimAction = std::function<void(SimStream&)>;

/// A piece of work, and when the host gave it.
struct SimWork {
  SimAction run;
  std::unique_ptr<TimeTag> given;
};

/// What was captured of one stream; others do not join.
struct SimGraph {
  std::vector<SimAction> actions;
  std::thread::id thread;
  bool invalid = false;
};

/// Work in the order it was given; the first `done` pieces of `put` have run.
struct SimStream : std::enable_shared_from_this<SimStream> {
  explicit SimStream(SimContext& context, bool blocking = false) : context(context), blocking(blocking) {}
  SimContext& context;
  bool blocking;  // it and the default stream wait for each other
  StreamWorker worker;
  std::deque<SimWork> queue;
  uint64_t put = 0, done = 0;
  uint64_t seen_by_default = 0, seen_of_default = 0;  // a blocking one: how much either has waited for

  std::shared_ptr<SimGraph> capture;  // null: what is added is done

  void add(SimAction action);
  /// Run until `position` pieces are done.
  void run_to(uint64_t position);
};

/// When an event was recorded: that many pieces of that stream's work.
struct SimMoment {
  std::shared_ptr<SimStream> stream;
  uint64_t position = 0;
  TimeTag tag;
  std::chrono::steady_clock::time_point time;

  bool passed() const { return stream->done >= position; }
};

struct SimEvent {
  bool timing = false;
  std::shared_ptr<SimMoment> last;  // null: never recorded
};

struct SimFunction {
  std::string name;
  KernelLibrary::Entry code;
  int max_threads = 0;
  bool synchronises = false;
  std::vector<KernelParameter> parameters{};
  int64_t shared_bytes = sim_static_shared_bytes;  // that a launch may ask for
};

struct SimModule {
  explicit SimModule(const std::filesystem::path& file) : library(file) {}
  bool loaded = true;  // graphs may hold more of it
  KernelLibrary library;
  std::map<std::string, SimFunction, std::less<>> functions;  // which graphs and streams point to
};

/// The primary context of one device.
struct SimContext {
  int device = 0;
  int retained = 0;
  driver::CuResult lost = 0;  // the error that poisoned it
  MemoryMap memory{"allocation"};
  std::map<driver::CuStream, std::shared_ptr<SimStream>> streams;
  std::vector<std::shared_ptr<SimStream>>
      destroyed;                              // with work in them, which is done all the same, at any time
  std::shared_ptr<SimStream> default_stream;  // null: never used
  std::map<driver::CuEvent, std::unique_ptr<SimEvent>> events;
  std::map<driver::CuModule, std::shared_ptr<SimModule>> modules;
  std::map<driver::CuGraph, std::shared_ptr<SimGraph>> graphs;
  std::map<driver::CuGraphExec, std::shared_ptr<SimGraph>> ready_graphs;

  struct Found {
    std::shared_ptr<SimModule> module;
    const SimFunction* function = nullptr;
  };
  Found find(driver::CuFunction function) const;
  template <class F>
  void for_streams(const F& f) const {
    for (const auto& [handle, stream] : streams) f(*stream);
    for (const auto& stream : destroyed) f(*stream);
    if (default_stream) f(*default_stream);
  }
  /// Run what is in every stream but `waited_for`.
  void run_others(const SimStream& waited_for);
  /// What is put into `stream` next comes after what it waits for because one of the two is the default stream.
  void order_default(SimStream& stream);
};

/// Everything behind one table of functions. Each method is the function of that name; one call at a time.
struct SimState {
  using CuResult = driver::CuResult;

  explicit SimState(const SimOptions& options);
  ~SimState();

  CuResult init(unsigned flags);
  CuResult driver_get_version(int* version);
  CuResult get_error_name(CuResult error, const char** name);
  CuResult get_error_string(CuResult error, const char** text);
  CuResult device_get_count(int* count);
  CuResult device_get(driver::CuDevice* device, int index);
  CuResult device_get_name(char* name, int size, driver::CuDevice device);
  CuResult device_get_uuid(driver::CuUuid* uuid, driver::CuDevice device);
  CuResult device_get_bus_id(char* id, int size, driver::CuDevice device);
  CuResult device_total_mem(size_t* bytes, driver::CuDevice device);
  CuResult device_get_attribute(int* value, driver::CuAttribute attribute, driver::CuDevice device);
  CuResult device_can_access_peer(int* can, driver::CuDevice device, driver::CuDevice peer);
  CuResult primary_retain(driver::CuContext* context, driver::CuDevice device);
  CuResult primary_release(driver::CuDevice device);
  CuResult ctx_push(driver::CuContext context);
  CuResult ctx_pop(driver::CuContext* context);
  CuResult mem_get_info(size_t* free, size_t* total);
  CuResult mem_alloc(driver::CuAddress* address, size_t bytes);
  CuResult mem_free(driver::CuAddress address);
  CuResult mem_alloc_host(void** data, size_t bytes);
  CuResult mem_free_host(void* data);
  CuResult stream_create(driver::CuStream* stream, unsigned flags);
  CuResult stream_destroy(driver::CuStream stream);
  CuResult stream_get_ctx(driver::CuStream stream, driver::CuContext* context);
  CuResult stream_synchronize(driver::CuStream stream);
  CuResult stream_wait_event(driver::CuStream stream, driver::CuEvent event, unsigned flags);
  CuResult event_create(driver::CuEvent* event, unsigned flags);
  CuResult event_destroy(driver::CuEvent event);
  CuResult event_record(driver::CuEvent event, driver::CuStream stream);
  CuResult event_synchronize(driver::CuEvent event);
  CuResult event_query(driver::CuEvent event);
  CuResult event_elapsed_time(float* ms, driver::CuEvent from, driver::CuEvent to);
  CuResult copy_to_device(driver::CuAddress to, const void* from, size_t bytes, driver::CuStream stream);
  CuResult copy_to_host(void* to, driver::CuAddress from, size_t bytes, driver::CuStream stream);
  CuResult copy_on_device(driver::CuAddress to, driver::CuAddress from, size_t bytes,
                          driver::CuStream stream);
  CuResult memset_d8(driver::CuAddress to, unsigned char byte, size_t bytes, driver::CuStream stream);
  CuResult module_load_data(driver::CuModule* module, const void* image);
  CuResult module_unload(driver::CuModule module);
  CuResult module_get_function(driver::CuFunction* function, driver::CuModule module, const char* name);
  CuResult func_get_attribute(int* value, driver::CuFunctionAttribute attribute, driver::CuFunction function);
  CuResult func_set_attribute(driver::CuFunction function, driver::CuFunctionAttribute attribute, int value);
  /// Bytes of shared memory that a block may have after the opt-in.
  int shared_limit() const;
  CuResult launch_kernel(driver::CuFunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                         unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                         driver::CuStream stream, void** parameters, void** extra);
  CuResult begin_capture(driver::CuStream stream, driver::CuCaptureMode mode);
  CuResult end_capture(driver::CuStream stream, driver::CuGraph* graph);
  CuResult graph_instantiate(driver::CuGraphExec* ready, driver::CuGraph graph, unsigned long long flags);
  CuResult graph_destroy(driver::CuGraph graph);
  CuResult graph_launch(driver::CuGraphExec ready, driver::CuStream stream);
  CuResult graph_exec_destroy(driver::CuGraphExec ready);

  /// The context that is current on this thread, and does it work? Sets `error` where not.
  SimContext* current(CuResult& error);
  std::shared_ptr<SimStream> find(driver::CuStream stream, CuResult& error);
  SimEvent* find(driver::CuEvent event, CuResult& error);
  /// The call is wrong: the words are shown for that error.
  CuResult refuse(CuResult error, std::string words);
  /// The context is poisoned; the first time counts.
  CuResult lose(SimContext& context, CuResult error, std::string words);
  /// This call may not be made while the thread captures: such a capture is then worth nothing.
  CuResult unless_capturing(const char* what);
  /// Nor with a stream that is captured.
  CuResult unless_captured(SimStream& stream, const char* what);
  void add_copy(SimStream& stream, void* to, const void* from, size_t bytes,
                std::function<std::string()> problem);

  static driver::CuContext handle_on_this_thread();

  const SimOptions& options;
  Taken taken;  // by other processes
  bool initialised = false;
  std::vector<std::unique_ptr<SimContext>> contexts;  // by device; null: not retained
  MemoryMap pinned{"pinned memory"};
  std::map<CuResult, std::string> words;  // the last of each error
  std::string leaked;
  int64_t launches = 0, failing_launch = 0;  // 0: none
  CuResult launch_error = 0;
  std::map<std::string, int64_t> ways_taken;
};

}  // namespace espalier::target::cuda::sim

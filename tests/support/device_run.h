#pragma once
// Bodies of loops on a device: uploaded, launched, downloaded, everything given back whatever happens.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "target/cuda/call_kernel.h"
#include "target/device.h"

namespace espalier::test {

/// What a test has of a device; all of it is given back in the end.
class DeviceThings {
 public:
  explicit DeviceThings(target::Device& device) : device_(device) {}
  ~DeviceThings() {
    for (const target::Stream s : streams_) {
      try {
        device_.sync(s);
      } catch (const target::DeviceError&) {  // a device that is lost does nothing any more
      }
      device_.release(s);
    }
    for (const target::Event e : events_) device_.release(e);
    for (const target::Address a : memory_) device_.release(a);
    for (void* p : pinned_) device_.release_pinned(p);
  }
  DeviceThings(const DeviceThings&) = delete;
  DeviceThings& operator=(const DeviceThings&) = delete;

  target::Address memory(int64_t bytes) { return memory_.emplace_back(device_.allocate(bytes)); }
  template <class T>
  T* pinned(int64_t elements) {
    return static_cast<T*>(
        pinned_.emplace_back(device_.allocate_pinned(elements * static_cast<int64_t>(sizeof(T)))));
  }
  target::Stream stream() { return streams_.emplace_back(device_.make_stream()); }
  target::Event event(bool timing = false) { return events_.emplace_back(device_.make_event(timing)); }

 private:
  target::Device& device_;
  std::vector<target::Address> memory_;
  std::vector<void*> pinned_;
  std::vector<target::Stream> streams_;
  std::vector<target::Event> events_;
};

/// The results of `body` by the calls that were `made` for it.
inline std::vector<ir::Array> run_on_device(
    target::Device& device, const ir::Graph& body, const std::vector<ir::Array>& inputs,
    const std::variant<target::cuda::CallList, kernel::Refusal>& made) {
  if (const auto* refusal = std::get_if<kernel::Refusal>(&made)) throw InternalError(refusal->reason);
  const auto& list = std::get<target::cuda::CallList>(made);
  const std::unique_ptr<target::Executable> program = device.load(list.sources, list.calls);

  DeviceThings things(device);
  const target::Stream stream = things.stream();
  std::vector<target::Address> buffers;
  for (const ir::Array& input : inputs) {
    buffers.push_back(things.memory(input.bytes()));
    char* staged = things.pinned<char>(input.bytes());
    if (input.bytes() > 0) std::memcpy(staged, input.data(), static_cast<size_t>(input.bytes()));
    device.upload(buffers.back(), staged, input.bytes(), stream);
  }
  std::vector<ir::Array> results;
  for (const auto& output : body.outputs) {
    results.emplace_back(output.value.dtype(), ir::static_dims(output.value.dims()));
    buffers.push_back(things.memory(results.back().bytes()));
  }
  buffers.push_back(things.memory(list.scratch_bytes));
  for (size_t i = 0; i < list.calls.size(); ++i) {
    std::vector<target::Address> operands;
    for (const target::Operand& o : list.calls[i].operands)
      operands.push_back(buffers[static_cast<size_t>(o.buffer)] + static_cast<target::Address>(o.offset));
    device.launch(*program, i, operands, stream);
  }
  std::vector<char*> fetched;
  for (size_t i = 0; i < results.size(); ++i) {
    fetched.push_back(things.pinned<char>(results[i].bytes()));
    device.download(fetched.back(), buffers[inputs.size() + i], results[i].bytes(), stream);
  }
  device.sync(stream);
  for (size_t i = 0; i < results.size(); ++i)
    if (results[i].bytes() > 0)
      std::memcpy(results[i].write(), fetched[i], static_cast<size_t>(results[i].bytes()));
  return results;
}

/// The results of `body`, which has loops, by the kernels that are generated for it.
inline std::vector<ir::Array> run_on_device(target::Device& device, const ir::Graph& body,
                                            const std::vector<ir::Array>& inputs) {
  return run_on_device(device, body, inputs, target::cuda::loop_calls(body));
}

}  // namespace espalier::test

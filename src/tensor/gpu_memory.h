#pragma once
// A GPU's memory and streams for programs of yours: what Step::bind_input() and bind_output() take, and CompileOptions::stream.
//
//   GpuStream stream(gpu);
//   Compiled fn = compile(f, {.device = gpu, .stream = stream.handle()});
//   auto in = gpu_memory(gpu, n), staged = pinned_memory(gpu, n);
//   ...
//   stream.upload(in.get(), staged.get(), n);  // returns at once, as submit() does
//   step.submit();
//   stream.download(staged.get(), out.get(), n);
//   stream.wait();
#include <memory>

#include "tensor/device.h"

namespace espalier {

/// `bytes` of the GPU's memory, at a multiple of 256, as an address of the GPU's; counted in Device::memory() and given back with the last copy of
/// the pointer, when nothing under way may use it any more. UserError for the host, below 0, and over the memory limit; DeviceError: there is none.
ESPALIER_API std::shared_ptr<void> gpu_memory(const Device& gpu, int64_t bytes);
/// `bytes` of the host's memory that the GPU can copy from and to while the host goes on. Errors as of gpu_memory().
ESPALIER_API std::shared_ptr<void> pinned_memory(const Device& gpu, int64_t bytes);

/// A stream of a GPU: work that goes on beside the host's, in the order it was given. One thread at a time may use it.
class ESPALIER_API GpuStream {
 public:
  /// UserError for the host; DeviceError: from the device.
  explicit GpuStream(const Device& gpu);
  /// What it was given is waited for; functions that were compiled for it must be gone.
  ~GpuStream();
  GpuStream(GpuStream&&) noexcept;
  GpuStream& operator=(GpuStream&&) noexcept;

  /// The CUstream, of the device's primary context: for CompileOptions::stream and for other libraries.
  void* handle() const;
  /// Copy `bytes` from pinned memory to the GPU's, and back, in the stream. Both must stay until that is done. DeviceError: not pinned, or from the
  /// device.
  void upload(void* to, const void* from, int64_t bytes);
  void download(void* to, const void* from, int64_t bytes);
  /// Until all that was given is done. DeviceError: what went wrong in it.
  void wait();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace espalier

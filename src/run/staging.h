#pragma once
// Copies between any memory of the host and a device's, through pinned memory, each waited for.
#include "run/device_memory.h"

namespace espalier::run {

/// Copies in one stream. One thread at a time.
class Staging {
 public:
  explicit Staging(target::Device& device, target::Stream stream) : device_(&device), stream_(stream) {}

  /// After all that is in the stream. DeviceError: from the device.
  void upload(target::Address to, const void* from, int64_t bytes);
  void download(void* to, target::Address from, int64_t bytes);

 private:
  template <class Piece>
  void pieces(int64_t bytes, const Piece& piece);

  target::Device* device_;
  target::Stream stream_;
  PinnedMemory pinned_;
  int64_t size_ = 0;  ///< of it
};

/// Copy `bytes` of the host's memory to the device and wait for it.
void upload_and_wait(target::Device& device, target::Address to, const void* from, int64_t bytes);
/// Copy `bytes` of the device's memory to the host and wait for it.
void download_and_wait(target::Device& device, void* to, target::Address from, int64_t bytes);

}  // namespace espalier::run

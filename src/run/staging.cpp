#include "run/staging.h"

#include <algorithm>
#include <cstring>

namespace espalier::run {

using target::Address;

namespace {

/// Bytes that go through pinned memory at once.
constexpr int64_t most_staged = int64_t{4} << 20;

}  // namespace

/// Call `piece(at, bytes)` for each part of `bytes`, and wait for it.
template <class Piece>
void Staging::pieces(int64_t bytes, const Piece& piece) {
  if (const int64_t needed = std::min(bytes, most_staged); needed > size_) {
    pinned_ = PinnedMemory();
    size_ = 0;
    pinned_ = pinned_memory(*device_, needed);
    size_ = needed;
  }
  for (int64_t at = 0; at < bytes; at += size_) piece(at, std::min(size_, bytes - at));
}

void Staging::upload(Address to, const void* from, int64_t bytes) {
  pieces(bytes, [&](int64_t at, int64_t count) {
    std::memcpy(pinned_.get(), static_cast<const char*>(from) + at, static_cast<size_t>(count));
    device_->upload(to + static_cast<Address>(at), pinned_.get(), count, stream_);
    device_->sync(stream_);
  });
}

void Staging::download(void* to, Address from, int64_t bytes) {
  pieces(bytes, [&](int64_t at, int64_t count) {
    device_->download(pinned_.get(), from + static_cast<Address>(at), count, stream_);
    device_->sync(stream_);
    std::memcpy(static_cast<char*>(to) + at, pinned_.get(), static_cast<size_t>(count));
  });
}

void upload_and_wait(target::Device& device, Address to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  const OwnedStream stream = owned_stream(device);
  Staging(device, stream.get()).upload(to, from, bytes);
}

void download_and_wait(target::Device& device, void* to, Address from, int64_t bytes) {
  if (bytes == 0) return;
  const OwnedStream stream = owned_stream(device);
  Staging(device, stream.get()).download(to, from, bytes);
}

}  // namespace espalier::run

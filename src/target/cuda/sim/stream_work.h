#pragma once
// What a simulated stream does when its turn comes, seen by the thread sanitizer as done by someone of its own: only what events and waits
// of the host order is ordered. Its bookkeeping is the host's; nothing here is instrumented.
#include <cstddef>
#include <memory>
#include <string>

#include "target/cuda/sim/block.h"

namespace espalier::target::cuda::sim {

/// A place in time: whoever acquires it is after all that was released to it. Means nothing without the thread sanitizer.
class TimeTag {
 public:
  TimeTag();
  ~TimeTag();
  TimeTag(const TimeTag&) = delete;
  TimeTag& operator=(const TimeTag&) = delete;
  void acquire() const;
  void release() const;

 private:
  char* tag_;
};

/// Of the elements of a way that is made wrong: such a number is far from any result, in every dtype.
inline constexpr unsigned char wrong_byte = 0x7B;

/// Who a stream is. Used by one thread at a time.
class StreamWorker {
 public:
  StreamWorker();
  ~StreamWorker();
  StreamWorker(const StreamWorker&) = delete;
  StreamWorker& operator=(const StreamWorker&) = delete;

  /// The stream goes on after what was released to the tag.
  void acquire(const TimeTag& tag);
  /// What the stream has done so far is before whoever acquires the tag.
  void release(const TimeTag& tag);

  void copy(void* to, const void* from, size_t bytes);
  void fill(void* to, unsigned char byte, size_t bytes);
  /// What went wrong, or "". The `arguments` of the launch (`count` values of 8 bytes) are copied.
  std::string launch(Launch launch, const uint64_t* arguments, size_t count);
  /// work(argument), which throws nothing.
  void run(void (*work)(void*), void* argument);

 private:
  struct Stack;
  std::unique_ptr<Stack> stack_;
};

/// Bytes that no sanitizer takes for an access of the program's.
void set_bytes(void* to, unsigned char byte, size_t bytes);
bool all_bytes(const void* at, unsigned char byte, size_t bytes);
/// Forbid, or allow again, accesses to these bytes, as far as the address sanitizer looks.
void forbid(void* at, size_t bytes);
void allow(void* at, size_t bytes);

}  // namespace espalier::target::cuda::sim

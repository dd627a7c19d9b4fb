#pragma once
// One accelerator, as the executor sees it. Whatever is given to a stream runs there in order, some time after the call has returned;
// streams run beside each other, and only events order them. Thread-safe, but for a stream, which one thread at a time may use.
//
// Errors: DeviceError names the call, the device and what its driver said. One that says `lost` stays: nothing on that device works
// any more, and every later call throws it again.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "target/call.h"
#include "target/device_info.h"
#include "target/memory_account.h"

namespace espalier::target {

/// A place in the memory of a device; 0 is none.
using Address = uint64_t;
/// Numbers that the device has given out.
enum class Stream : int32_t {};
enum class Event : int32_t {};

class DeviceError : public UserError {
 public:
  DeviceError(ErrorFields fields, bool lost) : UserError(std::move(fields)), lost_(lost) {}
  bool lost() const { return lost_; }

 private:
  bool lost_;
};

/// The device, or what of the host it can copy from, has too little memory now.
class OutOfMemory : public DeviceError {
 public:
  explicit OutOfMemory(ErrorFields fields) : DeviceError(std::move(fields), false) {}
};

/// A library of the vendor's that plans for a device use where it is there.
struct DeviceLibrary {
  std::string name;     ///< "cublaslt"
  std::string version;  ///< "13.1.0"
  std::string missing;  ///< why it cannot be used, in one line; "" where it can
};

/// What a library says of one record.
struct LibraryAnswer {
  std::string refusal{};  ///< why it does not do it; "" where it does
  int64_t workspace = 0;  ///< bytes that it takes
  bool assumed = false;   ///< no device was asked: it takes at most so much
};

/// What it took to make a program ready.
struct LoadReport {
  int64_t compiled = 0, found = 0;  ///< kernels: compiled now, and those that the cache had
  int64_t prebuilt = 0;             ///< and those of folders of images
  double seconds = 0;               ///< of everything: kernels, modules, plans of libraries
  LoadReport& operator+=(const LoadReport& o) {
    compiled += o.compiled, found += o.found, prebuilt += o.prebuilt, seconds += o.seconds;
    return *this;
  }
};
/// "3 kernels compiled, 12 from the cache, 0.21 s"; and "5 prebuilt" where there are some.
std::string text(const LoadReport& report);

/// Which of its library's ways a record takes.
class Ways {
 public:
  virtual ~Ways() = default;
  /// The way's name, as Device::choices() gives it; "" for the library's first.
  virtual std::string_view find(const CallRecord::Work& work) const = 0;
};

/// The records of a program made ready for one device: modules loaded, plans of libraries built. Immutable; released before its device.
class Executable {
 public:
  virtual ~Executable() = default;
  virtual LoadReport report() const = 0;
};

/// What a stream was given between begin_capture() and end_capture(), to be given as one. Released before its device, and before the
/// executables it launches from.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
};

class Device {
 public:
  virtual ~Device() = default;

  /// What is known of it; what changes is asked anew.
  virtual DeviceInfo info() const = 0;
  /// Bytes free now, as the driver tells.
  virtual int64_t free_bytes() const = 0;
  /// Bytes of the device's memory that are not free any more since it was opened: what this process has taken, its context included where NVML
  /// tells, and what others have.
  virtual int64_t taken_bytes() const = 0;
  /// Kept by those who allocate through run/device_memory.h.
  MemoryAccount& account() const { return account_; }

  /// Those that its plans may use, loaded now if they were not.
  virtual std::vector<DeviceLibrary> libraries() = 0;
  /// What the library that does `work`, a GemmCall or a ConvCall, says of it; the record's workspace is the most that it may take. Slow where
  /// the library makes a plan, which load() then finds. DeviceError: from the device, or there is no such library.
  virtual LibraryAnswer ask(const CallRecord::Work& work) = 0;

  /// What a library of libraries() says of the device in text of its own; cudnn: what it plans for this device with where it is not. "" where it
  /// says nothing. DeviceError as ask().
  virtual std::string described_by(std::string_view library) = 0;

  /// The library's ways to do `work`, a GemmCall or a ConvCall, with at most the record's workspace: names, the best first by what the library
  /// guesses, at most so many. None is less precise than the record permits, or gives other bits from run to run.
  virtual std::vector<std::string> choices(const CallRecord::Work& work, int most) = 0;
  /// What ask() and load() take in place of the library's first, from here on; null: nothing. A record whose choice the library does not offer
  /// is refused by both.
  virtual void use(std::shared_ptr<const Ways> ways) = 0;
  /// What it was last given.
  virtual std::shared_ptr<const Ways> used() const = 0;

  /// At a multiple of 256 bytes. DeviceError: out of memory, with what was asked and what was free.
  virtual Address allocate(int64_t bytes) = 0;
  virtual void release(Address address) noexcept = 0;
  /// Memory of the host that the device can copy from and to while the host goes on.
  virtual void* allocate_pinned(int64_t bytes) = 0;
  virtual void release_pinned(void* data) noexcept = 0;

  virtual Stream make_stream() = 0;
  /// A stream of the caller's (a CUstream of this device's primary context), which stays the caller's; null is the default stream, which
  /// waits for the caller's blocking streams and they for it. DeviceError: of another context, or the default stream of each thread.
  virtual Stream adopt_stream(void* foreign) = 0;
  /// A stream of this device as others call it (a CUstream).
  virtual void* foreign(Stream stream) const = 0;
  virtual void release(Stream stream) noexcept = 0;
  /// `timing`: elapsed_ms() may be asked of it.
  virtual Event make_event(bool timing) = 0;
  virtual void release(Event event) noexcept = 0;

  /// The event happens when all that is in the stream now is done; recorded anew, it means the last time.
  virtual void record(Event event, Stream stream) = 0;
  /// What comes after in the stream waits for the event as it was last recorded.
  virtual void wait(Stream stream, Event event) = 0;
  virtual void sync(Stream stream) = 0;
  virtual void sync(Event event) = 0;
  virtual bool finished(Event event) = 0;
  virtual double elapsed_ms(Event from, Event to) = 0;

  /// `from` of the host is read, and `to` written, when the stream comes to it: it must live, pinned, until then.
  virtual void upload(Address to, const void* from, int64_t bytes, Stream stream) = 0;
  virtual void download(void* to, Address from, int64_t bytes, Stream stream) = 0;

  /// Everything slow happens here: kernels are compiled, in parallel, or found in the cache, and loaded. DeviceError with the
  /// compiler's words.
  virtual std::unique_ptr<Executable> load(std::span<const KernelSource> sources,
                                           std::span<const CallRecord> calls) = 0;
  /// Put call number `call` of `executable` into the stream, with the addresses of its operands.
  virtual void launch(const Executable& executable, size_t call, std::span<const Address> operands,
                      Stream stream) = 0;

  /// What this thread puts into the stream from here on is kept instead of done: launches and copies, with the very addresses. Meanwhile
  /// it must not wait, allocate, release, load or use the stream's events: that is a DeviceError, then or at the end.
  virtual void begin_capture(Stream stream) = 0;
  /// Why this stream cannot be captured, in a few words; "" where it can.
  virtual std::string why_no_capture(Stream stream) const = 0;
  /// The stream works as before, also where this throws.
  virtual std::unique_ptr<DeviceGraph> end_capture(Stream stream) = 0;
  virtual void launch(const DeviceGraph& graph, Stream stream) = 0;

  /// Does a tool (a profiler of the vendor's) want to hear what this process does?
  virtual bool is_watched() const = 0;
  /// It hears that this thread begins with `name`, or ends what it began last. Only where one is there.
  virtual void begin_range(const char* name) = 0;
  virtual void end_range() noexcept = 0;

  /// Until leave(), calls of this thread have nothing to make ready for the device and nothing to put back. Any call leaves what the caller's
  /// thread has of the vendor's as it was; between these two it is put back by leave(). What leave() takes.
  struct Entered {
    bool did = false;
    const void* around = nullptr;
  };
  [[nodiscard]] virtual Entered enter() = 0;
  virtual void leave(const Entered& entered) noexcept = 0;

 private:
  mutable MemoryAccount account_;
};

/// Many calls of one thread while it lives: enter() and leave(). Ends in the reverse order of others.
class OnDevice {
 public:
  explicit OnDevice(Device& device) : device_(device), entered_(device.enter()) {}
  ~OnDevice() { device_.leave(entered_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  Device& device_;
  Device::Entered entered_;
};

/// What this thread does while it lives, for a tool that watches; `name()` is asked only where one does.
class WatchedRange {
 public:
  template <class Name>
  WatchedRange(Device& device, const Name& name) : device_(device.is_watched() ? &device : nullptr) {
    if (device_) [[unlikely]]
      device_->begin_range(std::string(name()).c_str());
  }
  ~WatchedRange() {
    if (device_) device_->end_range();
  }
  WatchedRange(const WatchedRange&) = delete;
  WatchedRange& operator=(const WatchedRange&) = delete;

 private:
  Device* device_;
};

/// What `work` puts into the stream, kept as one instead of done. The stream works as before, also where `work` throws.
template <class Work>
std::unique_ptr<DeviceGraph> capture(Device& device, Stream stream, const Work& work) {
  device.begin_capture(stream);
  try {
    work();
  } catch (...) {
    try {
      device.end_capture(stream);
    } catch (const DeviceError&) {  // says the same
    }
    throw;
  }
  return device.end_capture(stream);
}

}  // namespace espalier::target

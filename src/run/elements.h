#pragma once
// The elements of a cell that programs share (a parameter's): on the host, and, once a program of a device has used them, there too, one
// copy for each device. The newest counts: it is copied when another place is to read it, and not before. Safe from any thread, but for
// reading while a program writes.
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ir/array.h"
#include "run/open_device.h"

namespace espalier::run {

class Elements {
 public:
  /// A copy of `initial`.
  explicit Elements(const ir::Array& initial) : host_(initial.copied()) {}
  ~Elements();
  Elements(const Elements&) = delete;
  Elements& operator=(const Elements&) = delete;

  /// Type and place on the host; its elements may be old.
  const ir::Array& host() const { return host_; }
  /// The newest elements, fetched where a device has them. DeviceError: from there. UserError, also of write() and bring_to(): they are lost.
  const ir::Array& read();
  /// The same, to be written to before the next run: devices get them when they next need them.
  void* write();
  /// The same where every element is written, whatever they were.
  void* replace();
  /// A program on the host has written them.
  void written_on_host();

  /// Where they lie on that device, for as long as this object lives; bring_to() says what is there. DeviceError: no memory for them.
  target::Address on(const std::shared_ptr<OpenDevice>& device);
  /// Have the newest elements on a device that has a copy.
  void bring_to(const OpenDevice& device);
  /// A run on a device that has a copy will have written it when it is over.
  void written_on(const OpenDevice& device);
  /// A run there has failed and may have written some of them: where no other place has them as they were before it, they are lost until
  /// they are replaced. Are they? `name`: what people call them.
  bool torn_on(const OpenDevice& device, const std::string& name);

  /// Bytes that on() would still allocate.
  int64_t missing_on(const OpenDevice& device) const;
  /// Does any cell of the process have a copy on a device? Without one, programs of the host need not look.
  static bool any_on_devices() { return copies_in_all_.load(std::memory_order_relaxed) > 0; }

 private:
  struct Copy {
    std::shared_ptr<OpenDevice> place;
    DeviceMemory memory;
    uint64_t version;
  };
  Copy& copy_on(const OpenDevice& device);
  void fetch();
  void check_there() const;

  static std::atomic<int64_t> copies_in_all_;
  ir::Array host_;
  mutable std::mutex one_;
  uint64_t newest_ = 1, host_version_ = 1;
  std::vector<Copy> copies_;
  std::string lost_;  ///< what people call them; "": they are not
};

}  // namespace espalier::run

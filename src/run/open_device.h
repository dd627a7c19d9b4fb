#pragma once
// An accelerator that this process uses, with what everything on it shares: one stream to compute in, so that a program sees what the one
// before it wrote, and memory to copy through. Safe from any thread.
#include <memory>
#include <mutex>
#include <string>

#include "run/scratch.h"
#include "run/staging.h"
#include "target/interface.h"

namespace espalier::run {

class OpenDevice {
 public:
  /// `name` is what people call it: "cuda:0". UserError: too old to plan for.
  OpenDevice(std::string name, std::shared_ptr<target::Device> device);

  const std::string& name() const { return name_; }
  target::Device& device() const { return *device_; }
  const std::shared_ptr<target::Device>& shared() const { return device_; }
  /// Who plans for this very device.
  const target::Target& target() const { return *target_; }
  target::Stream stream() const { return stream_.get(); }

  /// While it lives, no one else puts work into the streams of those who share the device.
  class Turn {
   public:
    explicit Turn(OpenDevice& open, target::Stream stream);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    OpenDevice& open_;
    std::lock_guard<std::mutex> lock_;
  };
  /// What is put into `stream`, this device's or a caller's, comes after all that had a turn before.
  Turn turn(target::Stream stream) { return Turn(*this, stream); }

  /// One at a time begins a run here and says of the cells what has become of them. Taken before a turn, and before any lock of a cell's.
  std::mutex& beginning() { return beginning_; }

  /// Where programs that have turns compute.
  const std::shared_ptr<Scratch>& scratch() const { return scratch_; }

  /// Until all that had a turn is done.
  void finish();
  /// Copy to or from the device, after all that had a turn before, and wait.
  void upload(target::Address to, const void* from, int64_t bytes);
  void download(void* to, target::Address from, int64_t bytes);

 private:
  void wait_for_last();

  std::string name_;
  std::shared_ptr<target::Device> device_;
  std::shared_ptr<const target::Target> target_;
  std::shared_ptr<Scratch> scratch_;
  OwnedStream stream_;
  OwnedEvent left_;  ///< by the last turn in another stream than stream_
  target::Stream last_;
  Staging staging_;
  std::mutex one_, beginning_;
};

}  // namespace espalier::run

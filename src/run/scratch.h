#pragma once
// Memory of a device in which programs compute that run one after the other: one piece, as large as the largest of them asks for.
#include <memory>
#include <mutex>
#include <set>

#include "run/device_memory.h"

namespace espalier::run {

/// Safe from any thread; what at() says is.
class Scratch {
 public:
  explicit Scratch(target::Device& device) : device_(device) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /// How much more memory the device must have for a program of `bytes` beside those that have a share.
  int64_t growth(int64_t bytes) const;

  /// Give back what is more than the largest share asks for; those who are left get theirs anew when they next ask. For the one who has the device's
  /// turn: all that was put into `stream` is waited for.
  void shrink(target::Stream stream);

  /// Room for one program, for as long as it lives. With the last share the memory is given back.
  class Share {
   public:
    Share(std::shared_ptr<Scratch> scratch, int64_t bytes);
    ~Share();
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

    /// Where the memory lies, until someone's share is larger; 0 for a share of no bytes. For the one who has the device's turn: where it has to
    /// be larger, all that was put into `stream` is waited for, and what stood there is lost. OutOfMemory: the others' shares then have memory
    /// again when they ask, if there is enough for them.
    target::Address at(target::Stream stream);

   private:
    std::shared_ptr<Scratch> scratch_;
    int64_t bytes_;
  };

 private:
  target::Device& device_;
  mutable std::mutex one_;
  std::multiset<int64_t> wanted_;
  DeviceMemory memory_;
  int64_t bytes_ = 0;
};

}  // namespace espalier::run

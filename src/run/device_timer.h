#pragma once
// When the pieces of a run on a device began and ended there, by events of the device in its streams.
#include <span>
#include <vector>

#include "run/device_memory.h"

namespace espalier::run {

/// The streams of an executor, which go beside each other.
enum class Lane : uint8_t { copies_in, computing, copies_out };
inline constexpr int lanes = 3;

/// One piece, in milliseconds from the first event on.
struct TimedPiece {
  Lane lane;
  int64_t ticket = 0;  ///< of its run
  int64_t call = -1;   ///< the record that was launched; -1: copies, or the computing of a run as a whole
  double begin_ms = 0, end_ms = 0;
};

/// Time of copies, and of it what went on beside the computing of other runs.
struct CopyOverlap {
  double copied_ms = 0, hidden_ms = 0;
};
CopyOverlap copies_beside_computing(std::span<const TimedPiece> pieces);

/// An executor that is given one (DeviceExecutor::set_timer) marks what it puts into its streams. An event is done when the device comes
/// to it: a launch that the device waited for is timed with that wait. One thread at a time.
class DeviceTimer {
 public:
  enum class What : uint8_t {
    records,  ///< every record, launched one by one: no graphs
    runs,     ///< copies, and the computing of a run as a whole
  };
  DeviceTimer(target::Device& device, What what) : device_(device), what_(what) {}

  bool times_records() const { return what_ == What::records; }
  /// Time what `work` puts into the stream.
  template <class Work>
  void time(Lane lane, int64_t ticket, int64_t call, target::Stream stream, const Work& work) {
    const size_t first = 2 * pieces_.size();
    mark(first, stream);
    work();
    mark(first + 1, stream);
    pieces_.push_back({.lane = lane, .ticket = ticket, .call = call});
  }
  /// What was timed since the last take(), once all of it is done: in the order in which it was given to the device.
  std::vector<TimedPiece> take();

 private:
  void mark(size_t event, target::Stream stream);

  target::Device& device_;
  What what_;
  std::vector<OwnedEvent> events_;  ///< a pair for each piece, used again after take()
  std::vector<TimedPiece> pieces_;
};

}  // namespace espalier::run

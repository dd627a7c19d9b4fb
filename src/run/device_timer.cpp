#include "run/device_timer.h"

#include <algorithm>
#include <utility>

namespace espalier::run {

void DeviceTimer::mark(size_t event, target::Stream stream) {
  while (events_.size() <= event) events_.push_back(owned_event(device_, true));
  device_.record(events_[event].get(), stream);
}

std::vector<TimedPiece> DeviceTimer::take() {
  for (size_t i = 0; i < pieces_.size(); ++i) {
    pieces_[i].begin_ms = device_.elapsed_ms(events_[0].get(), events_[2 * i].get());
    pieces_[i].end_ms = device_.elapsed_ms(events_[0].get(), events_[2 * i + 1].get());
  }
  return std::exchange(pieces_, {});
}

CopyOverlap copies_beside_computing(std::span<const TimedPiece> pieces) {
  CopyOverlap out;
  for (const TimedPiece& copy : pieces) {
    if (copy.lane == Lane::computing) continue;
    out.copied_ms += copy.end_ms - copy.begin_ms;
    for (const TimedPiece& run : pieces)  // which do not overlap each other: they share a stream
      if (run.lane == Lane::computing && run.ticket != copy.ticket)
        out.hidden_ms +=
            std::max(0.0, std::min(copy.end_ms, run.end_ms) - std::max(copy.begin_ms, run.begin_ms));
  }
  return out;
}

}  // namespace espalier::run

#pragma once
// Results of a run that others read where they lie: they stay as they are until the last reader has given them back, and runs that come
// after that wait for what its stream was to read. Safe from any thread.
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "run/device_memory.h"

namespace espalier::run {

/// Who reads the results that lie in one place.
class Readers {
 public:
  bool any() const;
  /// What those who have gone had put into their streams, each once.
  std::vector<OwnedEvent> take_left();

 private:
  friend class HeldResults;
  mutable std::mutex one_;
  int64_t count_ = 0;
  std::vector<OwnedEvent> left_;
};

/// One reader, as long as it lives.
class HeldResults {
 public:
  /// Of results in `memory`, which are there once `computed` happens: what is put into `reader` from now on comes after that. Without a
  /// stream this waits, and the reader must be done at the end.
  HeldResults(std::shared_ptr<target::Device> device, std::shared_ptr<const void> memory,
              std::shared_ptr<Readers> readers, target::Event computed, OwnedStream reader);
  /// Marks what the reader's stream was given.
  ~HeldResults();
  HeldResults(const HeldResults&) = delete;
  HeldResults& operator=(const HeldResults&) = delete;

 private:
  void wait_for_reader() const;

  std::shared_ptr<target::Device> device_;  ///< outlives the rest
  std::shared_ptr<const void> memory_;
  std::shared_ptr<Readers> readers_;
  OwnedStream reader_;
  OwnedEvent left_;
};

}  // namespace espalier::run

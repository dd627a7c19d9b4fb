#pragma once
// Which of a library's ways to do a record is the fastest on a device: each is run, compared with the others, and timed by events.
#include "run/device_program.h"
#include "target/choices.h"

namespace espalier::run {

struct TuneOptions {
  int top = 8;    ///< ways of each record, the best first by the library's guess
  int runs = 10;  ///< of which the median is taken
};

/// One way, as it came out.
struct TunedWay {
  std::string name;
  double us = 0;        ///< 0: it was not timed
  std::string dropped;  ///< why it may not be taken: it fails, or its values are others; "" where it may
};

struct TunedRecord {
  std::string record;  ///< choice_key()
  std::string library;
  int times = 1;               ///< that the program has it
  std::vector<TunedWay> ways;  ///< the library's first first
  int chosen = -1;             ///< none where every way was dropped
};

struct TuneReport {
  target::Choices choices;
  std::vector<TunedRecord> records;
  /// Microseconds of one run's products and convolutions by the libraries' first ways, and by those chosen.
  double first_us = 0, chosen_us = 0;
};

/// Tune every different product and convolution of `program`, which was compiled for `device`, and of the bodies in it, in memory of its own.
/// A way may take choice_workspace bytes. What the device uses before, it uses after. DeviceError: the device is lost, or has no room.
TuneReport tune(const Program& program, target::Device& device, const TuneOptions& options = {});

/// A table of every record's ways.
std::string text(const TuneReport& report);

/// Have `device` use these choices from here on. Where they were made for another device or another version of a library it does not:
/// the reason, "" where it does.
std::string use_choices(target::Device& device, target::Choices choices);

}  // namespace espalier::run

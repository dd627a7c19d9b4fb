#pragma once
// What a run on one's own GPU writes down: one flushed line for each check, the most valuable first, so that a run that is cut off has
// said what it saw.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "run/device_executor.h"
#include "target/interface.h"

namespace espalier::gpu_check {

/// The lines of a part, on the standard output and in a file.
class Log {
 public:
  /// Checks whose names do not contain `only` are left out. UserError: the folder cannot be written to.
  Log(const std::filesystem::path& folder, const std::string& file, double budget_seconds, std::string only);

  /// Make one check: what it returns is its figure, what it throws its failure. Skipped once the budget is used up.
  void check(const std::string& name, const std::function<std::string()>& work);
  int failed() const { return failed_; }
  /// Passed, failed and skipped, in words.
  std::string summary() const;

 private:
  void line(const char* outcome, const std::string& name, const std::string& text);
  double seconds() const;

  std::ofstream file_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  double budget_;
  std::string only_;
  int passed_ = 0, failed_ = 0, skipped_ = 0;
};

/// Where the checks run and how large they are.
struct Place {
  std::shared_ptr<target::Device> device;
  std::shared_ptr<const target::Target> target;  ///< plans for it
  std::filesystem::path folder;                  ///< of the results
  bool small = false;                            ///< sizes that a simulator can do
};

/// Facts, ceilings, and every op against the reference.
void check_kernels(const Place& place, Log& log);
/// Whole networks against the CPU, and what holds for every run: graphs change no bit, memory is the plan's.
void check_models(const Place& place, Log& log);
/// How fast steps of whole networks are.
void check_speed(const Place& place, Log& log);

/// A program on the device of `place`. `exact` and `precision` as in run::CompileOptions.
std::shared_ptr<const run::DeviceProgram> loaded(const Place& place, const ir::Graph& graph,
                                                 bool exact = false,
                                                 pass::Precision precision = pass::Precision::f32);
/// Throws with `text` unless `holds`.
void demand(bool holds, const std::string& text);
/// The whole file, written beside it first.
void write_file(const std::filesystem::path& path, const std::string& text);
/// Milliseconds of a run, the median of `runs` (at least 3) after three that are not counted: `run` begins and ends one.
double median_ms(int runs, const std::function<void()>& run);

}  // namespace espalier::gpu_check

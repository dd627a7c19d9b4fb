#pragma once
// What a run on one's own GPU writes down: one flushed line for each check, the most valuable first, so that a run that is cut off has
// said what it saw.
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gpu_check/logs.h"
#include "run/device_executor.h"
#include "target/interface.h"

namespace espalier::gpu_check {

/// Where the checks run and how large they are.
struct Place {
  std::shared_ptr<target::Device> device;
  std::shared_ptr<const target::Target> target;  ///< plans for it
  std::filesystem::path folder;                  ///< of the results
  bool small = false;                            ///< sizes that a simulator can do
  CommittedLogs* logs = nullptr;                 ///< what is compared with, or written anew
  bool partial = false;  ///< not all checks: what an earlier run left in the folder stays
};

/// A program that a check loads.
struct Wanted {
  ir::Graph graph;
  bool exact = false;
  pass::Precision precision = pass::Precision::f32;
  bool tf32 = false;  ///< may it round to TF32?
};
std::shared_ptr<const run::Program> planned(const Wanted& wanted, const target::Target& target);

using Loaded = std::vector<std::shared_ptr<const run::DeviceProgram>>;

struct Check {
  std::string name;
  /// What it loads, known without a device, so that kernels can be compiled beforehand; empty: nothing that has kernels.
  std::function<std::vector<Wanted>()> programs;
  /// Its figure; what it throws is its failure.
  std::function<std::string(const Place&, const Loaded&)> run;
};

/// Facts, ceilings, and every op against the reference. `small`: of sizes that a simulator can do.
std::vector<Check> kernel_checks(bool small);
/// Whole networks against the CPU, and what holds for every run: graphs change no bit, memory is the plan's.
std::vector<Check> model_checks(bool small);
/// How fast steps of whole networks are.
std::vector<Check> speed_checks(bool small);

/// Of part 1: facts, what libraries do, ceilings.
void add_facts(std::vector<Check>& all);
/// Values of what cuBLASLt does.
void add_products(std::vector<Check>& all);
/// Streams, events, graphs and memory.
void add_device(std::vector<Check>& all);
/// Every op and every function.
void add_ops(std::vector<Check>& all, bool small);

/// GB/s that a copy on the device reads and writes, and TFLOP/s of a large product. Lacks: there is no cuBLASLt.
double copy_gbps(const Place& place);
double product_tflops(const Place& place, ir::Dtype dtype, bool tf32);

/// What a part of the checks is made with.
struct LogOptions {
  std::filesystem::path folder;
  std::string file;
  double budget = 0;   ///< seconds
  std::string only{};  ///< checks whose names do not contain it are left out
  size_t from =
      0;  ///< number of the first check, from 1, of those that `only` leaves; 0: all, into a new file
  std::string before{};  ///< state() of the process that this one goes on for
  /// Goes on in a new process from that check, with that state(); returns only where it cannot. May be empty.
  std::function<void(size_t from, const std::string& before)> go_on{};
  bool partial() const { return from > 0 || !only.empty(); }
};

/// The lines of a part, on the standard output and in a file, which a partial run adds to.
class Log {
 public:
  /// UserError: the folder cannot be written to, `before` is none.
  explicit Log(LogOptions options);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  /// Make the checks. When the budget is used up the rest is skipped, and the process ends where one still runs: what hangs cannot keep the
  /// machine. An error that lasts ends the device for its process, so that the next check begins another.
  void run(const Place& place, const std::vector<Check>& checks);
  /// Skip them all.
  void leave_out(const std::vector<Check>& checks, const std::string& why);
  int failed() const { return failed_; }
  /// Passed, failed and skipped, in words.
  std::string summary() const;

 private:
  void choose(const std::vector<Check>& checks);
  void line(const char* outcome, size_t check, const std::string& text);
  /// Did an error that lasts end it?
  bool make(const Place& place, size_t check);
  void skip_from(size_t first, const std::string& why);
  void watch();
  double seconds() const;
  std::string used_up() const;
  /// Counts and beginning, for the process that goes on.
  std::string state() const;

  std::ofstream file_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  LogOptions options_;
  int passed_ = 0, failed_ = 0, skipped_ = 0;
  std::vector<Check> checks_;
  size_t now_ = 0;
  bool busy_ = false, over_ = false;
  std::mutex one_;
  std::condition_variable ended_;
  std::thread watcher_;
};

/// What a check throws where this machine lacks what it is about: it is skipped.
class Lacks : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
/// Throws with `text` unless `holds`.
void demand(bool holds, const std::string& text);
/// What is wrong among many results: all are compared before their check fails.
class Wrong {
 public:
  void add(const std::string& text);
  /// Throws with `others` and a list of the first 40 where there are any.
  void demand_none(const std::string& others) const;
  const std::string& list() const { return list_; }

 private:
  size_t count_ = 0;
  std::string list_;
};
/// Milliseconds of a run, the median of `runs` (at least 3) after three that are not counted: `run` begins and ends one.
double median_ms(int runs, const std::function<void()>& run);
/// One run over poisoned memory: the outputs.
std::vector<ir::Array> run_once(run::DeviceExecutor& e, const std::vector<ir::Array>& inputs);

}  // namespace espalier::gpu_check

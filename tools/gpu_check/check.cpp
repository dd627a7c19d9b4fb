#include "gpu_check/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace espalier::gpu_check {

std::shared_ptr<const run::Program> planned(const Wanted& wanted, const target::Target& target) {
  run::CompileOptions options;
  options.target = &target;
  options.exact = wanted.exact;
  options.precision = wanted.precision;
  options.allow_tf32 = wanted.tf32;
  return run::Program::compile(wanted.graph, options);
}

Log::Log(LogOptions options) : options_(std::move(options)) {
  if (!options_.before.empty()) {
    long long begin = 0;
    if (std::sscanf(options_.before.c_str(), "%d,%d,%d,%lld", &passed_, &failed_, &skipped_, &begin) != 4)
      throw UserError({"--before " + options_.before, "is no state of a run", "", ""});
    begin_ = std::chrono::steady_clock::time_point(std::chrono::nanoseconds(begin));
  }
  std::error_code error;
  std::filesystem::create_directories(options_.folder, error);
  file_.open(options_.folder / options_.file, options_.partial() ? std::ios::app : std::ios::trunc);
  if (!file_)
    throw UserError(
        {"--out " + options_.folder.string(), "cannot be written to", options_.file, "a folder of yours"});
  watcher_ = std::thread([this] { watch(); });
}

Log::~Log() {
  {
    const std::lock_guard lock(one_);
    over_ = true;
  }
  ended_.notify_all();
  watcher_.join();
}

std::string Log::state() const {
  const auto begin = std::chrono::duration_cast<std::chrono::nanoseconds>(begin_.time_since_epoch());
  return fmt::format("{},{},{},{}", passed_, failed_, skipped_, begin.count());
}

double Log::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

std::string Log::used_up() const { return fmt::format("the budget of {:.0f} s is used up", options_.budget); }

void Log::line(const char* outcome, size_t check, const std::string& text) {
  const std::string all = fmt::format("[{}] {:3} {:6.1f} s  {}{}{}\n", outcome, check + 1, seconds(),
                                      checks_[check].name, text.empty() ? "" : ": ", text);
  fmt::print("{}", all);
  std::fflush(stdout);
  file_ << all << std::flush;
}

void Log::skip_from(size_t first, const std::string& why) {
  for (size_t i = first; i < checks_.size(); ++i) {
    ++skipped_;
    line("SKIP", i, why);
  }
}

/// Ends the process where a check runs beyond the budget.
void Log::watch() {
  std::unique_lock lock(one_);
  const auto budget = std::chrono::duration<double>(std::min(options_.budget, 1e6));
  const auto end = begin_ + std::chrono::duration_cast<std::chrono::steady_clock::duration>(budget);
  if (ended_.wait_until(lock, end, [&] { return over_; }) || !busy_) return;
  ++skipped_;
  line("SKIP", now_, "it was cut off: " + used_up());
  skip_from(now_ + 1, used_up());
  fmt::print("{}\n", summary());
  std::fflush(stdout);
  std::_Exit(failed_ > 0 ? 1 : 0);
}

bool Log::make(const Place& place, size_t number) {
  const Check& check = checks_[number];
  std::string outcome = "PASS", text;
  bool lost = false;
  try {
    Loaded programs;
    if (check.programs)
      for (const Wanted& wanted : check.programs())
        programs.push_back(
            std::make_shared<run::DeviceProgram>(planned(wanted, *place.target), place.device));
    text = check.run(place, programs);
  } catch (const Lacks& e) {
    outcome = "SKIP", text = e.what();
  } catch (const target::DeviceError& e) {
    outcome = "FAIL", text = e.what(), lost = e.lost();
  } catch (const std::exception& e) {
    outcome = "FAIL", text = e.what();
  }
  const std::lock_guard lock(one_);
  busy_ = false;
  ++(outcome == "PASS" ? passed_ : outcome == "SKIP" ? skipped_ : failed_);
  line(outcome.c_str(), number, text);
  return lost;
}

void Log::choose(const std::vector<Check>& checks) {
  for (const Check& c : checks)
    if (c.name.find(options_.only) != std::string::npos) checks_.push_back(c);
  if (checks_.empty()) fmt::print("[SKIP] no check's name contains \"{}\"\n", options_.only);
  else if (options_.from > checks_.size())
    fmt::print("[SKIP] there is no check {}: they are {}\n", options_.from, checks_.size());
}

void Log::run(const Place& place, const std::vector<Check>& checks) {
  choose(checks);
  for (size_t i = std::max<size_t>(options_.from, 1) - 1; i < checks_.size(); ++i) {
    {
      const std::lock_guard lock(one_);
      if (seconds() > options_.budget) return skip_from(i, used_up());
      now_ = i;
      busy_ = true;
    }
    if (make(place, i) && i + 1 < checks_.size() && options_.go_on) options_.go_on(i + 2, state());
  }
}

void Log::leave_out(const std::vector<Check>& checks, const std::string& why) {
  choose(checks);
  skip_from(std::max<size_t>(options_.from, 1) - 1, why);
}

std::string Log::summary() const {
  return fmt::format("{} passed, {} failed, {} skipped in {:.0f} s", passed_, failed_, skipped_, seconds());
}

void Wrong::add(const std::string& text) {
  if (++count_ <= 40) list_ += "\n    " + text;
}

void Wrong::demand_none(const std::string& others) const {
  if (count_ == 0) return;
  throw std::runtime_error(fmt::format("{} wrong, {}:{}{}", count_, others, list_,
                                       count_ > 40 ? fmt::format("\n    and {} more", count_ - 40) : ""));
}

void demand(bool holds, const std::string& text) {
  if (!holds) throw std::runtime_error(text);
}

double median_ms(int runs, const std::function<void()>& run) {
  for (int i = 0; i < 3; ++i) run();
  std::vector<double> times(static_cast<size_t>(std::max(runs, 3)));
  for (double& t : times) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    t = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

std::vector<ir::Array> run_once(run::DeviceExecutor& e, const std::vector<ir::Array>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].bytes() > 0)
      std::memcpy(e.input(i), inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
  e.poison();
  const run::Ticket ticket = e.run();
  std::vector<ir::Array> all;
  for (size_t o = 0; o < e.program().outputs().size(); ++o) {
    const run::Port& port = e.program().outputs()[o];
    ir::Array a(port.type.dtype, ir::static_dims(port.type.dims));
    if (a.bytes() > 0) std::memcpy(a.write(), e.output(ticket, o), static_cast<size_t>(a.bytes()));
    all.push_back(std::move(a));
  }
  return all;
}

}  // namespace espalier::gpu_check

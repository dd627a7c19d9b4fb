#include "gpu_check/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace espalier::gpu_check {

std::shared_ptr<const run::Program> planned(const Wanted& wanted, const target::Target& target) {
  run::CompileOptions options;
  options.target = &target;
  options.exact = wanted.exact;
  options.precision = wanted.precision;
  return run::Program::compile(wanted.graph, options);
}

Log::Log(const std::filesystem::path& folder, const std::string& file, double budget_seconds,
         std::string only)
    : budget_(budget_seconds), only_(std::move(only)) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  file_.open(folder / file);
  if (!file_)
    throw UserError({"--out " + folder.string(), "cannot be written to", file, "a folder of yours"});
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

double Log::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

std::string Log::used_up() const { return fmt::format("the budget of {:.0f} s is used up", budget_); }

void Log::line(const char* outcome, const std::string& name, const std::string& text) {
  const std::string all =
      fmt::format("[{}] {:6.1f} s  {}{}{}\n", outcome, seconds(), name, text.empty() ? "" : ": ", text);
  fmt::print("{}", all);
  std::fflush(stdout);
  file_ << all << std::flush;
}

void Log::skip_from(size_t first) {
  for (size_t i = first; i < names_.size(); ++i) {
    ++skipped_;
    line("SKIP", names_[i], used_up());
  }
}

/// Ends the process where a check runs beyond the budget.
void Log::watch() {
  std::unique_lock lock(one_);
  const auto budget = std::chrono::duration<double>(std::min(budget_, 1e6));
  const auto end = begin_ + std::chrono::duration_cast<std::chrono::steady_clock::duration>(budget);
  if (ended_.wait_until(lock, end, [&] { return over_; }) || !busy_) return;
  ++skipped_;
  line("SKIP", names_[now_], "it was cut off: " + used_up());
  skip_from(now_ + 1);
  fmt::print("{}\n", summary());
  std::fflush(stdout);
  std::_Exit(failed_ > 0 ? 1 : 0);
}

void Log::make(const Place& place, const Check& check) {
  std::string outcome = "PASS", text;
  try {
    Loaded programs;
    if (check.programs)
      for (const Wanted& wanted : check.programs())
        programs.push_back(
            std::make_shared<run::DeviceProgram>(planned(wanted, *place.target), place.device));
    text = check.run(place, programs);
  } catch (const Lacks& e) {
    outcome = "SKIP", text = e.what();
  } catch (const std::exception& e) {
    outcome = "FAIL", text = e.what();
  }
  const std::lock_guard lock(one_);
  busy_ = false;
  ++(outcome == "PASS" ? passed_ : outcome == "SKIP" ? skipped_ : failed_);
  line(outcome.c_str(), check.name, text);
}

void Log::run(const Place& place, const std::vector<Check>& checks) {
  std::vector<const Check*> wanted;
  for (const Check& c : checks)
    if (c.name.find(only_) != std::string::npos) wanted.push_back(&c), names_.push_back(c.name);
  for (size_t i = 0; i < wanted.size(); ++i) {
    {
      const std::lock_guard lock(one_);
      if (seconds() > budget_) return skip_from(i);
      now_ = i;
      busy_ = true;
    }
    make(place, *wanted[i]);
  }
}

std::string Log::summary() const {
  return fmt::format("{} passed, {} failed, {} skipped in {:.0f} s", passed_, failed_, skipped_, seconds());
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

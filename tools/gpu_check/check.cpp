#include "gpu_check/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

namespace espalier::gpu_check {

Log::Log(const std::filesystem::path& folder, const std::string& file, double budget_seconds,
         std::string only)
    : budget_(budget_seconds), only_(std::move(only)) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  file_.open(folder / file);
  if (!file_)
    throw UserError({"--out " + folder.string(), "cannot be written to", file, "a folder of yours"});
}

double Log::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

void Log::line(const char* outcome, const std::string& name, const std::string& text) {
  const std::string all =
      fmt::format("[{}] {:6.1f} s  {}{}{}\n", outcome, seconds(), name, text.empty() ? "" : ": ", text);
  fmt::print("{}", all);
  std::fflush(stdout);
  file_ << all << std::flush;
}

void Log::check(const std::string& name, const std::function<std::string()>& work) {
  if (name.find(only_) == std::string::npos) return;
  if (seconds() > budget_) {
    ++skipped_;
    line("SKIP", name, fmt::format("the budget of {:.0f} s is used up", budget_));
    return;
  }
  try {
    const std::string figure = work();
    ++passed_;
    line("PASS", name, figure);
  } catch (const std::exception& e) {
    ++failed_;
    line("FAIL", name, e.what());
  }
}

std::string Log::summary() const {
  return fmt::format("{} passed, {} failed, {} skipped in {:.0f} s", passed_, failed_, skipped_, seconds());
}

std::shared_ptr<const run::DeviceProgram> loaded(const Place& place, const ir::Graph& graph, bool exact,
                                                 pass::Precision precision) {
  run::CompileOptions options;
  options.target = place.target.get();
  options.exact = exact;
  options.precision = precision;
  return std::make_shared<run::DeviceProgram>(run::Program::compile(graph, options), place.device);
}

void demand(bool holds, const std::string& text) {
  if (!holds) throw std::runtime_error(text);
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path beside = path.string() + ".new";
  {
    std::ofstream out(beside);
    out << text;
    demand(static_cast<bool>(out.flush()), beside.string() + " cannot be written");
  }
  std::filesystem::rename(beside, path);
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

}  // namespace espalier::gpu_check

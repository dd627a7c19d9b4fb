#include "run/profiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace espalier::run {

namespace {

double median(std::vector<int64_t>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return static_cast<double>(*middle);
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') (out += '\\') += c;
    else if (static_cast<unsigned char>(c) < 0x20) out += fmt::format("\\u{:04x}", static_cast<int>(c));
    else out += c;
  }
  return out + '"';
}

std::string name_of(const Step& s) { return s.label.empty() ? s.op : s.op + " " + s.label; }

}  // namespace

double limit_ns(const Step& step, const Ceilings& c) {
  const double by_bytes = static_cast<double>(step.cost.bytes) / c.read_bytes;
  const double by_flops =
      step.cost.flops / c.matrix_flops(step.cost.matrix ? step.cost.dtype : ir::Dtype::f32);
  return 1e9 * std::max(by_bytes, by_flops);
}

double matrix_limit_ns(const Program& program, const Ceilings& c) {
  double ns = 0;
  for (const Step& s : program.steps())
    if (s.cost.matrix) ns += 1e9 * s.cost.flops / c.matrix_flops(s.cost.dtype);
  return ns;
}

Profile profile(Executor& executor, int runs, const Ceilings& c) {
  const std::vector<Step>& steps = executor.program().steps();
  std::vector<std::vector<int64_t>> times(steps.size());
  Profile p;
  p.ceilings = c;
  p.last_run.resize(steps.size());
  executor.run();
  for (int r = 0; r < std::max(runs, 1); ++r) {
    executor.run_timed(p.last_run);
    for (size_t s = 0; s < steps.size(); ++s) times[s].push_back(p.last_run[s]);
  }
  for (size_t s = 0; s < steps.size(); ++s) {
    StepProfile row{.step = s, .median_ns = median(times[s]), .limit_ns = limit_ns(steps[s], c)};
    const double seconds = 1e-9 * std::max(row.median_ns, 1.0);
    row.bytes_per_second = static_cast<double>(steps[s].cost.bytes) / seconds;
    row.flops_per_second = steps[s].cost.flops / seconds;
    p.total_ns += row.median_ns;
    p.limit_ns += row.limit_ns;
    p.steps.push_back(row);
  }
  for (StepProfile& row : p.steps) row.share = p.total_ns > 0 ? row.median_ns / p.total_ns : 0;
  return p;
}

std::string table_text(const Profile& p, const Program& program, size_t rows) {
  std::vector<size_t> order(p.steps.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return p.steps[a].median_ns > p.steps[b].median_ns; });
  std::string out = p.ceilings.text() + "\n";
  out += fmt::format("{:>5} {:>11} {:>6} {:>8} {:>9} {:>8}  {:<24} {}\n", "step", "us", "share", "GB/s",
                     "GFLOP/s", "ceiling", "kernel", "what");
  for (size_t i = 0; i < std::min(rows, order.size()); ++i) {
    const StepProfile& row = p.steps[order[i]];
    const Step& step = program.steps()[row.step];
    out += fmt::format("{:>5} {:>11.2f} {:>5.1f}% {:>8.1f} {:>9.1f} {:>7.0f}%  {:<24} {} {}\n", row.step,
                       row.median_ns * 1e-3, 100 * row.share, row.bytes_per_second * 1e-9,
                       row.flops_per_second * 1e-9, 100 * row.fraction(), step.kernel->name(), name_of(step),
                       step.detail);
  }
  if (order.size() > rows) out += fmt::format("      and {} more steps\n", order.size() - rows);
  return out + fmt::format("total {:.2f} us in {} steps; at the ceilings {:.2f} us ({:.0f}%)\n",
                           p.total_ns * 1e-3, p.steps.size(), p.limit_ns * 1e-3,
                           p.total_ns > 0 ? 100 * p.limit_ns / p.total_ns : 0);
}

std::string json_text(const Profile& p, const Program& program) {
  std::string steps;
  for (const StepProfile& row : p.steps) {
    const Step& step = program.steps()[row.step];
    steps += fmt::format(
        "{}{{\"step\": {}, \"op\": {}, \"kernel\": {}, \"what\": {}, \"us\": {:.3f}, \"bytes\": {}, "
        "\"flops\": {:.0f}, "
        "\"fraction_of_ceiling\": {:.4f}}}",
        steps.empty() ? "" : ",\n  ", row.step, json_string(name_of(step)), json_string(step.kernel->name()),
        json_string(step.detail), row.median_ns * 1e-3, step.cost.bytes, step.cost.flops, row.fraction());
  }
  return fmt::format(
      "{{\"cpu\": {}, \"total_us\": {:.3f}, \"fraction_of_ceiling\": {:.4f}, \"steps\": [\n  {}\n]}}\n",
      json_string(p.ceilings.cpu), p.total_ns * 1e-3, p.total_ns > 0 ? p.limit_ns / p.total_ns : 0, steps);
}

std::string chrome_trace(const Profile& p, const Program& program) {
  std::string events;
  double at = 0;
  for (size_t s = 0; s < p.last_run.size(); ++s) {
    const Step& step = program.steps()[s];
    const double us = static_cast<double>(p.last_run[s]) * 1e-3;
    events += fmt::format(
        "{}{{\"name\": {}, \"cat\": \"step\", \"ph\": \"X\", \"pid\": 1, \"tid\": 1, \"ts\": {:.3f}, "
        "\"dur\": {:.3f}, \"args\": "
        "{{\"step\": {}, \"kernel\": {}, \"what\": {}, \"bytes\": {}, \"flops\": {:.0f}}}}}",
        events.empty() ? "" : ",\n", json_string(name_of(step)), at, us, s, json_string(step.kernel->name()),
        json_string(step.detail), step.cost.bytes, step.cost.flops);
    at += us;
  }
  return "{\"traceEvents\": [\n" + events + "\n]}\n";
}

}  // namespace espalier::run

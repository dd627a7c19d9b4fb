#include "run/profiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace espalier::run {

namespace {

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') (out += '\\') += c;
    else if (static_cast<unsigned char>(c) < 0x20) out += fmt::format("\\u{:04x}", static_cast<int>(c));
    else out += c;
  }
  return out + '"';
}

double fraction_of_ceiling(const Profile& p) { return p.total_ns > 0 ? p.limit_ns / p.total_ns : 0; }

}  // namespace

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double limit_ns(const target::Cost& cost, const Ceilings& c) {
  const auto at = [](double work, double per_second) { return per_second > 0 ? 1e9 * work / per_second : 0; };
  return std::max(at(static_cast<double>(cost.bytes), c.read_bytes),
                  at(cost.flops, cost.matrix ? c.matrix_flops(cost.dtype) : c.f32_flops));
}

double matrix_limit_ns(const Program& program, const Ceilings& c) {
  double ns = 0;
  for (const Step& s : program.steps())
    if (s.cost.matrix) ns += 1e9 * s.cost.flops / c.matrix_flops(s.cost.dtype);
  return ns;
}

void sum_up(Profile& p) {
  p.total_ns = p.limit_ns = 0;
  for (const StepProfile& row : p.steps) {
    p.total_ns += row.median_ns;
    p.limit_ns += row.limit_ns;
  }
  for (StepProfile& row : p.steps) row.share = p.total_ns > 0 ? row.median_ns / p.total_ns : 0;
}

Profile profile(Executor& executor, int runs, const Ceilings& c) {
  const std::vector<Step>& steps = executor.program().steps();
  std::vector<std::vector<double>> times(steps.size());
  Profile p;
  p.ceilings = c;
  p.scenes = {"one run"};
  p.lane_names = {"steps"};
  std::vector<int64_t> ns(steps.size());
  executor.run();
  for (int r = 0; r < std::max(runs, 1); ++r) {
    executor.run_timed(ns);
    for (size_t s = 0; s < steps.size(); ++s) times[s].push_back(static_cast<double>(ns[s]));
  }
  double at = 0;
  for (size_t s = 0; s < steps.size(); ++s) {
    const Step& step = steps[s];
    StepProfile row;
    row.step = s;
    row.op = name_of(step);
    row.kernel = step.kernel->name();
    row.what = step.detail;
    row.bytes = step.cost.bytes;
    row.flops = step.cost.flops;
    row.median_ns = median(times[s]);
    row.limit_ns = limit_ns(step.cost, c);
    p.steps.push_back(std::move(row));
    const double us = 1e-3 * static_cast<double>(ns[s]);
    p.spans.push_back({.row = static_cast<int>(s), .name = {}, .begin_us = at, .us = us});
    at += us;
  }
  sum_up(p);
  return p;
}

namespace {

std::string device_text(const DeviceTimes& d) {
  const auto copy = [](double ns, int64_t bytes) {
    return fmt::format("{:.2f} us ({:.1f} GB/s)", ns * 1e-3, ns > 0 ? static_cast<double>(bytes) / ns : 0);
  };
  return fmt::format(
      "copies in {}, out {}\nruns behind each other {:.2f} us each; {:.0f}% of the time of copies went on "
      "beside computing\n",
      copy(d.in_ns, d.in_bytes), copy(d.out_ns, d.out_bytes), d.run_ns * 1e-3,
      d.copied_ns > 0 ? 100 * d.hidden_ns / d.copied_ns : 0);
}

}  // namespace

std::string table_text(const Profile& p, size_t rows) {
  std::vector<size_t> order(p.steps.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return p.steps[a].median_ns > p.steps[b].median_ns; });
  std::string out = p.ceilings.text() + "\n";
  out += fmt::format("{:>5} {:>11} {:>6} {:>8} {:>9} {:>8}  {:<24} {}\n", "step", "us", "share", "GB/s",
                     "GFLOP/s", "ceiling", "kernel", "what");
  for (size_t i = 0; i < std::min(rows, order.size()); ++i) {
    const StepProfile& row = p.steps[order[i]];
    out += fmt::format(
        "{:>5} {:>11.2f} {:>5.1f}% {:>8.1f} {:>9.1f} {:>8}  {:<24} {} {}\n", row.step, row.median_ns * 1e-3,
        100 * row.share, row.bytes_per_second() * 1e-9, row.flops_per_second() * 1e-9,
        row.limit_ns > 0 ? fmt::format("{:.0f}%", 100 * row.fraction()) : "?", row.kernel, row.op, row.what);
  }
  const char* const unit = p.device ? "records" : "steps";
  if (order.size() > rows) out += fmt::format("      and {} more {}\n", order.size() - rows, unit);
  out += fmt::format("total {:.2f} us in {} {}", p.total_ns * 1e-3, p.steps.size(), unit);
  if (p.limit_ns > 0)
    out +=
        fmt::format("; at the ceilings {:.2f} us ({:.0f}%)", p.limit_ns * 1e-3, 100 * fraction_of_ceiling(p));
  out += "\n";
  return p.device ? out + device_text(*p.device) : out;
}

std::string json_text(const Profile& p) {
  std::string steps;
  for (const StepProfile& row : p.steps)
    steps += fmt::format(
        "{}{{\"step\": {}, \"op\": {}, \"kernel\": {}, \"what\": {}, \"us\": {:.3f}, \"bytes\": {}, "
        "\"flops\": {:.0f}, \"fraction_of_ceiling\": {:.4f}}}",
        steps.empty() ? "" : ",\n  ", row.step, json_string(row.op), json_string(row.kernel),
        json_string(row.what), row.median_ns * 1e-3, row.bytes, row.flops, row.fraction());
  std::string device;
  if (const auto& d = p.device)
    device = fmt::format(
        "\"copies\": {{\"in_bytes\": {}, \"in_us\": {:.3f}, \"out_bytes\": {}, \"out_us\": {:.3f}, "
        "\"hidden\": {:.4f}}}, \"run_us\": {:.3f}, ",
        d->in_bytes, d->in_ns * 1e-3, d->out_bytes, d->out_ns * 1e-3,
        d->copied_ns > 0 ? d->hidden_ns / d->copied_ns : 0, d->run_ns * 1e-3);
  return fmt::format(
      "{{\"{}\": {}, \"total_us\": {:.3f}, \"fraction_of_ceiling\": {:.4f}, {}\"steps\": [\n  {}\n]}}\n",
      p.device ? "device" : "cpu", json_string(p.ceilings.machine), p.total_ns * 1e-3, fraction_of_ceiling(p),
      device, steps);
}

std::string chrome_trace(const Profile& p) {
  std::string events;
  const auto add = [&](const std::string& event) { events += (events.empty() ? "" : ",\n") + event; };
  const auto named = [&](const char* kind, size_t scene, size_t lane, const std::string& name) {
    add(fmt::format(R"({{"name": "{}", "ph": "M", "pid": {}, "tid": {}, "args": {{"name": {}}}}})", kind,
                    scene + 1, lane + 1, json_string(name)));
  };
  for (size_t scene = 0; scene < p.scenes.size(); ++scene) {
    named("process_name", scene, 0, p.scenes[scene]);
    for (size_t lane = 0; lane < p.lane_names.size(); ++lane)
      named("thread_name", scene, lane, p.lane_names[lane]);
  }
  for (const Span& s : p.spans) {
    const StepProfile* row = s.row < 0 ? nullptr : &p.steps[static_cast<size_t>(s.row)];
    std::string args;
    if (row)
      args = fmt::format(R"("step": {}, "kernel": {}, "what": {}, "bytes": {}, "flops": {:.0f})", row->step,
                         json_string(row->kernel), json_string(row->what), row->bytes, row->flops);
    add(fmt::format(
        R"({{"name": {}, "cat": "{}", "ph": "X", "pid": {}, "tid": {}, "ts": {:.3f}, "dur": {:.3f}, "args": {{{}}}}})",
        json_string(row ? row->op : s.name), row ? "step" : "run", s.scene + 1, s.lane + 1, s.begin_us, s.us,
        args));
  }
  return "{\"traceEvents\": [\n" + events + "\n]}\n";
}

}  // namespace espalier::run

#include "apps/imaging/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <sstream>

#include "apps/imaging/overlay.h"
#include "apps/imaging/score.h"
#include "base/error.h"
#include "base/text.h"

namespace espalier::imaging {

namespace {

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '&') out += "&amp;";
    else if (c == '"') out += "&quot;";
    else out += c;
  }
  return out;
}

std::string base64(const std::string& bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k) word = word << 8 | (k < n ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += k <= n ? digits[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

constexpr const char* style = R"(
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6575; --page: #ffffff; --card: #f4f6f9; --line: #d9dee6; --mark: #1769aa; --second: #c2571a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa5b4; --page: #12161c; --card: #1b212a; --line: #2f3845; --mark: #64b5f6; --second: #ffb074; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 68rem; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.caution { border-left: 4px solid var(--second); background: var(--card); padding: .7rem 1rem; margin: 1.2rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; background: var(--card); border-radius: 6px; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; } .grid { stroke: var(--line); } .raw { stroke: var(--mark); opacity: .25; fill: none; }
.smooth { stroke: var(--mark); stroke-width: 2; fill: none; }
figure { margin: 1rem 0; } figure img { width: 100%; height: auto; border-radius: 6px; display: block; } figcaption { color: var(--soft); font-size: .9rem; margin-top: .3rem; }
.chip { display: inline-block; width: .9em; height: .9em; border-radius: 3px; margin: 0 .35em 0 .9em; vertical-align: -1px; }
)";

/// A line chart of one value over the steps: every step faintly, and a running mean.
std::string chart(const std::string& title, const std::vector<TrainingPoint>& points,
                  const std::function<double(const TrainingPoint&)>& value) {
  constexpr double width = 560, height = 300, left = 48, right = 12, top = 34, bottom = 30;
  if (points.size() < 2) return "";
  double low = 0, high = 0;
  for (const TrainingPoint& p : points) low = std::min(low, value(p)), high = std::max(high, value(p));
  double tick = std::pow(10, std::floor(std::log10(std::max(high - low, 1e-9))));
  while ((high - low) / tick < 4) tick /= 2;
  high = std::ceil(high / tick) * tick;
  const double first = points.front().step, last = points.back().step;
  const auto x = [&](double step) { return left + (step - first) / (last - first) * (width - left - right); };
  const auto y = [&](double v) { return top + (high - v) / (high - low) * (height - top - bottom); };
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><text x=\"{}\" y=\"20\">{}</text>", width,
      height, title, left, title);
  for (double v = low; v <= high + tick / 2; v += tick)
    out += fmt::format(
        "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/><text x=\"{3}\" "
        "y=\"{4:.1f}\" text-anchor=\"end\">{5:.4g}</text>",
        left, width - right, y(v), left - 6, y(v) + 4, v);
  out += fmt::format(
      "<text x=\"{}\" y=\"{}\">step {}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">step {}</text>",
      left, height - 10, first, width - right, height - 10, last);
  std::string raw, smooth;
  const double keep = 1 - 1 / std::max(2.0, static_cast<double>(points.size()) / 40);
  double mean = value(points.front());
  for (const TrainingPoint& p : points) {
    mean = keep * mean + (1 - keep) * value(p);
    raw += fmt::format("{:.1f},{:.1f} ", x(p.step), y(value(p)));
    smooth += fmt::format("{:.1f},{:.1f} ", x(p.step), y(mean));
  }
  return out + fmt::format(
                   "<polyline class=\"raw\" points=\"{}\"/><polyline class=\"smooth\" points=\"{}\"/></svg>",
                   raw, smooth);
}

using Cells = std::vector<std::string>;

std::string row(const Cells& cells, const char* tag = "td") {
  std::string out = "<tr>";
  for (const std::string& c : cells) out += fmt::format("<{0}>{1}</{0}>", tag, escape(c));
  return out + "</tr>\n";
}

std::string peak_text(const EngineFigures& e) {
  return e.peak_bytes < 0 ? "not measured" : bytes_text(e.peak_bytes);
}

/// A row per figure, a column per precision.
std::string engine_table(const Report& r) {
  Cells head{""};
  for (const EngineFigures& e : r.engines) head.push_back(e.precision);
  std::string out = "<div class=\"scroll\"><table>" + row(head, "th");
  const auto add = [&](const std::string& name,
                       const std::function<std::string(const EngineFigures&)>& text) {
    Cells cells{name};
    for (const EngineFigures& e : r.engines) cells.push_back(text(e));
    out += row(cells);
  };
  for (size_t k = 0; k < r.outputs.size(); ++k)
    add("Dice, " + r.outputs[k], [k](const EngineFigures& e) { return dice_text(e.dice[k]); });
  add("latency p50, one slice", [](const EngineFigures& e) { return fmt::format("{:.1f} ms", e.p50); });
  add("latency p90", [](const EngineFigures& e) { return fmt::format("{:.1f} ms", e.p90); });
  add("latency p99", [](const EngineFigures& e) { return fmt::format("{:.1f} ms", e.p99); });
  add("throughput",
      [](const EngineFigures& e) { return fmt::format("{:.1f} slices/s", e.slices_per_second); });
  add("memory, planned before the first run",
      [](const EngineFigures& e) { return bytes_text(e.planned_bytes); });
  add("memory, growth of the process at its peak (VmHWM)", peak_text);
  add("timed runs", [](const EngineFigures& e) { return std::to_string(e.runs); });
  add("ops of the model", [](const EngineFigures& e) { return std::to_string(e.nodes); });
  add("kernels after fusion", [](const EngineFigures& e) { return std::to_string(e.kernels); });
  add("batch norms folded into weights",
      [](const EngineFigures& e) { return fmt::format("{} of {}", e.folded, e.norms); });
  add("time to compile", [](const EngineFigures& e) { return fmt::format("{:.2f} s", e.compile_seconds); });
  return out + "</table></div>\n";
}

std::string legend(const Report& r) {
  std::string out = "<p>Left: the slice. Middle: truth. Right: what the network found.";
  for (size_t k = 0; k < r.outputs.size(); ++k) {
    const Colour c = colour_of(k);
    out += fmt::format("<span class=\"chip\" style=\"background:rgb({},{},{})\"></span>{}", c[0], c[1], c[2],
                       escape(r.outputs[k]));
  }
  return out + "</p>\n";
}

std::string training_text(const Report& r) {
  return fmt::format(
      "U-Net with a ResNet-18 encoder, {:.1f} M weights: {} steps of Adam in {}, {:.0f} s{}; {} planned "
      "before step one.",
      static_cast<double>(r.weights) * 1e-6, r.steps, r.precision, r.training_seconds,
      r.resumed ? " in the last part of a resumed training" : "", bytes_text(r.training_planned_bytes));
}

}  // namespace

std::vector<TrainingPoint> parse_history(const std::string& csv) {
  std::istringstream in(csv);
  std::string line, cell;
  const auto cells_of = [&](const std::string& text) {
    std::istringstream cells(text);
    Cells out;
    while (std::getline(cells, cell, ',')) out.push_back(cell);
    return out;
  };
  std::getline(in, line);
  const Cells head = cells_of(line);
  const auto column = [&](const char* name) {
    const auto it = std::find(head.begin(), head.end(), name);
    if (it == head.end())
      throw UserError(
          {"training log", "has no column " + std::string(name), quote(line), "step, loss and Dice"});
    return static_cast<size_t>(it - head.begin());
  };
  const size_t step = column("step"), loss = column("loss"), dice = column("Dice");
  std::vector<TrainingPoint> out;
  while (std::getline(in, line)) {
    const Cells c = cells_of(line);
    if (c.size() != head.size())
      throw UserError({"training log", "row has another number of cells", quote(line), ""});
    const auto number = [&](size_t i) { return std::strtod(c[i].c_str(), nullptr); };
    out.push_back({number(step), number(loss), number(dice)});
  }
  return out;
}

std::string to_html(const Report& r) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">"
      "<title>Espalier: {0}</title><style>{1}</style></head><body>\n<h1>Segmentation of {0}</h1>\n<p "
      "class=\"soft\">{2}</p>\n"
      "<p class=\"caution\">{3}</p>\n",
      escape(r.title), style, escape(r.processor), escape(r.caution));
  out += fmt::format("<h2>Data</h2>\n<p>{} slices to train on, {} held out and scored: {}.</p>\n",
                     r.training_slices, r.held_out_slices, escape(r.split));
  out += fmt::format("<h2>Training</h2>\n<p>{}</p>\n<div class=\"charts\">{}{}</div>\n",
                     escape(training_text(r)),
                     chart("loss (BCE + 1 - Dice)", r.history, [](const TrainingPoint& p) { return p.loss; }),
                     chart("Dice of the training batch, mean over outputs", r.history,
                           [](const TrainingPoint& p) { return p.dice; }));
  out += "<h2>The held-out slices</h2>\n" + engine_table(r);
  for (const std::string& note : r.notes) out += fmt::format("<p class=\"soft\">{}</p>\n", escape(note));
  if (!r.saved.empty()) out += fmt::format("<h2>The saved model</h2>\n<p>{}</p>\n", escape(r.saved));
  out += "<h2>Pictures</h2>\n" + legend(r);
  for (const Picture& p : r.pictures)
    out += fmt::format(
        "<figure><img alt=\"{0}\" src=\"data:image/png;base64,{1}\"><figcaption>{0}</figcaption></figure>\n",
        escape(p.caption), base64(p.png));
  return out + "</body></html>\n";
}

std::string check_text(const std::vector<EngineFigures>& engines, const std::vector<std::string>& outputs,
                       double expected_dice) {
  constexpr double largest_distance = 0.01;
  std::vector<std::string> parts;
  const auto add = [&](bool as_expected, const std::string& what) {
    parts.push_back(what + (as_expected ? ": yes" : ": NO"));
  };
  if (expected_dice > 0)
    add(std::ranges::all_of(engines,
                            [&](const EngineFigures& e) { return e.dice[0].value_or(0) >= expected_dice; }),
        fmt::format("{} Dice at least {}", outputs[0], expected_dice));
  if (engines.size() > 1) {
    double distance = 0;
    for (size_t i = 0; i < outputs.size(); ++i)
      distance =
          std::max(distance, std::abs(engines[0].dice[i].value_or(0) - engines[1].dice[i].value_or(0)));
    add(distance <= largest_distance,
        fmt::format("{} within {} Dice of {} (at most {:.4f})", engines[1].precision, largest_distance,
                    engines[0].precision, distance));
  }
  return join(parts, "; ");
}

std::string to_summary(const Report& r) {
  bool absent = false;
  std::string out = fmt::format("{:<24}", "held-out slices");
  for (const EngineFigures& e : r.engines) out += fmt::format("{:>14}", e.precision);
  out += "\n";
  const auto add = [&](const std::string& name,
                       const std::function<std::string(const EngineFigures&)>& text) {
    out += fmt::format("  {:<22}", name);
    for (const EngineFigures& e : r.engines) out += fmt::format("{:>14}", text(e));
    out += "\n";
  };
  for (size_t k = 0; k < r.outputs.size(); ++k)
    add("Dice " + r.outputs[k], [&, k](const EngineFigures& e) {
      absent = absent || !e.dice[k];
      return e.dice[k] ? dice_text(e.dice[k]) : "n/a";
    });
  add("latency p50", [](const EngineFigures& e) { return fmt::format("{:.1f} ms", e.p50); });
  add("latency p90", [](const EngineFigures& e) { return fmt::format("{:.1f} ms", e.p90); });
  add("latency p99", [](const EngineFigures& e) { return fmt::format("{:.1f} ms", e.p99); });
  add("throughput", [](const EngineFigures& e) { return fmt::format("{:.1f} /s", e.slices_per_second); });
  add("memory planned", [](const EngineFigures& e) { return bytes_text(e.planned_bytes); });
  add("memory measured", peak_text);
  if (absent) out += "n/a: not in the held-out slices.\n";
  return out + r.caution;
}

}  // namespace espalier::imaging

#include "base/clock.h"
#include "base/text.h"
#include "pass/pass.h"
#include "rewrite/pattern.h"

namespace espalier::pass {

namespace {
constexpr std::string_view precision_names[] = {"f32", "bf16", "f16"};
}

std::string_view precision_name(Precision p) { return precision_names[static_cast<size_t>(p)]; }

Precision precision_of_name(std::string_view name) {
  for (size_t i = 0; i < std::size(precision_names); ++i)
    if (precision_names[i] == name) return static_cast<Precision>(i);
  throw UserError({"precision", "unknown", std::string(name), "f32, bf16 or f16"});
}

namespace {

const Pass& find_pass(std::span<const Pass> passes, std::string_view name) {
  std::vector<std::string> names;
  for (const Pass& p : passes) {
    if (p.name == name) return p;
    names.emplace_back(p.name);
  }
  throw UserError({"pass", "unknown", std::string(name), join(names, " ")});
}

}  // namespace

const Pass& find_pass(std::string_view name) { return find_pass(pipeline(), name); }

PipelineResult run_passes(const ir::Graph& graph, std::span<const Pass> passes, const PassContext& context,
                          const RunnerOptions& options) {
  for (const std::string& name : options.disabled) (void)find_pass(passes, name);
  if (!options.stop_after.empty()) (void)find_pass(passes, options.stop_after);
  PipelineResult result{graph, {}, {}};
  PassContext heard = context;
  heard.note = [&](std::string text) { result.notes.push_back(std::move(text)); };
  for (const Pass& p : passes) {
    PassReport report{.name = p.name, .skipped = options.disabled.contains(p.name)};
    if (!report.skipped) {
      const int64_t start = now_ns();
      ir::Graph next = p.run(result.graph, heard);
      report.ns = now_ns() - start;
      report.changed = !rewrite::same_outputs(result.graph, next) || next.level != result.graph.level;
      result.graph = std::move(next);
      if (options.verify) ir::verify(result.graph);
      if (report.changed && options.print_changed) {
        ir::ConstantPool pool;
        options.print_changed(p.name, ir::print(result.graph, &pool));
      }
    }
    result.reports.push_back(report);
    if (p.name == options.stop_after) break;
  }
  return result;
}

}  // namespace espalier::pass

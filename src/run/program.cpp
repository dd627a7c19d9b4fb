#include "run/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include "base/align.h"
#include "base/text.h"
#include "pass/schedule.h"
#include "pass/storage.h"
#include "run/nested.h"
#include "run/record_needs.h"
#include "run/targets.h"
#include "target/reference/interpreter.h"

namespace espalier::run {

namespace {

using pass::Place;

/// Bytes from one place to another, on the host or a device.
class CopyKernel final : public target::Kernel {
 public:
  explicit CopyKernel(int64_t bytes) : bytes_(bytes) {
    if (bytes > 0) call_.push_back({target::CopyCall{bytes}, {{0, 0}, {1, 0}}, {.bytes = 2 * bytes}});
  }
  std::string_view name() const override { return "copy"; }
  bool on_device() const override { return true; }
  std::span<const target::CallRecord> calls() const override { return call_; }
  int64_t chunks() const override { return std::max<int64_t>(1, (bytes_ + piece - 1) / piece); }
  void run(void* const* buffers, void*, int64_t chunk) const override {
    const int64_t from = chunk * piece, count = std::min(piece, bytes_ - from);
    if (count > 0)
      std::memcpy(static_cast<char*>(buffers[1]) + from, static_cast<const char*>(buffers[0]) + from,
                  static_cast<size_t>(count));
  }

 private:
  static constexpr int64_t piece = 1 << 20;
  int64_t bytes_;
  std::vector<target::CallRecord> call_;
};

/// The same array at an address kernels may rely on.
ir::Array aligned(const ir::Array& a) { return is_aligned(a.data()) ? a : a.copied(); }

void add_note(std::vector<Note>& all, const Note& note) {
  const auto same = std::ranges::find(all, note.text, &Note::text);
  if (same == all.end()) all.push_back(note);
  else same->steps += note.steps;
}

/// "dot add relu -> f32[32,64]".
std::string detail_of(const ir::Node& n) {
  std::string text;
  if (const ir::Graph* body = kernel::fusion_body(n)) {
    int64_t fusions = 0;
    for (const ir::Node* inner : body->nodes()) {
      fusions += kernel::fusion_body(*inner) != nullptr;
      if (inner->op().kind != ir::Kind::leaf) (text += text.empty() ? "" : " ") += inner->op().name;
    }
    if (n.attrs<kernel::FusionAttrs>().kind == kernel::FusionKind::batch)
      return fmt::format("{} side by side", fusions);
    text += " ";
  }
  text += "->";
  for (const ir::Type& t : n.types()) text += " " + t.text();
  return text;
}

bool contracts_f32(const ir::Node& n) {
  return n.op().kind == ir::Kind::contraction && n.input(0).dtype() == ir::Dtype::f32;
}

/// Is it a product or a convolution of f32, or one goes on inside? Records of others may compute in TF32 unasked, where that holds their operands.
bool has_f32_contraction(const ir::Node& n) {
  const ir::Graph* body = kernel::fusion_body(n);
  if (!body) return contracts_f32(n);
  return std::ranges::any_of(body->nodes(), [](const ir::Node* inner) { return contracts_f32(*inner); });
}

bool takes_tf32(const target::CallRecord& call) {
  const auto* gemm = std::get_if<target::GemmCall>(&call.work);
  const auto* conv = std::get_if<target::ConvCall>(&call.work);
  return (gemm && gemm->tf32) || (conv && conv->tf32);
}

/// UserError for options that contradict each other.
void check_options(const CompileOptions& options, const std::string& name) {
  if (options.exact && options.allow_tf32)
    throw UserError({"program " + name + ": allow_tf32", "exact forbids it", "both", "one of the two"});
}

/// Of the graph's text, large constants by their type.
uint64_t graph_identity(const ir::Graph& graph) {
  ir::ConstantPool pool;
  return hash_text(ir::print(graph, &pool));
}

}  // namespace

class ProgramBuilder {
 public:
  ProgramBuilder(const ir::Graph& g, const CompileOptions& options, SlotAlignment alignment = {})
      : graph_(g),
        options_(options),
        target_(options.target ? *options.target : default_target()),
        alignment_(std::move(alignment)) {}

  std::shared_ptr<Program> build() {
    check_static();
    program_.reset(new Program);
    program_->name_ = graph_.name;
    program_->target_ = target_.spec().name();
    program_->machine_ = target_.spec().machine();
    add_ports();
    add_ranges();
    program_->identity_ = graph_identity(graph_);
    const pass::Schedule schedule = pass::schedule(graph_);
    prepare(schedule);
    ESPALIER_CHECK(!options_.apart || options_.red_zone == 0, "red zones lie in an arena");
    const pass::ArenaOptions arena{.alignment = target_.spec().arena_alignment(),
                                   .red_zone = options_.red_zone,
                                   .apart = options_.apart};
    const pass::BufferPlan plan = pass::plan_buffers(graph_, schedule, facts_, arena);
    if (options_.verify) pass::verify(plan, graph_, schedule, facts_, arena);
    program_->red_zones_ = plan.red_zones;
    program_->apart_ = options_.apart;
    program_->offsets_ = options_.offsets;
    program_->arena_buffers_ = plan.buffers;
    add_steps(plan);
    for (const ir::Value& c : plan.constants) program_->constants_.push_back(aligned(*ir::constant_value(c)));
    add_memory(plan);
    if (options_.verify) verify_calls(*program_, arena.alignment, alignment_);
    return std::move(program_);
  }

 private:
  /// Of all options only these matter below the passes; ranges belong to the program's own inputs.
  CompileOptions options_of_bodies() const {
    CompileOptions o;
    o.target = &target_;
    o.exact = options_.exact;
    o.allow_tf32 = options_.allow_tf32;
    o.verify = options_.verify;
    o.apart = options_.apart;
    o.offsets = options_.offsets;
    return o;
  }

  void check_static() const {
    for (size_t i = 0; i < graph_.inputs.size(); ++i)
      for (const ir::Dim d : graph_.inputs[i].dims())
        if (!d.is_static())
          throw UserError({"input " + graph_.input_name(i), "a dim has no number yet",
                           graph_.inputs[i].type().text(),
                           "bind '" + std::string(d.symbol_name()) + "' in the options' symbols"});
  }

  void add_ports() {
    Program& p = *program_;
    for (size_t i = 0; i < graph_.inputs.size(); ++i)
      p.inputs_.push_back({graph_.input_name(i), graph_.inputs[i].type()});
    for (const ir::Output& o : graph_.outputs) p.outputs_.push_back({o.name, o.value.type()});
    p.state_output_.assign(p.outputs_.size(), -1);
    p.is_state_input_.assign(p.inputs_.size(), 0);
    for (const ir::StatePair& s : graph_.state) {
      const auto in = *graph_.find_input(s.input), out = *graph_.find_output(s.output);
      p.state_.push_back({s.input, static_cast<int>(in), static_cast<int>(out), true});
      p.state_output_[out] = static_cast<int>(in);
      p.is_state_input_[in] = 1;
    }
  }

  void add_ranges() {
    for (const InputRange& r : options_.ranges) {
      const auto i = graph_.find_input(r.input);
      if (!i)
        throw UserError(
            {"range of input " + r.input, "the graph has no such input", "", "a name of an input"});
      if (graph_.inputs[*i].dtype() == ir::Dtype::boolean)
        throw UserError({"range of input " + r.input, "only inputs of numbers have a range",
                         graph_.inputs[*i].type().text(), "an input of another dtype"});
      program_->ranges_.push_back(r);
    }
  }

  /// The kernel of a node: the target's, or of control flow whose bodies become programs.
  target::Prepared kernel_of(const ir::Node& n) {
    bodies_.emplace_back();
    controls_.emplace_back();
    if (n.op().kind == ir::Kind::control && target_.nests_bodies()) {
      NestedStep step = nest(n, alignment_of(n), [&](const ir::Graph& body, const SlotAlignment& alignment) {
        return ProgramBuilder(body, body_options_, alignment).build();
      });
      bodies_.back() = std::move(step.bodies);
      controls_.back() = std::move(step.control);
      for (const auto& body : bodies_.back())
        for (const Note& n : body->notes()) add_note(n);
      if (step.kernel) return {std::move(step.kernel), {}};
    }
    std::deque<ir::Array> arrays;
    std::vector<const ir::Array*> constants;
    for (const ir::Value& v : n.inputs()) {
      const ir::Array* a = ir::constant_value(pass::storage_of(v));
      if (a && a->dims() != ir::static_dims(v.dims()))
        a = &arrays.emplace_back(a->reshaped(ir::static_dims(v.dims())));
      constants.push_back(a);
    }
    const std::vector<int64_t> alignment = alignment_of(n);
    target::Prepared made = target_.prepare(
        n, constants, {.exact = options_.exact, .alignment = alignment, .tf32 = options_.allow_tf32});
    if (!made.kernel) fail_unserved(n, made.refusals);
    for (const std::string& note : made.notes) add_note({note, 1});
    return made;
  }

  void add_note(const Note& note) { run::add_note(program_->notes_, note); }

  /// Of its operands and results, where a slot of the program may be less aligned than the arena.
  std::vector<int64_t> alignment_of(const ir::Node& n) const {
    std::vector<int64_t> out;
    if (alignment_.inputs.empty() && alignment_.outputs.empty()) return out;
    const auto of = [&](const ir::Value& v) {
      int64_t bytes = cache_line;
      for (size_t i = 0; i < alignment_.inputs.size(); ++i)
        if (graph_.inputs[i] == v) bytes = std::min(bytes, alignment_.inputs[i]);
      for (size_t o = 0; o < alignment_.outputs.size(); ++o)
        if (pass::storage_of(graph_.outputs[o].value) == v) bytes = std::min(bytes, alignment_.outputs[o]);
      return bytes;
    };
    for (const ir::Value& v : n.inputs()) out.push_back(of(pass::storage_of(v)));
    for (int r = 0; r < n.results(); ++r) out.push_back(of(n.value(r)));
    return out;
  }

  [[noreturn]] void fail_unserved(const ir::Node& n, std::span<const kernel::Refusal> refusals) const {
    std::string types, reasons;
    for (const ir::Value& v : n.inputs()) types += (types.empty() ? "" : ", ") + v.type().text();
    for (const kernel::Refusal& r : refusals)
      reasons += (reasons.empty() ? "" : "; ") + r.by + ": " + r.reason;
    throw UserError({"op " + std::string(n.op().name),
                     "target " + program_->target_ + " has no kernel for it", types, reasons});
  }

  void prepare(const pass::Schedule& schedule) {
    for (const ir::Node* n : schedule.order) {
      target::Prepared made = kernel_of(*n);
      pass::StepFacts facts;
      for (const target::InPlace& p : made.kernel->in_place())
        facts.in_place.emplace_back(p.result, p.operand);
      facts.scratch_bytes = made.kernel->scratch_bytes();
      for (size_t i = 0; i < n->inputs().size(); ++i)
        facts.reads.push_back(made.kernel->reads(static_cast<int>(i)));
      program_->memory_.packed += made.kernel->packed_bytes();
      add_identity(*made.kernel, options_.allow_tf32 && has_f32_contraction(*n));
      facts_.push_back(std::move(facts));
      prepared_.push_back(std::move(made));
    }
  }

  void add_identity(const target::Kernel& kernel, bool may_take_tf32) {
    uint64_t& hash = program_->identity_;
    hash = hash_step(hash_text(kernel.name(), hash), static_cast<uint64_t>(kernel.chunks()));
    if (may_take_tf32 && std::ranges::any_of(kernel.calls(), takes_tf32)) hash = hash_text("tf32", hash);
    for (const auto& body : bodies_.back()) hash = hash_step(hash, body->identity());
  }

  void add_steps(const pass::BufferPlan& plan) {
    size_t next = 0;
    for (const pass::PlannedStep& s : plan.steps) {
      Step step;
      step.buffers = s.operands;
      step.operands = s.operands.size();
      step.buffers.insert(step.buffers.end(), s.results.begin(), s.results.end());
      step.scratch = s.scratch;
      if (s.node) {
        step.op = s.node->op().name;
        step.detail = detail_of(*s.node);
        if (const auto it = graph_.info.find(s.node->id()); it != graph_.info.end())
          step.label = it->second.name;
        step.kernel = std::move(prepared_[next].kernel);
        step.bodies = std::move(bodies_[next]);
        step.control = std::move(controls_[next]);
        step.refusals = std::move(prepared_[next++].refusals);
        step.cost = target::cost_of(*s.node);
      } else {
        step.op = "copy";
        step.detail = fmt::format("-> {} bytes", s.bytes);
        step.kernel = std::make_unique<CopyKernel>(s.bytes);
        step.cost.bytes = 2 * s.bytes;
        for (State& state : program_->state_)
          if (s.results[0] == Place{Place::Kind::input, state.input, 0}) state.in_place = false;
      }
      program_->steps_.push_back(std::move(step));
    }
  }

  void add_memory(const pass::BufferPlan& plan) {
    Program& p = *program_;
    MemoryUse& m = p.memory_;
    m.arena = plan.arena_bytes;
    m.largest_live_set = plan.largest_live_bytes;
    for (size_t i = 0; i < p.inputs_.size(); ++i)
      (p.is_state_input_[i] ? m.state : m.inputs) += p.inputs_[i].bytes();
    for (size_t o = 0; o < p.outputs_.size(); ++o)
      if (!p.is_state_output(o)) m.outputs += p.outputs_[o].bytes();
    for (const ir::Array& c : p.constants_) m.constants += c.bytes();
  }

  const ir::Graph& graph_;
  const CompileOptions& options_;
  const target::Target& target_;
  const SlotAlignment alignment_;
  const CompileOptions body_options_ = options_of_bodies();
  std::vector<target::Prepared> prepared_;
  std::vector<std::vector<std::shared_ptr<const Program>>> bodies_;  ///< of each prepared node
  std::vector<ControlFlow> controls_;
  std::vector<pass::StepFacts> facts_;
  std::shared_ptr<Program> program_;
};

std::string CompileOptions::key() const {
  std::string k = fmt::format("{} {} {} {}", (target ? *target : default_target()).spec().machine(),
                              pass::precision_name(precision), exact, loss_scale);
  if (allow_tf32) k += " tf32";
  for (const auto& [name, value] : symbols) k += fmt::format(" {}={}", name, value);
  for (const InputRange& r : ranges) k += fmt::format(" {}:{}..{}", r.input, r.low, r.high);
  for (const std::string& name : disabled) k += " -" + name;
  if (red_zone > 0) k += fmt::format(" red zones of {}", red_zone);
  if (apart) k += fmt::format(" apart {}", offsets);
  return k;
}

std::shared_ptr<const Program> Program::compile_fused(const ir::Graph& graph, const CompileOptions& options,
                                                      std::span<const std::string> notes) {
  check_options(options, graph.name);
  std::shared_ptr<Program> program = ProgramBuilder(graph, options).build();
  for (const std::string& note : notes) add_note(program->notes_, {note, 1});
  return program;
}

std::shared_ptr<const Program> Program::compile(const ir::Graph& graph, const CompileOptions& options) {
  check_options(options, graph.name);
  const ir::Graph bound = ir::specialise(graph, options.symbols);
  const target::Target& target = options.target ? *options.target : default_target();
  const pass::PassContext context{.spec = target.spec(),
                                  .evaluate = target::reference::evaluate_node,
                                  .precision = options.precision,
                                  .exact = options.exact,
                                  .loss_scale = options.loss_scale};
  const pass::RunnerOptions runner{.disabled = options.disabled,
                                   .stop_after = "",
                                   .verify = options.verify,
                                   .print_changed = options.print_changed};
  pass::PipelineResult result = pass::run_passes(bound, pass::pipeline(), context, runner);
  std::shared_ptr<Program> program = ProgramBuilder(result.graph, options).build();
  program->passes_ = std::move(result.reports);
  for (const std::string& note : result.notes) add_note(program->notes_, {note, 1});
  return program;
}

size_t Program::state_index(std::string_view name) const {
  std::vector<std::string> names;
  for (const State& s : state_) {
    if (s.name == name) return static_cast<size_t>(s.input);
    names.push_back(s.name);
  }
  throw UserError({"state " + std::string(name), "the program has no such state", "", join(names, ", ")});
}

double Program::flops() const {
  double sum = 0;
  for (const Step& s : steps_) sum += s.cost.flops;
  return sum;
}

namespace {

std::string places_text(std::span<const Place> places) {
  std::string text;
  for (const Place& p : places) text += (text.empty() ? "" : ", ") + p.text();
  return text;
}

std::string step_text(const Step& s) {
  const std::span<const Place> buffers(s.buffers);
  std::string text =
      fmt::format("{} [{}] {} : {} -> {}", s.op, s.kernel->name(), s.detail,
                  places_text(buffers.first(s.operands)), places_text(buffers.subspan(s.operands)));
  if (s.scratch.kind != Place::Kind::none)
    text += fmt::format(", scratch {} of {}", s.scratch.text(), s.kernel->scratch_bytes());
  if (s.kernel->chunks() != 1) text += fmt::format(", {} chunks", s.kernel->chunks());
  return text + (s.label.empty() ? "" : " # " + s.label);
}

/// Every line moved to the right.
std::string indented(const std::string& text) {
  std::string out;
  for (size_t from = 0; from < text.size();) {
    const size_t to = std::min(text.find('\n', from), text.size() - 1) + 1;
    out += "  " + text.substr(from, to - from);
    from = to;
  }
  return out;
}

}  // namespace

std::string Program::text() const {
  std::string out = fmt::format("program \"{}\" for {}\n", name_, target_);
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (!is_state_input_[i])
      out += fmt::format("input {} \"{}\" {}\n", i, inputs_[i].name, inputs_[i].type.text());
  for (const State& s : state_)
    out += fmt::format("input {} state \"{}\" {} {}\n", s.input, s.name,
                       inputs_[static_cast<size_t>(s.input)].type.text(), s.in_place ? "in place" : "copied");
  for (size_t o = 0; o < outputs_.size(); ++o)
    out += fmt::format("output {} \"{}\" {}{}\n", o, outputs_[o].name, outputs_[o].type.text(),
                       is_state_output(o) ? fmt::format(" in input {}", state_output_[o]) : "");
  for (size_t c = 0; c < constants_.size(); ++c)
    out += fmt::format("constant {} {}\n", c, constants_[c].type().text());
  for (const InputRange& r : ranges_)
    out += fmt::format("range {} to {} of \"{}\"\n", r.low, r.high, r.input);
  for (size_t s = 0; s < steps_.size(); ++s) {
    out += fmt::format("step {}: {}\n", s, step_text(steps_[s]));
    const auto calls = steps_[s].kernel->calls();
    if (!steps_[s].kernel->sources().empty() || calls.size() > 1 || std::ranges::any_of(calls, takes_tf32))
      for (const target::CallRecord& call : calls) out += "  " + target::text(call) + "\n";
    for (const auto& body : steps_[s].bodies) out += indented(body->text());
  }
  out += fmt::format(
      "memory: arena {} (largest live set {}), inputs {}, outputs {}, state {}, constants {}, packed {}\n",
      memory_.arena, memory_.largest_live_set, memory_.inputs, memory_.outputs, memory_.state,
      memory_.constants, memory_.packed);
  for (const Note& n : notes_) out += fmt::format("note: {} (steps: {})\n", n.text, n.steps);
  return out;
}

}  // namespace espalier::run

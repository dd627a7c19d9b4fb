#include "run/nested.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "op/control.h"
#include "run/control_buffers.h"
#include "run/wiring.h"

namespace espalier::run {

namespace {

using ir::Node;
using target::InPlace;

/// A body and how it is wired.
class Body {
 public:
  explicit Body(std::shared_ptr<const Program> program) : program_(std::move(program)), wiring_(*program_) {}

  /// The arena, then the table.
  int64_t scratch_bytes() const { return wiring_.frame_bytes(); }
  int64_t kept_bytes() const { return program_->memory().constants + program_->memory().packed; }

  /// The body over one piece of scratch.
  class Frame {
   public:
    Frame(const Body& body, void* scratch)
        : wiring_(body.wiring_),
          arena_(static_cast<char*>(scratch)),
          table_(reinterpret_cast<void**>(arena_ + body.wiring_.arena_bytes())) {
      wiring_.wire(table_, arena_);
    }
    void input(size_t i, void* data) const { wiring_.bind_input(table_, i, data); }
    void output(size_t o, void* data) const { wiring_.bind_output(table_, o, data); }
    void run() const {
      for (size_t s = 0; s < wiring_.steps(); ++s) run::run(wiring_.call(s, table_, arena_));
    }

   private:
    const Wiring& wiring_;
    char* arena_;
    void** table_;
  };

 private:
  std::shared_ptr<const Program> program_;
  Wiring wiring_;
};

/// `body` with its first `carries` outputs as the new values of its first inputs.
ir::Graph with_carries(const ir::Graph& body, int64_t carries) {
  ir::Graph g = body;
  for (size_t i = 0; i < static_cast<size_t>(carries); ++i)
    g.state.push_back({g.input_name(i), g.outputs[i].name});
  return g;
}

/// Carries begin in the results of the node; one that dies there is not copied.
void begin_carries(const ControlFlow& c, void* const* buffers) {
  for (size_t i = 0; i < c.carries(); ++i)
    if (c.carry_bytes[i] > 0 && buffers[c.operands + i] != buffers[i])
      std::memcpy(buffers[c.operands + i], buffers[i], static_cast<size_t>(c.carry_bytes[i]));
}

std::vector<InPlace> carries_in_place(const ControlFlow& c) {
  std::vector<InPlace> pairs;
  for (int i = 0; i < static_cast<int>(c.carries()); ++i) pairs.push_back({i, i});
  return pairs;
}

class ScanKernel final : public target::Kernel {
 public:
  ScanKernel(ControlFlow control, std::shared_ptr<const Program> body)
      : c_(std::move(control)), body_(std::move(body)) {}

  std::string_view name() const override { return "nested scan"; }
  int64_t scratch_bytes() const override { return body_.scratch_bytes(); }
  int64_t packed_bytes() const override { return body_.kept_bytes(); }
  std::vector<InPlace> in_place() const override { return carries_in_place(c_); }

  void run(void* const* buffers, void* scratch, int64_t) const override {
    const Body::Frame frame(body_, scratch);
    begin_carries(c_, buffers);
    for_turns(c_, buffers, frame, [&] { frame.run(); });
  }

 private:
  ControlFlow c_;
  Body body_;
};

class CondKernel final : public target::Kernel {
 public:
  CondKernel(ControlFlow control, size_t results, std::shared_ptr<const Program> if_true,
             std::shared_ptr<const Program> if_false)
      : c_(std::move(control)),
        if_true_(std::move(if_true)),
        if_false_(std::move(if_false)),
        results_(results) {}

  std::string_view name() const override { return "nested cond"; }
  int64_t scratch_bytes() const override {
    return std::max(if_true_.scratch_bytes(), if_false_.scratch_bytes());
  }
  int64_t packed_bytes() const override { return if_true_.kept_bytes() + if_false_.kept_bytes(); }

  void run(void* const* buffers, void* scratch, int64_t) const override {
    const bool condition = *static_cast<const uint8_t*>(buffers[0]) != 0;
    const Body::Frame frame(condition ? if_true_ : if_false_, scratch);
    bind_branch(c_, results_, buffers, frame);
    frame.run();
  }

 private:
  ControlFlow c_;
  Body if_true_, if_false_;
  size_t results_;
};

class WhileKernel final : public target::Kernel {
 public:
  WhileKernel(ControlFlow control, std::shared_ptr<const Program> condition,
              std::shared_ptr<const Program> body)
      : c_(std::move(control)), condition_(std::move(condition)), body_(std::move(body)) {}

  std::string_view name() const override { return "nested while_loop"; }
  int64_t scratch_bytes() const override {
    return flag_bytes + condition_.scratch_bytes() + body_.scratch_bytes();
  }
  int64_t packed_bytes() const override { return condition_.kept_bytes() + body_.kept_bytes(); }
  std::vector<InPlace> in_place() const override { return carries_in_place(c_); }

  void run(void* const* buffers, void* scratch, int64_t) const override {
    const auto* again = static_cast<const uint8_t*>(scratch);
    const Body::Frame condition(condition_, moved(scratch, flag_bytes));
    const Body::Frame body(body_, moved(scratch, flag_bytes + condition_.scratch_bytes()));
    begin_carries(c_, buffers);
    bind_loop(c_, buffers, condition, body, scratch);
    for (condition.run(); *again != 0; condition.run()) body.run();
  }

 private:
  ControlFlow c_;
  Body condition_, body_;
};

ControlFlow control_of(const Node& n, ControlFlow::Kind kind, int64_t carries) {
  ControlFlow c{
      .kind = kind, .operands = n.inputs().size(), .carry_bytes = {}, .slice_bytes = {}, .stacked_bytes = {}};
  for (size_t i = 0; i < static_cast<size_t>(carries); ++i) c.carry_bytes.push_back(n.types()[i].bytes());
  return c;
}

/// What is known of the addresses of a node's operands and results.
struct NodeAlignment {
  std::span<const int64_t> known;
  size_t operands;
  int64_t operand(size_t i) const { return i < known.size() ? known[i] : cache_line; }
  int64_t result(size_t r) const { return operand(operands + r); }
};

/// Of a scan's body: carries live in the results, the others are rows of what is walked, or the operands themselves.
SlotAlignment body_alignment(const ControlFlow& scan, const NodeAlignment& node) {
  SlotAlignment a;
  const size_t carries = scan.carries(), walked = carries + scan.slice_bytes.size();
  for (size_t i = 0; i < carries; ++i) a.inputs.push_back(node.result(i));
  a.outputs = a.inputs;
  for (size_t i = carries; i < walked; ++i)
    a.inputs.push_back(std::gcd(scan.slice_bytes[i - carries], node.operand(i)));
  for (size_t i = walked; i < scan.operands; ++i) a.inputs.push_back(node.operand(i));
  for (size_t o = 0; o < scan.stacked_bytes.size(); ++o)
    a.outputs.push_back(std::gcd(scan.stacked_bytes[o], node.result(carries + o)));
  return a;
}

NestedStep nest_scan(const Node& n, const NodeAlignment& alignment, const CompileBody& compile) {
  const auto& at = n.attrs<op::ScanAttrs>();
  ControlFlow c = control_of(n, ControlFlow::Kind::scan, at.carries);
  c.length = at.length;
  c.reverse = at.reverse;
  for (size_t i = c.carries(); i < c.carries() + static_cast<size_t>(at.slices); ++i)
    c.slice_bytes.push_back(at.body->inputs[i].type().bytes());
  for (size_t o = c.carries(); o < at.body->outputs.size(); ++o)
    c.stacked_bytes.push_back(at.body->outputs[o].value.type().bytes());
  NestedStep step{nullptr, c, {compile(with_carries(*at.body, at.carries), body_alignment(c, alignment))}};
  step.kernel = std::make_unique<ScanKernel>(std::move(c), step.bodies[0]);
  return step;
}

NestedStep nest_cond(const Node& n, const NodeAlignment& alignment, const CompileBody& compile) {
  const auto& at = n.attrs<op::CondAttrs>();
  ControlFlow c = control_of(n, ControlFlow::Kind::cond, 0);
  SlotAlignment a;
  for (size_t i = 1; i < c.operands; ++i) a.inputs.push_back(alignment.operand(i));
  for (size_t r = 0; r < static_cast<size_t>(n.results()); ++r) a.outputs.push_back(alignment.result(r));
  NestedStep step{nullptr, c, {compile(*at.if_true, a), compile(*at.if_false, a)}};
  step.kernel = std::make_unique<CondKernel>(std::move(c), static_cast<size_t>(n.results()), step.bodies[0],
                                             step.bodies[1]);
  return step;
}

NestedStep nest_while(const Node& n, const NodeAlignment& alignment, const CompileBody& compile) {
  const auto& at = n.attrs<op::WhileAttrs>();
  ControlFlow c = control_of(n, ControlFlow::Kind::while_loop, at.carries);
  SlotAlignment a;
  for (size_t i = 0; i < c.operands; ++i)
    a.inputs.push_back(i < c.carries() ? alignment.result(i) : alignment.operand(i));
  SlotAlignment body = a;
  body.outputs.assign(a.inputs.begin(), a.inputs.begin() + static_cast<std::ptrdiff_t>(c.carries()));
  NestedStep step{nullptr, c, {compile(*at.condition, a), compile(with_carries(*at.body, at.carries), body)}};
  step.kernel = std::make_unique<WhileKernel>(std::move(c), step.bodies[0], step.bodies[1]);
  return step;
}

}  // namespace

NestedStep nest(const Node& n, std::span<const int64_t> alignment, const CompileBody& compile) {
  const NodeAlignment known{alignment, n.inputs().size()};
  if (&n.op() == &op::scan_op) return nest_scan(n, known, compile);
  if (&n.op() == &op::cond_op) return nest_cond(n, known, compile);
  if (&n.op() == &op::while_loop_op) return nest_while(n, known, compile);
  return {};
}

}  // namespace espalier::run

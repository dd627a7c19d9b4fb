#include "run/nested.h"

#include <algorithm>
#include <cstring>

#include "base/align.h"
#include "op/control.h"
#include "run/wiring.h"

namespace espalier::run {

namespace {

using ir::Node;
using target::InPlace;

char* moved(void* base, int64_t bytes) { return static_cast<char*>(base) + bytes; }

/// A body and how it is wired.
class Body {
 public:
  explicit Body(std::shared_ptr<const Program> program)
      : program_(std::move(program)),
        wiring_(*program_),
        arena_bytes_(whole_lines(program_->memory().arena)),
        scratch_bytes_(arena_bytes_ + whole_lines(static_cast<int64_t>(wiring_.pointers() * sizeof(void*)))) {
  }

  /// The arena, then the table.
  int64_t scratch_bytes() const { return scratch_bytes_; }
  int64_t kept_bytes() const { return program_->memory().constants + program_->memory().packed; }
  const std::shared_ptr<const Program>& program() const { return program_; }

  /// The body over one piece of scratch.
  class Frame {
   public:
    Frame(const Body& body, void* scratch)
        : wiring_(body.wiring_),
          arena_(static_cast<char*>(scratch)),
          table_(reinterpret_cast<void**>(arena_ + body.arena_bytes_)) {
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
  int64_t arena_bytes_, scratch_bytes_;
};

/// `body` with its first `carries` outputs as the new values of its first inputs.
ir::Graph with_carries(const ir::Graph& body, int64_t carries) {
  ir::Graph g = body;
  for (size_t i = 0; i < static_cast<size_t>(carries); ++i)
    g.state.push_back({g.input_name(i), g.outputs[i].name});
  return g;
}

/// Carries begin in the results of the node; one that dies there is not copied.
class Carries {
 public:
  Carries(const Node& n, int64_t count) : operands_(n.inputs().size()) {
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) bytes_.push_back(n.types()[i].bytes());
  }
  void begin(void* const* buffers) const {
    for (size_t i = 0; i < bytes_.size(); ++i)
      if (bytes_[i] > 0 && at(buffers, i) != buffers[i])
        std::memcpy(at(buffers, i), buffers[i], static_cast<size_t>(bytes_[i]));
  }
  /// Where carry `i` lives.
  void* at(void* const* buffers, size_t i) const { return buffers[operands_ + i]; }
  size_t count() const { return bytes_.size(); }
  std::vector<InPlace> in_place() const {
    std::vector<InPlace> pairs;
    for (int i = 0; i < static_cast<int>(bytes_.size()); ++i) pairs.push_back({i, i});
    return pairs;
  }

 private:
  size_t operands_;
  std::vector<int64_t> bytes_;
};

class ScanKernel final : public target::Kernel {
 public:
  ScanKernel(const Node& n, std::shared_ptr<const Program> body)
      : body_(std::move(body)),
        carries_(n, n.attrs<op::ScanAttrs>().carries),
        operands_(n.inputs().size()),
        length_(n.attrs<op::ScanAttrs>().length),
        reverse_(n.attrs<op::ScanAttrs>().reverse) {
    const std::vector<Port>& in = body_.program()->inputs();
    walked_ = carries_.count() + static_cast<size_t>(n.attrs<op::ScanAttrs>().slices);
    for (size_t i = carries_.count(); i < walked_; ++i) slice_bytes_.push_back(in[i].bytes());
    const std::vector<Port>& out = body_.program()->outputs();
    for (size_t o = carries_.count(); o < out.size(); ++o) stacked_bytes_.push_back(out[o].bytes());
  }

  std::string_view name() const override { return "nested scan"; }
  int64_t scratch_bytes() const override { return body_.scratch_bytes(); }
  int64_t packed_bytes() const override { return body_.kept_bytes(); }
  std::vector<InPlace> in_place() const override { return carries_.in_place(); }

  void run(void* const* buffers, void* scratch, int64_t) const override {
    const Body::Frame frame(body_, scratch);
    carries_.begin(buffers);
    for (size_t i = 0; i < carries_.count(); ++i) frame.input(i, carries_.at(buffers, i));
    for (size_t i = walked_; i < operands_; ++i) frame.input(i, buffers[i]);
    for (int64_t step = 0; step < length_; ++step) {
      const int64_t row = reverse_ ? length_ - 1 - step : step;
      for (size_t i = 0; i < slice_bytes_.size(); ++i)
        frame.input(carries_.count() + i, moved(buffers[carries_.count() + i], row * slice_bytes_[i]));
      for (size_t o = 0; o < stacked_bytes_.size(); ++o)
        frame.output(carries_.count() + o,
                     moved(buffers[operands_ + carries_.count() + o], row * stacked_bytes_[o]));
      frame.run();
    }
  }

 private:
  Body body_;
  Carries carries_;
  size_t operands_, walked_ = 0;
  int64_t length_;
  bool reverse_;
  std::vector<int64_t> slice_bytes_, stacked_bytes_;
};

class CondKernel final : public target::Kernel {
 public:
  CondKernel(const Node& n, std::shared_ptr<const Program> if_true, std::shared_ptr<const Program> if_false)
      : if_true_(std::move(if_true)),
        if_false_(std::move(if_false)),
        operands_(n.inputs().size()),
        results_(static_cast<size_t>(n.results())) {}

  std::string_view name() const override { return "nested cond"; }
  int64_t scratch_bytes() const override {
    return std::max(if_true_.scratch_bytes(), if_false_.scratch_bytes());
  }
  int64_t packed_bytes() const override { return if_true_.kept_bytes() + if_false_.kept_bytes(); }

  void run(void* const* buffers, void* scratch, int64_t) const override {
    const bool condition = *static_cast<const uint8_t*>(buffers[0]) != 0;
    const Body::Frame frame(condition ? if_true_ : if_false_, scratch);
    for (size_t i = 1; i < operands_; ++i) frame.input(i - 1, buffers[i]);
    for (size_t r = 0; r < results_; ++r) frame.output(r, buffers[operands_ + r]);
    frame.run();
  }

 private:
  Body if_true_, if_false_;
  size_t operands_, results_;
};

class WhileKernel final : public target::Kernel {
 public:
  WhileKernel(const Node& n, std::shared_ptr<const Program> condition, std::shared_ptr<const Program> body)
      : condition_(std::move(condition)),
        body_(std::move(body)),
        carries_(n, n.attrs<op::WhileAttrs>().carries),
        operands_(n.inputs().size()) {}

  std::string_view name() const override { return "nested while_loop"; }
  int64_t scratch_bytes() const override {
    return pass::arena_alignment + condition_.scratch_bytes() + body_.scratch_bytes();
  }
  int64_t packed_bytes() const override { return condition_.kept_bytes() + body_.kept_bytes(); }
  std::vector<InPlace> in_place() const override { return carries_.in_place(); }

  void run(void* const* buffers, void* scratch, int64_t) const override {
    const auto* again = static_cast<const uint8_t*>(scratch);
    const Body::Frame condition(condition_, moved(scratch, pass::arena_alignment));
    const Body::Frame body(body_, moved(scratch, pass::arena_alignment + condition_.scratch_bytes()));
    carries_.begin(buffers);
    for (size_t i = 0; i < operands_; ++i) {
      void* const at = i < carries_.count() ? carries_.at(buffers, i) : buffers[i];
      condition.input(i, at);
      body.input(i, at);
    }
    condition.output(0, scratch);
    for (condition.run(); *again != 0; condition.run()) body.run();
  }

 private:
  Body condition_, body_;
  Carries carries_;
  size_t operands_;
};

}  // namespace

NestedStep nest(const Node& n, const CompileBody& compile) {
  NestedStep step;
  if (&n.op() == &op::scan_op) {
    const auto& at = n.attrs<op::ScanAttrs>();
    step.bodies = {compile(with_carries(*at.body, at.carries))};
    step.kernel = std::make_unique<ScanKernel>(n, step.bodies[0]);
  } else if (&n.op() == &op::cond_op) {
    const auto& at = n.attrs<op::CondAttrs>();
    step.bodies = {compile(*at.if_true), compile(*at.if_false)};
    step.kernel = std::make_unique<CondKernel>(n, step.bodies[0], step.bodies[1]);
  } else if (&n.op() == &op::while_loop_op) {
    const auto& at = n.attrs<op::WhileAttrs>();
    step.bodies = {compile(*at.condition), compile(with_carries(*at.body, at.carries))};
    step.kernel = std::make_unique<WhileKernel>(n, step.bodies[0], step.bodies[1]);
  }
  return step;
}

}  // namespace espalier::run

#include "kernel/lower.h"

#include <algorithm>

#include "base/align.h"
#include "base/error.h"
#include "kernel/nest_builder.h"
#include "op/contraction.h"

namespace espalier::kernel {

using ir::Value;

namespace {

constexpr int max_attempts = 300;

/// Lowers one body: builds nests until none asks for more loops, stored values or cuts.
class Lowerer {
 public:
  Lowerer(const ir::Graph& body, const LowerOptions& options) : body_(body), options_(options) {}

  std::variant<Lowered, Refusal> run() {
    try {
      check();
      for (int attempt = 0; attempt < max_attempts; ++attempt)
        if (try_all()) return std::move(out_);
      return Refusal{"loop", "the body needs too many decisions"};
    } catch (const CannotLower& c) {
      return Refusal{"loop", c.reason};
    }
  }

 private:
  void check() {
    for (const Value& in : body_.inputs) {
      if (!in.type().is_static()) throw CannotLower{"an input with unbound symbols: " + in.type().text()};
      inputs_[key_of(in)] = static_cast<int>(buffers_.size());
      buffers_.push_back({Role::input, in.dtype(), in.type().elements()});
    }
    for (const ir::Output& o : body_.outputs) {
      if (!o.value.type().is_static())
        throw CannotLower{"an output with unbound symbols: " + o.value.type().text()};
      outputs_.push_back({o.value, false, static_cast<int>(buffers_.size())});
      buffers_.push_back({Role::output, o.value.dtype(), o.value.type().elements()});
    }
    for (const ir::Node* n : body_.nodes()) check_contraction(*n);
  }

  void check_contraction(const ir::Node& n) const {
    if (&n.op() != &op::dot_op) return;
    int64_t products = n.types()[0].elements();
    const Fold fold = *fold_of(n.value());
    for (int64_t e : fold.extents) products *= e;
    if (products > options_.max_contraction)
      throw CannotLower{"a contraction of " + std::to_string(products) + " products; a loop is for at most " +
                        std::to_string(options_.max_contraction)};
  }

  bool try_all() {
    try {
      out_ = {};
      done_.clear();
      for (size_t i = 0; i < outputs_.size(); ++i) store(outputs_[i]);
      out_.buffers = buffers_;
      for (LoopNest& nest : out_.nests) {
        nest.buffers = buffers_;
        verify(nest);
      }
      return true;
    } catch (const MustSplitAxis& m) {
      split(m);
    } catch (const MustStore& m) {
      keep(m.value);
    } catch (const MustCut& m) {
      cut(m);
    }
    return false;
  }

  void split(const MustSplitAxis& m) {
    std::vector<int64_t>& factors = decisions_.factors[m.axis];
    if (factors.empty()) factors = {extent_of(m.axis)};
    const int64_t whole = factors[m.position];
    ESPALIER_CHECK(m.inner > 0 && whole % m.inner == 0);
    factors[m.position] = whole / m.inner;
    factors.insert(factors.begin() + static_cast<std::ptrdiff_t>(m.position) + 1, m.inner);
  }

  int64_t extent_of(const AxisKey& axis) const {
    const Value& v = values_.at(axis.first);
    if (axis.second == folded_axis - 1) return decisions_.cuts.at(axis.first).parts;
    if (axis.second < folded_axis) return ir::static_dims(v.dims())[static_cast<size_t>(axis.second)];
    const auto cut = decisions_.cuts.find(axis.first);  // its loop walks one part
    if (cut != decisions_.cuts.end() && static_cast<int64_t>(cut->second.axis) == axis.second - folded_axis)
      return cut->second.step;
    return fold_of(v)->extents[static_cast<size_t>(axis.second - folded_axis)];
  }

  /// Give `value` a buffer of its own: an output's, where it is one.
  void keep(const Value& value) {
    if (decisions_.stored.count(key_of(value)))
      throw CannotLower{"value of op " + std::string(value.node().op().name) + " cannot be stored"};
    int buffer = -1;
    for (const Target& t : outputs_)
      if (t.value == value) buffer = t.buffer;
    if (buffer < 0) {
      const bool narrow = value.dtype() == Dtype::bf16 || value.dtype() == Dtype::f16;
      buffer = new_scratch(narrow ? Dtype::f32 : value.dtype(), value.type().elements());
    }
    decisions_.stored[key_of(value)] = buffer;
    stored_.push_back(value);
  }

  void cut(const MustCut& m) {
    const Fold fold = *fold_of(m.value);
    Cut c;
    c.axis = m.axis;
    c.step = (fold.extents[m.axis] + m.parts - 1) / m.parts;
    c.parts = (fold.extents[m.axis] + c.step - 1) / c.step;
    if (m.leading) {
      c.factors.assign(fold.extents.begin(), fold.extents.begin() + static_cast<std::ptrdiff_t>(m.axis));
      c.factors.push_back(c.parts);
      c.parts = ir::count(std::span<const int64_t>(c.factors));
      decisions_.factors[{key_of(m.value), folded_axis - 1}] = c.factors;
    }
    c.buffer = new_scratch(fold.accumulator, c.parts * m.value.type().elements());
    decisions_.cuts[key_of(m.value)] = c;
    cut_.push_back(m.value);
  }

  int new_scratch(Dtype dtype, int64_t elements) {
    buffers_.push_back({Role::scratch, dtype, elements});
    return static_cast<int>(buffers_.size()) - 1;
  }

  Built build(const std::vector<Target>& targets) {
    NestBuilder builder(inputs_, buffers_, decisions_, options_);
    try {
      return builder.build(targets);
    } catch (...) {
      builder.note_values(values_);
      throw;
    }
  }

  static std::pair<ValueKey, bool> id(const Target& t) { return {key_of(t.value), t.in_parts}; }

  /// Everything that may still be stored by some nest.
  std::vector<Target> pending() const {
    std::vector<Target> all = outputs_;
    for (const Value& v : stored_) all.push_back({v, false, decisions_.stored.at(key_of(v))});
    for (const Value& v : cut_) all.push_back({v, true, decisions_.cuts.at(key_of(v)).buffer});
    std::erase_if(all, [&](const Target& t) { return done_.count(t.buffer) != 0; });
    return all;
  }

  bool is_ready(const Built& b) const {
    const auto stored = [&](const ValueKey& k) { return done_.count(decisions_.stored.at(k)) != 0; };
    const auto parts = [&](const ValueKey& k) { return done_.count(decisions_.cuts.at(k).buffer) != 0; };
    return std::all_of(b.reads.begin(), b.reads.end(), stored) &&
           std::all_of(b.reads_parts.begin(), b.reads_parts.end(), parts);
  }

  /// Nests for `t`, after those for what it reads; others that fit are stored by the same nest.
  void store(const Target& t) {
    if (done_.count(t.buffer)) return;
    if (t.value.type().elements() == 0) {
      done_.insert(t.buffer);
      return;
    }
    Built built = build({t});
    if (!is_ready(built)) {
      for (const ValueKey& k : built.reads) store_read(k, false);
      for (const ValueKey& k : built.reads_parts) store_read(k, true);
    }
    std::vector<Target> group{t};
    for (const Target& other : pending()) {
      if (other.buffer == t.buffer || other.in_parts != t.in_parts || other.value.type().elements() == 0)
        continue;
      group.push_back(other);
      try {
        Built both = build(group);
        if (is_ready(both)) {
          built = std::move(both);
          continue;
        }
      } catch (const MustSplitAxis&) {
      } catch (const MustStore&) {
      } catch (const MustCut&) {
      } catch (const CannotLower&) {
      }
      group.pop_back();
    }
    for (const Target& g : group) done_.insert(g.buffer);
    out_.nests.push_back(std::move(built.nest));
  }

  void store_read(const ValueKey& key, bool in_parts) {
    for (const Target& t : pending())
      if (t.in_parts == in_parts && key_of(t.value) == key) return store(t);
  }

  const ir::Graph& body_;
  const LowerOptions& options_;
  std::map<ValueKey, int> inputs_;
  std::vector<Buffer> buffers_;
  std::vector<Target> outputs_;
  std::vector<Value> stored_, cut_;
  std::map<ValueKey, Value> values_;
  Decisions decisions_;
  std::set<int> done_;  // buffers
  Lowered out_;
};

}  // namespace

int64_t Lowered::scratch_bytes() const {
  int64_t n = 0;
  for (const Buffer& b : buffers)
    if (b.role == Role::scratch) n += whole_lines(b.elements * ir::dtype_size(b.dtype));
  return n;
}

std::variant<Lowered, Refusal> lower(const ir::Graph& body, const LowerOptions& options) {
  return Lowerer(body, options).run();
}

bool can_share(const Lowered& lowered, int out, int in) {
  int inputs = 0;
  for (const Buffer& b : lowered.buffers) inputs += b.role == Role::input;
  bool stored = false;
  for (const LoopNest& nest : lowered.nests) {
    const auto loads = [&] {
      for (const Stage& s : nest.stages)
        for (const Instr& i : s.body)
          if (i.kind == Instr::Kind::load && i.buffer == in) return true;
      return false;
    };
    if (stored && loads()) return false;
    if (!can_share(nest, inputs + out, in)) return false;
    for (const Stage& s : nest.stages)
      for (const Store& st : s.stores) stored = stored || st.buffer == inputs + out;
  }
  return true;
}

}  // namespace espalier::kernel

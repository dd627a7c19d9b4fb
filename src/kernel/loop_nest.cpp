#include "kernel/loop_nest.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace espalier::kernel {
namespace {

constexpr std::string_view reduce_names[] = {"sum", "prod", "max", "min", "argmax", "argmin"};
constexpr std::string_view role_names[] = {"input", "output", "scratch", "local"};

std::string guards_text(const std::vector<Guard>& guards) {
  std::string s;
  for (const Guard& g : guards)
    s += (s.empty() ? " if " : " and ") + std::to_string(g.low) + " <= " + g.index.text() + " < " +
         std::to_string(g.high);
  return s;
}

std::string instr_text(const Instr& in) {
  const auto op = [&](size_t i) { return "t" + std::to_string(in.operand[i]); };
  switch (in.kind) {
    case Instr::Kind::constant:
      return ir::is_float(in.dtype) ? number_text(in.value) : std::to_string(in.integer);
    case Instr::Kind::index: return "index " + in.address.text();
    case Instr::Kind::inside: return "inside" + guards_text(in.guards);
    case Instr::Kind::cast: return "cast " + op(0);
    case Instr::Kind::reduced:
      return "reduced " + std::to_string(in.operand[0]) + "." + std::to_string(in.operand[1]);
    case Instr::Kind::load: {
      std::string s = "b" + std::to_string(in.buffer) + "[" + in.address.text();
      for (const Indirect& i : in.indirect)
        s += " + clamp(t" + std::to_string(i.value) + ", " + std::to_string(i.bound) + ")*" +
             std::to_string(i.stride);
      return s + "]" + guards_text(in.guards);
    }
    case Instr::Kind::scalar: break;
  }
  std::string s(ir::scalar_code_name(in.code));
  for (size_t i = 0; i < 3 && in.operand[i] >= 0; ++i) s += (i ? ", " : " ") + op(i);
  return s;
}

std::string loops_text(const LoopNest& nest, const std::vector<int>& loops) {
  std::string s;
  for (int v : loops) s += " v" + std::to_string(v) + "<" + std::to_string(nest.extent(v));
  return s;
}

std::string stage_text(const LoopNest& nest, const Stage& stage) {
  std::string s = "  stage" + loops_text(nest, stage.loops) + "\n";
  for (size_t i = 0; i < stage.body.size(); ++i)
    s += "    t" + std::to_string(i) + " = " + std::string(dtype_name(stage.body[i].dtype)) + " " +
         instr_text(stage.body[i]) + "\n";
  for (size_t i = 0; i < stage.reductions.size(); ++i) {
    const Reduction& r = stage.reductions[i];
    s += "    r" + std::to_string(i) + " = " + std::string(dtype_name(r.dtype)) + " " +
         std::string(reduce_op_name(r.op)) + " t" + std::to_string(r.value) +
         (r.position >= 0 ? " at t" + std::to_string(r.position) : "") + "\n";
  }
  for (const Store& st : stage.stores)
    s += "    b" + std::to_string(st.buffer) + "[" + st.address.text() + "] = t" + std::to_string(st.value) +
         "\n";
  return s;
}

/// Do two addresses of different stages reach the same elements at each point of the outer loops?
bool same_elements(const LoopNest& nest, const Affine& a, const Affine& b) {
  const auto shape = [&](const Affine& x) {
    std::vector<std::array<int64_t, 3>> terms;  // is it an outer variable (then which), extent, coefficient
    for (const Affine::Term& t : x.terms) {
      const bool outer = std::count(nest.outer.begin(), nest.outer.end(), t.var) != 0;
      terms.push_back({outer ? t.var : -1, nest.extent(t.var), t.coef});
    }
    std::sort(terms.begin(), terms.end());
    return terms;
  };
  return a.offset == b.offset && shape(a) == shape(b);
}

/// Checks one nest; names the stage and instruction in every complaint.
class Verifier {
 public:
  explicit Verifier(const LoopNest& nest) : nest_(nest) {}

  void run() {
    for (int v : nest_.outer) check_var(v);
    for (stage_ = 0; stage_ < nest_.stages.size(); ++stage_) check_stage(nest_.stages[stage_]);
  }

 private:
  void require(bool ok, const std::string& what) const {
    if (!ok)
      throw InternalError("loop nest, stage " + std::to_string(stage_) + ": " + what + "\n" + nest_.text());
  }
  void check_var(int v) const {
    require(v >= 0 && static_cast<size_t>(v) < nest_.extents.size(), "unknown loop variable");
  }
  void check_operand(int t, size_t limit) const {
    require(t >= 0 && static_cast<size_t>(t) < limit, "operand out of order");
  }

  bool is_empty(const Stage& stage) const {
    const auto zero = [&](int v) { return nest_.extent(v) == 0; };
    return std::any_of(nest_.outer.begin(), nest_.outer.end(), zero) ||
           std::any_of(stage.loops.begin(), stage.loops.end(), zero);
  }

  void check_access(const Stage& stage, int buffer, const Affine& address, const std::vector<Guard>& guards,
                    const std::vector<Indirect>& indirect) const {
    require(buffer >= 0 && static_cast<size_t>(buffer) < nest_.buffers.size(), "unknown buffer");
    for (const Affine::Term& t : address.terms) check_var(t.var);
    for (const Affine::Term& t : address.terms)
      require(std::count(stage.loops.begin(), stage.loops.end(), t.var) +
                      std::count(nest_.outer.begin(), nest_.outer.end(), t.var) ==
                  1,
              "a variable of no loop around: v" + std::to_string(t.var));
    if (!guards.empty() || is_empty(stage)) return;  // what guards leave over is the lowering's business
    auto [low, high] = bounds(address, nest_.extents);
    for (const Indirect& i : indirect) high += (i.bound - 1) * i.stride;
    require(low >= 0 && high < nest_.buffers[static_cast<size_t>(buffer)].elements,
            "an access outside buffer " + std::to_string(buffer) + ": " + address.text());
  }

  void check_stage(const Stage& stage) const {
    for (int v : stage.loops) check_var(v);
    for (size_t i = 0; i < stage.body.size(); ++i) check_instr(stage, stage.body[i], i);
    for (const Reduction& r : stage.reductions) {
      check_operand(r.value, stage.body.size());
      if (r.op >= ReduceOp::argmax) check_operand(r.position, stage.body.size());
    }
    for (const Store& s : stage.stores) {
      check_operand(s.value, stage.body.size());
      check_access(stage, s.buffer, s.address, {}, {});
      require(nest_.buffers[static_cast<size_t>(s.buffer)].role != Role::input, "a store to an input");
    }
  }

  void check_instr(const Stage& stage, const Instr& in, size_t at) const {
    if (in.kind == Instr::Kind::reduced) {
      require(in.operand[0] >= 0 && static_cast<size_t>(in.operand[0]) < stage_, "a result of a later stage");
      require(static_cast<size_t>(in.operand[1]) <
                  nest_.stages[static_cast<size_t>(in.operand[0])].reductions.size(),
              "no such result");
      return;
    }
    for (int t : in.operand)
      if (t >= 0) check_operand(t, at);
    for (const Indirect& i : in.indirect) check_operand(i.value, at);
    if (in.kind == Instr::Kind::load) check_access(stage, in.buffer, in.address, in.guards, in.indirect);
  }

  const LoopNest& nest_;
  size_t stage_ = 0;
};

}  // namespace

std::string_view reduce_op_name(ReduceOp op) { return reduce_names[static_cast<size_t>(op)]; }
std::string_view role_name(Role role) { return role_names[static_cast<size_t>(role)]; }

Affine Affine::var(int v, int64_t coef) { return coef == 0 ? Affine{} : Affine{0, {{v, coef}}}; }

int64_t Affine::coef(int var) const {
  for (const Term& t : terms)
    if (t.var == var) return t.coef;
  return 0;
}

Affine& Affine::add(const Affine& other, int64_t factor) {
  offset += other.offset * factor;
  for (const Term& o : other.terms) {
    const auto it =
        std::lower_bound(terms.begin(), terms.end(), o.var, [](const Term& t, int v) { return t.var < v; });
    if (it != terms.end() && it->var == o.var) it->coef += o.coef * factor;
    else terms.insert(it, {o.var, o.coef * factor});
  }
  std::erase_if(terms, [](const Term& t) { return t.coef == 0; });
  return *this;
}

Affine Affine::replaced(int var, const Affine& by) const {
  const int64_t c = coef(var);
  if (c == 0) return *this;
  Affine out = *this;
  out.add(Affine::var(var), -c);
  out.add(by, c);
  return out;
}

std::string Affine::text() const {
  std::string s = offset != 0 || terms.empty() ? std::to_string(offset) : "";
  for (const Term& t : terms)
    s += (s.empty() ? "" : " + ") + (t.coef == 1 ? "" : std::to_string(t.coef) + "*") + "v" +
         std::to_string(t.var);
  return s;
}

std::string LoopNest::text() const {
  std::string s = "nest" + loops_text(*this, outer) + "\n";
  for (size_t i = 0; i < buffers.size(); ++i)
    s += "  b" + std::to_string(i) + ": " + std::string(role_name(buffers[i].role)) + " " +
         std::string(dtype_name(buffers[i].dtype)) + "[" + std::to_string(buffers[i].elements) + "]\n";
  for (const Stage& stage : stages) s += stage_text(*this, stage);
  return s;
}

void verify(const LoopNest& nest) { Verifier(nest).run(); }

std::pair<int64_t, int64_t> bounds(const Affine& index, const std::vector<int64_t>& extents) {
  int64_t low = index.offset, high = index.offset;
  for (const Affine::Term& t : index.terms) {
    const int64_t reach = t.coef * (extents[static_cast<size_t>(t.var)] - 1);
    (reach < 0 ? low : high) += reach;
  }
  return {low, high};
}

bool can_share(const LoopNest& nest, int out, int in) {
  const Store* store = nullptr;
  size_t stored_in = 0, stores = 0;
  for (size_t s = 0; s < nest.stages.size(); ++s)
    for (const Store& st : nest.stages[s].stores)
      if (st.buffer == out) store = &st, stored_in = s, ++stores;
  if (stores > 1) return false;
  const Buffer &a = nest.buffers[static_cast<size_t>(out)], &b = nest.buffers[static_cast<size_t>(in)];
  if (ir::dtype_size(a.dtype) != ir::dtype_size(b.dtype) || a.elements != b.elements) return false;
  if (!store) return true;
  for (size_t s = 0; s < nest.stages.size(); ++s)
    for (const Instr& i : nest.stages[s].body) {
      if (i.kind != Instr::Kind::load || i.buffer != in) continue;
      if (!i.indirect.empty() || s > stored_in) return false;
      if (s == stored_in ? i.address != store->address : !same_elements(nest, i.address, store->address))
        return false;
    }
  return true;
}

}  // namespace espalier::kernel

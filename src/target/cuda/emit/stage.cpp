#include "target/cuda/emit/stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace espalier::target::cuda {

using ir::ScalarCode;
using kernel::Affine;
using kernel::Guard;
using kernel::Instr;
using kernel::ReduceOp;
using kernel::Reduction;
using kernel::Stage;
using kernel::Store;

namespace {

/// Nothing to compute: a number, or a fold's result.
bool is_at_hand(const Instr& in) {
  return in.kind == Instr::Kind::constant || in.kind == Instr::Kind::reduced;
}

bool has_position(const Reduction& r) { return r.op == ReduceOp::argmax || r.op == ReduceOp::argmin; }
bool is_largest(const Reduction& r) { return r.op == ReduceOp::max || r.op == ReduceOp::argmax; }

/// What an accumulator starts from.
Val identity(const Reduction& r) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  if (r.op == ReduceOp::sum) return constant(r.dtype, 0, 0);
  if (r.op == ReduceOp::prod) return constant(r.dtype, 1, 1);
  const bool lowest = is_largest(r);
  if (ir::is_float(r.dtype)) return constant(r.dtype, lowest ? -inf : inf, 0);
  const auto limits = [&](auto like) {
    using Limits = std::numeric_limits<decltype(like)>;
    return constant(r.dtype, 0, static_cast<int64_t>(lowest ? Limits::min() : Limits::max()));
  };
  switch (r.dtype) {
    case Dtype::i64: return limits(int64_t{});
    case Dtype::i32: return limits(int32_t{});
    case Dtype::i8: return limits(int8_t{});
    case Dtype::u8: return limits(uint8_t{});
    default: return constant(r.dtype, 0, lowest ? 0 : 1);
  }
}

Val last_position(Dtype d) {
  return constant(
      d, 0, d == Dtype::i32 ? std::numeric_limits<int32_t>::max() : std::numeric_limits<int64_t>::max());
}

ScalarCode code_of(const Reduction& r, Dtype d) {
  const bool boolean = d == Dtype::boolean;
  switch (r.op) {
    case ReduceOp::sum: return boolean ? ScalarCode::logical_or : ScalarCode::add;
    case ReduceOp::prod: return boolean ? ScalarCode::logical_and : ScalarCode::mul;
    case ReduceOp::max: return ScalarCode::max;
    default: return ScalarCode::min;
  }
}

}  // namespace

std::string StagePrinter::number(int64_t n) const {
  return m_.wide_index ? fmt::format("{}ll", n) : fmt::format("{}", n);
}

void StagePrinter::stages() {
  for (size_t i = 0; i < m_.nest.stages.size(); ++i) stage(i);
}

/// A result may lie where an operand does: before it is written, all threads that share the point must have read.
void StagePrinter::wait_before(size_t index) {
  const auto& stores = m_.nest.stages[index].stores;
  const bool overwrites = std::any_of(stores.begin(), stores.end(), [&](const Store& st) {
    return m_.shared[static_cast<size_t>(st.buffer)] != 0;
  });
  if (overwrites && !waited_)
    out_.line(m_.scheme == Scheme::rows && m_.group <= 32 ? "__syncwarp();" : "__syncthreads();");
}

void StagePrinter::stage(size_t index) {
  stage_ = index;
  find_lane_dependence();
  find_fixed();
  if (m_.scheme != Scheme::pointwise) wait_before(index);
  start_reductions();
  compute_fixed();
  loops(0);
  const bool combines = map().split >= 0 && !current().reductions.empty();
  waited_ = combines;
  if (combines) combine();
}

void StagePrinter::loops(size_t k) {
  if (k == map().loops.size()) {
    const bool block = k == 0 && (m_.nest.stages.size() > 1 || m_.scheme != Scheme::pointwise);
    const bool one = m_.scheme != Scheme::pointwise && current().reductions.empty();  // one thread is enough
    const char* once = m_.slices > 1 ? "if (live && part == 0 && slice == 0)" : "if (live && part == 0)";
    if (block) out_.open(m_.scheme == Scheme::pointwise ? "" : one ? once : "if (live)");
    body();
    if (block) out_.close();
    return;
  }
  const int var = map().loops[k];
  if (var == map().split) return split_loop(k);
  out_.open(
      fmt::format("for ({0} v{1} = 0; v{1} < {2}; ++v{1})", index_type(), var, number(m_.nest.extent(var))));
  loops(k + 1);
  out_.close();
}

/// The threads of a group take turns; a point that does not exist has no turns.
void StagePrinter::split_loop(size_t k) {
  const int var = map().split, lanes_here = var == lane_var() ? lanes() : 1;
  const int64_t slices = map().sliced ? m_.slices : 1;
  const int64_t extent = m_.nest.extent(var), step = slices * m_.group * lanes_here;
  const std::string first = slices > 1 ? fmt::format("(slice * {} + part)", m_.group) : "part";
  if (extent > step) out_.pragma("#pragma unroll 4");
  out_.open(fmt::format("for ({0} {1}{2} = {6}{3}; {1}{2} < (live ? {4} : 0); {1}{2} += {5})", index_type(),
                        lanes_here > 1 ? "w" : "v", var,
                        lanes_here > 1 ? fmt::format(" * {}", lanes_here) : "", number(extent), number(step),
                        first));
  loops(k + 1);
  out_.close();
}

void StagePrinter::find_lane_dependence() {
  on_lane_.clear();
  for (const Instr& in : current().body) {
    bool on = false;
    if (in.kind == Instr::Kind::reduced) on = lanes_are_points();
    else {
      if (in.kind == Instr::Kind::load || in.kind == Instr::Kind::index) on = is_on_lane(in.address);
      for (const Guard& g : in.guards) on = on || is_on_lane(g.index);
      for (int t : in.operand) on = on || (t >= 0 && on_lane_[static_cast<size_t>(t)]);
      for (const auto& i : in.indirect) on = on || on_lane_[static_cast<size_t>(i.value)];
      if (on && is_block_of_lanes(in)) on = false;
    }
    on_lane_.push_back(on);
  }
}

bool StagePrinter::is_fixed(const Instr& in) const {
  const auto outside = [&](const Affine& a) {
    return std::ranges::none_of(map().loops, [&](int v) { return a.coef(v) != 0; });
  };
  const auto fixed = [&](int t) { return t < 0 || fixed_[static_cast<size_t>(t)]; };
  if (in.kind == Instr::Kind::reduced || in.kind == Instr::Kind::constant) return true;
  return outside(in.address) && std::ranges::all_of(in.operand, fixed) &&
         std::ranges::all_of(in.guards, [&](const Guard& g) { return outside(g.index); }) &&
         std::ranges::all_of(in.indirect, [&](const kernel::Indirect& i) { return fixed(i.value); });
}

/// Where threads share a point, what a stage's loops compute at every turn alike is computed once before them.
void StagePrinter::find_fixed() {
  const Stage& st = current();
  fixed_.clear();
  kept_.assign(st.body.size(), 0);
  const bool none = m_.scheme == Scheme::pointwise || m_.scheme == Scheme::transpose || map().loops.empty();
  for (const Instr& in : st.body) fixed_.push_back(!none && is_fixed(in));
  const auto keep = [&](int t) {
    const auto i = static_cast<size_t>(t);
    if (t >= 0 && fixed_[i] && !is_at_hand(st.body[i])) kept_[i] = 1;
  };
  for (size_t t = 0; t < st.body.size(); ++t) {
    if (fixed_[t]) continue;
    for (const int o : st.body[t].operand)
      if (st.body[t].kind != Instr::Kind::reduced) keep(o);
    for (const auto& i : st.body[t].indirect) keep(i.value);
  }
  for (const Reduction& r : st.reductions) keep(r.value), keep(r.position);
  for (const Store& s : st.stores) keep(s.value);
}

void StagePrinter::compute_fixed() {
  const Stage& st = current();
  if (std::ranges::count(kept_, 1) == 0) return;
  values_.assign(st.body.size(), Val{});
  kept_values_ = values_;
  const auto each = [&](bool on_lane, auto&& f) {
    for (size_t t = 0; t < st.body.size(); ++t)
      if (fixed_[t] && (on_lane_[t] != 0) == on_lane) f(t);
  };
  const auto keep = [&](size_t t) {
    if (!kept_[t]) return;
    Val& name = kept_values_[t] = values_[t];
    name.text = fmt::format("h{}_{}{}", stage_, t, on_lane_[t] ? "[l]" : "");
    out_.line(fmt::format("{} = {};", name.text, values_[t].text));
  };
  for (size_t t = 0; t < st.body.size(); ++t)
    if (kept_[t])
      out_.line(fmt::format("{} h{}_{}{};", register_type(st.body[t].dtype), stage_, t,
                            on_lane_[t] ? fmt::format("[{}]", lanes()) : ""));
  out_.open("if (live)");
  each(true, [&](size_t t) {
    if (st.body[t].kind == Instr::Kind::load && loads_as_vector(st.body[t])) vector_load(t);
  });
  each(false, [&](size_t t) { instruction(t), keep(t); });
  bool lanes_differ = false;
  each(true, [&](size_t) { lanes_differ = true; });
  if (lanes_differ) open_lanes();
  each(true, [&](size_t t) { instruction(t), keep(t); });
  if (lanes_differ) close_lanes();
  out_.close();
}

/// An index shifted right until all lanes have the same: they lie in one block of a power of two (four elements of a draw share one
/// block of random words).
bool StagePrinter::is_block_of_lanes(const Instr& in) const {
  if (in.kind != Instr::Kind::scalar || in.code != ScalarCode::shift_right) return false;
  const Instr &index = current().body[static_cast<size_t>(in.operand[0])],
              &shift = current().body[static_cast<size_t>(in.operand[1])];
  if (index.kind != Instr::Kind::index || index.dtype != Dtype::i64 || shift.kind != Instr::Kind::constant)
    return false;
  const Guard block{index.address, 0, int64_t{1} << std::clamp<int64_t>(shift.integer, 0, 62)};
  return shift.integer >= 0 && is_vector_guard(block, lane_var(), lanes());
}

bool StagePrinter::loads_as_vector(const Instr& in) const {
  if (lanes() == 1 || in.address.coef(lane_var()) != 1) return false;
  for (const auto& i : in.indirect)
    if (on_lane_[static_cast<size_t>(i.value)]) return false;
  return is_vector_access(m_, in.address, in.indirect, in.buffer, lane_var(), lanes()) &&
         std::all_of(in.guards.begin(), in.guards.end(),
                     [&](const Guard& g) { return is_vector_guard(g, lane_var(), lanes()); });
}

bool StagePrinter::stores_as_vector(const Store& st) const {
  return lanes() > 1 && st.address.coef(lane_var()) == 1 &&
         is_vector_access(m_, st.address, {}, st.buffer, lane_var(), lanes());
}

void StagePrinter::open_lanes() {
  if (lanes() == 1) return;
  out_.pragma("#pragma unroll");
  out_.open(fmt::format("for (int l = 0; l < {}; ++l)", lanes()));
  out_.line(fmt::format("const {0} v{1} = w{1} + l;", index_type(), lane_var()));
}

void StagePrinter::close_lanes() {
  if (lanes() > 1) out_.close();
}

void StagePrinter::body() {
  const Stage& st = current();
  values_.assign(st.body.size(), Val{});
  for (size_t t = 0; t < st.body.size(); ++t) {
    if (fixed_[t] && !is_at_hand(st.body[t])) {
      if (kept_[t]) values_[t] = kept_values_[t];
    } else if (!on_lane_[t]) instruction(t);
    else if (st.body[t].kind == Instr::Kind::load && loads_as_vector(st.body[t])) vector_load(t);
  }
  for (size_t i = 0; i < st.stores.size(); ++i)
    if (stores_as_vector(st.stores[i]))
      out_.line(fmt::format("Vec<{}, {}> y{};",
                            memory_type(m_.nest.buffers[static_cast<size_t>(st.stores[i].buffer)].dtype),
                            lanes(), i));
  open_lanes();
  for (size_t t = 0; t < st.body.size(); ++t)
    if (on_lane_[t] && (!fixed_[t] || is_at_hand(st.body[t]))) instruction(t);
  for (size_t r = 0; r < st.reductions.size(); ++r) accumulate(r);
  // A result may lie where an operand does: all is read before anything is written.
  for (size_t i = 0; i < st.stores.size(); ++i) {
    const Store& s = st.stores[i];
    if (stores_as_vector(s)) out_.line(fmt::format("y{}.v[l] = {};", i, stored(s)));
    else out_.line(fmt::format("p{}[{}] = {};", s.buffer, affine(s.address, false), stored(s)));
  }
  close_lanes();
  for (size_t i = 0; i < st.stores.size(); ++i) {
    if (!stores_as_vector(st.stores[i])) continue;
    accesses(st.stores[i].buffer, lanes());
    out_.line(fmt::format("esp_store<{}>(p{} + {}, y{});", lanes(), st.stores[i].buffer,
                          affine(st.stores[i].address, true), i));
  }
}

/// So many elements of `buffer` are moved as one.
void StagePrinter::accesses(int buffer, int lanes) {
  const auto b = static_cast<size_t>(buffer);
  constexpr int64_t most = 16;  // wider vectors move in pieces
  widest_[b] = std::max(widest_[b], std::min(most, lanes * ir::dtype_size(m_.nest.buffers[b].dtype)));
}

void StagePrinter::instruction(size_t t) {
  const Instr& in = current().body[t];
  Val v = value(in, t);
  if (in.kind != Instr::Kind::constant) {
    const std::string name = fmt::format("t{}", t);
    out_.line(fmt::format("const {} {} = {};", register_type(v.dtype), name, v.text));
    v.text = name;
  }
  values_[t] = v;
}

void StagePrinter::vector_load(size_t t) {
  const Instr& in = current().body[t];
  const char* type = memory_type(m_.nest.buffers[static_cast<size_t>(in.buffer)].dtype);
  accesses(in.buffer, lanes());
  std::string load = fmt::format("esp_load<{}>(p{} + {})", lanes(), in.buffer, address(in, true));
  if (!in.guards.empty())
    load = fmt::format("{} ? {} : Vec<{}, {}>{{}}", condition(in.guards, true), load, type, lanes());
  out_.line(fmt::format("const Vec<{}, {}> x{} = {};", type, lanes(), t, load));
}

/// The dtype a scalar instruction computes in: that of its operands (bools excepted), or of its choices.
Dtype StagePrinter::operand_dtype(const Instr& in) const {
  if (in.code == ScalarCode::select) return in.dtype;
  for (int t : in.operand)
    if (t >= 0 && values_[static_cast<size_t>(t)].dtype != Dtype::boolean)
      return values_[static_cast<size_t>(t)].dtype;
  return Dtype::boolean;
}

Val StagePrinter::value(const Instr& in, size_t t) {
  switch (in.kind) {
    case Instr::Kind::constant: return constant(in.dtype, in.value, in.integer);
    case Instr::Kind::index: {
      const Val i{fmt::format("static_cast<long long>({})", affine(in.address, false)), Dtype::i64};
      return {cast(i, in.dtype), in.dtype};
    }
    case Instr::Kind::inside: return {condition(in.guards, false), Dtype::boolean};
    case Instr::Kind::cast: return {cast(values_[static_cast<size_t>(in.operand[0])], in.dtype), in.dtype};
    case Instr::Kind::reduced: {
      const Reduction& r =
          m_.nest.stages[static_cast<size_t>(in.operand[0])].reductions[static_cast<size_t>(in.operand[1])];
      return {fmt::format("{}{}_{}{}", has_position(r) ? "q" : "a", in.operand[0], in.operand[1],
                          lanes_are_points() ? "[l]" : ""),
              in.dtype};
    }
    case Instr::Kind::load: return {loaded(in, t), in.dtype};
    case Instr::Kind::scalar: break;
  }
  if (!on_lane_[t] && on_lane_[static_cast<size_t>(in.operand[0])] && is_block_of_lanes(in)) {
    const std::string first = affine(current().body[static_cast<size_t>(in.operand[0])].address, true);
    return scalar(in.code, Dtype::i64,
                  {{fmt::format("static_cast<long long>({})", first), Dtype::i64},
                   values_[static_cast<size_t>(in.operand[1])]});
  }
  std::vector<Val> x;
  for (int o : in.operand)
    if (o >= 0) x.push_back(values_[static_cast<size_t>(o)]);
  return scalar(in.code, operand_dtype(in), x);
}

std::string StagePrinter::loaded(const Instr& in, size_t t) {
  const Dtype dtype = m_.nest.buffers[static_cast<size_t>(in.buffer)].dtype;
  if (is_crossed(t))
    return from_memory(
        fmt::format("tile{}[(fast{}) * {} + slow]", t, lanes() > 1 ? " + l" : "", m_.tile.edge + 1), dtype);
  if (on_lane_[t] && loads_as_vector(in)) return from_memory(fmt::format("x{}.v[l]", t), dtype);
  std::string x = from_memory(fmt::format("p{}[{}]", in.buffer, address(in, false)), dtype);
  if (in.guards.empty()) return x;
  return fmt::format("{} ? {} : {}", condition(in.guards, false), x, constant(dtype, 0, 0).text);
}

/// Its value at the variables; of the vector's variable at the lane or at the first lane.
std::string StagePrinter::affine(const Affine& a, bool first_lane) const {
  std::string text;
  for (const Affine::Term& t : a.terms) {
    const std::string name =
        fmt::format("{}{}", first_lane && t.var == lane_var() && lanes() > 1 ? "w" : "v", t.var);
    const std::string part = t.coef == 1 ? name : fmt::format("{} * {}", number(t.coef), name);
    text += (text.empty() ? "" : " + ") + part;
  }
  if (text.empty() || a.offset != 0) {
    const bool minus = a.offset < 0 && !text.empty();
    text += (text.empty() ? "" : minus ? " - " : " + ") + number(minus ? -a.offset : a.offset);
  }
  return text;
}

std::string StagePrinter::address(const Instr& in, bool first_lane) const {
  std::string text = affine(in.address, first_lane);
  for (const kernel::Indirect& i : in.indirect)
    text += fmt::format(" + esp_place<{}>({}, {}ll) * {}", index_type(),
                        values_[static_cast<size_t>(i.value)].text, i.bound, number(i.stride));
  return text;
}

std::string StagePrinter::guard(const Guard& g, bool first_lane) const {
  if (g.high <= g.low) return "false";
  const char* type = m_.wide_index ? "unsigned long long" : "unsigned";
  std::string from = affine(g.index, first_lane);
  if (g.low != 0) from = fmt::format("{} - ({})", from, number(g.low));
  return fmt::format("static_cast<{0}>({1}) < static_cast<{0}>({2})", type, from, number(g.high - g.low));
}

std::string StagePrinter::condition(const std::vector<Guard>& guards, bool first_lane) const {
  std::string text;
  for (const Guard& g : guards) text += (text.empty() ? "" : " && ") + guard(g, first_lane);
  return guards.empty() ? "true" : "(" + text + ")";
}

/// What memory gets; a cast to its own bf16 or f16 need not be done twice.
std::string StagePrinter::stored(const Store& st) const {
  const Dtype dtype = m_.nest.buffers[static_cast<size_t>(st.buffer)].dtype;
  const Instr& in = current().body[static_cast<size_t>(st.value)];
  Val v = values_[static_cast<size_t>(st.value)];
  if (in.kind == Instr::Kind::cast && in.dtype == dtype && (dtype == Dtype::bf16 || dtype == Dtype::f16))
    if (const Val& from = values_[static_cast<size_t>(in.operand[0])];
        from.dtype == Dtype::f32 && !from.text.empty())
      v = from;
  const bool rounds_itself = v.dtype == Dtype::f32 && (dtype == Dtype::bf16 || dtype == Dtype::f16);
  return to_memory(rounds_itself ? v.text : cast(v, dtype), dtype);
}

void StagePrinter::start_reductions() {
  const auto declare = [&](const std::string& name, Dtype type, const Val& first) {
    if (lanes() == 1) return out_.line(fmt::format("{} {} = {};", register_type(type), name, first.text));
    std::string all;
    for (int l = 0; l < lanes(); ++l) (all += l ? ", " : "") += first.text;
    out_.line(fmt::format("{} {}[{}] = {{{}}};", register_type(type), name, lanes(), all));
  };
  const char* suffix =
      m_.scheme == Scheme::rows && lanes() > 1 ? "s" : "";  // lanes of a row are yet to be combined
  for (size_t r = 0; r < current().reductions.size(); ++r) {
    const Reduction& red = current().reductions[r];
    declare(fmt::format("a{}_{}{}", stage_, r, suffix), red.dtype, identity(red));
    if (!has_position(red)) continue;
    const Dtype position = current().body[static_cast<size_t>(red.position)].dtype;
    declare(fmt::format("q{}_{}{}", stage_, r, suffix), position, last_position(position));
  }
}

StagePrinter::Pair StagePrinter::accumulator(size_t r, const std::string& index) const {
  return {fmt::format("a{}_{}{}", stage_, r, index), fmt::format("q{}_{}{}", stage_, r, index)};
}

/// into = into (and) other.
void StagePrinter::take(size_t r, const Pair& into, const Pair& other) {
  const Reduction& red = current().reductions[r];
  if (!has_position(red)) {
    const Val sum =
        scalar(code_of(red, red.dtype), red.dtype, {{into.value, red.dtype}, {other.value, red.dtype}});
    out_.line(fmt::format("{} = {};", into.value, sum.text));
    return;
  }
  out_.open(fmt::format("if (esp_beyond_{}({}, {}, {}, {}))", is_largest(red) ? "max" : "min", into.value,
                        into.position, other.value, other.position));
  out_.line(fmt::format("{} = {};", into.value, other.value));
  out_.line(fmt::format("{} = {};", into.position, other.position));
  out_.close();
}

/// The same where all threads must find the same bits: of equal zeros the later one stays, so the order is that of the threads.
void StagePrinter::take_in_order(size_t r, const Pair& into, const Pair& other,
                                 const std::string& other_first) {
  const Reduction& red = current().reductions[r];
  const bool ordered = is_float(red.dtype) && (red.op == ReduceOp::max || red.op == ReduceOp::min);
  if (!ordered) return take(r, into, other);
  const char* name = red.op == ReduceOp::max ? "esp_max" : "esp_min";
  out_.line(
      fmt::format("{0} = {1} ? {2}({3}, {0}) : {2}({0}, {3});", into.value, other_first, name, other.value));
}

void StagePrinter::accumulate(size_t r) {
  const Reduction& red = current().reductions[r];
  const char* suffix = m_.scheme == Scheme::rows && lanes() > 1 ? "s" : "";
  const Pair next{cast(values_[static_cast<size_t>(red.value)], red.dtype),
                  has_position(red) ? values_[static_cast<size_t>(red.position)].text : ""};
  take(r, accumulator(r, suffix + lane()), next);
}

/// The parts of a group's threads become one value that all of them know; always in the same order.
void StagePrinter::combine() {
  for (size_t r = 0; r < current().reductions.size(); ++r) {
    if (m_.scheme == Scheme::columns) {
      combine_columns(r);
      continue;
    }
    if (lanes() > 1) combine_lanes(r);
    combine_in_warp(r, std::min(m_.group, 32));
    if (m_.group > 32) combine_in_block(r);
  }
}

void StagePrinter::combine_lanes(size_t r) {
  const Reduction& red = current().reductions[r];
  const Pair all = accumulator(r, "");
  out_.line(fmt::format("{0} {1} = {1}s[0];", register_type(red.dtype), all.value));
  if (has_position(red))
    out_.line(fmt::format("{0} {1} = {1}s[0];",
                          register_type(current().body[static_cast<size_t>(red.position)].dtype),
                          all.position));
  out_.pragma("#pragma unroll");
  out_.open(fmt::format("for (int l = 1; l < {}; ++l)", lanes()));
  take(r, all, accumulator(r, "s[l]"));
  out_.close();
}

void StagePrinter::combine_in_warp(size_t r, int threads) {
  const Reduction& red = current().reductions[r];
  const Pair all = accumulator(r, "");
  out_.pragma("#pragma unroll");
  out_.open(fmt::format("for (int o = 1; o < {}; o <<= 1)", threads));
  out_.line(fmt::format("const {} a = esp_of_lane_xor({}, o);", register_type(red.dtype), all.value));
  if (has_position(red))
    out_.line(fmt::format("const {} q = esp_of_lane_xor({}, o);",
                          register_type(current().body[static_cast<size_t>(red.position)].dtype),
                          all.position));
  take_in_order(r, all, {"a", "q"}, "(part & o)");
  out_.close();
}

namespace {
/// At most: 16-bit floats are f32 there, and small integers may be int.
int64_t register_bytes(Dtype d) { return std::max<int64_t>(4, ir::dtype_size(d)); }
}  // namespace

void StagePrinter::share(const char* type, const std::string& array, int64_t elements, int64_t bytes_of_one) {
  out_.line(fmt::format("K_SHARED({}, {}, {});", type, array, elements));
  shared_bytes_ += elements * bytes_of_one;
}

void StagePrinter::combine_in_block(size_t r) {
  const Reduction& red = current().reductions[r];
  const Pair all = accumulator(r, "");
  const int warps = m_.group / 32;
  const std::string values = fmt::format("s{}_{}", stage_, r), positions = fmt::format("z{}_{}", stage_, r);
  const auto each = [&](auto&& f) {
    f(values, all.value, red.dtype);
    if (has_position(red))
      f(positions, all.position, current().body[static_cast<size_t>(red.position)].dtype);
  };
  each([&](const std::string& array, const std::string&, Dtype d) {
    share(register_type(d), array, warps, register_bytes(d));
  });
  out_.open("if ((part & 31) == 0)");
  each([&](const std::string& array, const std::string& value, Dtype) {
    out_.line(fmt::format("{}[part >> 5] = {};", array, value));
  });
  out_.close();
  out_.line("__syncthreads();");
  each([&](const std::string& array, const std::string& value, Dtype) {
    out_.line(fmt::format("{} = {}[0];", value, array));
  });
  out_.pragma("#pragma unroll");
  out_.open(fmt::format("for (int i = 1; i < {}; ++i)", warps));
  take(r, all, {values + "[i]", positions + "[i]"});
  out_.close();
}

/// The rows of the block, for every column: each thread leaves its parts, then all read those of their column.
void StagePrinter::combine_columns(size_t r) {
  const Reduction& red = current().reductions[r];
  const Pair all = accumulator(r, lane());
  const int threads = m_.threads();
  const std::string values = fmt::format("s{}_{}", stage_, r), positions = fmt::format("z{}_{}", stage_, r);
  const auto each = [&](auto&& f) {
    f(values, all.value, red.dtype);
    if (has_position(red))
      f(positions, all.position, current().body[static_cast<size_t>(red.position)].dtype);
  };
  const auto for_lanes = [&](auto&& f) {
    if (lanes() > 1) {
      out_.pragma("#pragma unroll");
      out_.open(fmt::format("for (int l = 0; l < {}; ++l)", lanes()));
    } else out_.open("");
    f(lanes() > 1 ? fmt::format("l * {} + ", threads) : std::string());
    out_.close();
  };
  each([&](const std::string& array, const std::string&, Dtype d) {
    share(register_type(d), array, int64_t{threads} * lanes(), register_bytes(d));
  });
  for_lanes([&](const std::string& at) {
    each([&](const std::string& array, const std::string& value, Dtype) {
      out_.line(fmt::format("{}[{}threadIdx.x] = {};", array, at, value));
    });
  });
  out_.line("__syncthreads();");
  for_lanes([&](const std::string& at) {
    each([&](const std::string& array, const std::string& value, Dtype) {
      out_.line(fmt::format("{} = {}[{}column];", value, array, at));
    });
    out_.pragma("#pragma unroll 4");  // of all at once, ptxas holds more than it has registers for
    out_.open(fmt::format("for (int i = 1; i < {}; ++i)", m_.group));
    const std::string place = fmt::format("[{}i * {} + column]", at, m_.side_by_side);
    take(r, all, {values + place, positions + place});
    out_.close();
  });
}

}  // namespace espalier::target::cuda

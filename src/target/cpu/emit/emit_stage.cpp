#include "target/cpu/emit/emit_stage.h"

#include <algorithm>

#include "base/error.h"

namespace espalier::target::cpu {

using ir::Dtype;
using kernel::Affine;
using kernel::Guard;
using kernel::Instr;
using kernel::Reduction;
using kernel::Stage;
using kernel::Store;

namespace {

Val number(int64_t n) { return IrWriter::integer(ir_i64, n); }
int alignment(IrType memory) { return memory.bits / 8; }

}  // namespace

void StageEmitter::point(Grid grid) {
  results_.clear();
  for (size_t i = 0; i < s_.nest.stages.size(); ++i) {
    grid_ = grid;
    stage(i);
  }
}

void StageEmitter::stage(size_t index) {
  stage_ = index;
  const Stage& st = current();
  own_vector_ = s_.vector_var < 0 && !st.loops.empty();
  vector_ = s_.vector_var >= 0 ? s_.vector_var : own_vector_ ? st.loops.back() : -1;
  lanes_ = vector_ >= 0 ? s_.lanes : 1;
  if (own_vector_) {
    const int64_t n = (s_.nest.extent(vector_) + s_.lanes - 1) / s_.lanes;
    grid_ = {grid_.rows, static_cast<int>(std::clamp<int64_t>(n, 1, s_.unroll)), 0};
  }
  find_dependencies();
  find_brief();
  start_reductions();
  const bool empty =
      std::any_of(st.loops.begin(), st.loops.end(), [&](int v) { return s_.nest.extent(v) == 0; });
  if (!empty) loops(0);
  finish_reductions();
}

void StageEmitter::loops(size_t k) {
  const Stage& st = current();
  if (own_vector_ && k + 1 == st.loops.size()) return own_vectors();
  if (k == st.loops.size()) return body();
  const int var = st.loops[k];
  w_.loop(number(0), number(s_.nest.extent(var)), 1, true, [&](const Val& i) {
    at_[static_cast<size_t>(var)] = i;
    loops(k + 1);
  });
}

/// The stage's last loop in vectors: groups of `unroll`, then what is left, with a mask.
void StageEmitter::own_vectors() {
  const Grid whole_grid = grid_;
  const int64_t extent = s_.nest.extent(vector_), step = int64_t{s_.lanes} * grid_.vectors,
                whole = extent / step * step;
  Val& at = at_[static_cast<size_t>(vector_)];
  const auto full = [&](const Val& i) {
    at = i;
    body();
  };
  if (whole == step) full(number(0));
  else if (whole > 0) w_.loop(number(0), number(whole), step, true, full);
  if (whole < extent) {
    const int64_t left = extent - whole;
    grid_.vectors = static_cast<int>((left + s_.lanes - 1) / s_.lanes);
    grid_.last = static_cast<int>(left % s_.lanes);
    full(number(whole));
  }
  grid_ = whole_grid;
}

void StageEmitter::body() {
  memo_.clear();
  const Stage& st = current();
  for (int row = 0; row < grid_.rows; ++row)
    for (int vector = 0; vector < grid_.vectors; ++vector) {
      for (size_t r = 0; r < st.reductions.size(); ++r) accumulate(r, row, vector);
      // A result may lie where an operand does: all is read before anything is written.
      for (const Store& s : st.stores) (void)eval(s.value, row, vector);
      for (const Store& s : st.stores) store(s, row, vector);
    }
  memo_.clear();
}

void StageEmitter::find_dependencies() {
  depends_.clear();
  const auto see = [&](Depends& d, const Affine& a) {
    d.on_row = d.on_row || (s_.tile_var >= 0 && a.coef(s_.tile_var) != 0);
    d.on_vector = d.on_vector || moves(a);
  };
  for (const Instr& in : current().body) {
    Depends d;
    const auto inherit = [&](int t) {
      d.on_row = d.on_row || depends_[static_cast<size_t>(t)].on_row;
      d.on_vector = d.on_vector || depends_[static_cast<size_t>(t)].on_vector;
    };
    if (in.kind == Instr::Kind::reduced) d = {s_.tile_var >= 0, s_.vector_var >= 0};
    else {
      if (in.kind == Instr::Kind::load || in.kind == Instr::Kind::index) see(d, in.address);
      for (const Guard& g : in.guards) see(d, g.index);
      for (int t : in.operand)
        if (t >= 0) inherit(t);
      for (const auto& i : in.indirect) inherit(i.value);
    }
    depends_.push_back(d);
  }
}

/// Values that only reach bf16 or f16 stores, through products, need no more digits than those keep.
void StageEmitter::find_brief() {
  const Stage& st = current();
  constexpr char unused = 0, brief = 1, full = 2;
  std::vector<char> use(st.body.size(), unused);
  const auto mark = [&](int t, char u) {
    use[static_cast<size_t>(t)] = std::max(use[static_cast<size_t>(t)], u);
  };
  const auto narrow = [](Dtype d) { return d == Dtype::bf16 || d == Dtype::f16; };
  for (const Reduction& r : st.reductions) mark(r.value, full);
  for (const Store& s : st.stores)
    mark(s.value, narrow(s_.nest.buffers[static_cast<size_t>(s.buffer)].dtype) ? brief : full);
  for (size_t i = st.body.size(); i-- > 0;) {
    const Instr& in = st.body[i];
    const bool passes =
        in.kind == Instr::Kind::scalar && (in.code == ir::ScalarCode::mul || in.code == ir::ScalarCode::neg);
    const char u = in.kind == Instr::Kind::cast && narrow(in.dtype) ? brief : passes ? use[i] : full;
    for (int t : in.operand)
      if (in.kind != Instr::Kind::reduced && t >= 0) mark(t, u);
  }
  brief_.assign(use.size(), 0);
  for (size_t i = 0; i < use.size(); ++i) brief_[i] = use[i] == brief;
}

Val StageEmitter::eval(int t, int row, int vector) {
  const Depends d = depends_[static_cast<size_t>(t)];
  const std::array<int, 3> key{t, d.on_row ? row : 0, d.on_vector ? vector : 0};
  if (const auto it = memo_.find(key); it != memo_.end()) return it->second;
  const Instr& in = current().body[static_cast<size_t>(t)];
  Val v;
  if (in.kind == Instr::Kind::scalar) {
    std::vector<Val> x;
    for (int o : in.operand)
      if (o >= 0) x.push_back(eval(o, key[1], key[2]));
    v = ops_.scalar(in.code, operand_dtype(in), std::move(x), brief_[static_cast<size_t>(t)] != 0);
  } else {
    v = eval_new(in, key[1], key[2]);
  }
  return memo_[key] = v;
}

/// The dtype a scalar instruction computes in: that of its operands (bools excepted), or of its choices.
Dtype StageEmitter::operand_dtype(const Instr& in) const {
  const auto of = [&](int t) { return current().body[static_cast<size_t>(t)].dtype; };
  if (in.code == ir::ScalarCode::select) return in.dtype;
  for (int t : in.operand)
    if (t >= 0 && of(t) != Dtype::boolean) return of(t);
  return Dtype::boolean;
}

Val StageEmitter::eval_new(const Instr& in, int row, int vector) {
  switch (in.kind) {
    case Instr::Kind::constant: {
      const IrType type = register_type(in.dtype);
      return type.kind == 'f' ? IrWriter::real(type, in.value) : IrWriter::integer(type, in.integer);
    }
    case Instr::Kind::index:
      return ops_.cast(index_value(in.address, row, vector, true), Dtype::i64, in.dtype);
    case Instr::Kind::inside: {
      const bool on_vector =
          std::any_of(in.guards.begin(), in.guards.end(), [&](const Guard& g) { return moves(g.index); });
      const Val all = guarded(in.guards, row, vector, false, {});
      return on_vector ? guarded(in.guards, row, vector, true, all) : all;
    }
    case Instr::Kind::cast: {
      const Instr& from = current().body[static_cast<size_t>(in.operand[0])];
      return ops_.cast(eval(in.operand[0], row, vector), from.dtype, in.dtype);
    }
    case Instr::Kind::reduced: {
      const bool wide = s_.vector_var >= 0;
      return results_.at({in.operand[0], in.operand[1], row, wide ? vector : 0});
    }
    case Instr::Kind::load: return load(in, row, vector);
    case Instr::Kind::scalar: break;
  }
  throw InternalError("instruction of unknown kind");
}

/// The address or index at the first lane of (row, vector).
Val StageEmitter::affine(const Affine& a, int row, int vector) {
  int64_t constant = a.offset;
  Val sum;
  for (const Affine::Term& t : a.terms) {
    if (t.var == s_.tile_var) constant += t.coef * row;
    if (t.var == vector_) constant += t.coef * vector * s_.lanes;
    const Val& v = at_[static_cast<size_t>(t.var)];
    ESPALIER_CHECK(static_cast<bool>(v), "a variable that has no value here: v" + std::to_string(t.var));
    const Val part = t.coef == 1 ? v : w_.binary("mul", v, number(t.coef));
    sum = sum ? w_.binary("add", sum, part) : part;
  }
  if (!sum) return number(constant);
  return constant == 0 ? sum : w_.binary("add", sum, number(constant));
}

/// An affine index: a scalar, or one per lane where it moves along the vector; i32 lanes unless `wide`.
Val StageEmitter::index_value(const Affine& a, int row, int vector, bool wide) {
  Val base = affine(a, row, vector);
  if (!moves(a)) return base;
  const IrType element = wide ? ir_i64 : ir_i32;
  const Val first = wide ? base : w_.convert("trunc", base, ir_i32);
  const Val lanes = w_.lane_numbers(element);
  const Val steps = w_.binary("mul", lanes, IrWriter::integer(lanes.type, a.coef(vector_)));
  return w_.binary("add", w_.splat(first, s_.lanes), steps);
}

Val StageEmitter::guard_lanes(const Guard& g, int row, int vector) {
  const auto [low, high] = bounds(g.index, s_.nest.extents);
  constexpr int64_t limit = int64_t{1} << 30;
  const bool wide = low < -limit || high > limit || g.low < -limit || g.high > limit || g.low >= g.high;
  const Val v = index_value(g.index, row, vector, wide || !moves(g.index));
  const Val from = w_.binary("sub", v, IrWriter::integer(v.type, g.low));
  return w_.icmp("ult", from, IrWriter::integer(v.type, std::max<int64_t>(0, g.high - g.low)));
}

/// `mask` and those guards that do (not) move along the vector.
Val StageEmitter::guarded(const std::vector<Guard>& guards, int row, int vector, bool on_vector, Val mask) {
  for (const Guard& g : guards) {
    if (moves(g.index) != on_vector) continue;
    const Val c = guard_lanes(g, row, vector);
    mask = mask ? w_.binary("and", mask, c) : c;
  }
  return mask;
}

/// The lanes that are alive, where not all are.
Val StageEmitter::lane_mask(int vector) {
  if (vector_ < 0 || grid_.last == 0 || vector + 1 != grid_.vectors) return {};
  std::string s = "<";
  for (int i = 0; i < s_.lanes; ++i)
    s += std::string(i ? ", " : "") + "i1 " + (i < grid_.last ? "true" : "false");
  return {s + ">", ir_i1.with_lanes(s_.lanes)};
}

/// Where loads look that are guarded out as a whole: zeros.
Val StageEmitter::zeros() {
  if (zeros_) return zeros_;
  zeros_ = w_.slot(ir_i64.with_lanes(s_.lanes));
  w_.entry_store(IrWriter::zero(ir_i64.with_lanes(s_.lanes)), zeros_, 64);
  return zeros_;
}

/// The part of an address that comes from data, in elements: a scalar, or one number per lane.
Val StageEmitter::indirect_offset(const Instr& in, int row, int vector) {
  Val sum;
  for (const kernel::Indirect& i : in.indirect) {
    Val v = eval(i.value, row, vector);
    v = ops_.cast(v, current().body[static_cast<size_t>(i.value)].dtype, Dtype::i64);
    v = w_.intrinsic("llvm.smax", {w_.intrinsic("llvm.smin", {v, IrWriter::integer(v.type, i.bound - 1)}),
                                   IrWriter::zero(v.type)});
    v = w_.binary("mul", v, IrWriter::integer(v.type, i.stride));
    sum = sum ? w_.binary("add", sum, v) : v;
  }
  return sum;
}

Val StageEmitter::load(const Instr& in, int row, int vector) {
  const Dtype dtype = s_.nest.buffers[static_cast<size_t>(in.buffer)].dtype;
  const IrType element = memory_type(dtype), wide = element.with_lanes(s_.lanes);
  const int64_t c = vector_ < 0 ? 0 : in.address.coef(vector_);
  const bool guard_moves =
      std::any_of(in.guards.begin(), in.guards.end(), [&](const Guard& g) { return moves(g.index); });
  const Val data = indirect_offset(in, row, vector);
  const bool data_moves = data && data.type.lanes > 1;
  const Val outside = guarded(in.guards, row, vector, false, {});  // of all lanes at once
  Val pointer = w_.offset(buffers_[static_cast<size_t>(in.buffer)], element, affine(in.address, row, vector));
  if (data && !data_moves) pointer = w_.offset(pointer, element, data);
  if (c == 0 && !guard_moves && !data_moves) {
    if (outside) pointer = w_.select(outside, pointer, zeros());
    return ops_.from_memory(w_.load(pointer, element, alignment(element)), dtype);
  }
  Val mask = lane_mask(vector);
  if (c == 1 && !data_moves) {
    if (outside) pointer = w_.select(outside, pointer, zeros());
    mask = guarded(in.guards, row, vector, true, mask);
    return ops_.from_memory(mask ? w_.masked_load(pointer, wide, mask, alignment(element))
                                 : w_.load(pointer, wide, alignment(element)),
                            dtype);
  }
  if (outside)
    mask = mask ? w_.binary("and", mask, w_.splat(outside, s_.lanes)) : w_.splat(outside, s_.lanes);
  mask = guarded(in.guards, row, vector, true, mask);
  const Val lanes = w_.lane_numbers(ir_i64);
  Val offsets = w_.binary("mul", lanes, IrWriter::integer(lanes.type, c));
  if (data_moves) offsets = w_.binary("add", offsets, data);
  if (!mask) mask = IrWriter::integer(ir_i1.with_lanes(s_.lanes), 1);
  return ops_.from_memory(w_.gather(w_.offset(pointer, element, offsets), wide, mask, alignment(element)),
                          dtype);
}

/// A cast to the buffer's own bf16 or f16 need not be done before the store does it.
Val StageEmitter::operand_of_store(const Store& st, int row, int vector) {
  const Dtype dtype = s_.nest.buffers[static_cast<size_t>(st.buffer)].dtype;
  const Instr& in = current().body[static_cast<size_t>(st.value)];
  if (in.kind == Instr::Kind::cast && in.dtype == dtype && (dtype == Dtype::bf16 || dtype == Dtype::f16)) {
    const Dtype from = current().body[static_cast<size_t>(in.operand[0])].dtype;
    if (from == Dtype::f32) return eval(in.operand[0], row, vector);
  }
  return eval(st.value, row, vector);
}

void StageEmitter::store(const Store& st, int row, int vector) {
  const Dtype dtype = s_.nest.buffers[static_cast<size_t>(st.buffer)].dtype;
  const IrType element = memory_type(dtype);
  const int64_t c = vector_ < 0 ? 0 : st.address.coef(vector_);
  Val value = operand_of_store(st, row, vector);
  const Val pointer =
      w_.offset(buffers_[static_cast<size_t>(st.buffer)], element, affine(st.address, row, vector));
  if (vector_ < 0 || c == 0) {
    ESPALIER_CHECK(value.type.lanes == 1, "many lanes for one element");
    return w_.store(ops_.to_memory(value, dtype), pointer, alignment(element));
  }
  value = ops_.to_memory(w_.splat(value, s_.lanes), dtype);
  Val mask = lane_mask(vector);
  if (c == 1) {
    if (mask) w_.masked_store(value, pointer, mask, alignment(element));
    else w_.store(value, pointer, alignment(element));
    return;
  }
  const Val lanes = w_.lane_numbers(ir_i64);
  const Val offsets = w_.binary("mul", lanes, IrWriter::integer(lanes.type, c));
  if (!mask) mask = IrWriter::integer(ir_i1.with_lanes(s_.lanes), 1);
  w_.scatter(value, w_.offset(pointer, element, offsets), mask, alignment(element));
}

}  // namespace espalier::target::cpu

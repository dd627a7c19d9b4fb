// Which elements of its operands an element of each op's result needs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "kernel/nest_builder.h"
#include "kernel/nest_windows.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/marker.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/widen.h"
#include "op/window.h"

namespace espalier::kernel {

using ir::ScalarCode;
using ir::Value;

namespace {

std::vector<int64_t> dims_of(const Value& v) {
  if (!v.type().is_static()) throw CannotLower{"a type with unbound symbols: " + v.type().text()};
  return ir::static_dims(v.dims());
}

std::string describe(const Index& index) {
  std::string s;
  for (const Position& p : index) {
    s += p.affine.text();
    for (const auto& d : p.data) s += "+t" + std::to_string(d.value) + "*" + std::to_string(d.coef);
    s += ",";
  }
  return s;
}

Position moved(Position p, int64_t factor, int64_t offset) {
  Affine a = Affine::constant(offset);
  a.add(p.affine, factor);
  p.affine = std::move(a);
  for (auto& d : p.data) d.coef *= factor;
  return p;
}

bool has_data(const Position& p) { return !p.data.empty(); }

Dtype compute_dtype(const ir::Node& n) {
  for (const Value& v : n.inputs())
    if (v.dtype() != Dtype::boolean) return v.dtype();
  return n.inputs().empty() ? n.types()[0].dtype : Dtype::boolean;
}

/// A comparison with 0 in bf16, whose range is f32's: rounding leaves the sign, so it need not be done.
bool is_sign_test(const ir::Node& n) {
  return n.input(0).dtype() == Dtype::bf16 && std::ranges::any_of(n.inputs(), [](const Value& v) {
           const ir::Array* a = ir::constant_value(&v->op() == &op::broadcast_to_op ? v->input(0) : v);
           return a && a->size() == 1 && a->at(0) == 0;
         });
}

}  // namespace

std::optional<Fold> fold_of(const Value& v) {
  const ir::Node& n = v.node();
  const ir::OpDef* op = &n.op();
  Fold f;
  std::vector<int64_t> axes;
  if (op == &op::dot_op) {
    const auto& a = n.attrs<op::DotAttrs>();
    const auto dims = dims_of(n.input(0));
    for (int64_t axis : a.contract_a) f.extents.push_back(dims[static_cast<size_t>(axis)]);
    f.accumulator = op::wide_dtype(a.out);
    f.last_axis_kept = true;
    return f;
  }
  for (const ir::OpDef* window :
       {&op::max_pool_op, &op::avg_pool_op, &op::max_pool_grad_op, &op::avg_pool_grad_op})
    if (op == window) return fold_of_window(v);
  if (op == &op::resize_grad_op) return fold_of_resize_grad(v);
  if (op == &op::reduce_sum_op) f.op = ReduceOp::sum;
  else if (op == &op::reduce_prod_op) f.op = ReduceOp::prod;
  else if (op == &op::reduce_max_op) f.op = ReduceOp::max;
  else if (op == &op::reduce_min_op) f.op = ReduceOp::min;
  else if (op == &op::argmax_op) f.op = ReduceOp::argmax;
  else if (op == &op::argmin_op) f.op = ReduceOp::argmin;
  else return std::nullopt;
  const auto dims = dims_of(n.input(0));
  if (f.op >= ReduceOp::argmax) axes = {n.attrs<op::AxisAttrs>().axis};
  else axes = n.attrs<op::AxesAttrs>().axes;
  std::sort(axes.begin(), axes.end());
  for (int64_t axis : axes) f.extents.push_back(dims[static_cast<size_t>(axis)]);
  f.accumulator = op::wide_dtype(n.input(0).dtype());
  if (f.op >= ReduceOp::argmax && f.extents[0] < (int64_t{1} << 31)) f.position = Dtype::i32;
  f.last_axis_kept = axes.empty() || axes.back() + 1 != static_cast<int64_t>(dims.size());
  return f;
}

int NestBuilder::add(StageDraft& d, Instr in) {
  auto& body = d.stage.body;
  for (size_t i = 0; i < body.size(); ++i)
    if (body[i] == in) return static_cast<int>(i);
  body.push_back(std::move(in));
  return static_cast<int>(body.size()) - 1;
}

int NestBuilder::constant(StageDraft& d, Dtype dtype, double value) {
  Instr in;
  in.dtype = dtype;
  if (ir::is_float(dtype)) in.value = std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value;
  else in.integer = dtype == Dtype::boolean ? value != 0 : static_cast<int64_t>(value);
  return add(d, in);
}

/// A constant of an integer dtype: a double has not every i64.
int NestBuilder::whole_number(StageDraft& d, Dtype dtype, int64_t value) {
  Instr in;
  in.dtype = dtype;
  in.integer = value;
  return add(d, in);
}

/// The one value of all elements.
int NestBuilder::constant(StageDraft& d, const ir::Array& a) {
  const auto several = [] {
    throw CannotLower{"a constant of several values inside a body; it should be an input"};
  };
  if (a.size() == 0) return constant(d, a.dtype(), 0.0);
  if (ir::is_float(a.dtype())) {
    const double first = a.at(0);
    for (int64_t i = 1; i < a.size(); ++i) {
      const double x = a.at(i);
      if (!(x == first && std::signbit(x) == std::signbit(first)) && !(std::isnan(x) && std::isnan(first)))
        several();
    }
    return constant(d, a.dtype(), first);
  }
  const ir::Array wide = a.cast(Dtype::i64);
  const auto* numbers = wide.data<int64_t>();
  for (int64_t i = 1; i < a.size(); ++i)
    if (numbers[i] != numbers[0]) several();
  return whole_number(d, a.dtype(), numbers[0]);
}

int NestBuilder::scalar(StageDraft& d, ScalarCode code, Dtype dtype, std::array<int, 3> operands) {
  Instr in;
  in.kind = Instr::Kind::scalar;
  in.code = code;
  in.dtype = dtype;
  in.operand = operands;
  return add(d, in);
}

int NestBuilder::cast(StageDraft& d, int value, Dtype dtype) {
  if (d.stage.body[static_cast<size_t>(value)].dtype == dtype) return value;
  Instr in;
  in.kind = Instr::Kind::cast;
  in.dtype = dtype;
  in.operand[0] = value;
  return add(d, in);
}

/// Is instruction `id`, which stands for a value of the 16-bit `dtype`, one of that dtype's numbers?
bool NestBuilder::is_rounded(const StageDraft& d, int id, Dtype dtype) const {
  std::vector<char> exact;  // of the instructions up to `id`
  const auto is_exact = [&](const Instr& in) {
    const auto operand = [&](size_t k) { return exact[static_cast<size_t>(in.operand[k])] != 0; };
    switch (in.kind) {
      case Instr::Kind::load: return nest_.buffers[static_cast<size_t>(in.buffer)].dtype == dtype;
      case Instr::Kind::constant:
        return std::isnan(in.value) || ir::Array::scalar(dtype, in.value).at(0) == in.value;
      case Instr::Kind::reduced: {
        const Request& r = requests_[static_cast<size_t>(in.operand[0])];
        return picks_an_element(r.fold.op) && r.value.dtype() == dtype;
      }
      case Instr::Kind::scalar:
        if (in.code == ScalarCode::select) return operand(1) && operand(2);
        if (in.code == ScalarCode::max || in.code == ScalarCode::min) return operand(0) && operand(1);
        return (in.code == ScalarCode::neg || in.code == ScalarCode::abs) && operand(0);
      default: return in.dtype == dtype;
    }
  };
  for (int i = 0; i <= id; ++i) {
    const Instr& in = d.stage.body[static_cast<size_t>(i)];
    exact.push_back(in.dtype == Dtype::boolean || is_exact(in));
  }
  return exact.back() != 0;
}

/// Instruction `id`, which stands for a value of `dtype`, as that is where its bits matter: a sum or product of 16 bits may have more of
/// them in a register than in memory, and what is compared, folded to its extreme or widened in one place may be loaded in another.
int NestBuilder::rounded(StageDraft& d, int id, Dtype dtype) {
  const bool narrow = dtype == Dtype::bf16 || dtype == Dtype::f16;
  return !narrow || is_rounded(d, id, dtype) ? id : cast(d, cast(d, id, Dtype::f32), dtype);
}

int NestBuilder::index(StageDraft& d, const Affine& a, Dtype dtype) {
  Instr in;
  in.kind = Instr::Kind::index;
  in.dtype = dtype;
  in.address = a;
  return add(d, in);
}

/// `condition` and `other`; -1 stands for no condition.
int NestBuilder::both(StageDraft& d, int condition, int other) {
  if (condition < 0 || other < 0) return std::max(condition, other);
  return scalar(d, ScalarCode::logical_and, Dtype::boolean, {condition, other, -1});
}

int NestBuilder::inside(StageDraft& d, Guards guards) {
  Instr in;
  in.kind = Instr::Kind::inside;
  in.dtype = Dtype::boolean;
  in.guards = std::move(guards);
  return add(d, in);
}

std::optional<bool> NestBuilder::always(const Guard& g) const {
  const auto [low, high] = bounds(g.index, nest_.extents);
  if (low >= g.low && high < g.high) return true;
  if (high < g.low || low >= g.high) return false;
  return std::nullopt;
}

const int* NestBuilder::find_stored(const Value& v) const {
  if ((storing_ && *storing_ == key_of(v)) || own_folds_.contains(key_of(v))) return nullptr;
  const auto it = decisions_.stored.find(key_of(v));
  return it == decisions_.stored.end() ? nullptr : &it->second;
}

int NestBuilder::load(StageDraft& d, int buffer, Dtype dtype, const std::vector<int64_t>& dims,
                      const Index& index, const Guards& guards) {
  const std::vector<int64_t> strides = ir::row_major_strides(dims);
  Instr in;
  in.kind = Instr::Kind::load;
  in.dtype = dtype;
  in.buffer = buffer;
  in.guards = guards;
  for (size_t i = 0; i < index.size(); ++i) {
    in.address.add(index[i].affine, strides[i]);
    for (const auto& p : index[i].data) in.indirect.push_back({p.value, p.bound, p.coef * strides[i]});
  }
  return add(d, in);
}

int NestBuilder::eval(StageDraft& d, const Value& v, const Index& index, const Guards& guards) {
  std::string key =
      std::to_string(v.node().id()) + "." + std::to_string(v.result()) + "[" + describe(index) + "]";
  for (const Guard& g : guards)
    key += g.index.text() + ":" + std::to_string(g.low) + ":" + std::to_string(g.high) + ";";
  if (const auto it = d.memo.find(key); it != d.memo.end()) return it->second;
  const int id = eval_new(d, v, index, guards);
  return d.memo[key] = id;
}

int NestBuilder::eval_new(StageDraft& d, const Value& v, const Index& index, const Guards& guards) {
  if (const auto it = inputs_.find(key_of(v)); it != inputs_.end())
    return load(d, it->second, v.dtype(), dims_of(v), index, guards);
  if (const int* buffer = find_stored(v)) {
    built_.reads.insert(key_of(v));
    return load(d, *buffer, nest_.buffers[static_cast<size_t>(*buffer)].dtype, dims_of(v), index, guards);
  }
  const ir::Node& n = v.node();
  if (const ir::Array* a = ir::constant_value(v)) return constant(d, *a);
  if (fold_of(v)) {
    int folded = request(d, v, index, guards);
    if (&n.op() == &op::avg_pool_op) {
      std::vector<int> windows;
      for (size_t i = 1; i + 1 < index.size(); ++i) windows.push_back(this->index(d, index[i].affine));
      folded = divided_by_count(d, n, folded, windows);
    }
    return ir::is_float(v.dtype()) ? folded : cast(d, folded, v.dtype());
  }
  if (n.op().kind == ir::Kind::random) return eval_random(d, n, index, guards);
  if (&n.op() == &op::resize_op) return eval_resize(d, n, index, guards);
  if (&n.op() == &op::cast_op)
    return cast(d, rounded(d, eval(d, n.input(0), index, guards), n.input(0).dtype()), v.dtype());
  if (op::is_marker(n)) return eval(d, n.input(0), index, guards);
  if (n.op().scalar) return eval_scalar(d, n, index, guards);
  if (n.op().expand) {
    const std::vector<Value> results = n.op().expand(n);
    decisions_.keep_alive.insert(decisions_.keep_alive.end(), results.begin(), results.end());
    return eval(d, results[static_cast<size_t>(v.result())], index, guards);
  }
  return eval_movement(d, v, index, guards);
}

int NestBuilder::eval_scalar(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards) {
  const auto arity = static_cast<int>(n.inputs().size());
  std::vector<int> arguments, ids;
  for (const Value& x : n.inputs()) arguments.push_back(eval(d, x, index, guards));
  const Dtype compute = compute_dtype(n);
  if (arity == 2 && n.types()[0].dtype == Dtype::boolean && !is_sign_test(n))
    for (int& x : arguments) x = rounded(d, x, compute);
  const auto is_bool = [&](int id) { return d.stage.body[static_cast<size_t>(id)].dtype == Dtype::boolean; };
  for (const ir::ScalarInstr& s : n.op().scalar.program(arity).instrs) {
    if (s.code == ScalarCode::argument) {
      ids.push_back(arguments[static_cast<size_t>(s.index)]);
      continue;
    }
    if (s.code == ScalarCode::constant) {
      ids.push_back(constant(d, compute, s.value));
      continue;
    }
    std::array<int, 3> operands{-1, -1, -1};
    bool all_bool = true;
    for (size_t k = 0; k < 3; ++k) {
      if (s.operand[k] < 0) continue;
      operands[k] = ids[static_cast<size_t>(s.operand[k])];
      if (k > 0 || s.code != ScalarCode::select) all_bool = all_bool && is_bool(operands[k]);
    }
    const bool compares =
        (s.code >= ScalarCode::eq && s.code <= ScalarCode::ge) || s.code == ScalarCode::is_nan;
    ids.push_back(scalar(d, s.code, compares || all_bool ? Dtype::boolean : compute, operands));
  }
  const bool want_bool = n.types()[0].dtype == Dtype::boolean;
  return is_bool(ids.back()) == want_bool ? ids.back() : cast(d, ids.back(), n.types()[0].dtype);
}

int NestBuilder::eval_movement(StageDraft& d, const Value& v, const Index& index, const Guards& guards) {
  const ir::Node& n = v.node();
  const ir::OpDef* op = &n.op();
  if (op == &op::pad_op) return eval_pad(d, n, index, guards);
  if (op == &op::concat_op) return eval_concat(d, n, index, guards);
  if (op == &op::gather_op) return eval_gather(d, n, index, guards, false);
  if (op == &op::gather_along_op) return eval_gather(d, n, index, guards, true);
  if (op == &op::one_hot_op) return eval_one_hot(d, n, index, guards);
  if (op == &op::dim_size_op) {
    double size = 1;
    for (int64_t axis : n.attrs<op::DimSizeAttrs>().axes)
      size *= static_cast<double>(dims_of(n.input(0))[static_cast<size_t>(axis)]);
    return constant(d, v.dtype(), size);
  }
  if (op == &op::iota_op) {
    const Position& p = index[static_cast<size_t>(n.attrs<op::IotaAttrs>().axis)];
    if (has_data(p)) throw MustStore{v};
    return this->index(d, p.affine, v.dtype());
  }
  Index to;
  if (op == &op::broadcast_to_op) {
    for (int64_t axis : n.attrs<op::BroadcastAttrs>().axes) to.push_back(index[static_cast<size_t>(axis)]);
  } else if (op == &op::transpose_op) {
    const auto& perm = n.attrs<op::TransposeAttrs>().perm;
    to.resize(index.size());
    for (size_t i = 0; i < perm.size(); ++i) to[static_cast<size_t>(perm[i])] = index[i];
  } else if (op == &op::slice_op) {
    const auto& a = n.attrs<op::SliceAttrs>();
    for (size_t i = 0; i < index.size(); ++i) to.push_back(moved(index[i], a.step[i], a.start[i]));
  } else if (op == &op::reverse_op) {
    to = index;
    for (int64_t axis : n.attrs<op::AxesAttrs>().axes) {
      auto& p = to[static_cast<size_t>(axis)];
      p = moved(p, -1, dims_of(v)[static_cast<size_t>(axis)] - 1);
    }
  } else if (op == &op::reshape_op) {
    to = reshaped(index, dims_of(v), dims_of(n.input(0)), n.input(0));
  } else {
    throw CannotLower{"op " + std::string(op->name) + " has no loop form"};
  }
  return eval(d, n.input(0), to, guards);
}

/// The index of the same element under other dims. The flat position is taken apart by dims from the last; a loop that
/// lies across two of them is split; where that cannot be, the operand is stored first, and then read at the flat position.
Index NestBuilder::reshaped(const Index& index, const std::vector<int64_t>& from,
                            const std::vector<int64_t>& to, const Value& operand) {
  const std::vector<int64_t> strides = ir::row_major_strides(from);
  Position flat;
  for (size_t i = 0; i < index.size(); ++i) {
    flat.affine.add(index[i].affine, strides[i]);
    for (auto p : index[i].data) p.coef *= strides[i], flat.data.push_back(p);
  }
  Index out(to.size());
  if (inputs_.count(key_of(operand)) || find_stored(operand)) {  // read at the flat position
    if (to.empty()) return out;
    out.back() = flat;
    return out;
  }
  for (size_t k = to.size(); k-- > 0;) {
    const int64_t dim = to[k];
    if (dim == 1) continue;
    if (dim == 0) return out;
    Position low, high;
    const int64_t rest = ((flat.affine.offset % dim) + dim) % dim;
    low.affine.offset = rest;
    high.affine.offset = (flat.affine.offset - rest) / dim;
    for (const Affine::Term& t : flat.affine.terms) {
      if (t.coef % dim == 0) high.affine.add(Affine::var(t.var, t.coef / dim));
      else low.affine.add(Affine::var(t.var, t.coef));
    }
    int64_t reach = 0;  // of the data that stays in this axis
    for (auto p : flat.data) {
      if (p.coef % dim == 0) {
        p.coef /= dim;
        high.data.push_back(p);
      } else {
        reach += p.coef * (p.bound - 1);
        if (p.coef < 0) throw MustStore{operand};
        low.data.push_back(p);
      }
    }
    auto [least, most] = bounds(low.affine, nest_.extents);
    most += reach;
    if (least < 0 || most >= dim) {
      for (const Affine::Term& t : low.affine.terms) {
        const int64_t extent = nest_.extent(t.var);
        if (t.coef <= 0 || t.coef * extent <= dim || dim % t.coef != 0 || extent % (dim / t.coef) != 0)
          continue;
        const Variable& var = variables_[static_cast<size_t>(t.var)];
        throw MustSplitAxis{var.axis, var.position, dim / t.coef};
      }
      throw MustStore{operand};
    }
    out[k] = low;
    flat = high;
  }
  return out;
}

/// Inside the padded operand its element, elsewhere the fill. With interior padding, only each (interior+1)-th position is inside:
/// the loop is split so that this is a condition on its inner part alone.
int NestBuilder::eval_pad(StageDraft& d, const ir::Node& n, const Index& index, Guards guards) {
  const auto& a = n.attrs<op::PadAttrs>();
  const auto dims = dims_of(n.input(0));
  Index to;
  Guards mine;
  int inside_all = -1;  // a condition that is not affine
  for (size_t i = 0; i < index.size(); ++i) {
    const int64_t step = (i < a.interior.size() ? a.interior[i] : 0) + 1;
    Position p = moved(index[i], 1, -a.low[i]);
    if (has_data(p)) throw MustStore{n.value()};
    if (step > 1) {
      Affine whole, part;
      for (const Affine::Term& t : p.affine.terms)
        (t.coef % step == 0 ? whole : part).add(Affine::var(t.var, t.coef));
      if (part.terms.size() > 1 || (part.terms.size() == 1 && part.terms[0].coef != 1))
        throw MustStore{n.value()};
      const int64_t shift = ((-p.affine.offset % step) + step) % step;  // of `part` at an element
      if (!part.terms.empty()) {
        const int64_t extent = nest_.extent(part.terms[0].var);
        const Variable& var = variables_[static_cast<size_t>(part.terms[0].var)];
        if (extent > step && extent % step == 0) throw MustSplitAxis{var.axis, var.position, step};
        if (extent > step) {
          to.push_back(spread(d, p.affine, step, dims[i], inside_all));
          continue;
        }
        mine.push_back({part, shift, shift + 1});
      } else if (shift != 0) {
        return eval(d, n.input(1), {}, guards);
      }
      Affine exact;
      for (const Affine::Term& t : whole.terms) exact.add(Affine::var(t.var, t.coef / step));
      exact.offset = (p.affine.offset + shift) / step;
      if ((p.affine.offset + shift) % step != 0) throw InternalError("interior padding is off");
      p.affine = exact;
    }
    const Guard g{p.affine, 0, dims[i]};
    const std::optional<bool> known = always(g);
    if (known == false) return eval(d, n.input(1), {}, guards);
    if (!known) mine.push_back(g);
    to.push_back(p);
  }
  const int fill = eval(d, n.input(1), {}, guards);
  for (const Guard& g : mine)
    if (std::find(guards.begin(), guards.end(), g) == guards.end()) guards.push_back(g);
  const int value = eval(d, n.input(0), to, guards);
  const int condition = both(d, mine.empty() ? -1 : inside(d, mine), inside_all);
  return condition < 0 ? value : scalar(d, ScalarCode::select, n.types()[0].dtype, {condition, value, fill});
}

/// Position `at` / `step` of an axis of `dim`, where no split of loops makes that affine: it is read as data (and clamped);
/// `inside` gets the condition that it is one.
Position NestBuilder::spread(StageDraft& d, const Affine& at, int64_t step, int64_t dim, int& inside) {
  const int index = this->index(d, at), by = constant(d, Dtype::i64, static_cast<double>(step)),
            zero = constant(d, Dtype::i64, 0);
  const int quotient = scalar(d, ScalarCode::div, Dtype::i64, {index, by, -1});
  const auto require = [&](int c) { inside = both(d, inside, c); };
  require(scalar(d, ScalarCode::eq, Dtype::boolean,
                 {scalar(d, ScalarCode::rem, Dtype::i64, {index, by, -1}), zero, -1}));
  require(scalar(d, ScalarCode::ge, Dtype::boolean, {index, zero, -1}));
  require(scalar(d, ScalarCode::lt, Dtype::boolean,
                 {quotient, constant(d, Dtype::i64, static_cast<double>(dim)), -1}));
  return {Affine{}, {{quotient, std::max<int64_t>(1, dim), 1}}};
}

int NestBuilder::eval_concat(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards) {
  const auto axis = static_cast<size_t>(n.attrs<op::AxisAttrs>().axis);
  if (has_data(index[axis])) throw MustStore{n.value()};
  int64_t from = 0;
  int result = -1;
  for (const Value& piece : n.inputs()) {
    const int64_t size = dims_of(piece)[axis];
    const Guard g{index[axis].affine, from, from + size};
    const std::optional<bool> known = size == 0 ? std::optional(false) : always(g);
    if (known != false) {
      Index to = index;
      to[axis] = moved(to[axis], 1, -from);
      Guards all = guards;
      if (!known) all.push_back(g);
      const int value = eval(d, piece, to, all);
      if (known == true) return value;
      result = result < 0
                   ? value
                   : scalar(d, ScalarCode::select, n.types()[0].dtype, {inside(d, {g}), value, result});
    }
    from += size;
  }
  return result < 0 ? constant(d, n.types()[0].dtype, 0) : result;
}

/// result = x[:axis] + indices + x[axis+1:], or (along) indices shaped like the result.
int NestBuilder::eval_gather(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards,
                             bool along) {
  const auto axis = static_cast<size_t>(n.attrs<op::AxisAttrs>().axis);
  const auto dims = dims_of(n.input(0));
  const size_t rank = along ? 1 : static_cast<size_t>(n.input(1).rank());
  const auto at = [&](size_t i) { return index.begin() + static_cast<std::ptrdiff_t>(i); };
  const int where = eval(d, n.input(1), along ? index : Index(at(axis), at(axis + rank)), guards);
  Position p;
  p.data.push_back({where, dims[axis], 1});
  Index to(at(0), at(axis));
  to.push_back(p);
  to.insert(to.end(), at(axis + rank), index.end());
  return eval(d, n.input(0), to, guards);
}

int NestBuilder::eval_one_hot(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards) {
  if (has_data(index.back())) throw MustStore{n.value()};
  const int where = cast(d, eval(d, n.input(0), Index(index.begin(), index.end() - 1), guards), Dtype::i64);
  const int equal =
      scalar(d, ScalarCode::eq, Dtype::boolean, {where, this->index(d, index.back().affine), -1});
  return cast(d, equal, n.types()[0].dtype);
}

/// What a fold folds, at kept index r.index and folded index `folded`.
NestBuilder::Element NestBuilder::eval_fold_element(StageDraft& d, const Request& r,
                                                    const std::vector<Affine>& folded, const Guards& guards) {
  const ir::Node& n = r.value.node();
  const ir::OpDef* op = &n.op();
  if (op == &op::dot_op) return {eval_dot_element(d, r, folded, guards)};
  if (op == &op::resize_grad_op) return {eval_resize_grad_element(d, r, folded, guards)};
  if (op == &op::max_pool_op || op == &op::avg_pool_op) return eval_window_element(d, r, folded, guards);
  if (op == &op::max_pool_grad_op || op == &op::avg_pool_grad_op)
    return {eval_window_grad_element(d, r, folded, guards)};
  std::vector<int64_t> axes;
  if (r.fold.op >= ReduceOp::argmax) axes = {n.attrs<op::AxisAttrs>().axis};
  else axes = n.attrs<op::AxesAttrs>().axes;
  std::sort(axes.begin(), axes.end());
  Index index(static_cast<size_t>(n.input(0).rank()));
  size_t kept = 0, fold = 0;
  for (size_t i = 0; i < index.size(); ++i) {
    const bool folds = std::binary_search(axes.begin(), axes.end(), static_cast<int64_t>(i));
    index[i].affine = folds ? folded[fold++] : r.index[kept++];
  }
  Element element{eval(d, n.input(0), index, guards)};
  if (r.fold.op >= ReduceOp::argmax) element.position = this->index(d, folded[0], r.fold.position);
  return element;
}

/// The product of two elements; result axes are batch, a's free axes, b's.
int NestBuilder::eval_dot_element(StageDraft& d, const Request& r, const std::vector<Affine>& folded,
                                  const Guards& guards) {
  const ir::Node& n = r.value.node();
  const auto& a = n.attrs<op::DotAttrs>();
  const auto has = [](const std::vector<int64_t>& v, size_t i) {
    return std::find(v.begin(), v.end(), static_cast<int64_t>(i)) != v.end();
  };
  size_t next = a.batch_a.size();
  int factor[2];
  for (int side = 0; side < 2; ++side) {
    const auto& batch = side == 0 ? a.batch_a : a.batch_b;
    const auto& contract = side == 0 ? a.contract_a : a.contract_b;
    Index index(static_cast<size_t>(n.input(side).rank()));
    for (size_t i = 0; i < batch.size(); ++i) index[static_cast<size_t>(batch[i])].affine = r.index[i];
    for (size_t i = 0; i < contract.size(); ++i) index[static_cast<size_t>(contract[i])].affine = folded[i];
    for (size_t i = 0; i < index.size(); ++i)
      if (!has(batch, i) && !has(contract, i)) index[i].affine = r.index[next++];
    factor[side] = cast(d, eval(d, n.input(side), index, guards), r.fold.accumulator);
  }
  return scalar(d, ScalarCode::mul, r.fold.accumulator, {factor[0], factor[1], -1});
}

}  // namespace espalier::kernel

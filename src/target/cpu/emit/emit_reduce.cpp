// The reductions of a stage: accumulators per row and vector, combined in one fixed order.
#include <limits>

#include "base/error.h"
#include "target/cpu/emit/emit_stage.h"

namespace espalier::target::cpu {

using ir::Dtype;
using kernel::ReduceOp;
using kernel::Reduction;

namespace {

bool has_position(const Reduction& r) { return r.op == ReduceOp::argmax || r.op == ReduceOp::argmin; }
bool is_largest(const Reduction& r) { return r.op == ReduceOp::max || r.op == ReduceOp::argmax; }

int64_t integer_limit(Dtype d, bool lowest) {
  switch (d) {
    case Dtype::i64:
      return lowest ? std::numeric_limits<int64_t>::min() : std::numeric_limits<int64_t>::max();
    case Dtype::i32:
      return lowest ? std::numeric_limits<int32_t>::min() : std::numeric_limits<int32_t>::max();
    case Dtype::i8: return lowest ? -128 : 127;
    case Dtype::u8: return lowest ? 0 : -1;  // 255 as i8
    default: return lowest ? 0 : 1;
  }
}

}  // namespace

Val StageEmitter::identity(const Reduction& r, int lanes) const {
  const IrType type = register_type(r.dtype).with_lanes(lanes);
  if (r.op == ReduceOp::sum) return IrWriter::zero(type);
  if (type.kind == 'f') {
    constexpr double inf = std::numeric_limits<double>::infinity();
    return IrWriter::real(type, r.op == ReduceOp::prod ? 1.0 : is_largest(r) ? -inf : inf);
  }
  return IrWriter::integer(type, r.op == ReduceOp::prod ? 1 : integer_limit(r.dtype, is_largest(r)));
}

IrType StageEmitter::position_type(const Reduction& r) const {
  return register_type(current().body[static_cast<size_t>(r.position)].dtype).with_lanes(lanes_);
}

Val StageEmitter::last_position(const Reduction& r) const {
  const IrType type = position_type(r);
  return IrWriter::integer(
      type, type.bits == 32 ? std::numeric_limits<int32_t>::max() : std::numeric_limits<int64_t>::max());
}

/// A maximum beside an arg-maximum of the same values is that one's value.
int StageEmitter::shared_extreme(size_t r) const {
  const auto& all = current().reductions;
  for (size_t other = 0; other < all.size(); ++other) {
    const bool pair = (all[r].op == ReduceOp::max && all[other].op == ReduceOp::argmax) ||
                      (all[r].op == ReduceOp::min && all[other].op == ReduceOp::argmin);
    if (pair && all[r].value == all[other].value && all[r].dtype == all[other].dtype)
      return static_cast<int>(other);
  }
  return -1;
}

StageEmitter::Accumulator& StageEmitter::accumulator(size_t r, int row, int vector) {
  return accumulators_.at({static_cast<int>(r), row, vector});
}

void StageEmitter::start_reductions() {
  accumulators_.clear();
  for (size_t r = 0; r < current().reductions.size(); ++r)
    for (int row = 0; row < grid_.rows; ++row)
      for (int vector = 0; vector < grid_.vectors; ++vector) {
        if (shared_extreme(r) >= 0) continue;
        const Reduction& red = current().reductions[r];
        Accumulator a;
        a.value = w_.slot(register_type(red.dtype).with_lanes(lanes_));
        w_.store_slot(a.value, identity(red, lanes_));
        if (has_position(red)) {
          a.position = w_.slot(position_type(red));
          w_.store_slot(a.position, last_position(red));
        }
        accumulators_[{static_cast<int>(r), row, vector}] = a;
      }
}

void StageEmitter::accumulate(size_t r, int row, int vector) {
  if (shared_extreme(r) >= 0) return;
  const Reduction& red = current().reductions[r];
  const Accumulator& a = accumulator(r, row, vector);
  const IrType type = register_type(red.dtype).with_lanes(lanes_);
  const Dtype from = current().body[static_cast<size_t>(red.value)].dtype;
  std::array<Val, 2> now{w_.load_slot(a.value, type), {}},
      next{w_.splat(ops_.cast(eval(red.value, row, vector), from, red.dtype), lanes_), {}};
  if (has_position(red)) {
    now[1] = w_.load_slot(a.position, position_type(red));
    next[1] = w_.splat(eval(red.position, row, vector), lanes_);
  }
  if (const Val mask = own_vector_ ? lane_mask(vector) : Val{}) {
    next[0] = w_.select(mask, next[0], identity(red, lanes_));
    if (next[1]) next[1] = w_.select(mask, next[1], last_position(red));
  }
  const std::array<Val, 2> sum = combine(red, now, next);
  w_.store_slot(a.value, sum[0]);
  if (sum[1]) w_.store_slot(a.position, sum[1]);
}

std::array<Val, 2> StageEmitter::combine(const Reduction& r, const std::array<Val, 2>& a,
                                         const std::array<Val, 2>& b) {
  const bool real = ir::is_float(r.dtype), boolean = r.dtype == Dtype::boolean;
  if (r.op == ReduceOp::sum) return {w_.binary(real ? "fadd" : boolean ? "or" : "add", a[0], b[0]), {}};
  if (r.op == ReduceOp::prod) return {w_.binary(real ? "fmul" : boolean ? "and" : "mul", a[0], b[0]), {}};
  if (!has_position(r)) return {ops_.extreme(is_largest(r), r.dtype, a[0], b[0]), {}};
  // NaN is beyond every number; among equals the lowest position wins.
  const bool sign = r.dtype != Dtype::u8 && !boolean;
  const bool most = is_largest(r);
  Val beyond, equal;
  if (real) {
    const Val a_nan = w_.fcmp("uno", a[0], a[0]), b_nan = w_.fcmp("uno", b[0], b[0]);
    const Val a_number = w_.binary("xor", a_nan, IrWriter::integer(a_nan.type, 1));
    beyond = w_.binary("or", w_.fcmp(most ? "ogt" : "olt", b[0], a[0]), w_.binary("and", b_nan, a_number));
    equal = w_.binary("or", w_.fcmp("oeq", a[0], b[0]), w_.binary("and", a_nan, b_nan));
  } else {
    beyond = w_.icmp(most ? (sign ? "sgt" : "ugt") : (sign ? "slt" : "ult"), b[0], a[0]);
    equal = w_.icmp("eq", a[0], b[0]);
  }
  const Val earlier = w_.binary("and", equal, w_.icmp("slt", b[1], a[1]));
  const Val take = w_.binary("or", beyond, earlier);
  return {w_.select(take, b[0], a[0]), w_.select(take, b[1], a[1])};
}

/// Upper half onto lower half until one lane is left.
std::array<Val, 2> StageEmitter::fold_lanes(const Reduction& r, std::array<Val, 2> v) {
  for (int n = v[0].type.lanes; n > 1; n /= 2) {
    std::array<Val, 2> low, high;
    for (size_t i = 0; i < 2; ++i) {
      if (!v[i]) continue;
      low[i] = w_.part(v[i], 0, n / 2);
      high[i] = w_.part(v[i], n / 2, n / 2);
    }
    v = combine(r, low, high);
  }
  return v;
}

void StageEmitter::finish_reductions() {
  for (size_t r = 0; r < current().reductions.size(); ++r)
    for (int row = 0; row < grid_.rows; ++row) finish(r, row);
}

void StageEmitter::finish(size_t r, int row) {
  const int shared = shared_extreme(r);
  const size_t source = shared >= 0 ? static_cast<size_t>(shared) : r;
  const Reduction& red = current().reductions[source];
  const auto load = [&](int vector) {
    const Accumulator& a = accumulator(source, row, vector);
    std::array<Val, 2> v{w_.load_slot(a.value, register_type(red.dtype).with_lanes(lanes_)), {}};
    if (a.position) v[1] = w_.load_slot(a.position, position_type(red));
    return v;
  };
  const auto keep = [&](int vector, const std::array<Val, 2>& v) {
    results_[{static_cast<int>(stage_), static_cast<int>(r), row, vector}] = v[1] && shared < 0 ? v[1] : v[0];
  };
  if (!own_vector_) {
    for (int vector = 0; vector < grid_.vectors; ++vector) keep(vector, load(vector));
    return;
  }
  std::array<Val, 2> sum = load(0);
  for (int vector = 1; vector < grid_.vectors; ++vector) sum = combine(red, sum, load(vector));
  keep(0, fold_lanes(red, sum));
}

}  // namespace espalier::target::cpu

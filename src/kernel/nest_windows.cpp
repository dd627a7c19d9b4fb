// Pooling, its gradients and resizing as loops.
//
// A gradient asks, for each element of the input, which windows cover it. With stride s, an element at s*q + r (after padding) is
// covered by windows q, q-1, ...; when the loop over the axis is split by s, both the window and the place in it are affine.
// Where the axis is no multiple of s, they are computed by integer division and read as data.
#include <algorithm>
#include <limits>

#include "base/error.h"
#include "kernel/nest_builder.h"
#include "kernel/nest_windows.h"
#include "op/spatial.h"
#include "op/widen.h"
#include "op/window.h"

namespace espalier::kernel {

using ir::ScalarCode;
using ir::Value;

namespace {

double lowest(Dtype d) {
  switch (d) {
    case Dtype::i64: return -0x1p63;
    case Dtype::i32: return -0x1p31;
    case Dtype::i8: return -128;
    case Dtype::u8: return 0;
    default: return -std::numeric_limits<double>::infinity();
  }
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -ceil_div(-a, b); }

bool is_padded(const op::PoolAttrs& a) {
  const auto any = [](const std::vector<int64_t>& v) {
    return std::any_of(v.begin(), v.end(), [](int64_t x) { return x != 0; });
  };
  return any(a.pad_low) || any(a.pad_high);
}

}  // namespace

Fold fold_of_window(const Value& v) {
  const ir::Node& n = v.node();
  const auto& a = n.attrs<op::PoolAttrs>();
  Fold f;
  f.accumulator = op::wide_dtype(n.input(0).dtype());
  f.last_axis_kept = true;
  f.position = Dtype::i32;
  if (&n.op() == &op::max_pool_op) f.op = v.result() == 0 ? ReduceOp::max : ReduceOp::argmax;
  const bool gradient = &n.op() == &op::max_pool_grad_op || &n.op() == &op::avg_pool_grad_op;
  for (size_t i = 0; i < a.window.size(); ++i) {
    const int64_t shift = a.pad_low[i] % a.stride[i];  // a window may begin a place earlier or later
    f.extents.push_back(!gradient ? a.window[i]
                                  : ceil_div(a.window[i] + (shift ? a.stride[i] - shift : 0), a.stride[i]));
  }
  return f;
}

/// Element `folded` of the window at r.index; outside the input it can never win, and adds nothing.
NestBuilder::Element NestBuilder::eval_window_element(StageDraft& d, const Request& r,
                                                      const std::vector<Affine>& folded, Guards guards) {
  const ir::Node& n = r.value.node();
  const auto& a = n.attrs<op::PoolAttrs>();
  const std::vector<int64_t> in = op::spatial_dims(n.input(0));
  Index at{{r.index.front(), {}}};
  Guards mine;
  Affine place;
  for (size_t i = 0; i < in.size(); ++i) {
    Affine p = folded[i];
    p.add(r.index[i + 1], a.stride[i]);
    p.offset -= a.pad_low[i];
    const Guard g{p, 0, in[i]};
    if (always(g) != true) mine.push_back(g);
    at.push_back({p, {}});
    Affine scaled;
    scaled.add(place, a.window[i]).add(folded[i]);
    place = scaled;
  }
  at.push_back({r.index.back(), {}});
  guards.insert(guards.end(), mine.begin(), mine.end());
  const Dtype dtype = n.input(0).dtype();
  Element e{eval(d, n.input(0), at, guards)};
  const bool largest = &n.op() == &op::max_pool_op;
  if (r.fold.op == ReduceOp::argmax) e.position = index(d, place, r.fold.position);
  if (mine.empty()) return e;
  const int inside_all = inside(d, mine);
  e.value = scalar(d, ScalarCode::select, dtype,
                   {inside_all, e.value, constant(d, dtype, largest ? lowest(dtype) : 0.0)});
  if (e.position >= 0)
    e.position =
        scalar(d, ScalarCode::select, r.fold.position,
               {inside_all, e.position, constant(d, r.fold.position, std::numeric_limits<int32_t>::max())});
  return e;
}

/// `sum` divided by the elements that windows `windows` (one i64 instruction per axis) have inside the input, or have at all.
int NestBuilder::divided_by_count(StageDraft& d, const ir::Node& n, int sum,
                                  const std::vector<int>& windows) {
  const auto& a = n.attrs<op::PoolAttrs>();
  const Dtype dtype = op::wide_dtype(n.types()[0].dtype);
  double whole = 1;
  for (int64_t w : a.window) whole *= static_cast<double>(w);
  int count = constant(d, dtype, whole);
  if (!a.count_pad && is_padded(a)) {
    const std::vector<int64_t> in = a.spatial.empty() ? op::spatial_dims(n.input(0)) : a.spatial;
    int all = -1;
    for (size_t i = 0; i < windows.size(); ++i) {
      const auto number = [&](int64_t v) { return constant(d, Dtype::i64, static_cast<double>(v)); };
      const auto make = [&](ScalarCode c, int x, int y) { return scalar(d, c, Dtype::i64, {x, y, -1}); };
      const int from =
          make(ScalarCode::sub, make(ScalarCode::mul, windows[i], number(a.stride[i])), number(a.pad_low[i]));
      const int to = make(ScalarCode::min, make(ScalarCode::add, from, number(a.window[i])), number(in[i]));
      const int size = make(ScalarCode::sub, to, make(ScalarCode::max, from, number(0)));
      all = all < 0 ? size : make(ScalarCode::mul, all, size);
    }
    count = cast(d, scalar(d, ScalarCode::max, Dtype::i64, {all, constant(d, Dtype::i64, 1), -1}), dtype);
  }
  return scalar(d, ScalarCode::div, dtype, {sum, count, -1});
}

/// The `candidate`-th of the windows that may cover element `at` of an axis.
NestBuilder::Tap NestBuilder::tap_of(StageDraft& d, const ir::Node& n, size_t axis, const Affine& at,
                                     const Affine& candidate, Guards& guards) {
  const auto& a = n.attrs<op::PoolAttrs>();
  const int64_t stride = a.stride[axis], pad = a.pad_low[axis], window = a.window[axis],
                out = op::spatial_dims(n.input(0))[axis];
  Affine whole, part;
  for (const Affine::Term& t : at.terms)
    (t.coef % stride == 0 ? whole : part).add(Affine::var(t.var, t.coef));
  if (part.terms.size() == 1 && part.terms[0].coef == 1 && nest_.extent(part.terms[0].var) > stride &&
      nest_.extent(part.terms[0].var) % stride == 0) {
    const Variable& var = variables_[static_cast<size_t>(part.terms[0].var)];
    throw MustSplitAxis{var.axis, var.position, stride};
  }
  Tap tap;
  const auto [least, most] = bounds(part, nest_.extents);
  if (at.offset % stride == 0 && least >= 0 && most < stride) {
    const int64_t ahead = pad % stride ? 1 : 0, shift = at.offset + pad;
    Affine o = Affine::constant(floor_div(shift, stride) + ahead), k = part;
    for (const Affine::Term& t : whole.terms) o.add(Affine::var(t.var, t.coef / stride));
    o.add(candidate, -1);
    k.offset = shift - floor_div(shift, stride) * stride - ahead * stride;
    k.add(candidate, stride);
    for (const Guard& g : {Guard{k, 0, window}, Guard{o, 0, out}})
      if (always(g) != true) guards.push_back(g);
    tap.window.affine = o;
    tap.window_index = index(d, o);
    tap.tap = index(d, k);
    return tap;
  }
  const auto number = [&](int64_t v) { return constant(d, Dtype::i64, static_cast<double>(v)); };
  const auto make = [&](ScalarCode c, int x, int y) { return scalar(d, c, Dtype::i64, {x, y, -1}); };
  Affine padded = at;
  padded.offset += pad;
  const int u = index(d, padded);
  tap.window_index = make(ScalarCode::sub, make(ScalarCode::div, u, number(stride)), index(d, candidate));
  tap.tap = make(ScalarCode::sub, u, make(ScalarCode::mul, tap.window_index, number(stride)));
  const auto require = [&](ScalarCode c, int x, int y) {
    tap.inside = both(d, tap.inside, scalar(d, c, Dtype::boolean, {x, y, -1}));
  };
  require(ScalarCode::lt, tap.tap, number(window));
  require(ScalarCode::ge, tap.window_index, number(0));
  require(ScalarCode::lt, tap.window_index, number(out));
  tap.window.data.push_back({tap.window_index, std::max<int64_t>(1, out), 1});
  return tap;
}

/// What one covering window gives back to the element at r.index.
int NestBuilder::eval_window_grad_element(StageDraft& d, const Request& r, const std::vector<Affine>& folded,
                                          Guards guards) {
  const ir::Node& n = r.value.node();
  const auto& a = n.attrs<op::PoolAttrs>();
  Index at{{r.index.front(), {}}};
  Guards mine;
  int condition = -1, place = -1;
  std::vector<int> windows;
  for (size_t i = 0; i < a.window.size(); ++i) {
    const Tap tap = tap_of(d, n, i, r.index[i + 1], folded[i], mine);
    at.push_back(tap.window);
    windows.push_back(tap.window_index);
    condition = both(d, condition, tap.inside);
    const int scaled = place < 0
                           ? -1
                           : scalar(d, ScalarCode::mul, Dtype::i64,
                                    {place, constant(d, Dtype::i64, static_cast<double>(a.window[i])), -1});
    place = scaled < 0 ? tap.tap : scalar(d, ScalarCode::add, Dtype::i64, {scaled, tap.tap, -1});
  }
  at.push_back({r.index.back(), {}});
  guards.insert(guards.end(), mine.begin(), mine.end());
  if (!mine.empty()) condition = both(d, condition, inside(d, mine));
  int value = eval(d, n.input(0), at, guards);
  if (&n.op() == &op::max_pool_grad_op) {
    const int found = cast(d, eval(d, n.input(1), at, guards), Dtype::i32);
    condition = both(d, condition,
                     scalar(d, ScalarCode::eq, Dtype::boolean, {found, cast(d, place, Dtype::i32), -1}));
  } else {
    value = divided_by_count(d, n, cast(d, value, r.fold.accumulator), windows);
  }
  if (condition < 0) return value;
  const Dtype dtype = d.stage.body[static_cast<size_t>(value)].dtype;
  return scalar(d, ScalarCode::select, dtype, {condition, value, constant(d, dtype, 0)});
}

/// Where element `at` (an i64 instruction) of an axis of `in` elements resized to `out` reads: op::resize_taps in instructions.
NestBuilder::Neighbours NestBuilder::neighbours_of(StageDraft& d, const op::ResizeAttrs& a, int64_t in,
                                                   int64_t out, int at, Dtype dtype) {
  const int64_t last = in - 1, span = std::max<int64_t>(out - 1, 1);
  const auto whole = [&](int64_t v) { return constant(d, Dtype::i64, static_cast<double>(v)); };
  const auto real = [&](int64_t v) { return constant(d, Dtype::f64, static_cast<double>(v)); };
  const auto ints = [&](ScalarCode c, int x, int y) { return scalar(d, c, Dtype::i64, {x, y, -1}); };
  const auto reals = [&](ScalarCode c, int x, int y) { return scalar(d, c, Dtype::f64, {x, y, -1}); };
  const auto position = [&](int at) { return Position{{}, {{at, std::max<int64_t>(1, in), 1}}}; };
  Neighbours n;
  if (a.mode == op::ResizeMode::nearest) {
    const int twice = ints(ScalarCode::mul, at, whole(2));
    const int above = a.align_corners
                          ? ints(ScalarCode::add, ints(ScalarCode::mul, twice, whole(last)), whole(span))
                          : ints(ScalarCode::mul, ints(ScalarCode::add, twice, whole(1)), whole(in));
    n.low_index = n.high_index = ints(ScalarCode::div, above, whole(a.align_corners ? 2 * span : 2 * out));
    n.low = n.high = position(n.low_index);
    return n;
  }
  const int p = cast(d, at, Dtype::f64), half = constant(d, Dtype::f64, 0.5);
  int centre;
  if (a.align_corners) centre = reals(ScalarCode::div, reals(ScalarCode::mul, p, real(last)), real(span));
  else
    centre = reals(
        ScalarCode::sub,
        reals(ScalarCode::div, reals(ScalarCode::mul, reals(ScalarCode::add, p, half), real(in)), real(out)),
        half);
  const int held = reals(ScalarCode::min, reals(ScalarCode::max, centre, real(0)), real(last));
  const int low = cast(d, held, Dtype::i64);
  n.low = position(low);
  n.low_index = low;
  n.high_index = ints(ScalarCode::min, ints(ScalarCode::add, low, whole(1)), whole(last));
  n.high = position(n.high_index);
  n.weight = cast(d, reals(ScalarCode::sub, held, cast(d, low, Dtype::f64)), dtype);
  return n;
}

/// A weighted sum of the neighbours along each axis.
int NestBuilder::eval_resize(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards) {
  const auto& a = n.attrs<op::ResizeAttrs>();
  const std::vector<int64_t> in = op::spatial_dims(n.input(0));
  const Dtype dtype = op::wide_dtype(n.types()[0].dtype);
  std::vector<Neighbours> axes;
  for (size_t i = 0; i < in.size(); ++i) {
    if (!index[i + 1].data.empty()) throw MustStore{n.value()};
    axes.push_back(neighbours_of(d, a, in[i], a.spatial[i], this->index(d, index[i + 1].affine), dtype));
  }
  const bool linear = a.mode == op::ResizeMode::linear;
  const auto make = [&](ScalarCode c, int x, int y) { return scalar(d, c, dtype, {x, y, -1}); };
  int sum = -1;
  for (unsigned corner = 0; corner < (linear ? 1u << in.size() : 1u); ++corner) {
    Index at{index.front()};
    int weight = -1;
    for (size_t i = 0; i < in.size(); ++i) {
      const bool high = (corner >> i) & 1;
      at.push_back(high ? axes[i].high : axes[i].low);
      if (!linear) continue;
      const int w = high ? axes[i].weight : make(ScalarCode::sub, constant(d, dtype, 1), axes[i].weight);
      weight = weight < 0 ? w : make(ScalarCode::mul, weight, w);
    }
    at.push_back(index.back());
    int value = eval(d, n.input(0), at, guards);
    if (linear) {  // a neighbour of no weight is not read, be it infinite
      const int weighs = scalar(d, ScalarCode::ne, Dtype::boolean, {weight, constant(d, dtype, 0), -1});
      value = scalar(d, ScalarCode::select, dtype,
                     {weighs, make(ScalarCode::mul, value, weight), constant(d, dtype, 0)});
    }
    sum = sum < 0 ? value : make(ScalarCode::add, sum, value);
  }
  return sum;
}

namespace {

/// The candidates that may read one element of an axis: `count` of them from (numerator * j + offset) / denominator on, rounded down.
struct Candidates {
  int64_t count, numerator = 0, offset = 0, denominator = 1;
};

Candidates candidates_of(const op::ResizeAttrs& a, int64_t in, int64_t out) {
  const int64_t last = in - 1, span = std::max<int64_t>(out - 1, 1);
  if (in == 0 || (a.align_corners && last == 0)) return {out};
  const bool linear = a.mode == op::ResizeMode::linear;
  if (a.align_corners) {
    const Candidates c{ceil_div((linear ? 2 : 1) * span, last) + 1, 2 * span, linear ? -2 * span : -span,
                       2 * last};
    return c.count < out ? c : Candidates{out};
  }
  const Candidates c{ceil_div((linear ? 2 : 1) * out, in) + 1, 2 * out, linear ? -out - in : -in, 2 * in};
  return c.count < out ? c : Candidates{out};
}

}  // namespace

Fold fold_of_resize_grad(const Value& v) {
  const ir::Node& n = v.node();
  const auto& a = n.attrs<op::ResizeAttrs>();
  const std::vector<int64_t> out = op::spatial_dims(n.input(0));
  Fold f;
  f.accumulator = op::wide_dtype(v.dtype());
  f.last_axis_kept = true;
  for (size_t i = 0; i < out.size(); ++i) f.extents.push_back(candidates_of(a, a.spatial[i], out[i]).count);
  return f;
}

/// What candidate `folded` gives back to the element at r.index: its gradient times the weight with which it read the element.
int NestBuilder::eval_resize_grad_element(StageDraft& d, const Request& r, const std::vector<Affine>& folded,
                                          const Guards& guards) {
  const ir::Node& n = r.value.node();
  const auto& a = n.attrs<op::ResizeAttrs>();
  const std::vector<int64_t> outs = op::spatial_dims(n.input(0));
  const Dtype dtype = op::wide_dtype(r.value.dtype());
  const bool linear = a.mode == op::ResizeMode::linear;
  const auto whole = [&](int64_t v) { return constant(d, Dtype::i64, static_cast<double>(v)); };
  const auto ints = [&](ScalarCode c, int x, int y) { return scalar(d, c, Dtype::i64, {x, y, -1}); };
  const auto is = [&](ScalarCode c, int x, int y) { return scalar(d, c, Dtype::boolean, {x, y, -1}); };
  Index at{{r.index.front(), {}}};
  int condition = -1, weight = -1;
  for (size_t i = 0; i < outs.size(); ++i) {
    const int64_t in = a.spatial[i], out = outs[i];
    const Candidates c = candidates_of(a, in, out);
    const int element = index(d, r.index[i + 1]);
    Affine first = Affine::constant(c.offset);
    first.add(r.index[i + 1], c.numerator);
    // Truncation instead of rounding down only skips candidates below 0.
    const int o = ints(ScalarCode::add, ints(ScalarCode::div, index(d, first), whole(c.denominator)),
                       index(d, folded[i]));
    const Neighbours near = neighbours_of(d, a, in, out, o, dtype);
    condition =
        both(d, condition, both(d, is(ScalarCode::ge, o, whole(0)), is(ScalarCode::lt, o, whole(out))));
    if (linear) {
      const auto pick = [&](int reads, int w) {
        return scalar(d, ScalarCode::select, dtype,
                      {is(ScalarCode::eq, reads, element), w, constant(d, dtype, 0)});
      };
      const int low = scalar(d, ScalarCode::sub, dtype, {constant(d, dtype, 1), near.weight, -1});
      const int w = scalar(d, ScalarCode::add, dtype,
                           {pick(near.low_index, low), pick(near.high_index, near.weight), -1});
      weight = weight < 0 ? w : scalar(d, ScalarCode::mul, dtype, {weight, w, -1});
    } else {
      condition = both(d, condition, is(ScalarCode::eq, near.low_index, element));
    }
    at.push_back({Affine{}, {{o, std::max<int64_t>(1, out), 1}}});
  }
  at.push_back({r.index.back(), {}});
  int value = cast(d, eval(d, n.input(0), at, guards), dtype);
  if (linear) {
    condition = both(d, condition, is(ScalarCode::ne, weight, constant(d, dtype, 0)));
    value = scalar(d, ScalarCode::mul, dtype, {value, weight, -1});
  }
  return scalar(d, ScalarCode::select, dtype, {condition, value, constant(d, dtype, 0)});
}

}  // namespace espalier::kernel

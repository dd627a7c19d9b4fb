// Ops of ONNX that move elements, make constants, and ask for shapes.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.h"
#include "format/onnx_import.h"
#include "op/axes.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/movement.h"
#include "op/reduction.h"

namespace espalier::format {

using ir::Array;
using ir::Dim;
using ir::Dims;
using ir::Dtype;
using ir::Value;
using op::at;

namespace {

/// Sizes as a constant where all are numbers.
Held held_sizes(Dims sizes, bool scalar) {
  if (std::all_of(sizes.begin(), sizes.end(), [](const Dim& d) { return d.is_static(); })) {
    const Ints numbers = ir::static_dims(sizes);
    const Array list = Array::list(numbers);
    return held(ir::constant(scalar ? list.reshaped({}) : list));
  }
  return {.value = {}, .last = false, .sizes = std::move(sizes), .scalar_sizes = scalar};
}

/// Axes from an attribute, or since opset 13 from input 1.
Ints axes_of(Use& u, int64_t input_since, int rank) {
  Ints axes = u.opset() >= input_since ? (u.has(1) ? u.integers(1) : Ints{}) : u.integers("axes", {});
  return u.axes(std::move(axes), rank);
}

Results read_reshape(Use& u) {
  const Value x = u.value(0);
  const bool allow_zero = u.integer("allowzero", 0) != 0;
  Dims dims = u.sizes(1);
  int infer = -1;
  Dim known = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == Dim(-1)) {
      if (infer >= 0) u.fail("two dims are to be inferred", dims_text(dims), "one -1");
      infer = static_cast<int>(i);
      continue;
    }
    if (dims[i] == Dim(0) && !allow_zero) {
      if (i >= x.dims().size())
        u.fail("a 0 copies a dim that is not there", dims_text(dims), x.type().text());
      dims[i] = x.dims()[i];
    }
    known = known * dims[i];
  }
  if (infer >= 0) dims[at(infer)] = known == Dim(0) ? Dim(0) : ir::count(x.dims()) / known;
  return {held(reshaped(x, dims))};
}

Results read_flatten(Use& u) {
  const Value x = u.value(0);
  const int rank = x.rank();
  int64_t axis = u.integer("axis", 1);
  if (axis != rank) axis = u.axis(axis, rank);
  const std::span<const Dim> dims(x.dims());
  return {held(reshaped(x, {ir::count(dims.first(at(axis))), ir::count(dims.subspan(at(axis)))}))};
}

Results read_squeeze(Use& u) {
  const Value x = u.value(0);
  const Ints axes = axes_of(u, 13, x.rank());
  Dims dims;
  for (int64_t i = 0; i < x.rank(); ++i) {
    const bool named = std::find(axes.begin(), axes.end(), i) != axes.end();
    if (named && x.dims()[at(i)] != Dim(1)) u.fail("a squeezed axis is not 1", x.type().text());
    if (!(named || (axes.empty() && x.dims()[at(i)] == Dim(1)))) dims.push_back(x.dims()[at(i)]);
  }
  return {held(reshaped(x, dims))};
}

Results read_unsqueeze(Use& u) {
  const Value x = u.value(0);
  const size_t count = (u.opset() >= 13 ? u.integers(1) : u.integers("axes", {})).size();
  Dims dims = x.dims();
  for (const int64_t a : axes_of(u, 13, x.rank() + static_cast<int>(count)))
    dims.insert(dims.begin() + a, Dim(1));
  return {held(reshaped(x, dims))};
}

/// The two permutations between channels-first and channels-last only change the view.
Results read_transpose(Use& u) {
  const Held& h = u.tensor(0);
  const int rank = h.value.rank();
  Ints reversed(at(rank));
  for (int64_t i = 0; i < rank; ++i) reversed[at(i)] = rank - 1 - i;
  const Ints perm = u.integers("perm", reversed);
  if (static_cast<int>(perm.size()) != rank)
    u.fail("perm does not fit the rank", ir::dims_text(perm), std::to_string(rank) + " axes");
  if (h.last && perm == to_last_perm(rank)) return {held(h.value)};
  if (!h.last && rank >= 3 && perm == to_first_perm(rank) && !ir::constant_value(h.value))
    return {held_last(h.value)};
  return {held(transposed(plain(h), perm))};
}

Results read_concat(Use& u) {
  const int rank = u.rank(0);
  const int64_t axis = u.axis(u.integer("axis", 1), rank);
  bool last = false;
  for (size_t i = 0; i < u.inputs(); ++i) {
    last = last || u.tensor(i).last;
    if (u.rank(i) != rank) u.fail("ranks differ", std::to_string(u.rank(i)), std::to_string(rank));
  }
  std::vector<Value> parts;
  for (size_t i = 0; i < u.inputs(); ++i) parts.push_back(last ? u.last(i) : u.value(i));
  return {held(op::concat(std::move(parts), last ? last_axis(axis, rank) : axis), last)};
}

/// x[from, to) by `step` along one axis, as NumPy reads the three.
Value sliced(const Use& u, const Value& x, int64_t axis, int64_t from, int64_t to, int64_t step) {
  if (step == 0) u.fail("a step is 0");
  const Dim dim = x.dims()[at(axis)];
  if (!dim.is_static()) {
    if (from == 0 && step == 1 && to >= std::numeric_limits<int32_t>::max()) return x;
    u.fail("a symbolic axis is cut", x.type().text(), "a symbol bound when loading");
  }
  const int64_t n = dim.value();
  const auto wrap = [&](int64_t i, int64_t low, int64_t high) {
    return std::clamp(i < 0 ? std::max(i, -n - 1) + n : i, low, high);
  };
  if (step > 0) {
    const int64_t a = wrap(from, 0, n), b = wrap(to, 0, n), s = std::min(step, std::max<int64_t>(n, 1));
    Ints start(x.dims().size(), 0), steps(x.dims().size(), 1);
    Dims sizes = x.dims();
    start[at(axis)] = a;
    sizes[at(axis)] = b > a ? (b - a + s - 1) / s : 0;
    steps[at(axis)] = s;
    if (b <= a) start[at(axis)] = 0;
    return op::slice(x, start, sizes, steps);
  }
  const int64_t a = wrap(from, -1, n - 1), b = wrap(to, -1, n - 1);  // from the end: slice the reversed axis
  if (step == std::numeric_limits<int64_t>::min()) ++step;
  return sliced(u, op::reverse(x, {axis}), axis, n - 1 - a, n - 1 - b, -step);
}

/// A slice of a slice as one.
Value composed(const Value& x) {
  if (x->op().name != op::slice_op.name || x->input(0)->op().name != op::slice_op.name) return x;
  const auto &outer = x->attrs<op::SliceAttrs>(), &inner = x->input(0)->attrs<op::SliceAttrs>();
  op::SliceAttrs both = outer;
  for (size_t i = 0; i < both.start.size(); ++i) {
    both.start[i] = inner.start[i] + outer.start[i] * inner.step[i];
    both.step[i] = outer.step[i] * inner.step[i];
  }
  return op::slice(x->input(0)->input(0), both.start, both.size, both.step);
}

Results read_slice(Use& u) {
  const Held& h = u.tensor(0);
  const int rank = h.value.rank();
  const bool inputs = u.opset() >= 10;
  const Ints starts = inputs ? u.integers(1) : u.integers("starts", {}),
             ends = inputs ? u.integers(2) : u.integers("ends", {});
  Ints axes = op::axes_without(static_cast<int>(starts.size()), {});
  if (inputs && u.has(3)) axes = u.integers(3);
  if (!inputs) axes = u.integers("axes", axes);
  const Ints steps = inputs && u.has(4) ? u.integers(4) : Ints(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    u.fail("starts, ends, axes and steps differ in length");
  Value x = h.value;
  bool all_reversed = !starts.empty();
  Ints stored;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t axis = u.axis(axes[i], rank);
    stored.push_back(h.last ? last_axis(axis, rank) : axis);
    all_reversed = all_reversed && steps[i] == -1 && starts[i] == -1 && ends[i] < -int64_t{1} << 40;
  }
  if (all_reversed) return {held(op::reverse(x, u.axes(stored, rank)), h.last)};
  for (size_t i = 0; i < starts.size(); ++i)
    x = composed(sliced(u, x, stored[i], starts[i], ends[i], steps[i]));
  return {held(x, h.last)};
}

Results read_split(Use& u) {
  const Held& h = u.tensor(0);
  const int rank = h.value.rank();
  const int64_t axis = u.axis(u.integer("axis", 0), rank), stored = h.last ? last_axis(axis, rank) : axis;
  Ints sizes = u.opset() >= 13 ? (u.has(1) ? u.integers(1) : Ints{}) : u.integers("split", {});
  const Dim dim = h.value.dims()[at(stored)];
  const auto parts = u.opset() >= 18 ? u.integer("num_outputs", static_cast<int64_t>(u.outputs()))
                                     : static_cast<int64_t>(u.outputs());
  if (sizes.empty()) {
    if (parts < 1) u.fail("there are no parts");
    const int64_t n = dim.value(), each = (n + parts - 1) / parts;
    for (int64_t i = 0; i < parts; ++i) sizes.push_back(std::max<int64_t>(std::min(each, n - i * each), 0));
  }
  Results out;
  int64_t from = 0;
  for (const int64_t size : sizes) {
    if (size < 0 || size > dim.value() - from)
      u.fail("the parts do not fit the axis", ir::dims_text(sizes), dim.text());
    out.push_back(held(op::slice_axis(h.value, stored, from, size), h.last));
    from += size;
  }
  if (from != dim.value()) u.fail("the parts do not fill the axis", ir::dims_text(sizes), dim.text());
  return out;
}

Results read_pad(Use& u) {
  const Held& h = u.tensor(0);
  const int rank = h.value.rank();
  const std::string mode = u.text("mode", "constant");
  const Ints pads = u.opset() >= 11 ? u.integers(1) : u.integers("pads", {});
  const Ints axes = u.has(3) ? u.integers(3) : op::axes_without(rank, {});
  if (pads.size() != 2 * axes.size())
    u.fail("pads do not fit the rank", ir::dims_text(pads), std::to_string(2 * axes.size()) + " numbers");
  Ints low(at(rank), 0), high(at(rank), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = u.axis(axes[i], rank), stored = h.last ? last_axis(axis, rank) : axis;
    low[at(stored)] = pads[i];
    high[at(stored)] = pads[i + axes.size()];
  }
  Value x = h.value;
  for (int64_t i = 0; i < rank; ++i) {  // negative ones cut
    if (low[at(i)] >= 0 && high[at(i)] >= 0) continue;
    const int64_t n = x.dims()[at(i)].value(), a = std::max<int64_t>(-low[at(i)], 0),
                  b = std::max<int64_t>(-high[at(i)], 0);
    if (a > n || b > n - a)
      u.fail("negative pads cut more than there is", ir::dims_text(pads), x.type().text());
    x = op::slice_axis(x, i, a, n - a - b);
    low[at(i)] = std::max<int64_t>(low[at(i)], 0);
    high[at(i)] = std::max<int64_t>(high[at(i)], 0);
  }
  if (mode == "constant") {
    const double number = u.opset() < 11 ? u.real("value", 0) : 0;
    const Value fill =
        u.opset() >= 11 && u.has(2) ? reshaped(u.value(2), {}) : ir::constant(x.dtype(), number);
    return {held(op::pad(x, fill, low, high), h.last)};
  }
  if (mode != "reflect" && mode != "edge" && (mode != "wrap" || u.opset() < 19))
    u.fail("mode is not supported", mode,
           u.opset() < 19 ? "constant reflect edge" : "constant reflect edge wrap");
  for (int64_t i = 0; i < rank; ++i) {
    if (low[at(i)] == 0 && high[at(i)] == 0) continue;
    const int64_t n = x.dims()[at(i)].value();
    if (n < 1 || (mode == "reflect" && std::max(low[at(i)], high[at(i)]) >= n) || low[at(i)] > 1 << 24 ||
        high[at(i)] > 1 << 24)
      u.fail("pads are too large", ir::dims_text(pads), x.type().text());
    Ints positions;
    for (int64_t k = -low[at(i)]; k < n + high[at(i)]; ++k)
      positions.push_back(mode == "edge"   ? std::clamp<int64_t>(k, 0, n - 1)
                          : mode == "wrap" ? (k % n + n) % n
                          : k < 0          ? -k
                          : k < n          ? k
                                           : 2 * (n - 1) - k);
    x = op::gather(x, ir::constant(Array::list(positions)), i);
  }
  return {held(x, h.last)};
}

/// Positions among n, where negative ones count from the end.
Value from_either_end(const Value& i, int64_t n) {
  return op::select(op::lt(i, op::zeros_like(i)), op::add(i, static_cast<double>(n)), i);
}

/// UserError where operand `input` is a constant with an element outside -n..n-1.
void check_positions(const Use& u, size_t input, const Dim& dim) {
  const Array* a = ir::constant_value(u.value(input));
  if (!a || !dim.is_static()) return;
  const auto n = static_cast<double>(dim.value());
  for (int64_t k = 0; k < a->size(); ++k)
    if (!(a->at(k) >= -n && a->at(k) < n))
      u.fail(fmt::format("index out of range, element {}", k), number_text(a->at(k)),
             fmt::format("{} to {}", -dim.value(), dim.value() - 1));
}

/// Is it known that no element is negative?
bool is_never_negative(const Value& i) {
  if (const Array* a = ir::constant_value(i)) {
    for (int64_t k = 0; k < a->size(); ++k)
      if (a->at(k) < 0) return false;
    return true;
  }
  if (i->op().name != op::clamp_op.name) return false;
  const auto low = one_number(i->input(1)), high = one_number(i->input(2));
  return low && high && low->at(0) >= 0 && high->at(0) >= 0;
}

/// Is it clipped to 0..n-1?
bool is_clipped_to(const Value& i, int64_t n) {
  if (i->op().name != op::clamp_op.name) return false;
  if (i.type().is_static() && i.type().elements() == 0) return true;
  const auto low = one_number(i->input(1)), high = one_number(i->input(2));
  return low && high && low->at(0) == 0 && high->at(0) == static_cast<double>(n - 1);
}

/// An operand as positions along an axis: without the clipping that writing puts before a gathering, itself where it is known to hold
/// no negative number, else from either end.
Value wrapped(const Use& u, size_t input, const Dim& dim) {
  const Value i = u.value(input);
  check_positions(u, input, dim);
  const bool ours = u.input_name(input).starts_with(nearest_mark);
  if (ours && dim.is_static() && is_clipped_to(i, dim.value())) return i->input(0);
  return is_never_negative(i) ? i : from_either_end(i, dim.value());
}

Results read_gather(Use& u) {
  const Value x = u.value(0);
  const int64_t axis = u.axis(u.integer("axis", 0), x.rank());
  return {held(op::gather(x, wrapped(u, 1, x.dims()[at(axis)]), axis))};
}

Results read_gather_elements(Use& u) {
  Value x = u.value(0);
  const int64_t axis = u.axis(u.integer("axis", 0), x.rank());
  const Value i = wrapped(u, 1, x.dims()[at(axis)]);
  if (i.rank() != x.rank()) u.fail("the indices are of another rank", i.type().text(), x.type().text());
  for (int64_t k = 0; k < x.rank(); ++k)
    if (k != axis && i.dims()[at(k)] != x.dims()[at(k)]) x = op::slice_axis(x, k, 0, i.dims()[at(k)]);
  return {held(op::gather_along(x, i, axis))};
}

Results read_gather_nd(Use& u) {
  const Value x = u.value(0), indices = u.value(1);
  const int64_t batch = u.integer("batch_dims", 0);
  if (batch != 0) u.fail("batch_dims is not supported", std::to_string(batch), "0");
  if (indices.rank() < 1) u.fail("the indices are a scalar");
  const int64_t depth = indices.dims().back().value();
  if (depth < 1 || depth > x.rank())
    u.fail("the indices do not fit the rank", indices.type().text(), x.type().text());
  Value flat;
  Dims where(indices.dims().begin(), indices.dims().end() - 1), rows{1};
  for (int64_t k = 0; k < depth; ++k) {
    const Value i = reshaped(op::slice_axis(indices, indices.rank() - 1, k, 1), where);
    const int64_t n = x.dims()[at(k)].value();
    const Value position = from_either_end(i, n);
    flat = flat ? op::add(op::mul(flat, static_cast<double>(n)), position) : position;
    rows[0] = rows[0] * x.dims()[at(k)];
  }
  rows.insert(rows.end(), x.dims().begin() + depth, x.dims().end());
  return {held(op::gather(reshaped(x, rows), flat, 0))};
}

Results read_expand(Use& u) {
  const Value x = u.value(0);
  return {held(stretched(x, op::broadcast_dims(x.dims(), u.sizes(1))))};
}

Results read_tile(Use& u) {
  Value x = u.value(0);
  const Ints repeats = u.integers(1);
  if (static_cast<int>(repeats.size()) != x.rank())
    u.fail("repeats do not fit the rank", ir::dims_text(repeats), x.type().text());
  Dims twice, result;
  Ints axes;
  for (size_t i = 0; i < repeats.size(); ++i) {
    if (repeats[i] < 0) u.fail("a repeat is negative", ir::dims_text(repeats));
    twice.emplace_back(repeats[i]);
    axes.push_back(static_cast<int64_t>(twice.size()));
    twice.push_back(x.dims()[i]);
    result.push_back(x.dims()[i] * Dim(repeats[i]));
  }
  return {held(reshaped(op::broadcast_in(x, twice, axes), result))};
}

Results read_shape(Use& u) {
  const Dims dims = u.dims(0);
  const auto rank = static_cast<int64_t>(dims.size());
  const auto bound = [&](int64_t i) {
    return std::clamp<int64_t>(i < 0 ? std::max(i, -rank) + rank : i, 0, rank);
  };
  const int64_t from = bound(u.integer("start", 0)), to = std::max(from, bound(u.integer("end", rank)));
  return {held_sizes(Dims(dims.begin() + from, dims.begin() + to), false)};
}

Results read_size(Use& u) { return {held_sizes({ir::count(u.dims(0))}, true)}; }

Results read_constant(Use& u) {
  if (u.has_attr("value_float")) return {held(ir::constant(Dtype::f32, u.real("value_float", 0)))};
  if (u.has_attr("value_int"))
    return {held(ir::constant(Array::of<int64_t>({}, {u.integer("value_int", 0)})))};
  if (u.has_attr("value_ints")) {
    const Ints v = u.integers("value_ints", Ints{});
    return {held(ir::constant(Array::list(v)))};
  }
  if (u.has_attr("value_floats")) {
    const std::vector<double> v = u.reals("value_floats");
    return {held(ir::constant(Array::list(v).cast(Dtype::f32)))};
  }
  return {held(ir::constant(u.array("value")))};
}

Results read_constant_of_shape(Use& u) {
  const Array value = u.has_attr("value") ? u.array("value") : Array::scalar(Dtype::f32, 0);
  if (value.size() != 1) u.fail("the value is no single number", value.type().text());
  return {held(op::broadcast_in(ir::constant(value.reshaped({})), u.sizes(0), {}))};
}

Results read_range(Use& u) {
  const Dtype dtype = u.dtype(0);
  if (!is_float(dtype)) {
    u.ignore("stash_type");
    const int64_t from = u.integers(0).at(0), to = u.integers(1).at(0), step = u.integers(2).at(0);
    if (step == 0) u.fail("the step is 0");
    const double steps =
        std::ceil((static_cast<double>(to) - static_cast<double>(from)) / static_cast<double>(step));
    if (steps > 1 << 24) u.fail("the range is too long", std::to_string(steps), "at most 2^24");
    Ints v;
    for (int64_t i = 0; i < static_cast<int64_t>(steps); ++i) v.push_back(from + i * step);
    return {held(ir::constant(Array::list(v).cast(dtype)))};
  }
  if (u.integer("stash_type", 1) != 1 && dtype_size(dtype) == 2)
    u.fail("stash_type is not supported", std::to_string(u.integer("stash_type", 1)), "1");
  const double from = u.number(0), to = u.number(1), step = u.number(2);
  const double steps = std::ceil((to - from) / step);
  if (!(steps <= 1 << 24))
    u.fail("the range is too long or its step is 0", std::to_string(steps), "at most 2^24");
  std::vector<double> v;
  for (int64_t i = 0; i < static_cast<int64_t>(steps); ++i) v.push_back(from + static_cast<double>(i) * step);
  return {held(ir::constant(Array::list(v).cast(dtype)))};
}

Results read_one_hot(Use& u) {
  const int64_t depth = static_cast<int64_t>(u.number(1));
  if (depth < 0 || depth > 1 << 30) u.fail("the depth is out of range", std::to_string(depth), "0 to 2^30");
  const Value i = op::cast(u.value(0), Dtype::i64), values = u.value(2);
  if (values.rank() != 1 || values.dims()[0] != Dim(2))
    u.fail("values are not (off, on)", values.type().text(), "[2]");
  const int rank = i.rank() + 1;
  const int64_t axis = u.axis(u.integer("axis", -1), rank);
  const Value hot = op::one_hot(from_either_end(i, depth), depth, Dtype::f32);
  const auto choice = [&](int64_t k) {
    return op::broadcast_in(reshaped(op::slice_axis(values, 0, k, 1), {}), hot.dims(), {});
  };
  const Value y = op::select(op::gt(hot, op::zeros_like(hot)), choice(1), choice(0));
  return {held(last_moved_to(y, axis))};
}

Results read_eye_like(Use& u) {
  const Dims dims = u.dims(0);
  if (dims.size() != 2) u.fail("the input is no matrix", dims_text(dims));
  const int64_t k = u.integer("k", 0);
  const Dtype dtype = u.has_attr("dtype")
                          ? dtype_of_onnx(static_cast<int32_t>(u.integer("dtype", 1)), u.where())
                          : u.dtype(0);
  const ir::Type index{Dtype::i64, dims};
  const Value row = op::iota(index, 0), column = op::iota(index, 1);
  return {held(op::cast(op::eq(op::add(row, static_cast<double>(k)), column), dtype))};
}

Results read_trilu(Use& u) {
  const Value x = u.value(0);
  if (x.rank() < 2) u.fail("the input is no matrix", x.type().text());
  const int64_t k = u.has(1) ? static_cast<int64_t>(u.number(1)) : 0;
  const bool upper = u.integer("upper", 1) != 0;
  const ir::Type index{Dtype::i64, x.dims()};
  const Value row = op::add(op::iota(index, x.rank() - 2), static_cast<double>(k)),
              column = op::iota(index, x.rank() - 1);
  return {held(op::select(upper ? op::le(row, column) : op::ge(row, column), x, op::zeros_like(x)))};
}

/// Depth and space swap in blocks: all on channels-first dims [N, C, H, W].
Results read_depth_to_space(Use& u) {
  const Value x = u.value(0);
  const int64_t b = u.integer("blocksize", 0);
  const std::string mode = u.text("mode", "DCR");
  if (x.rank() != 4 || b < 1) u.fail("the input is no image or the block is empty", x.type().text());
  const Dims& d = x.dims();
  const Dim c = d[1] / Dim(b * b);
  const Dims split = mode == "CRD" ? Dims{d[0], c, b, b, d[2], d[3]} : Dims{d[0], b, b, c, d[2], d[3]};
  const Ints perm = mode == "CRD" ? Ints{0, 1, 4, 2, 5, 3} : Ints{0, 3, 4, 1, 5, 2};
  return {held(reshaped(transposed(reshaped(x, split), perm), {d[0], c, d[2] * Dim(b), d[3] * Dim(b)}))};
}

Results read_space_to_depth(Use& u) {
  const Value x = u.value(0);
  const int64_t b = u.integer("blocksize", 0);
  const std::string mode = u.opset() < 28 ? "DCR" : u.text("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") u.fail("mode is not supported", mode, "DCR CRD");
  if (x.rank() != 4 || b < 1) u.fail("the input is no image or the block is empty", x.type().text());
  const Dims& d = x.dims();
  const Value split = reshaped(x, {d[0], d[1], d[2] / Dim(b), b, d[3] / Dim(b), b});
  return {held(reshaped(transposed(split, mode == "CRD" ? Ints{0, 1, 3, 5, 2, 4} : Ints{0, 3, 5, 1, 2, 4}),
                        {d[0], d[1] * Dim(b * b), d[2] / Dim(b), d[3] / Dim(b)}))};
}

constexpr ReadRow shape_table[] = {
    {"Reshape", 5, newest_opset, 2, 2, read_reshape},
    {"Flatten", 1, newest_opset, 1, 1, read_flatten},
    {"Squeeze", 1, newest_opset, 1, 2, read_squeeze},
    {"Unsqueeze", 1, newest_opset, 1, 2, read_unsqueeze},
    {"Transpose", 1, newest_opset, 1, 1, read_transpose},
    {"Concat", 4, newest_opset, 1, max_inputs, read_concat},
    {"Slice", 1, 9, 1, 1, read_slice},
    {"Slice", 10, newest_opset, 3, 5, read_slice},
    {"Split", 2, newest_opset, 1, 2, read_split},
    {"Pad", 2, 10, 1, 1, read_pad},
    {"Pad", 11, newest_opset, 2, 4, read_pad},
    {"Gather", 1, newest_opset, 2, 2, read_gather},
    {"GatherElements", 11, newest_opset, 2, 2, read_gather_elements},
    {"GatherND", 11, newest_opset, 2, 2, read_gather_nd},
    {"Expand", 8, newest_opset, 2, 2, read_expand},
    {"Tile", 6, newest_opset, 2, 2, read_tile},
    {"Shape", 1, newest_opset, 1, 1, read_shape},
    {"Size", 1, newest_opset, 1, 1, read_size},
    {"Constant", 1, newest_opset, 0, 0, read_constant},
    {"ConstantOfShape", 9, newest_opset, 1, 1, read_constant_of_shape},
    {"Range", 11, newest_opset, 3, 3, read_range},
    {"OneHot", 9, newest_opset, 3, 3, read_one_hot},
    {"EyeLike", 9, newest_opset, 1, 1, read_eye_like},
    {"Trilu", 14, newest_opset, 1, 2, read_trilu},
    {"DepthToSpace", 1, newest_opset, 1, 1, read_depth_to_space},
    {"SpaceToDepth", 1, newest_opset, 1, 1, read_space_to_depth},
};

/// Sizes by NumPy's rule for two lists of numbers: equal lengths, or one number.
Results combine_sizes(const Use& u, const std::function<Dim(Dim, Dim)>& f) {
  const Dims a = u.sizes(0), b = u.sizes(1);
  if (a.size() != b.size() && a.size() != 1 && b.size() != 1)
    u.fail("symbolic sizes do not fit", dims_text(a), dims_text(b));
  Dims out;
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i)
    out.push_back(f(a[a.size() == 1 ? 0 : i], b[b.size() == 1 ? 0 : i]));
  return {held_sizes(std::move(out), u.dims(0).empty() && u.dims(1).empty())};
}

}  // namespace

Results read_sizes(Use& u) {
  bool symbolic = false;
  for (size_t i = 0; i < u.inputs(); ++i) symbolic = symbolic || (u.has(i) && u.held(i).sizes);
  if (!symbolic) return {};
  const std::string& op = u.op();
  if (op == "Mul") return combine_sizes(u, [](Dim a, Dim b) { return a * b; });
  if (op == "Div") return combine_sizes(u, [](Dim a, Dim b) { return a / b; });
  if (op == "Add") return combine_sizes(u, [](Dim a, Dim b) { return a + b; });
  if (op == "Concat") {
    Dims all;
    for (size_t i = 0; i < u.inputs(); ++i) {
      const Dims part = u.sizes(i);
      all.insert(all.end(), part.begin(), part.end());
    }
    return {held_sizes(std::move(all), false)};
  }
  if (!u.held(0).sizes) return {};
  const Dims x = *u.held(0).sizes;
  const auto n = static_cast<int64_t>(x.size());
  if (op == "Identity" || op == "Cast") return {held_sizes(x, u.held(0).scalar_sizes)};
  if (op == "Squeeze" && n == 1) return {held_sizes(x, true)};
  if ((op == "Unsqueeze" || op == "Reshape") && n == 1) return {held_sizes(x, false)};
  if (op == "Gather") {
    const Ints positions = u.integers(1);
    Dims out;
    for (const int64_t i : positions) out.push_back(x[at(u.axis(i, static_cast<int>(n)))]);
    return {held_sizes(std::move(out), u.dims(1).empty())};
  }
  if (op == "Slice" && u.opset() >= 10) {
    const auto bound = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? std::max(i, -n) + n : i, 0, n); };
    if (u.has(4) && u.integers(4) != Ints{1}) return {};
    const Ints from = u.integers(1), to = u.integers(2);
    if (from.size() != 1 || to.size() != 1) u.fail("symbolic sizes have one axis");
    const int64_t a = bound(from[0]);
    return {held_sizes(Dims(x.begin() + a, x.begin() + std::max(a, bound(to[0]))), false)};
  }
  return {};
}

std::span<const ReadRow> shape_rows() { return shape_table; }

}  // namespace espalier::format

// Convolutions, matrix products, pooling, normalisation and resizing of ONNX.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "format/onnx_import.h"
#include "op/axes.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/norm.h"
#include "op/reduction.h"
#include "op/window.h"

namespace espalier::format {

using ir::Array;
using ir::Dim;
using ir::Dims;
using ir::Dtype;
using ir::Value;
using op::at;

namespace {

/// A vector added along the last axis.
Value biased(const Value& y, const Value& bias) {
  return op::add(y, op::broadcast_in(bias, y.dims(), {y.rank() - 1}));
}

constexpr int64_t longest = 1 << 30;  ///< of an axis, a kernel, a stride: their products do not overflow

/// One entry per spatial axis, each at least `least`.
Ints per_axis(Use& u, const std::string& name, size_t axes, int64_t fallback, int64_t least) {
  Ints v = u.integers(name, Ints(axes, fallback));
  if (v.size() != axes ||
      std::any_of(v.begin(), v.end(), [&](int64_t i) { return i < least || i > longest; }))
    u.fail("attribute " + name + " does not fit", ir::dims_text(v),
           std::to_string(axes) + " numbers from " + std::to_string(least));
  return v;
}

/// Windows as Conv and the pools share them.
struct Windows {
  Ints in, kernel, stride, dilation, low, high;
  Ints ceil_extra;  ///< how much of `high` only ceil_mode adds
};

Windows windows_of(Use& u, const Dims& dims, Ints kernel) {
  Windows w;
  const size_t n = dims.size() < 3 ? 0 : dims.size() - 2;
  if (n < 1 || n > 3) u.fail("the input has no 1 to 3 spatial axes", dims_text(dims));
  for (size_t d = 0; d < n; ++d) {
    if (!dims[d + 2].is_static())
      u.fail("a spatial axis is symbolic", dims_text(dims), "a symbol bound when loading");
    w.in.push_back(dims[d + 2].value());
  }
  if (!kernel.empty() && kernel.size() != n)
    u.fail("the weights are of another rank", ir::dims_text(kernel), std::to_string(n) + " spatial axes");
  for (const Ints& sizes : {w.in, kernel})
    for (const int64_t size : sizes)
      if (size > longest) u.fail("a spatial axis is too long", std::to_string(size), std::to_string(longest));
  w.kernel = u.has_attr("kernel_shape") || kernel.empty() ? per_axis(u, "kernel_shape", n, 0, 1) : kernel;
  if (!kernel.empty() && w.kernel != kernel)
    u.fail("kernel_shape differs from the weights", ir::dims_text(w.kernel), ir::dims_text(kernel));
  w.stride = per_axis(u, "strides", n, 1, 1);
  w.dilation = per_axis(u, "dilations", n, 1, 1);
  const Ints pads = per_axis(u, "pads", 2 * n, 0, -longest);
  w.low.assign(pads.begin(), pads.begin() + static_cast<long>(n));
  w.high.assign(pads.begin() + static_cast<long>(n), pads.end());
  w.ceil_extra.assign(n, 0);
  return w;
}

/// auto_pad of Conv and the pools: the output is the input divided by the stride, rounded up.
void pad_automatically(Use& u, Windows& w) {
  const std::string mode = u.text("auto_pad", "NOTSET");
  if (mode == "NOTSET") return;
  if (mode != "VALID" && mode != "SAME_UPPER" && mode != "SAME_LOWER")
    u.fail("auto_pad is not supported", mode, "NOTSET VALID SAME_UPPER SAME_LOWER");
  for (size_t d = 0; d < w.in.size(); ++d) {
    const int64_t out = (w.in[d] + w.stride[d] - 1) / w.stride[d],
                  span = (w.kernel[d] - 1) * w.dilation[d] + 1;
    const int64_t all = mode == "VALID" ? 0 : std::max<int64_t>((out - 1) * w.stride[d] + span - w.in[d], 0);
    w.low[d] = mode == "SAME_LOWER" ? (all + 1) / 2 : all / 2;
    w.high[d] = all - w.low[d];
  }
}

Ints kernel_of(const Use& u, const Value& w) {
  if (w.rank() < 3 || !w.type().is_static())
    u.fail("the weights are no static kernel", w.type().text(), "rank 3 to 5");
  const Dims& d = w.dims();
  return ir::static_dims(std::span(d).subspan(2));
}

Results read_conv(Use& u) {
  const Value w = u.value(1);
  Windows s = windows_of(u, u.dims(0), kernel_of(u, w));
  pad_automatically(u, s);
  const Value x = u.last(0);
  const op::ConvAttrs a{.stride = s.stride,
                        .pad_low = s.low,
                        .pad_high = s.high,
                        .dilation = s.dilation,
                        .groups = u.integer("group", 1),
                        .spatial = {},
                        .out = x.dtype()};
  const Value y = op::conv(x, u.last(1), a);
  return {held_last(u.has(2) ? biased(y, u.value(2)) : y)};
}

Results read_conv_transpose(Use& u) {
  const Value w = u.value(1);
  Windows s = windows_of(u, u.dims(0), kernel_of(u, w));
  const size_t n = s.in.size();
  const Ints extra = per_axis(u, "output_padding", n, 0, 0);
  const std::string mode = u.text("auto_pad", "NOTSET");
  Ints out(n);
  for (size_t d = 0; d < n; ++d)
    out[d] =
        s.stride[d] * (s.in[d] - 1) + extra[d] + (s.kernel[d] - 1) * s.dilation[d] + 1 - s.low[d] - s.high[d];
  const bool shaped = u.has_attr("output_shape");
  if (shaped || mode == "SAME_UPPER" || mode == "SAME_LOWER") {  // the pads follow from the output's dims
    Ints wanted(n);
    for (size_t d = 0; d < n; ++d) wanted[d] = s.in[d] * s.stride[d];
    if (shaped) wanted = per_axis(u, "output_shape", n, 0, 0);
    for (size_t d = 0; d < n; ++d) {
      const int64_t all = out[d] + s.low[d] + s.high[d] - wanted[d];
      s.low[d] = all < 0                ? 0
                 : mode == "SAME_UPPER" ? all / 2
                                        : all - all / 2;  // what is missing stands at the end
      s.high[d] = all - s.low[d];
      out[d] = wanted[d];
    }
  } else if (mode == "VALID") {
    for (size_t d = 0; d < n; ++d) out[d] += s.low[d] + s.high[d], s.low[d] = s.high[d] = 0;
  } else if (mode != "NOTSET") {
    u.fail("auto_pad is not supported", mode, "NOTSET VALID SAME_UPPER SAME_LOWER");
  }
  // Zeros around what the convolution reaches: negative pads, and more output_padding than a stride.
  Ints head(n, 0), tail(n, 0);
  for (size_t d = 0; d < n; ++d) {
    head[d] = std::max<int64_t>(-s.low[d], 0), tail[d] = std::max<int64_t>(-s.high[d], 0);
    out[d] -= head[d] + tail[d];
    s.low[d] = std::max<int64_t>(s.low[d], 0), s.high[d] = std::max<int64_t>(s.high[d], 0);
  }
  const Value x = u.last(0);
  op::ConvAttrs a{.stride = s.stride,
                  .pad_low = s.low,
                  .pad_high = s.high,
                  .dilation = s.dilation,
                  .groups = u.integer("group", 1),
                  .spatial = out,
                  .out = x.dtype()};
  for (size_t d = 0; d < n; ++d) {  // ours is the gradient of a convolution that gives `in` positions
    const int64_t reach = out[d] + a.pad_low[d] + a.pad_high[d] - (s.dilation[d] * (s.kernel[d] - 1) + 1);
    if (reach / s.stride[d] + 1 > s.in[d]) {
      const int64_t beyond = (reach / s.stride[d] + 1 - s.in[d]) * s.stride[d];
      tail[d] += beyond;
      a.spatial[d] -= beyond;
    }
  }
  Value y = op::conv_data_grad(x, u.last(1), a);
  Ints low(n + 2, 0), high(n + 2, 0);
  std::copy(head.begin(), head.end(), low.begin() + 1);
  std::copy(tail.begin(), tail.end(), high.begin() + 1);
  y = op::pad(y, ir::constant(y.dtype(), 0), low, high);
  return {held_last(u.has(2) ? biased(y, u.value(2)) : y)};
}

/// ceil_mode: a last window that starts inside the padded input counts though it ends outside.
void round_up(Windows& w) {
  for (size_t d = 0; d < w.in.size(); ++d) {
    const int64_t span = w.in[d] + w.low[d] + w.high[d] - ((w.kernel[d] - 1) * w.dilation[d] + 1);
    const int64_t rest = span > 0 ? span % w.stride[d] : 0;
    if (rest == 0) continue;
    if ((span / w.stride[d] + 1) * w.stride[d] >= w.in[d] + w.low[d])
      continue;  // it would start in the padding
    w.ceil_extra[d] = w.stride[d] - rest;
    w.high[d] += w.ceil_extra[d];
  }
}

/// What `fold` makes of the elements of each window, padded with `fill`: over shifted slices, axis by axis.
Value over_windows(const Use& u, const Windows& w, const Value& x, double fill, Value (*fold)(Value, Value)) {
  Ints low{0}, high{0};
  low.insert(low.end(), w.low.begin(), w.low.end()), high.insert(high.end(), w.high.begin(), w.high.end());
  low.push_back(0), high.push_back(0);
  Value y = op::pad(x, ir::constant(x.dtype(), fill), low, high);
  for (size_t d = 0; d < w.in.size(); ++d) {
    const int64_t n = y.dims()[d + 1].value(),
                  out = (n - (w.kernel[d] - 1) * w.dilation[d] - 1) / w.stride[d] + 1;
    if (n < (w.kernel[d] - 1) * w.dilation[d] + 1) u.fail("the window is larger than the input");
    if (w.kernel[d] > 1 << 12) u.fail("a dilated window is too large", std::to_string(w.kernel[d]), "4096");
    Value all;
    for (int64_t k = 0; k < w.kernel[d]; ++k) {
      Ints start(y.dims().size(), 0), step(y.dims().size(), 1);
      Dims size = y.dims();
      start[d + 1] = k * w.dilation[d], step[d + 1] = w.stride[d], size[d + 1] = out;
      const Value part = op::slice(y, start, size, step);
      all = all ? fold(all, part) : part;
    }
    y = all;
  }
  return y;
}

/// 1 by the elements of each window along spatial axis d that count: those of the input, or of its padding too, but never what
/// only ceil_mode adds.
Value shares(const Windows& w, size_t d, const Value& like, bool count_pad) {
  const int64_t low = count_pad ? 0 : w.low[d],
                high = w.low[d] + w.in[d] + (count_pad ? w.high[d] - w.ceil_extra[d] : 0);
  std::vector<double> out;
  for (int64_t i = 0; i < like.dims()[d + 1].value(); ++i) {
    int64_t n = 0;
    for (int64_t k = 0; k < w.kernel[d]; ++k) {
      const int64_t position = i * w.stride[d] + k * w.dilation[d];
      n += position >= low && position < high;
    }
    out.push_back(1.0 / static_cast<double>(n));
  }
  return ir::constant(Array::list(out).cast(like.dtype()));
}

Results read_pool(Use& u, bool average) {
  Windows w = windows_of(u, u.dims(0), {});
  const bool ceil = u.integer("ceil_mode", 0) != 0;
  pad_automatically(u, w);
  if (ceil) round_up(w);
  if (!average) {
    if (u.integer("storage_order", 0) != 0) u.fail("storage_order is not supported", "1", "0");
    if (u.wants(1)) u.fail("the result Indices is not supported");
  }
  const bool count_pad = average && u.integer("count_include_pad", 0) != 0;
  const bool dilated = std::any_of(w.dilation.begin(), w.dilation.end(), [](int64_t d) { return d != 1; });
  const bool extra = std::any_of(w.ceil_extra.begin(), w.ceil_extra.end(), [](int64_t e) { return e > 0; });
  if (u.opset() < 19) {
    if (dilated && average) u.fail("dilations are not supported", ir::dims_text(w.dilation), "1");
    if (count_pad && extra) u.fail("ceil_mode with count_include_pad is not supported here");
  }
  const Value x = u.last(0);
  if (average && (dilated || (count_pad && extra))) {
    return {held_last(in_f32_at_least(x, [&](const Value& v) {
      Value y = over_windows(u, w, v, 0, op::add);
      for (size_t d = 0; d < w.in.size(); ++d)
        y = op::mul(y, op::broadcast_in(shares(w, d, y, count_pad), y.dims(), {static_cast<int64_t>(d) + 1}));
      return y;
    }))};
  }
  if (dilated) return {held_last(over_windows(u, w, x, -std::numeric_limits<double>::infinity(), op::max))};
  op::PoolAttrs a{.window = w.kernel,
                  .stride = w.stride,
                  .pad_low = w.low,
                  .pad_high = w.high,
                  .count_pad = count_pad,
                  .spatial = {}};
  return {held_last(average ? op::avg_pool(x, a) : op::max_pool(x, a)[0])};
}

/// All spatial axes become 1.
Results read_global_pool(Use& u, bool average) {
  const Value x = u.last(0);
  const Ints axes = op::axes_without(x.rank(), {0, x.rank() - 1});
  return {
      held_last(kept_as_ones(average ? op::reduce_mean(x, axes) : op::reduce_max(x, axes), x.dims(), axes))};
}

Results read_batch_norm(Use& u) {
  const double eps = u.real("epsilon", 1e-5), momentum = u.real("momentum", 0.9);
  const bool training = u.integer("training_mode", 0) != 0;
  if (u.integer("spatial", 1) != 1) u.fail("attribute spatial is not supported", "0", "1");
  if (!training && (u.wants(1) || u.wants(2))) u.fail("statistics are results of training only");
  const bool last = u.rank(0) >= 3;
  const Value x = last ? u.last(0) : u.value(0);
  if (!training) return {held(op::batch_norm(x, u.value(1), u.value(2), u.value(3), u.value(4), eps), last)};
  const std::vector<Value> r = op::batch_norm_train(x, u.value(1), u.value(2), eps);
  const auto running = [&](size_t i, const Value& batch) {
    return held(op::add(op::mul(u.value(i), momentum), op::mul(batch, 1 - momentum)));
  };
  return {held(r[0], last), running(3, r[1]), running(4, r[2])};
}

Results read_instance_norm(Use& u) {
  const Value x = u.last(0);
  return {
      held_last(op::group_norm(x, u.value(1), u.value(2), x.dims().back().value(), u.real("epsilon", 1e-5)))};
}

/// Opset 18 scales groups, later ones channels.
Results read_group_norm(Use& u) {
  const Value x = u.last(0);
  const int64_t groups = u.integer("num_groups", 0);
  u.ignore("stash_type");
  if (!x.dims().back().is_static())
    u.fail("the channels are a symbol", dims_text(x.dims()), "a symbol bound when loading");
  const int64_t channels = x.dims().back().value();
  if (groups < 1 || channels < 1 || channels % groups != 0)
    u.fail("num_groups does not divide the channels", std::to_string(groups), std::to_string(channels));
  const auto per_channel = [&](size_t i) {
    Value v = u.value(i);
    const int64_t want = u.opset() < 21 ? groups : channels;
    if (v.dims() != Dims{want})
      u.fail(fmt::format("input {} does not fit", i), v.type().text(), fmt::format("[{}]", want));
    if (want == channels) return v;
    return reshaped(op::broadcast_in(v, {groups, channels / groups}, {0}), {channels});
  };
  return {held_last(op::group_norm(x, per_channel(1), per_channel(2), groups, u.real("epsilon", 1e-5)))};
}

Results read_layer_norm(Use& u) {
  const Value x = u.value(0);
  const int rank = x.rank();
  const int64_t axis = u.axis(u.integer("axis", -1), rank);
  const double eps = u.real("epsilon", 1e-5);
  u.ignore("stash_type");
  const Dims& d = x.dims();
  if (axis == rank - 1 && u.has(2) && !u.wants(1) && !u.wants(2) && u.rank(1) == 1 &&
      u.dims(1)[0] == d.back())
    return {held(op::layer_norm(x, u.value(1), u.value(2), eps))};
  Ints axes;
  for (int64_t i = axis; i < rank; ++i) axes.push_back(i);
  const Value mean = op::reduce_mean(x, axes), centred = op::sub(x, op::unreduce(mean, x, axes));
  const Value inverse = op::rsqrt(op::add(op::reduce_mean(op::square(centred), axes), eps));
  Value y = op::mul(op::mul(centred, op::unreduce(inverse, x, axes)), stretched(u.value(1), d));
  if (u.has(2)) y = op::add(y, stretched(u.value(2), d));
  return {held(y), held(kept_as_ones(mean, d, axes)), held(kept_as_ones(inverse, d, axes))};
}

/// Local response normalisation: squares summed over neighbouring channels.
Results read_lrn(Use& u) {
  const Value x = u.last(0);
  const ir::Dim channels = x.dims().back();
  if (!channels.is_static())
    u.fail("the channels are a symbol", dims_text(x.dims()), "a symbol bound when loading");
  const int64_t size = u.integer("size", 1), c = channels.value();
  const double alpha = u.real("alpha", 1e-4), beta = u.real("beta", 0.75), bias = u.real("bias", 1);
  if (size < 1) u.fail("size is out of range", std::to_string(size), "1 or more");
  if (c == 0) return {held_last(x)};
  const int64_t below = std::min((size - 1) / 2, c - 1), above = std::min(size / 2, c - 1);
  return {held_last(in_f32_at_least(x, [&](const Value& v) {
    const int64_t axis = v.rank() - 1;
    const Value sum = window_sums(zeros_around(op::square(v), axis, below, above), axis, below + 1 + above);
    const Value scale = op::add(op::mul(sum, alpha / static_cast<double>(size)), bias);
    return op::div(v, op::pow(scale, op::full_like(scale, beta)));
  }))};
}

/// NumPy's matmul: vectors become matrices, leading dims broadcast.
Value matmul(const Use& u, Value a, Value b) {
  if (a.rank() < 1 || b.rank() < 1)
    u.fail("an operand is a scalar", a.type().text() + ", " + b.type().text());
  const bool row = a.rank() == 1, column = b.rank() == 1;
  if (row) a = reshaped(a, {1, a.dims()[0]});
  if (column) b = reshaped(b, {b.dims()[0], 1});
  if (b.rank() > 2) {
    const auto split = [](const Value& v) {
      return std::pair(Dims(v.dims().begin(), v.dims().end() - 2), Dims(v.dims().end() - 2, v.dims().end()));
    };
    const auto [lead_a, matrix_a] = split(a);
    const auto [lead_b, matrix_b] = split(b);
    const Dims lead = op::broadcast_dims(lead_a, lead_b);
    const auto full = [&](const Dims& matrix) {
      Dims all = lead;
      all.insert(all.end(), matrix.begin(), matrix.end());
      return all;
    };
    a = stretched(a, full(matrix_a));
    b = stretched(b, full(matrix_b));
  }
  const Value y = op::matmul(a, b);
  Dims dims = y.dims();
  if (column) dims.pop_back();
  if (row) dims.erase(dims.end() - (column ? 1 : 2));
  return reshaped(y, dims);
}

Results read_matmul(Use& u) { return {held(matmul(u, u.value(0), u.value(1)))}; }

Results read_matmul_integer(Use& u) {
  const auto wide = [&](size_t i, size_t zero, bool per_row) {
    Value x = op::cast(u.value(i), Dtype::i32);
    if (!u.has(zero)) return x;
    Value z = op::cast(u.value(zero), Dtype::i32);
    if (per_row && z.rank() == 1 && z.type().elements() > 1) z = reshaped(z, {z.dims()[0], 1});
    return op::sub(x, stretched(z, x.dims()));
  };
  return {held(matmul(u, wide(0, 2, true), wide(1, 3, false)))};
}

Results read_gemm(Use& u) {
  const Value a = u.value(0), b = u.value(1);
  const double alpha = u.real("alpha", 1), beta = u.real("beta", 1);
  const int64_t ta = u.integer("transA", 0), tb = u.integer("transB", 0);
  if (a.rank() != 2 || b.rank() != 2)
    u.fail("an operand is no matrix", a.type().text() + ", " + b.type().text());
  Value y = ta == 0 && tb != 0 && ir::constant_value(b) ? op::matmul(a, transposed(b, {1, 0}))
                                                        : op::dot(a, b,
                                                                  {.batch_a = {},
                                                                   .batch_b = {},
                                                                   .contract_a = {ta ? 0 : 1},
                                                                   .contract_b = {tb ? 1 : 0},
                                                                   .out = a.dtype()});
  if (alpha != 1) y = op::mul(y, alpha);
  if (!u.has(2) || beta == 0) return {held(y)};
  const Value c = stretched(u.value(2), y.dims());
  return {held(op::add(y, beta == 1 ? c : op::mul(c, beta)))};
}

/// One or two operands, no ellipsis, no letter twice in an operand: products and sums as one contraction.
Results read_einsum(Use& u) {
  std::string equation;
  for (const char c : u.text("equation", ""))
    if (c != ' ') equation += c;
  const size_t arrow = equation.find("->"), comma = equation.find(',');
  if (arrow == std::string::npos || equation.find('.') != std::string::npos || u.inputs() > 2 ||
      (u.inputs() == 2) != (comma != std::string::npos))
    u.fail("the equation is not supported", equation, "one or two operands, explicit result, no ellipsis");
  std::vector<std::string> letters{equation.substr(0, std::min(comma, arrow))};
  if (u.inputs() == 2) letters.push_back(equation.substr(comma + 1, arrow - comma - 1));
  const std::string result = equation.substr(arrow + 2);
  const auto has = [](const std::string& s, char c) { return s.find(c) != std::string::npos; };
  const auto unique = [](std::string s) {
    return std::sort(s.begin(), s.end()), std::adjacent_find(s.begin(), s.end()) == s.end();
  };
  std::vector<Value> x;
  for (size_t i = 0; i < letters.size(); ++i) {  // sum what only this operand has
    const Value v = u.value(i);
    if (v.rank() != static_cast<int>(letters[i].size()) || !unique(letters[i]))
      u.fail("the equation does not fit the operands", equation, v.type().text());
    Ints axes;
    std::string kept;
    for (size_t k = 0; k < letters[i].size(); ++k) {
      const char c = letters[i][k];
      if (has(result, c) || (letters.size() == 2 && has(letters[1 - i], c))) kept += c;
      else axes.push_back(static_cast<int64_t>(k));
    }
    letters[i] = kept;
    x.push_back(axes.empty() ? v : op::reduce_sum(v, axes));
  }
  std::string made = letters[0];
  Value y = x[0];
  if (x.size() == 2) {
    op::DotAttrs a{.batch_a = {}, .batch_b = {}, .contract_a = {}, .contract_b = {}, .out = x[0].dtype()};
    std::string batch, free_a, free_b;
    for (size_t i = 0; i < letters[0].size(); ++i) {
      const size_t k = letters[1].find(letters[0][i]);
      if (k == std::string::npos) {
        free_a += letters[0][i];
        continue;
      }
      const bool kept = has(result, letters[0][i]);
      (kept ? a.batch_a : a.contract_a).push_back(static_cast<int64_t>(i));
      (kept ? a.batch_b : a.contract_b).push_back(static_cast<int64_t>(k));
      if (kept) batch += letters[0][i];
    }
    for (const char c : letters[1])
      if (!has(letters[0], c)) free_b += c;
    made = batch + free_a + free_b;
    y = op::dot(x[0], x[1], a);
  }
  Ints perm;
  for (const char c : result) {
    if (!has(made, c)) u.fail("the result has a letter that no operand has", equation);
    perm.push_back(static_cast<int64_t>(made.find(c)));
  }
  if (perm.size() != made.size()) u.fail("the equation is not supported", equation);
  return {held(transposed(y, perm))};
}

constexpr ReadRow network_table[] = {
    {"Conv", 1, newest_opset, 2, 3, read_conv},
    {"ConvTranspose", 1, newest_opset, 2, 3, read_conv_transpose},
    {"MaxPool", 1, newest_opset, 1, 1, [](Use& u) { return read_pool(u, false); }},
    {"AveragePool", 1, newest_opset, 1, 1, [](Use& u) { return read_pool(u, true); }},
    {"GlobalMaxPool", 1, newest_opset, 1, 1, [](Use& u) { return read_global_pool(u, false); }},
    {"GlobalAveragePool", 1, newest_opset, 1, 1, [](Use& u) { return read_global_pool(u, true); }},
    {"BatchNormalization", 7, newest_opset, 5, 5, read_batch_norm},
    {"InstanceNormalization", 6, newest_opset, 3, 3, read_instance_norm},
    {"GroupNormalization", 18, newest_opset, 3, 3, read_group_norm},
    {"LayerNormalization", 17, newest_opset, 2, 3, read_layer_norm},
    {"LRN", 1, newest_opset, 1, 1, read_lrn},
    {"MatMul", 1, newest_opset, 2, 2, read_matmul},
    {"MatMulInteger", 10, newest_opset, 2, 4, read_matmul_integer},
    {"Gemm", 7, newest_opset, 2, 3, read_gemm},
    {"Einsum", 12, newest_opset, 1, 2, read_einsum},
};

}  // namespace

std::span<const ReadRow> network_rows() { return network_table; }

}  // namespace espalier::format

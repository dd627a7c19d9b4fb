#include <algorithm>
#include <bit>
#include <limits>

#include "format/onnx_export.h"
#include "op/activation.h"
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
using ir::Node;
using ir::Value;
using op::at;

namespace {

/// ONNX's number of a channels-last axis.
int64_t first_axis(int64_t axis, int rank) { return axis == 0 ? 0 : axis == rank - 1 ? 1 : axis + 1; }

/// An elementwise node in the layout its operands are in; one of them has the result's dims without a broadcast.
onnx::NodeProto* elementwise_node(Writer& w, const Node& n, const std::string& op) {
  bool full = false, channels_first = false;
  for (const Value& v : n.inputs()) {
    full = full || !is_broadcast(v);
    channels_first = channels_first || w.only_first(v);
  }
  std::vector<std::string> inputs;
  for (const Value& v : n.inputs())
    inputs.push_back(full || &v != &n.inputs()[0] ? w.operand(v, channels_first) : w.form(v, channels_first));
  return &w.node(op, std::move(inputs), n.value(), channels_first);
}

/// A row for an op that ONNX calls `Name` and defines for all dtypes of ours that the op takes here.
template <const char* Name>
bool same(Writer& w, const Node& n) {
  elementwise_node(w, n, Name);
  return true;
}
/// Only on bools (ours are bitwise on integers).
template <const char* Name>
bool same_on_bool(Writer& w, const Node& n) {
  return n.input(0).dtype() == Dtype::boolean && same<Name>(w, n);
}
template <const char* Name>
bool same_on_numbers(Writer& w, const Node& n) {
  return n.input(0).dtype() != Dtype::boolean && same<Name>(w, n);
}
template <const char* Name>
bool same_on_floats(Writer& w, const Node& n) {
  return is_float(n.input(0).dtype()) && same<Name>(w, n);
}

constexpr char neg[] = "Neg", abs_[] = "Abs", sign[] = "Sign", exp_[] = "Exp", log_[] = "Log",
               sqrt_[] = "Sqrt", reciprocal[] = "Reciprocal", sin_[] = "Sin", cos_[] = "Cos", tan_[] = "Tan",
               atan_[] = "Atan", tanh_[] = "Tanh", erf_[] = "Erf", sigmoid[] = "Sigmoid",
               softplus[] = "Softplus", relu[] = "Relu", floor_[] = "Floor", ceil_[] = "Ceil",
               round_[] = "Round", not_[] = "Not", is_nan[] = "IsNaN", add[] = "Add", sub[] = "Sub",
               mul[] = "Mul", div_[] = "Div", pow_[] = "Pow", max_[] = "Max", min_[] = "Min",
               equal[] = "Equal", less[] = "Less", less_equal[] = "LessOrEqual", greater[] = "Greater",
               greater_equal[] = "GreaterOrEqual", and_[] = "And", or_[] = "Or", xor_[] = "Xor",
               where[] = "Where";

bool write_rem(Writer& w, const Node& n) {
  w.attr(*elementwise_node(w, n, "Mod"), "fmod", int64_t{1});
  return true;
}

bool write_cast(Writer& w, const Node& n) {
  w.attr(*elementwise_node(w, n, "Cast"), "to", int64_t{onnx_dtype(n.attrs<op::CastAttrs>().dtype)});
  return true;
}

/// Clip, where both bounds are one number.
bool write_clamp(Writer& w, const Node& n) {
  if (!is_one_number(n.input(1)) || !is_one_number(n.input(2)) || is_broadcast(n.input(0))) return false;
  const bool first = w.only_first(n.input(0));
  const auto bound = [&](const Value& v) {
    const bool repeated = ir::constant_value(v) && v.rank() > 0;
    return repeated ? w.initializer(*one_number(v)) : w.operand(v, first);
  };
  const std::string x = w.form(n.input(0), first), low = bound(n.input(1)), high = bound(n.input(2));
  w.node("Clip", {x, low, high}, n.value(), first);
  return true;
}

/// A target shape as Reshape takes it: at most one symbolic dim, which it infers.
bool write_reshape(Writer& w, const Node& n) {
  Ints dims;
  int64_t symbolic = 0, zero = 0;
  for (const Dim& d : n.types()[0].dims) {
    symbolic += !d.is_static();
    zero += d.is_static() && d.value() == 0;
    dims.push_back(d.is_static() ? d.value() : -1);
  }
  if (symbolic > 1 || (symbolic > 0 && zero > 0)) return false;
  const std::string x = w.plain(n.input(0));
  onnx::NodeProto& node = w.node("Reshape", {x, w.integers(dims)}, n.value());
  if (zero > 0) w.attr(node, "allowzero", int64_t{1});
  return true;
}

bool write_transpose(Writer& w, const Node& n) {
  const std::string x = w.plain(n.input(0));
  w.attr(w.node("Transpose", {x}, n.value()), "perm", n.attrs<op::TransposeAttrs>().perm);
  return true;
}

bool write_slice(Writer& w, const Node& n) {
  const auto& a = n.attrs<op::SliceAttrs>();
  const Dims& from = n.input(0).dims();
  const bool first = w.only_first(n.input(0));
  Ints starts, ends, axes, steps;
  for (size_t i = 0; i < from.size(); ++i) {
    if (a.start[i] == 0 && a.step[i] == 1 && a.size[i] == from[i]) continue;
    if (!a.size[i].is_static() || !from[i].is_static()) return false;
    starts.push_back(a.start[i]);
    ends.push_back(a.size[i].value() == 0 ? a.start[i]
                                          : a.start[i] + (a.size[i].value() - 1) * a.step[i] + 1);
    axes.push_back(first ? first_axis(static_cast<int64_t>(i), static_cast<int>(from.size()))
                         : static_cast<int64_t>(i));
    steps.push_back(a.step[i]);
  }
  const std::string x = w.form(n.input(0), first);
  w.node("Slice", {x, w.integers(starts), w.integers(ends), w.integers(axes), w.integers(steps)}, n.value(),
         first);
  return true;
}

bool write_reverse(Writer& w, const Node& n) {
  const Ints& axes = n.attrs<op::AxesAttrs>().axes;
  const std::string x = w.plain(n.input(0));
  const Ints minus(axes.size(), -1), ends(axes.size(), std::numeric_limits<int64_t>::min());
  w.node("Slice", {x, w.integers(minus), w.integers(ends), w.integers(axes), w.integers(minus)}, n.value());
  return true;
}

bool write_pad(Writer& w, const Node& n) {
  const auto& a = n.attrs<op::PadAttrs>();
  if (std::any_of(a.interior.begin(), a.interior.end(), [](int64_t i) { return i != 0; })) return false;
  const int rank = n.input(0).rank();
  const bool first = w.only_first(n.input(0));
  Ints pads(at(2 * rank));
  for (int i = 0; i < rank; ++i) {
    const int64_t k = first ? first_axis(i, rank) : i;
    pads[at(k)] = a.low[at(i)];
    pads[at(k + rank)] = a.high[at(i)];
  }
  const std::string x = w.form(n.input(0), first), fill = w.plain(n.input(1));
  w.node("Pad", {x, w.integers(pads), fill}, n.value(), first);
  return true;
}

bool write_concat(Writer& w, const Node& n) {
  const int rank = n.input(0).rank();
  const bool first =
      std::any_of(n.inputs().begin(), n.inputs().end(), [&](const Value& v) { return w.only_first(v); });
  const int64_t axis = n.attrs<op::AxisAttrs>().axis;
  std::vector<std::string> inputs;
  for (const Value& v : n.inputs()) inputs.push_back(w.form(v, first));
  w.attr(w.node("Concat", std::move(inputs), n.value(), first), "axis",
         first ? first_axis(axis, rank) : axis);
  return true;
}

/// The axes of a reduction for the form it is read in: channels-first where that form is there and what is left keeps its
/// order.
bool reduce_first(Writer& w, const Node& n, Ints& axes) {
  const int rank = n.input(0).rank();
  if (!w.only_first(n.input(0))) return false;
  const auto gone = [&](int64_t k) { return std::find(axes.begin(), axes.end(), k) != axes.end(); };
  bool between = false;
  for (int64_t k = 1; k < rank - 1; ++k) between = between || !gone(k);
  if (between && !gone(rank - 1)) return false;
  for (int64_t& a : axes) a = first_axis(a, rank);
  std::sort(axes.begin(), axes.end());
  return true;
}

template <const char* Name, bool AxesAreInput>
bool write_reduce(Writer& w, const Node& n) {
  Ints axes = n.attrs<op::AxesAttrs>().axes;
  if (n.input(0).dtype() == Dtype::boolean || (axes.empty() && !AxesAreInput)) return false;
  const bool first = reduce_first(w, n, axes);
  std::vector<std::string> inputs{w.form(n.input(0), first)};
  if (AxesAreInput) inputs.push_back(w.integers(axes));
  onnx::NodeProto& node = w.node(Name, std::move(inputs), n.value());
  if (!AxesAreInput) w.attr(node, "axes", axes);
  w.attr(node, "keepdims", int64_t{0});
  if (AxesAreInput && axes.empty()) w.attr(node, "noop_with_empty_axes", int64_t{1});
  return true;
}
constexpr char reduce_sum[] = "ReduceSum", reduce_max[] = "ReduceMax", reduce_min[] = "ReduceMin",
               reduce_prod[] = "ReduceProd", arg_max[] = "ArgMax", arg_min[] = "ArgMin";

template <const char* Name>
bool write_arg(Writer& w, const Node& n) {
  Ints axes{n.attrs<op::AxisAttrs>().axis};
  const bool first = reduce_first(w, n, axes);
  onnx::NodeProto& node = w.node(Name, {w.form(n.input(0), first)}, n.value());
  w.attr(node, "axis", axes[0]);
  w.attr(node, "keepdims", int64_t{0});
  return true;
}

template <const char* Name>
bool write_softmax(Writer& w, const Node& n) {
  const int rank = n.input(0).rank();
  const bool first = w.only_first(n.input(0));
  const int64_t axis = n.attrs<op::AxisAttrs>().axis;
  w.attr(w.node(Name, {w.form(n.input(0), first)}, n.value(), first), "axis",
         first ? first_axis(axis, rank) : axis);
  return true;
}
constexpr char softmax[] = "Softmax", log_softmax[] = "LogSoftmax";

/// MatMul where it is one, else Einsum, whose letters say any contraction.
bool write_dot(Writer& w, const Node& n) {
  const auto& a = n.attrs<op::DotAttrs>();
  const int ra = n.input(0).rank(), rb = n.input(1).rank();
  if (a.out != n.input(0).dtype() || ra + rb > 52 || !is_float(a.out)) return false;
  const std::string x = w.plain(n.input(0)), y = w.plain(n.input(1));
  const Ints leading = op::axes_without(rb - 2, {});
  if (ra >= 2 && rb >= 2 && (rb == 2 || ra == rb) && a.batch_a == leading && a.batch_b == leading &&
      a.contract_a == Ints{ra - 1} && a.contract_b == Ints{rb - 2}) {
    w.node("MatMul", {x, y}, n.value());
    return true;
  }
  const auto letter = [](int64_t i) { return static_cast<char>(i < 26 ? 'a' + i : 'A' + i - 26); };
  std::string left, right, result;
  for (int i = 0; i < ra; ++i) left += letter(i);
  for (int i = 0; i < rb; ++i) right += letter(ra + i);
  for (size_t i = 0; i < a.batch_a.size(); ++i) right[at(a.batch_b[i])] = left[at(a.batch_a[i])];
  for (size_t i = 0; i < a.contract_a.size(); ++i) right[at(a.contract_b[i])] = left[at(a.contract_a[i])];
  for (const int64_t i : a.batch_a) result += left[at(i)];
  for (int64_t i = 0; i < ra; ++i)
    if (right.find(left[at(i)]) == std::string::npos) result += left[at(i)];
  for (const char c : right)
    if (left.find(c) == std::string::npos) result += c;
  w.attr(w.node("Einsum", {x, y}, n.value()), "equation", left + "," + right + "->" + result);
  return true;
}

bool all_at_least(const Ints& v, int64_t least) {
  return std::all_of(v.begin(), v.end(), [&](int64_t i) { return i >= least; });
}

/// Conv, or ConvTranspose for the gradient with respect to the input; with the bias that is added to nothing else.
bool write_conv(Writer& w, const Node& n, bool transposed) {
  const auto& a = n.attrs<op::ConvAttrs>();
  if (a.out != n.input(0).dtype() || !is_float(a.out) || !all_at_least(a.pad_low, 0) ||
      !all_at_least(a.pad_high, 0))
    return false;
  const Dims& kernel = n.input(1).dims();
  Ints window, extra;
  for (size_t d = 0; d < a.stride.size(); ++d) {
    if (!kernel[d + 1].is_static()) return false;
    window.push_back(kernel[d + 1].value());
    if (!transposed) continue;
    const int64_t least = a.stride[d] * (n.input(0).dims()[d + 1].value() - 1) +
                          a.dilation[d] * (window[d] - 1) + 1 - a.pad_low[d] - a.pad_high[d];
    extra.push_back(a.spatial[d] - least);
    if (extra[d] < 0 || extra[d] >= std::max(a.stride[d], a.dilation[d])) return false;
  }
  const Node* sum = w.bias_of(n);
  std::vector<std::string> inputs{w.first(n.input(0)), w.first(n.input(1))};
  if (sum) inputs.push_back(w.plain(sum->input(1)->input(0)));
  onnx::NodeProto& node =
      w.node(transposed ? "ConvTranspose" : "Conv", std::move(inputs), sum ? sum->value() : n.value(), true);
  w.attr(node, "kernel_shape", window);
  w.attr(node, "strides", a.stride);
  w.attr(node, "pads", op::joined(a.pad_low, a.pad_high));
  w.attr(node, "dilations", a.dilation);
  w.attr(node, "group", a.groups);
  if (std::any_of(extra.begin(), extra.end(), [](int64_t e) { return e > 0; }))
    w.attr(node, "output_padding", extra);
  return true;
}

bool write_pool(Writer& w, const Node& n, bool average) {
  const auto& a = n.attrs<op::PoolAttrs>();
  if (!all_at_least(a.pad_low, 0) || !all_at_least(a.pad_high, 0) || !is_float(n.input(0).dtype()))
    return false;
  if (!average && w.uses(n.value(1)) > 0) return false;
  const std::string x = w.first(n.input(0));
  onnx::NodeProto& node = w.node(average ? "AveragePool" : "MaxPool", {x}, n.value(), true);
  w.attr(node, "kernel_shape", a.window);
  w.attr(node, "strides", a.stride);
  w.attr(node, "pads", op::joined(a.pad_low, a.pad_high));
  if (average) w.attr(node, "count_include_pad", int64_t{a.count_pad});
  return true;
}

bool write_resize(Writer& w, const Node& n) {
  const auto& a = n.attrs<op::ResizeAttrs>();
  const Dims &from = n.input(0).dims(), &dims = n.types()[0].dims;
  bool whole = true;  // an f32 says every scale
  std::vector<float> scales{1, 1};
  for (size_t d = 0; d < a.spatial.size(); ++d) {
    if (!from[d + 1].is_static()) return false;
    whole = whole && a.spatial[d] % from[d + 1].value() == 0;
    scales.push_back(static_cast<float>(a.spatial[d]) / static_cast<float>(from[d + 1].value()));
  }
  std::vector<std::string> inputs{w.first(n.input(0)), ""};
  if (n.types()[0].is_static()) {
    Ints sizes = op::joined({dims.front().value(), dims.back().value()}, a.spatial);
    inputs.insert(inputs.end(), {"", w.integers(sizes)});
  } else if (whole) {
    inputs.push_back(w.initializer(Array::list(scales)));
  } else {  // the first two sizes as they come
    auto [shape, lead] = w.step("Shape", {inputs[0]});
    w.attr(shape, "end", int64_t{2});
    auto [concat, sizes] = w.step("Concat", {lead, w.integers(a.spatial)});
    w.attr(concat, "axis", int64_t{0});
    inputs.insert(inputs.end(), {"", sizes});
  }
  onnx::NodeProto& node = w.node("Resize", std::move(inputs), n.value(), true);
  const bool nearest = a.mode == op::ResizeMode::nearest;
  w.attr(node, "mode", std::string(nearest ? "nearest" : "linear"));
  w.attr(node, "coordinate_transformation_mode",
         std::string(a.align_corners ? "align_corners" : "half_pixel"));
  if (nearest) w.attr(node, "nearest_mode", std::string("round_prefer_ceil"));
  return true;
}

/// Is the number the one that reading its f32 gives again?
bool survives_f32(double v) { return widen(static_cast<float>(v)) == v; }

bool write_batch_norm(Writer& w, const Node& n) {
  if (!fits_norm(n)) return false;
  const double eps = n.attrs<op::NormAttrs>().eps;
  const bool first = n.input(0).rank() >= 3;
  std::vector<std::string> inputs{w.form(n.input(0), first)};
  for (int i = 1; i < 5; ++i) inputs.push_back(w.plain(n.input(i)));
  w.attr(w.node("BatchNormalization", std::move(inputs), n.value(), first), "epsilon", eps);
  return true;
}

bool write_layer_norm(Writer& w, const Node& n) {
  if (!fits_norm(n)) return false;
  const double eps = n.attrs<op::NormAttrs>().eps;
  std::vector<std::string> inputs;
  for (const Value& v : n.inputs()) inputs.push_back(w.plain(v));
  onnx::NodeProto& node = w.node("LayerNormalization", std::move(inputs), n.value());
  w.attr(node, "axis", int64_t{-1});
  w.attr(node, "epsilon", eps);
  return true;
}

/// Gather or GatherElements. Ours takes the nearest valid index, ONNX's counts negative ones from the end: indices that are not
/// known are clipped, under a name by which reading takes it away again.
template <const char* Name>
bool write_gather(Writer& w, const Node& n, int64_t axis) {
  const Dim rows = n.input(0).dims()[at(axis)];
  const Value& indices = n.input(1);
  if (!rows.is_static() || rows.value() < 1) return false;
  const auto is_row = [&](double i) { return i >= 0 && i < static_cast<double>(rows.value()); };
  const Array* known = ir::constant_value(indices);
  bool inside = known != nullptr;
  for (int64_t i = 0; inside && i < known->size(); ++i) inside = is_row(known->at(i));
  if (indices->op().name == op::clamp_op.name) {
    const auto low = one_number(indices->input(1)), high = one_number(indices->input(2));
    inside = low && high && is_row(low->at(0)) && is_row(high->at(0));
  }
  const std::string x = w.plain(n.input(0));
  std::string at_rows = w.plain(indices);
  if (!inside) {
    const auto bound = [&](int64_t v) {
      return w.initializer(Array::of<int64_t>({}, {v}).cast(indices.dtype()));
    };
    at_rows = w.step("Clip", {at_rows, bound(0), bound(rows.value() - 1)}, nearest_mark).second;
  }
  w.attr(w.node(Name, {x, at_rows}, n.value()), "axis", axis);
  return true;
}
constexpr char gather[] = "Gather", gather_elements[] = "GatherElements";

constexpr WriteRow rows[] = {
    {"neg", same<neg>},
    {"abs", same_on_numbers<abs_>},
    {"sign", same_on_numbers<sign>},
    {"exp", same<exp_>},
    {"log", same<log_>},
    {"sqrt", same<sqrt_>},
    {"reciprocal", same_on_floats<reciprocal>},
    {"sin", same<sin_>},
    {"cos", same<cos_>},
    {"tan", same<tan_>},
    {"atan", same<atan_>},
    {"tanh", same<tanh_>},
    {"erf", same_on_floats<erf_>},
    {"sigmoid", same<sigmoid>},
    {"softplus", same<softplus>},
    {"relu", same_on_numbers<relu>},
    {"floor", same_on_floats<floor_>},
    {"ceil", same_on_floats<ceil_>},
    {"round", same_on_floats<round_>},
    {"logical_not", same_on_bool<not_>},
    {"is_nan", same_on_floats<is_nan>},
    {"add", same_on_numbers<add>},
    {"sub", same_on_numbers<sub>},
    {"mul", same_on_numbers<mul>},
    {"div", same_on_numbers<div_>},
    {"rem", write_rem},
    {"pow", same_on_numbers<pow_>},
    {"max", same_on_numbers<max_>},
    {"min", same_on_numbers<min_>},
    {"eq", same<equal>},
    {"lt", same_on_numbers<less>},
    {"le", same_on_numbers<less_equal>},
    {"gt", same_on_numbers<greater>},
    {"ge", same_on_numbers<greater_equal>},
    {"logical_and", same_on_bool<and_>},
    {"logical_or", same_on_bool<or_>},
    {"logical_xor", same_on_bool<xor_>},
    {"select", same<where>},
    {"clamp", write_clamp},
    {"cast", write_cast},
    {"reshape", write_reshape},
    {"transpose", write_transpose},
    {"slice", write_slice},
    {"reverse", write_reverse},
    {"pad", write_pad},
    {"concat", write_concat},
    {"gather",
     [](Writer& w, const Node& n) { return write_gather<gather>(w, n, n.attrs<op::AxisAttrs>().axis); }},
    {"gather_along",
     [](Writer& w, const Node& n) {
       return write_gather<gather_elements>(w, n, n.attrs<op::AxisAttrs>().axis);
     }},
    {"reduce_sum", write_reduce<reduce_sum, true>},
    {"reduce_max", write_reduce<reduce_max, false>},
    {"reduce_min", write_reduce<reduce_min, false>},
    {"reduce_prod", write_reduce<reduce_prod, false>},
    {"argmax", write_arg<arg_max>},
    {"argmin", write_arg<arg_min>},
    {"softmax", write_softmax<softmax>},
    {"log_softmax", write_softmax<log_softmax>},
    {"dot", write_dot},
    {"conv", [](Writer& w, const Node& n) { return write_conv(w, n, false); }},
    {"conv_data_grad", [](Writer& w, const Node& n) { return write_conv(w, n, true); }},
    {"max_pool", [](Writer& w, const Node& n) { return write_pool(w, n, false); }},
    {"avg_pool", [](Writer& w, const Node& n) { return write_pool(w, n, true); }},
    {"resize", write_resize},
    {"batch_norm", write_batch_norm},
    {"layer_norm", write_layer_norm},
};

}  // namespace

std::span<const WriteRow> write_rows() { return rows; }

bool fits_norm(const Node& n) {
  const bool axes_and_dtypes = n.op().name == op::batch_norm_op.name
                                   ? n.input(0).rank() >= 2
                                   : n.input(0).dtype() == n.input(1).dtype();
  return axes_and_dtypes && survives_f32(n.attrs<op::NormAttrs>().eps);
}

}  // namespace espalier::format

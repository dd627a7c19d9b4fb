#include "target/cuda/kernels/contraction.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "op/axes.h"
#include "op/contraction.h"
#include "op/spatial.h"

namespace espalier::target::cuda {

using ir::Dtype;
using kernel::Affine;
using kernel::Guard;
using kernel::Refusal;

namespace {

using Ints = std::vector<int64_t>;

Dtype sum_dtype(Dtype operand) {
  switch (operand) {
    case Dtype::f64:
    case Dtype::i64:
    case Dtype::i32: return operand;
    case Dtype::i8:
    case Dtype::u8: return Dtype::i32;
    default: return Dtype::f32;
  }
}

class Maker {
 public:
  explicit Maker(const ir::Node& n) : n_(n) {
    c_.operand = n.input(0).dtype();
    c_.sum = sum_dtype(c_.operand);
    c_.result = n.types()[0].dtype;
  }

  Contraction dot() {
    const auto& at = n_.attrs<op::DotAttrs>();
    const Ints a = ir::static_dims(n_.input(0).dims()), b = ir::static_dims(n_.input(1).dims());
    const Ints sa = ir::row_major_strides(a), sb = ir::row_major_strides(b);
    const Ints sc = ir::row_major_strides(ir::static_dims(n_.types()[0].dims));
    size_t of_c = 0;
    for (size_t i = 0; i < at.batch_a.size(); ++i) {
      const int v = var(c_.batch, a[op::at(at.batch_a[i])]);
      move(c_.a, v, sa[op::at(at.batch_a[i])]);
      move(c_.b, v, sb[op::at(at.batch_b[i])]);
      move(c_.c, v, sc[of_c++]);
    }
    const auto free = [&](std::vector<int>& list, Contraction::Side& side, const Ints& dims,
                          const Ints& strides, const Ints& axes) {
      for (const int64_t axis : axes) {
        const int v = var(list, dims[op::at(axis)]);
        move(side, v, strides[op::at(axis)]);
        move(c_.c, v, sc[of_c++]);
      }
    };
    free(c_.rows, c_.a, a, sa, op::free_axes(static_cast<int>(a.size()), at.batch_a, at.contract_a));
    free(c_.columns, c_.b, b, sb, op::free_axes(static_cast<int>(b.size()), at.batch_b, at.contract_b));
    std::vector<size_t> order(at.contract_a.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::sort(order, [&](size_t i, size_t j) { return at.contract_a[i] < at.contract_a[j]; });
    for (const size_t i : order) {
      const int v = var(c_.folded, a[op::at(at.contract_a[i])]);
      move(c_.a, v, sa[op::at(at.contract_a[i])]);
      move(c_.b, v, sb[op::at(at.contract_b[i])]);
    }
    return std::move(c_);
  }

  /// y[n, o, f] = sum over k, c of x[n, o*stride - pad + k*dilation, c] * w[f, k, c].
  Contraction conv() {
    read_conv(ir::static_dims(n_.input(0).dims()), ir::static_dims(n_.input(1).dims()),
              ir::static_dims(n_.types()[0].dims));
    const int g = var(c_.batch, groups_), n = var(c_.rows, x_[0]);
    const std::vector<int> o = axis_vars(c_.rows, y_);
    const int f = var(c_.columns, filters_);
    const std::vector<int> k = axis_vars(c_.folded, w_);
    const int c = var(c_.folded, channels_);
    window(c_.a, n, o, k, g, c);
    weights(c_.b, g, f, k, c);
    plain(c_.c, y_, n, o, g, f, filters_);
    return std::move(c_);
  }

  /// w[f, k, c] = sum over n, o of y[n, o, f] * x[n, o*stride - pad + k*dilation, c].
  Contraction weight_grad() {
    read_conv(ir::static_dims(n_.input(0).dims()), ir::static_dims(n_.types()[0].dims),
              ir::static_dims(n_.input(1).dims()));
    std::swap(c_.a_operand, c_.b_operand);
    const int g = var(c_.batch, groups_), f = var(c_.rows, filters_);
    const std::vector<int> k = axis_vars(c_.columns, w_);
    const int c = var(c_.columns, channels_), n = var(c_.folded, x_[0]);
    const std::vector<int> o = axis_vars(c_.folded, y_);
    plain(c_.a, y_, n, o, g, f, filters_);
    window(c_.b, n, o, k, g, c);
    weights(c_.c, g, f, k, c);
    return std::move(c_);
  }

  /// x[n, i, c] = sum over k, f of y[n, (i + pad - k*dilation) / stride, f] * w[f, k, c], over the k where that is whole. Inputs i =
  /// q*stride + r of one rest r have the same taps k = first(r) + j*step: r is a loop of the batch, and everything is affine again.
  Contraction data_grad() {
    read_conv(ir::static_dims(n_.types()[0].dims), ir::static_dims(n_.input(1).dims()),
              ir::static_dims(n_.input(0).dims()));
    const auto& at = n_.attrs<op::ConvAttrs>();
    const int g = var(c_.batch, groups_), n = var(c_.rows, x_[0]);
    const size_t axes = at.stride.size();
    struct Axis {
      int rest = 0, q = 0, j = 0, first = 0, shift = 0;
      int64_t stride = 1, common = 1, step = 1;
    };
    std::vector<Axis> all(axes);
    for (size_t d = 0; d < axes; ++d) {
      Axis& axis = all[d];
      axis.stride = at.stride[d];
      axis.common = std::gcd(at.stride[d], at.dilation[d]);
      axis.step = axis.stride / axis.common;
      axis.rest = var(c_.batch, std::min(axis.stride, x_[d + 1]));
      axis.q = var(c_.rows, (x_[d + 1] + axis.stride - 1) / axis.stride);
      axis.j = var(c_.folded, (w_[d + 1] + axis.step - 1) / axis.step);
    }
    const int c = var(c_.columns, channels_), f = var(c_.folded, filters_);
    for (size_t d = 0; d < axes; ++d)
      if (all[d].stride > 1) derive(all[d].first, all[d].shift, all[d].rest, d);
    move(c_.a, n, stride_of(y_, 0));
    move(c_.c, n, stride_of(x_, 0));
    for (size_t d = 0; d < axes; ++d) {
      const Axis& axis = all[d];
      const bool all_taps = axis.stride == 1;
      Affine output = Affine::var(axis.q);
      output.add(all_taps ? Affine::constant(at.pad_low[d]) : Affine::var(axis.shift))
          .add(Affine::var(axis.j), -(at.dilation[d] / axis.common));
      place(c_.a, output, y_[d + 1], stride_of(y_, d + 1), true);
      Affine tap = Affine::var(axis.j, axis.step);
      if (!all_taps) tap.add(Affine::var(axis.first));
      place(c_.b, tap, w_[d + 1], stride_of(w_, d + 1), !all_taps);
      Affine input = Affine::var(axis.q, axis.stride);
      input.add(Affine::var(axis.rest));
      place(c_.c, input, x_[d + 1], stride_of(x_, d + 1), !all_taps);
    }
    move(c_.a, g, filters_);
    move(c_.a, f, 1);
    move(c_.b, g, filters_ * w_stride());
    move(c_.b, f, w_stride());
    move(c_.b, c, 1);
    move(c_.c, g, channels_);
    move(c_.c, c, 1);
    return std::move(c_);
  }

 private:
  int var(std::vector<int>& list, int64_t extent) {
    list.push_back(free_var(extent));
    return list.back();
  }
  int free_var(int64_t extent) {
    c_.extents.push_back(extent);
    return static_cast<int>(c_.extents.size()) - 1;
  }
  static void move(Contraction::Side& side, int v, int64_t stride) {
    side.address.add(Affine::var(v), stride);
  }

  void read_conv(Ints x, Ints w, Ints y) {
    x_ = std::move(x);
    w_ = std::move(w);
    y_ = std::move(y);
    groups_ = n_.attrs<op::ConvAttrs>().groups;
    filters_ = w_[0] / groups_;
    channels_ = w_.back();
  }
  std::vector<int> axis_vars(std::vector<int>& list, const Ints& dims) {
    std::vector<int> vars;
    for (size_t d = 1; d + 1 < dims.size(); ++d) vars.push_back(var(list, dims[d]));
    return vars;
  }
  static int64_t stride_of(const Ints& dims, size_t axis) { return ir::row_major_strides(dims)[axis]; }
  int64_t w_stride() const { return stride_of(w_, 0); }

  /// An index of an axis, which may lie outside of it.
  static void place(Contraction::Side& side, const Affine& index, int64_t extent, int64_t stride,
                    bool guarded) {
    side.address.add(index, stride);
    if (guarded) side.guards.push_back({index, 0, extent});
  }

  /// x where output o and tap k read it.
  void window(Contraction::Side& side, int n, const std::vector<int>& o, const std::vector<int>& k, int g,
              int c) {
    const auto& at = n_.attrs<op::ConvAttrs>();
    move(side, n, stride_of(x_, 0));
    for (size_t d = 0; d < o.size(); ++d) {
      Affine index = Affine::var(o[d], at.stride[d]);
      index.add(Affine::var(k[d]), at.dilation[d]);
      index.offset = -at.pad_low[d];
      const int64_t last = (y_[d + 1] - 1) * at.stride[d] - at.pad_low[d] + at.dilation[d] * (w_[d + 1] - 1);
      place(side, index, x_[d + 1], stride_of(x_, d + 1), at.pad_low[d] > 0 || last >= x_[d + 1]);
    }
    move(side, g, channels_);
    move(side, c, 1);
  }
  void weights(Contraction::Side& side, int g, int f, const std::vector<int>& k, int c) const {
    move(side, g, filters_ * w_stride());
    move(side, f, w_stride());
    for (size_t d = 0; d < k.size(); ++d) move(side, k[d], stride_of(w_, d + 1));
    move(side, c, 1);
  }
  /// A tensor [n, spatial, groups * of_group].
  static void plain(Contraction::Side& side, const Ints& dims, int n, const std::vector<int>& spatial, int g,
                    int f, int64_t of_group) {
    move(side, n, stride_of(dims, 0));
    for (size_t d = 0; d < spatial.size(); ++d) move(side, spatial[d], stride_of(dims, d + 1));
    move(side, g, of_group);
    move(side, f, 1);
  }

  /// Of the inputs whose rest is `rest` on axis d: the first tap, and the output that the first tap of input `rest` comes from.
  void derive(int& first, int& shift, int rest, size_t d) {
    const auto& at = n_.attrs<op::ConvAttrs>();
    const int64_t s = at.stride[d], pad = at.pad_low[d], common = std::gcd(s, at.dilation[d]),
                  step = s / common;
    first = free_var(w_[d + 1] + 1);
    shift = free_var(y_[d + 1] + 1);
    int64_t inverse = 0;  // of dilation / common among the numbers below step
    while (at.dilation[d] / common % step * inverse % step != 1 % step) ++inverse;
    const std::string from = fmt::format("(v{} + {})", rest, pad);
    std::string tap = fmt::format("{} / {} * {} % {}", from, common, inverse, step);
    if (common > 1) tap = fmt::format("{} % {} == 0 ? {} : {}", from, common, tap, w_[d + 1]);
    c_.derived.push_back({first, tap});
    c_.derived.push_back({shift, fmt::format("({} - v{} * {}) / {}", from, first, at.dilation[d], s)});
  }

  const ir::Node& n_;
  Contraction c_;
  Ints x_, w_, y_;
  int64_t groups_ = 1, filters_ = 1, channels_ = 1;  // filters and channels of one group
};

template <class F>
void each_affine(Contraction& c, F&& f) {
  for (Contraction::Side* side : {&c.a, &c.b, &c.c}) {
    f(side->address);
    for (Guard& g : side->guards) f(g.index);
  }
}

bool is_named(const Contraction& c, int var) {
  const std::string name = "v" + std::to_string(var);
  return std::any_of(c.derived.begin(), c.derived.end(), [&](const Contraction::Derived& d) {
    for (size_t at = d.text.find(name); at != std::string::npos; at = d.text.find(name, at + 1))
      if (at + name.size() == d.text.size() ||
          !std::isdigit(static_cast<unsigned char>(d.text[at + name.size()])))
        return true;
    return false;
  });
}

/// Loops of one value are gone, and an outer loop whose steps are the inner one's whole run is one with it.
void merge(Contraction& c, std::vector<int>& list) {
  std::erase_if(list, [&](int v) {
    if (c.extents[static_cast<size_t>(v)] != 1 || is_named(c, v)) return false;
    each_affine(c, [&](Affine& a) { a.add(Affine::var(v), -a.coef(v)); });
    return true;
  });
  for (size_t i = list.size(); i-- > 1;) {
    const int outer = list[i - 1], inner = list[i];
    const int64_t run = c.extents[static_cast<size_t>(inner)];
    bool one = !is_named(c, outer) && !is_named(c, inner);
    each_affine(c, [&](Affine& a) { one = one && a.coef(outer) == a.coef(inner) * run; });
    if (!one) continue;
    each_affine(c, [&](Affine& a) { a.add(Affine::var(outer), -a.coef(outer)); });
    c.extents[static_cast<size_t>(inner)] *= c.extents[static_cast<size_t>(outer)];
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(i) - 1);
  }
}

}  // namespace

int64_t Contraction::points(const std::vector<int>& vars) const {
  int64_t n = 1;
  for (const int v : vars) n *= extents[static_cast<size_t>(v)];
  return n;
}

std::variant<Contraction, Refusal> contraction_of(const ir::Node& node) {
  Maker maker(node);
  Contraction c;
  if (&node.op() == &op::dot_op) c = maker.dot();
  else if (&node.op() == &op::conv_op) c = maker.conv();
  else if (&node.op() == &op::conv_data_grad_op) c = maker.data_grad();
  else if (&node.op() == &op::conv_weight_grad_op) c = maker.weight_grad();
  else return Refusal{"contraction", "no contraction"};
  for (std::vector<int>* list : {&c.batch, &c.rows, &c.columns, &c.folded}) merge(c, *list);
  return c;
}

}  // namespace espalier::target::cuda

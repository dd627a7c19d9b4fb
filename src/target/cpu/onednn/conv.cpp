// Forward and data gradient. Both compute every output element on one thread, in an order that is fixed when the primitive is made:
// the direct kernels' does not depend on the number of threads; Winograd's depends on the team it is blocked for, and that of
// matrix products over gathered windows on the teams that make and run it: those are made for one thread and share out the batch.
#include "target/cpu/onednn/conv.h"

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "target/cpu/onednn/geometry.h"

namespace espalier::target::cpu::onednn {

using dnnl::memory;
using Dims = memory::dims;

memory::desc activation(Layout layout, int64_t block, ir::Dtype dtype, int64_t batch, int64_t channels,
                        const std::vector<int64_t>& spatial) {
  using Tag = memory::format_tag;
  constexpr Tag tags[4][3] = {{Tag::nwc, Tag::nhwc, Tag::ndhwc},
                              {Tag::ncw, Tag::nchw, Tag::ncdhw},
                              {Tag::nCw16c, Tag::nChw16c, Tag::nCdhw16c},
                              {Tag::nCw8c, Tag::nChw8c, Tag::nCdhw8c}};
  const int row = layout == Layout::channels_last    ? 0
                  : layout == Layout::channels_first ? 1
                  : block == 16                      ? 2
                                                     : 3;
  Dims dims{batch, channels};
  dims.insert(dims.end(), spatial.begin(), spatial.end());
  return {dims, data_type(dtype), tags[row][spatial.size() - 1]};
}

namespace {

/// Strides of w[O, kernel..., C/groups] in the order [groups,] O, C, kernel...; or C, O where `transposed`.
Dims weight_strides(const ConvSpec& s, bool transposed) {
  const int64_t c = s.channels / s.groups, o = s.features / s.groups;
  Dims kernel(s.kernel.size());
  int64_t stride = c;
  for (size_t i = s.kernel.size(); i-- > 0; stride *= s.kernel[i]) kernel[i] = stride;
  Dims strides;
  if (s.groups > 1) strides.push_back(o * stride);
  strides.insert(strides.end(), {transposed ? 1 : stride, transposed ? stride : 1});
  strides.insert(strides.end(), kernel.begin(), kernel.end());
  return strides;
}

Dims weight_dims(const ConvSpec& s, bool transposed) {
  Dims dims;
  if (s.groups > 1) dims.push_back(s.groups);
  const int64_t c = s.channels / s.groups, o = s.features / s.groups;
  dims.insert(dims.end(), {transposed ? c : o, transposed ? o : c});
  dims.insert(dims.end(), s.kernel.begin(), s.kernel.end());
  return dims;
}

}  // namespace

Geometry geometry(const ConvSpec& s) {
  Geometry g;
  g.stride = s.stride;
  g.pad_low = s.pad_low;
  g.pad_high = s.pad_high;
  for (size_t d = 0; d < s.kernel.size(); ++d) g.dilation.push_back(s.kernel[d] > 1 ? s.dilation[d] - 1 : 0);
  g.weight_dims = weight_dims(s, false);
  g.weights_given = memory::desc(g.weight_dims, data_type(s.weights), weight_strides(s, false));
  if (s.winograd != Winograd::none) g.algorithm = dnnl::algorithm::convolution_winograd;
  return g;
}

std::string refuse(const ConvSpec& s) {
  const auto known = [](ir::Dtype d) { return d == ir::Dtype::f32 || d == ir::Dtype::bf16; };
  if (!known(s.compute) || !known(s.weights) || !known(s.result)) return "only f32 and bf16";
  if (s.compute == ir::Dtype::f32 && s.result == ir::Dtype::bf16) return "f32 operands with a bf16 result";
  if (s.in.empty() || s.in.size() > 3) return "1 to 3 spatial axes";
  const auto negative = [](int64_t v) { return v < 0; };
  if (std::ranges::any_of(s.pad_low, negative) || std::ranges::any_of(s.pad_high, negative))
    return "negative padding";
  const auto empty = [](int64_t v) { return v <= 0; };
  if (std::min({s.batch, s.channels, s.features}) <= 0 || std::ranges::any_of(s.in, empty) ||
      std::ranges::any_of(s.out, empty) || std::ranges::any_of(s.kernel, empty))
    return "an empty operand or result";
  if (s.x_layout == Layout::batch_blocked || s.y_layout == Layout::batch_blocked)
    return "the batch in blocks";
  if ((s.x_layout == Layout::blocked && s.channels % s.block != 0) ||
      (s.y_layout == Layout::blocked && s.features % s.block != 0))
    return "channels that the block does not divide";
  return {};
}

namespace {

enum class Slot : uint8_t { a, weights, bias, result, channel };

/// A bound primitive for some images of the batch.
struct Part {
  Step step;
  std::vector<Slot> slots;  ///< of its arguments
  memory::desc weights;     ///< as it reads them
  std::string implementation;
};

/// The packing of the weights, then the products: one primitive that uses the pool's threads by itself, or one for
/// each range of the batch, each on one thread.
class ConvCall final : public Call {
 public:
  Part whole, last;  ///< of all ranges but the last; of the last where it is shorter
  bool has_last = false;
  bool alone = false;  ///< one thread, also where there is one range
  int64_t ranges = 1;
  int64_t a_step = 0, result_step = 0;  ///< bytes from one range to the next
  int64_t result_bytes = 0;
  Step pack_first, pack_second;
  int64_t between_bytes = 0;  ///< of the weights between two packing steps
  int64_t weights_bytes = 0;  ///< of the weights as the primitives read them
  bool constant = false;

  std::string name() const override { return whole.implementation; }
  int64_t packed_bytes() const override { return constant ? weights_bytes : 0; }
  std::string packing() const override { return constant ? layout_name(whole.weights) : std::string(); }
  int64_t scratch_bytes() const override {
    return packed_here() + std::max(ranges * range_scratch(), pack_first.scratch_bytes());
  }

  void pack(const void* b, void* packed) const override {
    const TeamScope scope(team_threads());
    const std::vector<std::byte> between(static_cast<size_t>(between_bytes)),
        scratch(static_cast<size_t>(std::max(pack_first.scratch_bytes(), pack_second.scratch_bytes())));
    void* const work = at(scratch.data(), 0);
    if (!pack_first) {
      std::copy_n(static_cast<const std::byte*>(b), weights_bytes, static_cast<std::byte*>(packed));
    } else if (!pack_second) {
      pack_first.run(std::initializer_list<const void*>{b, packed}, work);
    } else {
      pack_first.run(std::initializer_list<const void*>{b, between.data()}, work);
      pack_second.run(std::initializer_list<const void*>{between.data(), packed}, work);
    }
  }

  void run(const CallArgs& args, int64_t) const override {
    const void* weights = constant ? args.packed : args.b;
    if (args.residual && args.residual != args.result) copy_residual(args);
    if (!constant && pack_first) {
      const TeamScope scope(team_threads());
      pack_first.run(std::initializer_list<const void*>{args.b, args.scratch},
                     at(args.scratch, packed_here()));
      weights = args.scratch;
    }
    if (ranges > 1) {
      parallel_for(ranges, [&](int64_t i) {
        const TeamScope scope(1);
        run_range(args, weights, i);
      });
    } else {
      const TeamScope scope(alone ? 1 : team_threads());
      run_range(args, weights, 0);
    }
  }

 private:
  int64_t packed_here() const { return !constant && pack_first ? whole_lines(weights_bytes) : 0; }
  int64_t range_scratch() const {
    return whole_lines(std::max(whole.step.scratch_bytes(), last.step.scratch_bytes()));
  }

  void copy_residual(const CallArgs& args) const {
    constexpr int64_t piece = 1 << 18;
    parallel_for((result_bytes + piece - 1) / piece, [&](int64_t i) {
      copy_rows(at(args.residual, i * piece), at(args.result, i * piece), 1,
                std::min(piece, result_bytes - i * piece), 0);
    });
  }

  void run_range(const CallArgs& args, const void* weights, int64_t i) const {
    const Part& part = has_last && i + 1 == ranges ? last : whole;
    const void* pointers[16];
    size_t count = 0, channel = 0;
    for (const Slot slot : part.slots) {
      switch (slot) {
        case Slot::a: pointers[count++] = at(args.a, i * a_step); break;
        case Slot::weights: pointers[count++] = weights; break;
        case Slot::bias: pointers[count++] = args.bias; break;
        case Slot::result: pointers[count++] = at(args.result, i * result_step); break;
        case Slot::channel: pointers[count++] = args.channels[channel++]; break;
      }
    }
    part.step.run({pointers, count}, at(args.scratch, packed_here() + i * range_scratch()));
  }
};

/// Is there more padding on a side than windows that are centred on elements need, or padding with dilation? There the order of
/// the sums in the library's brgconv kernels (2.6.3) depends on the team they are made for; and where some window lies in the
/// padding alone they crash with a sum and a relu.
bool has_odd_borders(const ConvSpec& s) {
  for (size_t d = 0; d < s.in.size(); ++d) {
    const int64_t pad = std::max(s.pad_low[d], s.pad_high[d]);
    if (2 * pad > s.kernel[d] - 1 || (pad > 0 && s.dilation[d] > 1)) return true;
  }
  return false;
}

bool is_gemm(std::string_view implementation) {
  return implementation.find("gemm") != std::string_view::npos;
}

/// May `s` be served by the implementation of this name? (gemm puts channels' factors and second terms in wrong places in 3-D.)
bool usable(const ConvSpec& s, std::string_view name) {
  const auto holds = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (s.winograd != Winograd::none) return holds(s.winograd == Winograd::f4 ? "wino_4x3" : "wino_2x3");
  if (is_gemm(name) && s.in.size() == 3 && std::ranges::any_of(s.posts, reads_channels)) return false;
  return !(holds("brgconv") && has_odd_borders(s));
}

struct Chosen {
  dnnl::primitive primitive;
  std::string implementation;
  memory::desc weights, scratch;
};

template <class PrimitiveDesc>
Chosen chosen(const ConvSpec& s, PrimitiveDesc& pd, auto primitive) {
  while (!usable(s, pd.impl_info_str()))
    if (!pd.next_impl()) throw dnnl::error(dnnl_unimplemented, "no implementation that serves this shape");
  return {primitive(pd), pd.impl_info_str(), pd.weights_desc(), pd.scratchpad_desc()};
}

bool has_epilogue(const ConvSpec& s) { return s.bias || !s.posts.empty(); }

struct Descs {
  memory::desc x, y, weights, bias;
  Geometry g;
};

// A primitive_desc refers to its operation descriptor when it moves on to another implementation, so the descriptors here outlive
// the call of chosen().

dnnl::convolution_forward::desc forward_desc(const ConvSpec& s, const Descs& d, dnnl::prop_kind kind) {
  const Geometry& g = d.g;
  if (s.bias && s.kind == ConvKind::forward)
    return {kind, g.algorithm, d.x, d.weights, d.bias, d.y, g.stride, g.dilation, g.pad_low, g.pad_high};
  return {kind, g.algorithm, d.x, d.weights, d.y, g.stride, g.dilation, g.pad_low, g.pad_high};
}

Chosen choose_forward(const ConvSpec& s, const Descs& d, const dnnl::primitive_attr& attr) {
  using Forward = dnnl::convolution_forward;
  const Forward::desc desc = forward_desc(
      s, d, s.constant_weights ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training);
  Forward::primitive_desc pd(desc, attr, engine());
  return chosen(s, pd, [](const auto& p) { return Forward(p); });
}

Chosen choose_data_grad(const ConvSpec& s, const Descs& d, const dnnl::primitive_attr& attr) {
  using Backward = dnnl::convolution_backward_data;
  const Geometry& g = d.g;
  Descs hint = d;
  hint.x = memory::desc(d.x.dims(), d.y.data_type(), memory::format_tag::any);
  const dnnl::convolution_forward::desc forward = forward_desc(s, hint, dnnl::prop_kind::forward_training);
  const dnnl::convolution_forward::primitive_desc hint_pd(forward, engine());
  const Backward::desc desc(g.algorithm, d.x, d.weights, d.y, g.stride, g.dilation, g.pad_low, g.pad_high);
  Backward::primitive_desc pd(desc, attr, engine(), hint_pd);
  return chosen(s, pd, [](const auto& p) { return Backward(p); });
}

/// The data gradient with something after it: the transposed convolution.
Chosen choose_transposed(const ConvSpec& s, const Descs& d, const dnnl::primitive_attr& attr) {
  using Forward = dnnl::deconvolution_forward;
  const Geometry& g = d.g;
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto method = dnnl::algorithm::deconvolution_direct;
  const memory::desc weights(weight_dims(s, true), d.weights.data_type(), memory::format_tag::any);
  const Forward::desc desc =
      s.bias ? Forward::desc(kind, method, d.y, weights, d.bias, d.x, g.stride, g.dilation, g.pad_low,
                             g.pad_high)
             : Forward::desc(kind, method, d.y, weights, d.x, g.stride, g.dilation, g.pad_low, g.pad_high);
  Forward::primitive_desc pd(desc, attr, engine());
  return chosen(s, pd, [](const auto& p) { return Forward(p); });
}

/// Packing of the weights for `call`; Winograd's transform starts from O, C, kernel... and cannot do more at once.
void add_packing(ConvCall& call, const ConvSpec& s, const memory::desc& given, const memory::desc& wanted) {
  call.weights_bytes = bytes_of(wanted);
  call.constant = s.constant_weights;
  if (wanted.data.format_kind != dnnl_format_kind_wino) {
    call.pack_first = reorder(given, wanted);
    return;
  }
  const memory::desc between(given.dims(), given.data_type(), memory::format_tag::oihw);
  call.pack_first = reorder(given, between);
  call.pack_second = reorder(between, wanted);
  call.between_bytes = bytes_of(between);
}

/// The primitive for the whole of `s`.
Part make_part(const ConvSpec& s) {
  const bool forward = s.kind == ConvKind::forward, gradient = !forward && !has_epilogue(s);
  const int64_t result_channels = forward ? s.features : s.channels;
  Descs d;
  d.g = geometry(s);
  d.x = activation(s.x_layout, s.block, forward ? s.compute : s.result, s.batch, s.channels, s.in);
  d.y = activation(s.y_layout, s.block, forward ? s.result : s.compute, s.batch, s.features, s.out);
  d.weights = memory::desc(d.g.weight_dims, data_type(s.compute), memory::format_tag::any);
  d.bias = memory::desc({result_channels}, memory::data_type::f32, memory::format_tag::x);
  Dims channel_dims(2 + s.in.size(), 1);
  channel_dims[1] = result_channels;
  const dnnl::primitive_attr attr = attributes(s.posts, channel_dims);
  const Chosen c = forward    ? choose_forward(s, d, attr)
                   : gradient ? choose_data_grad(s, d, attr)
                              : choose_transposed(s, d, attr);
  std::vector<Step::Argument> arguments{{gradient ? DNNL_ARG_DIFF_DST : DNNL_ARG_SRC, forward ? d.x : d.y},
                                        {DNNL_ARG_WEIGHTS, c.weights},
                                        {gradient ? DNNL_ARG_DIFF_SRC : DNNL_ARG_DST, forward ? d.y : d.x}};
  std::vector<Slot> slots{Slot::a, Slot::weights, Slot::result};
  if (s.bias) {
    arguments.push_back({DNNL_ARG_BIAS, d.bias});
    slots.push_back(Slot::bias);
  }
  append_post_arguments(s.posts, channel_dims, arguments);
  slots.resize(arguments.size(), Slot::channel);
  return {Step(c.primitive, std::move(arguments), c.scratch), std::move(slots), c.weights, c.implementation};
}

Part make_part_for(const ConvSpec& s, int team) {
  const TeamScope scope(team);
  return make_part(s);
}

/// Compute `s` by several primitives, each made for `team` and for a range of the batch: the same ranges on any number of threads.
/// False, and nothing changed, where the layout of the weights would differ.
bool cut_batch(ConvCall& call, const ConvSpec& s, int team) {
  const Cut ranges = cut(s.batch, 4, 1);
  ConvSpec range = s;
  range.batch = ranges.size;
  Part whole = make_part_for(range, team), last;
  range.batch = s.batch % ranges.size;
  if (range.batch > 0) last = make_part_for(range, team);
  if (!(whole.weights == call.whole.weights) || (range.batch > 0 && !(last.weights == whole.weights)))
    return false;
  call.whole = std::move(whole);
  call.last = std::move(last);
  call.has_last = range.batch > 0;
  call.ranges = ranges.count;
  const bool forward = s.kind == ConvKind::forward;
  const auto bytes = [&](bool x) {
    const ir::Dtype dtype = x == forward ? s.compute : s.result;
    return x ? bytes_of(activation(s.x_layout, s.block, dtype, ranges.size, s.channels, s.in))
             : bytes_of(activation(s.y_layout, s.block, dtype, ranges.size, s.features, s.out));
  };
  call.a_step = bytes(forward);
  call.result_step = bytes(!forward);
  return true;
}

/// Winograd keeps its tiles in scratch per thread for some shapes; then its primitive runs on exactly the team that it was blocked
/// for, so the batch is cut for the pool instead. Fewer images per primitive: nothing where the weights' layout would differ.
void prepare_winograd(ConvCall& call, const ConvSpec& s) {
  call.whole = make_part_for(s, winograd_team);
  const bool per_thread =
      call.whole.step.scratch_bytes() != make_part_for(s, 2 * winograd_team).step.scratch_bytes();
  if (per_thread && s.batch > 1) (void)cut_batch(call, s, winograd_team);
}

void prepare_direct(ConvCall& call, const ConvSpec& s) {
  call.whole = make_part_for(s, pool_threads());
  if (!is_gemm(call.whole.implementation)) return;
  call.whole = make_part_for(s, 1);
  call.alone = true;
  if (s.batch > 1) (void)cut_batch(call, s, 1);
}

PreparedCall prepare_main(const ConvSpec& s) {
  const bool transposed = s.kind == ConvKind::data_grad && has_epilogue(s);
  if (transposed && s.winograd != Winograd::none) return Declined{"Winograd has no transposed convolution"};
  if (s.winograd == Winograd::f2 && !s.constant_weights) return Declined{"F(2x2) only with constant weights"};
  if (s.posts.size() > 8) return Declined{"too many post-operations"};
  auto call = std::make_unique<ConvCall>();
  s.winograd == Winograd::none ? prepare_direct(*call, s) : prepare_winograd(*call, s);
  if (is_reference(call->whole.implementation))
    return Declined{"only the library's reference code: " + call->whole.implementation};
  call->result_bytes = s.kind == ConvKind::forward
                           ? bytes_of(activation(s.y_layout, s.block, s.result, s.batch, s.features, s.out))
                           : bytes_of(activation(s.x_layout, s.block, s.result, s.batch, s.channels, s.in));
  const memory::desc given =
      transposed ? memory::desc(weight_dims(s, true), data_type(s.weights), weight_strides(s, true))
                 : geometry(s).weights_given;
  add_packing(*call, s, given, call->whole.weights);
  return call;
}

}  // namespace

PreparedCall prepare_conv(const ConvSpec& spec) {
  if (std::string reason = refuse(spec); !reason.empty()) return Declined{std::move(reason)};
  try {
    return spec.kind == ConvKind::weight_grad ? prepare_weight_grad(spec) : prepare_main(spec);
  } catch (const dnnl::error& error) {
    return Declined{error.message};
  }
}

}  // namespace espalier::target::cpu::onednn

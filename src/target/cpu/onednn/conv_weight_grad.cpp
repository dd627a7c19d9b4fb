// The weight gradient. The library would sum over threads in an order that depends on how many there are, so each chunk runs on one
// thread: a chunk is a range of the batch (its partial sums are added in chunk order) or, where the weights outweigh the
// activations, a range of output features (which has no partial sums, but copies its slice of dy).
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "base/threads.h"
#include "target/cpu/onednn/geometry.h"

namespace espalier::target::cpu::onednn {

using dnnl::memory;

namespace {

struct Split {
  bool features = false;  ///< else the batch
  Cut cut;
};

/// Few ranges where each repeats a transform of the weights.
Cut batch_cut(const ConvSpec& s) { return cut(s.batch, s.winograd == Winograd::none ? 4 : 2, 1); }

/// How the work is cut: by shape alone.
Split choose_split(const ConvSpec& s) {
  int64_t weights = s.features * s.channels / s.groups, x = s.batch * s.channels, y = s.batch * s.features;
  for (const int64_t k : s.kernel) weights *= k;
  for (const int64_t n : s.in) x *= n;
  for (const int64_t n : s.out) y *= n;
  // Elements that either way moves beyond the products themselves, weighted by measured times.
  constexpr int64_t feature_unit = 32;
  const bool winograd = s.winograd != Winograd::none;
  const int64_t by_batch = (winograd ? 19 : 12) * weights,
                by_features = winograd ? 10 * x + 4 * y : x + 2 * y;
  const bool can_split = s.groups == 1 && s.features >= 2 * feature_unit;
  if (can_split && (s.batch == 1 || by_features < by_batch))
    return {true, cut(s.features, winograd ? 2 : 4, feature_unit)};
  return {false, batch_cut(s)};
}

/// A chunk's primitive.
struct Part {
  Step step;
  memory::desc dw;
  std::string implementation;
};

/// Strides with one or two outputs along an axis: the library's direct bf16 kernels (2.6.3) may then read rows of scratch that they
/// never filled (NaN where its old bytes say so), or beyond their operands.
bool few_strided_outputs(const ConvSpec& s) {
  for (size_t k = 0; k < s.out.size(); ++k)
    if (s.stride[k] > 1 && s.out[k] <= 2) return true;
  return false;
}

Part make_part(const ConvSpec& s) {
  const Geometry g = geometry(s);
  const memory::desc x = activation(s.x_layout, s.block, s.compute, s.batch, s.channels, s.in);
  const memory::desc y = activation(s.y_layout, s.block, s.compute, s.batch, s.features, s.out);
  const auto any = [&](memory::data_type type) {
    return memory::desc(g.weight_dims, type, memory::format_tag::any);
  };
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::convolution_forward::desc forward(dnnl::prop_kind::forward_training, g.algorithm, x,
                                                any(data_type(s.compute)), y, g.stride, g.dilation, g.pad_low,
                                                g.pad_high);
  const dnnl::convolution_forward::primitive_desc hint(forward, attr, engine());
  const dnnl::convolution_backward_weights::desc desc(g.algorithm, x, any(memory::data_type::f32), y,
                                                      g.stride, g.dilation, g.pad_low, g.pad_high);
  dnnl::convolution_backward_weights::primitive_desc pd(desc, attr, engine(), hint);
  while (std::string_view(pd.impl_info_str()).starts_with("jit_bf16") && few_strided_outputs(s))
    if (!pd.next_impl()) throw dnnl::error(dnnl_unimplemented, "no implementation that serves this shape");
  const memory::desc dw = pd.diff_weights_desc();
  return {
      Step(dnnl::convolution_backward_weights(pd),
           {{DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_DST, y}, {DNNL_ARG_DIFF_WEIGHTS, dw}}, pd.scratchpad_desc()),
      dw, pd.impl_info_str()};
}

constexpr int64_t sum_range = 16384;  ///< elements that one piece of the final sum adds

class WeightGradCall final : public Call {
 public:
  Split split;
  Part whole, last;  ///< of the full chunks and of the shorter last one
  bool has_last = false;
  Step unpack;                 ///< packed dw to the wanted layout and dtype
  int64_t dw_bytes = 0;        ///< of one packed gradient, all features
  int64_t x_bytes = 0;         ///< of one chunk's x (0: all chunks read all of it)
  int64_t y_bytes = 0;         ///< of one full chunk's dy
  int64_t dw_chunk_bytes = 0;  ///< from one chunk's packed gradient to the next
  // A feature range of dy: `runs` pieces of `run_bytes` (last chunk: `last_run_bytes`) every `pitch_bytes`.
  int64_t runs = 0, run_bytes = 0, last_run_bytes = 0, pitch_bytes = 0;
  bool unpacked = false;    ///< the packed layout is the wanted one
  bool zero_first = false;  ///< the library leaves parts of dw, or of what it adds up to dw, unwritten

  std::string name() const override { return whole.implementation; }
  int64_t scratch_bytes() const override {
    return own_scratch() + std::max(split.cut.count * part_scratch(), unpack.scratch_bytes());
  }

  void run(const CallArgs& args, int64_t) const override {
    std::byte* const partial = unpacked && split.features ? at(args.result, 0) : at(args.scratch, 0);
    parallel_for(split.cut.count, [&](int64_t i) { run_part(args, partial, i); });
    if (!split.features) add_partials(reinterpret_cast<float*>(partial), unpacked ? args.result : partial);
    if (unpacked) return;
    const TeamScope scope(team_threads());
    unpack.run(std::initializer_list<const void*>{partial, args.result}, at(args.scratch, own_scratch()));
  }

 private:
  int64_t own_scratch() const {
    return split.features ? whole_lines(dw_bytes) : split.cut.count * whole_lines(dw_bytes);
  }
  int64_t part_scratch() const {
    return whole_lines(std::max(whole.step.scratch_bytes(), last.step.scratch_bytes())) +
           (split.features ? whole_lines(y_bytes) : 0);
  }

  void run_part(const CallArgs& args, std::byte* partial, int64_t i) const {
    const TeamScope scope(1);
    const bool short_one = has_last && i + 1 == split.cut.count;
    const Step& step = short_one ? last.step : whole.step;
    std::byte* work = at(args.scratch, own_scratch() + i * part_scratch());
    const std::byte* y = at(args.b, i * y_bytes);
    if (split.features && split.cut.count > 1) {
      const int64_t bytes = short_one ? last_run_bytes : run_bytes;
      for (int64_t r = 0; r < runs; ++r)
        std::memcpy(work + r * bytes, at(args.b, r * pitch_bytes + i * run_bytes),
                    static_cast<size_t>(bytes));
      y = work;
      work += whole_lines(y_bytes);
    }
    std::byte* const dw = partial + i * dw_chunk_bytes;
    if (zero_first) {
      std::memset(dw, 0, static_cast<size_t>(bytes_of(short_one ? last.dw : whole.dw)));
      std::memset(work, 0, static_cast<size_t>(step.scratch_bytes()));
    }
    step.run(std::initializer_list<const void*>{at(args.a, i * x_bytes), y, dw}, work);
  }

  void add_partials(const float* partials, void* sums) const {
    const int64_t count = dw_bytes / static_cast<int64_t>(sizeof(float));
    const int64_t pitch = dw_chunk_bytes / static_cast<int64_t>(sizeof(float));
    parallel_for((count + sum_range - 1) / sum_range, [&](int64_t piece) {
      const int64_t from = piece * sum_range, to = std::min(count, from + sum_range);
      float* const out = static_cast<float*>(sums);
      if (out != partials) std::copy(partials + from, partials + to, out + from);
      for (int64_t p = 1; p < split.cut.count; ++p)
        for (int64_t i = from; i < to; ++i) out[i] += partials[p * pitch + i];
    });
  }
};

/// How a range of `size` of all features lies in dy.
void describe_slices(WeightGradCall& call, const ConvSpec& s) {
  int64_t spatial = 1;
  for (const int64_t n : s.out) spatial *= n;
  const int64_t element = ir::dtype_size(s.compute), size = call.split.cut.size;
  const int64_t rest = s.features - (call.split.cut.count - 1) * size;
  const int64_t per_feature = s.y_layout == Layout::channels_last ? element : spatial * element;
  call.runs = s.y_layout == Layout::channels_last ? s.batch * spatial : s.batch;
  call.run_bytes = size * per_feature;
  call.last_run_bytes = rest * per_feature;
  call.pitch_bytes = s.features * per_feature;
}

/// The primitives of the chunks of call.split.
void add_parts(WeightGradCall& call, const ConvSpec& s) {
  const Split& split = call.split;
  const int64_t total = split.features ? s.features : s.batch, rest = total % split.cut.size;
  ConvSpec part = s;
  int64_t& size = split.features ? part.features : part.batch;
  size = split.cut.size;
  call.whole = make_part(part);
  call.last = {};
  call.has_last = rest > 0;
  if (!call.has_last) return;
  size = rest;
  call.last = make_part(part);
}

/// Is the packed gradient of `features` features a contiguous range of that of all of them?
bool is_range(const memory::desc& part, const memory::desc& all, int64_t features) {
  const auto& p = part.data.format_desc.blocking;
  const auto& a = all.data.format_desc.blocking;
  if (part.data.format_kind != dnnl_blocked || all.data.format_kind != dnnl_blocked) return false;
  const bool same = p.inner_nblks == a.inner_nblks &&
                    std::equal(p.strides, p.strides + part.data.ndims, a.strides) &&
                    std::equal(p.inner_blks, p.inner_blks + p.inner_nblks, a.inner_blks) &&
                    std::equal(p.inner_idxs, p.inner_idxs + p.inner_nblks, a.inner_idxs);
  int64_t feature_block = 1;
  for (int i = 0; i < p.inner_nblks; ++i)
    if (p.inner_idxs[i] == 0) feature_block *= p.inner_blks[i];
  const int64_t pitch = p.strides[0] * static_cast<int64_t>(sizeof(float));
  return same && features % feature_block == 0 && features / feature_block * pitch == bytes_of(part);
}

/// Does some position of the kernel lie in the padding for every output? The library leaves its gradient, a zero, unwritten.
bool has_idle_position(const ConvSpec& s) {
  for (size_t k = 0; k < s.kernel.size(); ++k)
    for (int64_t at = 0; at < s.kernel[k]; ++at) {
      bool used = false;
      for (int64_t o = 0; o < s.out[k] && !used; ++o) {
        const int64_t i = o * s.stride[k] + at * s.dilation[k] - s.pad_low[k];
        used = i >= 0 && i < s.in[k];
      }
      if (!used) return true;
    }
  return false;
}

}  // namespace

PreparedCall prepare_weight_grad(const ConvSpec& s) {
  if (s.bias || !s.posts.empty()) return Declined{"nothing follows a weight gradient"};
  const TeamScope scope(1);
  auto call = std::make_unique<WeightGradCall>();
  call->split = choose_split(s);
  call->zero_first = has_idle_position(s);
  add_parts(*call, s);
  memory::desc packed = call->whole.dw;
  if (call->split.features) {
    packed = make_part(s).dw;
    if (!is_range(call->whole.dw, packed, call->split.cut.size)) {
      call->split = {false, batch_cut(s)};
      add_parts(*call, s);
      packed = call->whole.dw;
    }
  }
  const bool slow = is_reference(call->whole.implementation) || is_reference(call->last.implementation);
  if (slow && !few_strided_outputs(s))
    return Declined{"only the library's reference code: " + call->whole.implementation};
  if (call->split.features) {
    call->dw_chunk_bytes = bytes_of(call->whole.dw);
    describe_slices(*call, s);
    call->y_bytes = call->runs * call->run_bytes;
  } else {
    if (call->has_last && !(call->last.dw == packed)) return Declined{"chunks of different packed gradients"};
    const int64_t size = call->split.cut.size;
    call->dw_chunk_bytes = whole_lines(bytes_of(packed));
    call->x_bytes = bytes_of(activation(s.x_layout, s.block, s.compute, size, s.channels, s.in));
    call->y_bytes = bytes_of(activation(s.y_layout, s.block, s.compute, size, s.features, s.out));
  }
  call->dw_bytes = bytes_of(packed);
  call->unpack = reorder(packed, geometry(s).weights_given);
  call->unpacked = !call->unpack;
  return call;
}

}  // namespace espalier::target::cpu::onednn

#include "target/cpu/batch_conv_kernel.h"

#include <algorithm>

#include "base/threads.h"
#include "target/cpu/compile.h"

namespace espalier::target::cpu {

namespace {

using ir::Dtype;
using kernel::Refusal;
using onednn::ConvKind;
using onednn::ConvSpec;
using onednn::Layout;
using onednn::Post;

/// H and W; a convolution over one axis is one over W.
BatchConv::Pair pair(const std::vector<int64_t>& v, int64_t missing) {
  return v.size() == 2 ? BatchConv::Pair{v[0], v[1]} : BatchConv::Pair{missing, v[0]};
}

BatchConv batch_conv(const ConvSpec& s) {
  BatchConv c;
  c.kind = s.kind == ConvKind::forward     ? BatchConv::Kind::forward
           : s.kind == ConvKind::data_grad ? BatchConv::Kind::data_grad
                                           : BatchConv::Kind::weight_grad;
  c.batch_blocks = s.batch / cpu_features().lanes();
  c.channels = s.channels;
  c.features = s.features;
  c.in = pair(s.in, 1);
  c.kernel = pair(s.kernel, 1);
  c.out = pair(s.out, 1);
  c.stride = pair(s.stride, 1);
  c.pad_low = pair(s.pad_low, 0);
  c.dilation = pair(s.dilation, 1);
  c.bias = s.bias;
  c.relu = !s.posts.empty();
  return c;
}

/// Of the shape alone: can our kernels compute it?
std::string refuse_shape(const ConvSpec& s) {
  if (s.compute != Dtype::f32 || s.weights != Dtype::f32 || s.result != Dtype::f32) return "only f32";
  if (s.groups != 1) return "groups";
  if (s.in.empty() || s.in.size() > 2) return "1 or 2 spatial axes";
  const auto empty = [](int64_t n) { return n <= 0; };
  if (std::min({s.batch, s.channels, s.features}) <= 0 || std::ranges::any_of(s.in, empty) ||
      std::ranges::any_of(s.out, empty) || std::ranges::any_of(s.kernel, empty))
    return "an empty operand or result";
  if (s.batch % cpu_features().lanes() != 0) return "a batch that does not fill vectors";
  if (s.kernel.back() > max_batch_conv_columns) return "a wide kernel";
  if (plan_batch_conv(batch_conv(s), cpu_features()).code > max_batch_conv_code) return "too much code";
  return {};
}

class BatchConvKernel : public Kernel {
 public:
  BatchConvKernel(const BatchConv& conv, const BatchConvPlan& plan, const ContractionCall& call, int inputs)
      : plan_(plan),
        weights_(conv.kind == BatchConv::Kind::weight_grad
                     ? conv.features * conv.kernel[0] * conv.kernel[1] * conv.channels
                     : 0),
        code_(compile(conv, plan)),
        a_(call.a),
        b_(call.b),
        bias_(call.bias),
        result_(inputs) {}

  std::string_view name() const override { return "batch conv"; }
  int64_t chunks() const override { return plan_.groups > 1 ? 1 : plan_.chunks; }
  int64_t scratch_bytes() const override {
    return plan_.groups > 1 ? plan_.groups * weights_ * static_cast<int64_t>(sizeof(float)) : 0;
  }

  void run(void* const* buffers, void* scratch, int64_t chunk) const override {
    void* result = plan_.groups > 1 ? scratch : buffers[result_];
    void* const arguments[] = {buffers[a_], buffers[b_], bias_ >= 0 ? buffers[bias_] : result, result};
    if (plan_.groups == 1) return code_.fn(arguments, chunk);
    parallel_for(plan_.chunks, [&](int64_t c) { code_.fn(arguments, c); });
    const auto* parts = static_cast<const float*>(scratch);
    auto* sum = static_cast<float*>(buffers[result_]);
    for (int64_t i = 0; i < weights_; ++i) sum[i] = parts[i];
    for (int64_t g = 1; g < plan_.groups; ++g)
      for (int64_t i = 0; i < weights_; ++i) sum[i] += parts[g * weights_ + i];
  }

 private:
  BatchConvPlan plan_;
  int64_t weights_;  // of the sums of a group
  CompiledKernel code_;
  int a_, b_, bias_, result_;
};

}  // namespace

bool wants_batch_blocks(const ConvSpec& s) {
  constexpr int64_t few = 16, most = 32;  // above these the library's blocks of channels are as good
  return s.channels < few && s.features <= most && refuse_shape(s).empty();
}

kernel::Verdict refuse_batch_conv(const ContractionCall& call) {
  const auto refuse = [](std::string why) { return Refusal{"batch conv", std::move(why)}; };
  const auto* s = std::get_if<ConvSpec>(&call.spec);
  if (!s || s->x_layout != Layout::batch_blocked || s->y_layout != Layout::batch_blocked)
    return refuse("not in batch blocks");
  if (std::string why = refuse_shape(*s); !why.empty()) return refuse(std::move(why));
  if (s->block != cpu_features().lanes()) return refuse("blocks of another size than the vectors");
  const bool only_relu = s->posts.empty() || s->posts == std::vector<Post>{Post::relu};
  if (!only_relu) return refuse("an epilogue other than bias and relu");
  if (s->kind != ConvKind::forward && (s->bias || call.relu)) return refuse("a gradient with an epilogue");
  return {};
}

std::variant<std::unique_ptr<Kernel>, Refusal> make_batch_conv_kernel(const ContractionCall& call,
                                                                      int inputs) {
  if (auto refused = refuse_batch_conv(call)) return *refused;
  const BatchConv conv = batch_conv(std::get<ConvSpec>(call.spec));
  return std::make_unique<BatchConvKernel>(conv, plan_batch_conv(conv, cpu_features()), call, inputs);
}

}  // namespace espalier::target::cpu

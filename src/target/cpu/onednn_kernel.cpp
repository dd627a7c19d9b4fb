#include "target/cpu/onednn_kernel.h"

#include "target/pack_store.h"

namespace espalier::target::cpu {

namespace {

using onednn::Call;
using onednn::ConvSpec;
using onednn::DotSpec;

class OneDnnKernel : public Kernel {
 public:
  OneDnnKernel(std::unique_ptr<Call> call, const ContractionCall& match, int inputs,
               std::shared_ptr<const Packed> packed)
      : call_(std::move(call)),
        name_("onednn " + call_->name()),
        a_(match.a),
        b_(match.b),
        bias_(match.bias),
        residual_(match.residual),
        result_(inputs),
        channels_(match.channels),
        packed_(std::move(packed)) {}

  std::string_view name() const override { return name_; }
  int64_t chunks() const override { return call_->chunks(); }
  int64_t scratch_bytes() const override { return call_->scratch_bytes(); }
  bool reads(int operand) const override { return !(packed_ && operand == b_ && operand != a_); }
  int64_t packed_bytes() const override { return packed_ ? packed_->bytes() : 0; }
  std::vector<InPlace> in_place() const override {
    if (residual_ < 0) return {};
    return {{0, residual_}};
  }

  void run(void* const* buffers, void* scratch, int64_t chunk) const override {
    const void* channels[max_channels];
    for (size_t i = 0; i < channels_.size(); ++i) channels[i] = buffers[channels_[i]];
    onednn::CallArgs args;
    args.a = buffers[a_];
    args.b = packed_ ? nullptr : buffers[b_];
    args.bias = bias_ >= 0 ? buffers[bias_] : nullptr;
    args.channels = {channels, channels_.size()};
    args.packed = packed_ ? packed_->data() : nullptr;
    args.residual = residual_ >= 0 ? buffers[residual_] : nullptr;
    args.result = buffers[result_];
    args.scratch = scratch;
    call_->run(args, chunk);
  }

  static constexpr size_t max_channels = 8;

 private:
  std::unique_ptr<Call> call_;
  std::string name_;
  int a_, b_, bias_, residual_, result_;
  std::vector<int> channels_;
  std::shared_ptr<const Packed> packed_;
};

onednn::PreparedCall prepare(ConvSpec& s, bool exact) {
  s.winograd = onednn::advise_conv(s, exact).winograd;
  onednn::PreparedCall call = onednn::prepare_conv(s);
  if (std::holds_alternative<onednn::Declined>(call) && s.winograd != onednn::Winograd::none) {
    s.winograd = onednn::Winograd::none;
    call = onednn::prepare_conv(s);
  }
  return call;
}
onednn::PreparedCall prepare(DotSpec& s, bool) { return onednn::prepare_dot(s); }

}  // namespace

std::variant<std::unique_ptr<Kernel>, kernel::Refusal> make_onednn_kernel(
    ContractionCall match, int inputs, std::span<const ir::Array* const> constants, bool exact) {
  if (match.channels.size() > OneDnnKernel::max_channels)
    return kernel::Refusal{"onednn", "too many channel vectors"};
  onednn::PreparedCall prepared = std::visit([&](auto& s) { return prepare(s, exact); }, match.spec);
  if (const auto* declined = std::get_if<onednn::Declined>(&prepared))
    return kernel::Refusal{"onednn", declined->reason};
  auto& call = std::get<std::unique_ptr<Call>>(prepared);
  std::shared_ptr<const Packed> packed;
  if (call->packed_bytes() > 0) {
    const ir::Array& weights = *constants[static_cast<size_t>(match.b)];
    packed = target::packed(weights, "onednn " + call->packing(), call->packed_bytes(),
                            [&](void* to) { call->pack(weights.data(), to); });
  }
  return std::make_unique<OneDnnKernel>(std::move(call), match, inputs, std::move(packed));
}

}  // namespace espalier::target::cpu

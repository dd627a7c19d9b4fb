#pragma once
// A target of a few f32 ops, written plainly: it allocates nothing, runs in chunks and in place. What tests of the executor
// need and the reference does not give.
#include <cmath>
#include <memory>
#include <vector>

#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "target/interface.h"

namespace espalier::test {

using PlainFn = float (*)(float, float);

class PlainKernel final : public target::Kernel {
 public:
  PlainKernel(const ir::Node& n, PlainFn fn, bool reduce)
      : fn_(fn),
        reduce_(reduce),
        operands_(n.inputs().size()),
        in_(n.inputs().empty() ? 0 : n.input(0).type().elements()),
        out_(n.types()[0].elements()) {}
  std::string_view name() const override { return "plain"; }
  int64_t chunks() const override { return reduce_ ? 1 : std::max<int64_t>(1, (out_ + piece - 1) / piece); }
  int64_t scratch_bytes() const override { return reduce_ ? 256 : 0; }
  std::vector<target::InPlace> in_place() const override {
    std::vector<target::InPlace> pairs;
    if (!reduce_ && in_ == out_)
      for (size_t i = 0; i < operands_; ++i) pairs.push_back({0, static_cast<int>(i)});
    return pairs;
  }
  void run(void* const* buffers, void* scratch, int64_t chunk) const override {
    const auto* a = static_cast<const float*>(buffers[0]);
    const auto* b = static_cast<const float*>(buffers[operands_ - 1]);
    auto* out = static_cast<float*>(buffers[operands_]);
    if (reduce_) {
      auto* sum = static_cast<float*>(scratch);
      for (int lane = 0; lane < 64; ++lane) sum[lane] = 0;
      for (int64_t i = 0; i < in_; ++i) sum[i % 64] += a[i];
      float all = 0;
      for (int lane = 0; lane < 64; ++lane) all += sum[lane];
      out[0] = all;
      return;
    }
    for (int64_t i = chunk * piece; i < std::min(out_, (chunk + 1) * piece); ++i)
      out[i] = in_ == out_ ? fn_(a[i], b[i]) : a[0];
  }

 private:
  static constexpr int64_t piece = 16;
  PlainFn fn_;
  bool reduce_;
  size_t operands_;
  int64_t in_, out_;
};

class PlainTarget final : public target::Target {
  class Spec final : public kernel::TargetSpec {
   public:
    std::string_view name() const override { return "plain"; }
    bool claims(const ir::Node&) const override { return false; }
    kernel::Verdict accepts(kernel::FusionKind, const ir::Graph&, std::span<const char>,
                            bool) const override {
      return kernel::Refusal{"plain", "no fusion"};
    }
    kernel::ConvChoice conv_choice(const ir::Node&) const override { return {}; }
    ir::Dtype fast_dtype() const override { return ir::Dtype::f32; }
    int64_t cache_bytes() const override { return 1 << 20; }
  };

 public:
  const kernel::TargetSpec& spec() const override { return spec_; }
  target::Prepared prepare(const ir::Node& n, std::span<const ir::Array* const>,
                           const target::PrepareOptions&) const override {
    const bool reduce = &n.op() == &op::reduce_sum_op;
    ESPALIER_CHECK(!reduce || n.types()[0].elements() == 1, "the plain target sums all axes");
    return {std::make_unique<PlainKernel>(n, function(n), reduce), {}};
  }

 private:
  static PlainFn function(const ir::Node& n) {
    const ir::OpDef* op = &n.op();
    if (op == &op::neg_op) return [](float a, float) { return -a; };
    if (op == &op::tanh_op) return [](float a, float) { return std::tanh(a); };
    if (op == &op::relu_op) return [](float a, float) { return a > 0 ? a : 0; };
    if (op == &op::add_op) return [](float a, float b) { return a + b; };
    if (op == &op::sub_op) return [](float a, float b) { return a - b; };
    if (op == &op::mul_op) return [](float a, float b) { return a * b; };
    ESPALIER_CHECK(op == &op::broadcast_to_op || op == &op::reduce_sum_op,
                   "the plain target has no " + std::string(op->name));
    return nullptr;
  }
  Spec spec_;
};

inline const target::Target& plain_target() {
  static const PlainTarget target;
  return target;
}

}  // namespace espalier::test

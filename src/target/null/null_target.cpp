#include "target/null/null_target.h"

#include "kernel/lower.h"

namespace espalier::target::null {

namespace {

using kernel::FusionKind;

class NullSpec final : public kernel::TargetSpec {
 public:
  std::string_view name() const override { return "null"; }
  bool claims(const ir::Node&) const override { return false; }
  kernel::Verdict accepts(FusionKind, const ir::Graph&, std::span<const char>, bool) const override {
    return {};
  }
  kernel::ConvChoice conv_choice(const ir::Node&) const override { return {}; }
  ir::Dtype fast_dtype() const override { return ir::Dtype::bf16; }
  int64_t cache_bytes() const override { return 1 << 20; }
};

/// What the loop nests of `node` would need, or nothing where there are none.
class NullKernel final : public Kernel {
 public:
  explicit NullKernel(const ir::Node& node) {
    const ir::Graph* fused = kernel::fusion_body(node);
    if (fused && node.attrs<kernel::FusionAttrs>().kind != FusionKind::loops) return;
    const auto nests = kernel::lower(kernel::body_of(node));
    const auto* lowered = std::get_if<kernel::Lowered>(&nests);
    if (!lowered) return;
    scratch_bytes_ = lowered->scratch_bytes();
    for (int r = 0; r < node.results(); ++r)
      for (int i = 0; i < static_cast<int>(node.inputs().size()); ++i)
        if (kernel::can_share(*lowered, r, i)) in_place_.push_back({r, i});
  }
  std::string_view name() const override { return "null"; }
  int64_t scratch_bytes() const override { return scratch_bytes_; }
  void run(void* const*, void*, int64_t) const override {}
  std::vector<InPlace> in_place() const override { return in_place_; }

 private:
  std::vector<InPlace> in_place_;
  int64_t scratch_bytes_ = 0;
};

class NullTarget final : public Target {
 public:
  const kernel::TargetSpec& spec() const override { return spec_; }
  Prepared prepare(const ir::Node& node, std::span<const ir::Array* const>,
                   const PrepareOptions&) const override {
    return {std::make_unique<NullKernel>(node), {}};
  }

 private:
  NullSpec spec_;
};

}  // namespace

const Target& null_target() {
  static const NullTarget target;
  return target;
}

}  // namespace espalier::target::null

#include "target/null/null_target.h"

namespace espalier::target::null {

namespace {

using kernel::FusionKind;

class NullSpec final : public kernel::TargetSpec {
 public:
  std::string_view name() const override { return "null"; }
  bool claims(const ir::Node&) const override { return false; }
  kernel::Verdict accepts(FusionKind, const ir::Graph&, std::span<const char>) const override { return {}; }
  kernel::ConvChoice conv_choice(const ir::Node&) const override { return {}; }
  ir::Dtype fast_dtype() const override { return ir::Dtype::bf16; }
  int64_t cache_bytes() const override { return 1 << 20; }
};

/// Pointwise work may be done in place wherever a result has an operand's type.
std::vector<InPlace> pointwise_in_place(const ir::Node& node) {
  const ir::Graph* body = kernel::fusion_body(node);
  if (body && node.attrs<kernel::FusionAttrs>().kind != FusionKind::loops) return {};
  if (body)
    for (const ir::Node* n : body->nodes())
      if (n->op().kind != ir::Kind::elementwise && n->op().kind != ir::Kind::leaf) return {};
  if (!body && node.op().kind != ir::Kind::elementwise) return {};
  std::vector<InPlace> pairs;
  for (int r = 0; r < node.results(); ++r)
    for (size_t i = 0; i < node.inputs().size(); ++i)
      if (node.inputs()[i].type() == node.types()[static_cast<size_t>(r)]) pairs.push_back({r, static_cast<int>(i)});
  return pairs;
}

class NullKernel final : public Kernel {
 public:
  explicit NullKernel(std::vector<InPlace> in_place) : in_place_(std::move(in_place)) {}
  std::string_view name() const override { return "null"; }
  void run(void* const*, void*, int64_t) const override {}
  std::vector<InPlace> in_place() const override { return in_place_; }

 private:
  std::vector<InPlace> in_place_;
};

class NullTarget final : public Target {
 public:
  const kernel::TargetSpec& spec() const override { return spec_; }
  Prepared prepare(const ir::Node& node, std::span<const ir::Array* const>, const PrepareOptions&) const override {
    return {std::make_unique<NullKernel>(pointwise_in_place(node)), {}};
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

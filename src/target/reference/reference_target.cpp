#include "target/reference/reference_target.h"

#include <cstring>

#include "target/reference/interpreter.h"

namespace espalier::target::reference {

namespace {

class ReferenceSpec final : public kernel::TargetSpec {
 public:
  std::string_view name() const override { return "reference"; }
  bool claims(const ir::Node&) const override { return true; }
  kernel::Verdict accepts(kernel::FusionKind, const ir::Graph&, std::span<const char>, bool) const override {
    return kernel::Refusal{"reference", "runs op by op"};
  }
  kernel::ConvChoice conv_choice(const ir::Node&) const override { return {}; }
  ir::Dtype fast_dtype() const override { return ir::Dtype::f32; }
  int64_t cache_bytes() const override { return 1 << 20; }
};

class ReferenceKernel final : public Kernel {
 public:
  explicit ReferenceKernel(const ir::Node& node) : node_(node.value(0)) {}
  std::string_view name() const override { return "reference"; }

  void run(void* const* buffers, void*, int64_t) const override {
    std::vector<ir::Array> operands;
    for (const ir::Value& v : node_->inputs())
      operands.push_back(ir::Array::borrow(v.dtype(), ir::static_dims(v.dims()), *buffers++, nullptr));
    std::vector<ir::Array> results = evaluate_node(node_.node(), operands);
    for (ir::Array& result : results) result = detached(result, operands);
    for (const ir::Array& result : results) {
      if (result.bytes() > 0) std::memcpy(*buffers, result.data(), static_cast<size_t>(result.bytes()));
      ++buffers;
    }
  }

  /// All results exist before the first is written.
  std::vector<InPlace> in_place() const override {
    std::vector<InPlace> pairs;
    for (int r = 0; r < node_->results(); ++r)
      for (size_t i = 0; i < node_->inputs().size(); ++i)
        if (node_->inputs()[i].type().bytes() == node_->types()[static_cast<size_t>(r)].bytes())
          pairs.push_back({r, static_cast<int>(i)});
    return pairs;
  }

 private:
  /// `result`, copied where it shares the bytes of an operand, which may be overwritten.
  static ir::Array detached(const ir::Array& result, const std::vector<ir::Array>& operands) {
    const auto* at = static_cast<const char*>(result.data());
    for (const ir::Array& o : operands) {
      const auto* from = static_cast<const char*>(o.data());
      if (o.bytes() == 0 || at < from || at >= from + o.bytes()) continue;
      ir::Array copy(result.dtype(), result.dims());
      std::memcpy(copy.write(), at, static_cast<size_t>(result.bytes()));
      return copy;
    }
    return result;
  }

  ir::Value node_;
};

class ReferenceTarget final : public Target {
 public:
  const kernel::TargetSpec& spec() const override { return spec_; }
  Prepared prepare(const ir::Node& node, std::span<const ir::Array* const>,
                   const PrepareOptions&) const override {
    return {reference_kernel(node), {}};
  }

 private:
  ReferenceSpec spec_;
};

}  // namespace

const Target& reference_target() {
  static const ReferenceTarget target;
  return target;
}

std::unique_ptr<Kernel> reference_kernel(const ir::Node& node) {
  return std::make_unique<ReferenceKernel>(node);
}

}  // namespace espalier::target::reference

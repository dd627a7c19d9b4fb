#include "target/cuda/cuda_target.h"

#include <array>

#include "target/cuda/arch.h"
#include "target/cuda/call_kernel.h"
#include "target/cuda/kernels/contraction.h"
#include "target/cuda/kernels/scatter.h"

namespace espalier::target::cuda {

namespace {

using kernel::FusionKind;
using kernel::Refusal;

class CudaSpec final : public kernel::TargetSpec {
 public:
  explicit CudaSpec(const Arch& arch) : arch_(arch) {}
  std::string_view name() const override { return "cuda"; }
  std::string machine() const override { return "cuda sm_" + std::to_string(arch_.capability); }
  bool claims(const ir::Node&) const override { return false; }

  kernel::Verdict accepts(FusionKind kind, const ir::Graph& body, std::span<const char>,
                          bool) const override {
    if (kind == FusionKind::contraction)
      return Refusal{"cuda", "no kernel for a contraction with an epilogue"};
    auto made = loop_calls(body);
    const Refusal* r = std::get_if<Refusal>(&made);
    return r ? kernel::Verdict(*r) : std::nullopt;
  }

  kernel::ConvChoice conv_choice(const ir::Node&) const override { return {}; }
  int64_t arena_alignment() const override { return 256; }
  ir::Dtype fast_dtype() const override { return ir::Dtype::bf16; }
  int64_t cache_bytes() const override {
    return int64_t{40} << 20;
  }  // the L2 cache of the smallest of `arches` that trains

 private:
  const Arch& arch_;
};

using Made = std::variant<CallList, Refusal>;

/// What a node's kernel may be, best first.
constexpr Made (*entries[])(const ir::Node& node, const ir::Graph& body, const MapOptions& map) = {
    [](const ir::Node&, const ir::Graph& body, const MapOptions& map) { return loop_calls(body, map); },
    [](const ir::Node& node, const ir::Graph&, const MapOptions& map) {
      return scatter_calls(node, {.map = map});
    },
    [](const ir::Node& node, const ir::Graph&, const MapOptions& map) {
      return contraction_calls(node, {.map = map});
    },
};

class CudaTarget final : public Target {
 public:
  explicit CudaTarget(const Arch& arch) : spec_(arch) {}
  const kernel::TargetSpec& spec() const override { return spec_; }
  bool nests_bodies() const override { return true; }

  Prepared prepare(const ir::Node& node, std::span<const ir::Array* const>,
                   const PrepareOptions& options) const override {
    const ir::Graph body = kernel::body_of(node);
    const MapOptions map{.alignment = {options.alignment.begin(), options.alignment.end()}};
    Prepared out;
    for (const auto entry : entries) {
      Made made = entry(node, body, map);
      if (auto* list = std::get_if<CallList>(&made)) {
        out.kernel = make_call_kernel(std::move(*list));
        break;
      }
      out.refusals.push_back(std::move(std::get<Refusal>(made)));
    }
    return out;
  }

 private:
  CudaSpec spec_;
};

}  // namespace

const Arch& arch_of(int capability) {
  const Arch* best = nullptr;
  for (const Arch& a : arches)
    if (a.capability <= capability) best = &a;
  if (!best)
    throw UserError({"device of compute capability " + std::to_string(capability), "is too old",
                     "sm_" + std::to_string(capability), "sm_80 or newer"});
  return *best;
}

const Target& cuda_target(int capability) {
  static const auto targets = [] {
    std::array<std::unique_ptr<CudaTarget>, std::size(arches)> all;
    for (size_t i = 0; i < all.size(); ++i) all[i] = std::make_unique<CudaTarget>(arches[i]);
    return all;
  }();
  return *targets[static_cast<size_t>(&arch_of(capability) - arches)];
}

}  // namespace espalier::target::cuda

#include "target/cuda/cuda_target.h"

#include <array>

#include "op/contraction.h"
#include "target/cuda/arch.h"
#include "target/cuda/call_kernel.h"
#include "target/cuda/kernels/contraction.h"
#include "target/cuda/kernels/scatter.h"
#include "target/cuda/match/conv.h"
#include "target/cuda/match/gemm.h"

namespace espalier::target::cuda {

namespace {

using kernel::FusionKind;
using kernel::Refusal;

using Made = std::variant<CallList, Refusal>;

/// A contraction body as calls of a library.
Made library_calls(const ir::Graph& body, const GemmOptions& options) {
  if (&kernel::contraction_root(body).op() == &op::dot_op) return gemm_calls(body, options);
  return conv_calls(body, {.exact = options.exact,
                           .tf32 = options.tf32,
                           .alignment = {options.alignment.begin(), options.alignment.end()}});
}

class CudaSpec final : public kernel::TargetSpec {
 public:
  explicit CudaSpec(const Arch& arch) : arch_(arch) {}
  std::string_view name() const override { return "cuda"; }
  std::string machine() const override { return "cuda sm_" + std::to_string(arch_.capability); }
  bool claims(const ir::Node&) const override { return false; }

  kernel::Verdict accepts(FusionKind kind, const ir::Graph& body, std::span<const char> constant,
                          bool exact) const override {
    const auto made =
        kind == FusionKind::contraction
            ? library_calls(body, {.exact = exact, .tf32 = false, .constant = constant, .alignment = {}})
            : loop_calls(body);
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

/// What is to be prepared.
struct Request {
  const ir::Node& node;
  const ir::Graph& body;
  const PrepareOptions& options;
  MapOptions map;
};

bool has_contraction(const ir::Graph& body) {
  for (const ir::Node* n : body.nodes())
    if (n->op().kind == ir::Kind::contraction) return true;
  return false;
}

/// A fusion is what accepts() was asked about, frozen weights and all.
Made library(const Request& r) {
  const std::vector<char> constant(r.body.inputs.size(), kernel::fusion_body(r.node) ? 1 : 0);
  return library_calls(
      r.body,
      {.exact = r.options.exact, .tf32 = r.options.tf32, .constant = constant, .alignment = r.map.alignment});
}

/// What a node's kernel may be, best first: a library's, generated loops, kernels of our own.
constexpr Made (*entries[])(const Request&) = {
    library,
    [](const Request& r) { return loop_calls(r.body, r.map); },
    [](const Request& r) { return scatter_calls(r.node, {.map = r.map}); },
    [](const Request& r) { return contraction_calls(r.node, {.map = r.map}); },
};

class CudaTarget final : public Target {
 public:
  explicit CudaTarget(const Arch& arch) : spec_(arch) {}
  const kernel::TargetSpec& spec() const override { return spec_; }
  bool nests_bodies() const override { return true; }

  Prepared prepare(const ir::Node& node, std::span<const ir::Array* const>,
                   const PrepareOptions& options) const override {
    const ir::Graph body = kernel::body_of(node);
    const Request request{
        node, body, options, {.alignment = {options.alignment.begin(), options.alignment.end()}}};
    Prepared out;
    for (const auto entry : entries) {
      if (entry == library && !has_contraction(body)) continue;
      Made made = entry(request);
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

#include "target/cuda/cuda_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "kernel/nest_transform.h"
#include "op/contraction.h"
#include "target/cuda/arch.h"
#include "target/cuda/call_kernel.h"
#include "target/cuda/kernels/contraction.h"
#include "target/cuda/kernels/scatter.h"
#include "target/cuda/match/conv.h"
#include "target/cuda/match/gemm.h"
#include "target/cuda/match/product_table.h"

namespace espalier::target::cuda {

namespace {

using kernel::FusionKind;
using kernel::Refusal;

using Made = std::variant<CallList, Refusal>;

/// What is known of NVIDIA's libraries where a program is to run.
class Libraries {
 public:
  Libraries(MissingLibraries missing, const ProductTable* recorded)
      : missing_(std::move(missing)), recorded_(recorded) {
    if (!missing_.cublaslt.empty()) text_ += " without cublaslt";
    if (!missing_.cudnn.empty()) text_ += " without cudnn";
  }
  explicit Libraries(std::shared_ptr<Device> device) : device_(std::move(device)) {
    for (const DeviceLibrary& l : device_->libraries()) {
      if (l.name == "cublaslt") missing_.cublaslt = l.missing;
      if (l.name == "cudnn") missing_.cudnn = l.missing;
      text_ += l.missing.empty() ? fmt::format(" with {} {}", l.name, l.version) : " without " + l.name;
    }
  }

  /// Behind the name of the machine: where it is the same, so are the answers.
  const std::string& text() const { return text_; }
  const std::string& missing(bool product) const { return product ? missing_.cublaslt : missing_.cudnn; }
  /// A library that fails refuses: other kernels serve. OutOfMemory, and DeviceError where the device is lost.
  LibraryAnswer ask(const CallRecord::Work& work) const {
    if (!device_) return recorded_answer(recorded_, work);
    try {
      return device_->ask(work);
    } catch (const OutOfMemory&) {
      throw;
    } catch (const DeviceError& e) {
      if (e.lost()) throw;
      return {.refusal = e.what()};
    }
  }

 private:
  MissingLibraries missing_;
  const ProductTable* recorded_ = nullptr;  ///< null: nothing was
  std::shared_ptr<Device> device_;
  std::string text_;
};

/// What is asked of a library beside the body.
struct LibraryOptions {
  bool exact = false, tf32 = false;
  std::span<const char> constant{};
  std::span<const int64_t> alignment{};
  std::vector<std::string>* notes = nullptr;  ///< where there is something to say to people
};

/// A contraction body as calls of a library.
Made library_calls(const Libraries& libraries, const ir::Graph& body, const LibraryOptions& options) {
  const bool product = &kernel::contraction_root(body).op() == &op::dot_op;
  const std::string_view name = product ? "cublaslt" : "cudnn";
  if (const std::string& why = libraries.missing(product); !why.empty()) {
    if (options.notes)
      options.notes->push_back(
          fmt::format("{} is missing, kernels of our own take its place: {}", name, why));
    return Refusal{std::string(name), "it is missing: " + why};
  }
  const AskLibrary ask = [&](const CallRecord::Work& work) {
    LibraryAnswer answer = libraries.ask(work);
    if (answer.assumed && options.notes)
      options.notes->push_back(
          fmt::format("{} was not asked: its workspace is assumed to be {} bytes", name, answer.workspace));
    return answer;
  };
  if (product) {
    Made made = gemm_calls(body, {.exact = options.exact,
                                  .tf32 = options.tf32,
                                  .constant = options.constant,
                                  .alignment = options.alignment,
                                  .ask = ask});
    if (const auto* list = std::get_if<CallList>(&made); list && options.notes)
      for (const CallRecord& call : list->calls)
        if (const auto* gemm = std::get_if<GemmCall>(&call.work); gemm && gives_mask(gemm->epilogue))
          options.notes->emplace_back(
              "relu goes along with products in training and makes 0 of NaN; exact programs keep NaN");
    return made;
  }
  return conv_calls(body, {.exact = options.exact,
                           .tf32 = options.tf32,
                           .alignment = {options.alignment.begin(), options.alignment.end()},
                           .ask = ask});
}

/// A body that walks so many elements is for many threads; fewer rows than so many have too few.
constexpr int64_t much = 1 << 15, few_rows = 32;

/// Would a kernel walk much of the body by few threads, though its large parts alone have more that is done side by side? So it is where a number
/// is made of what rows gave.
std::optional<Refusal> too_few_rows(const ir::Graph& body, const kernel::Lowered& lowered) {
  const auto elements = [](const ir::Node& n) { return n.value().type().elements(); };
  const auto walked = [&](const ir::Node& n) {
    return n.op().kind == ir::Kind::reduction ? n.input(0).type().elements() : elements(n);
  };
  if (std::ranges::any_of(body.nodes(), [](const ir::Node* n) {
        return n->results() == 1 && !n->value().type().is_static();
      }))
    return std::nullopt;
  int64_t most = -1;  // that all large parts have
  for (const ir::Node* n : body.nodes())
    if (n->op().kind != ir::Kind::leaf && n->results() == 1 && walked(*n) >= much)
      most = most < 0 ? elements(*n) : std::min(most, elements(*n));
  if (most < few_rows) return std::nullopt;
  for (const kernel::LoopNest& nest : lowered.nests) {
    const int64_t side_by_side = kernel::points(nest, nest.outer);
    int64_t points = 0;
    for (const kernel::Stage& stage : nest.stages) points += side_by_side * kernel::points(nest, stage.loops);
    if (points >= much && side_by_side < few_rows)
      return Refusal{"loops", fmt::format("{} rows of a body whose parts have {}", side_by_side, most)};
  }
  return std::nullopt;
}

/// A fusion's loops, where a kernel of them is worth it.
Made fused_loops(const ir::Graph& body) {
  const auto made = kernel::lower(body, lower_options);
  if (const auto* refusal = std::get_if<Refusal>(&made)) return *refusal;
  const auto& lowered = std::get<kernel::Lowered>(made);
  if (auto few = too_few_rows(body, lowered)) return std::move(*few);
  return loop_calls(body, lowered);
}

class CudaSpec final : public kernel::TargetSpec {
 public:
  CudaSpec(const Arch& arch, const Libraries& libraries) : arch_(arch), libraries_(libraries) {}
  std::string_view name() const override { return "cuda"; }
  std::string machine() const override {
    return fmt::format("cuda sm_{}{}", arch_.capability, libraries_.text());
  }
  bool claims(const ir::Node&) const override { return false; }
  bool wide_epilogues() const override { return libraries_.missing(true).empty(); }

  kernel::Verdict accepts(FusionKind kind, const ir::Graph& body, std::span<const char> constant,
                          bool exact) const override {
    const auto made = kind == FusionKind::contraction
                          ? library_calls(libraries_, body, {.exact = exact, .constant = constant})
                      : kind == FusionKind::batch ? batch_calls(body)
                                                  : fused_loops(body);
    const Refusal* r = std::get_if<Refusal>(&made);
    return r ? kernel::Verdict(*r) : std::nullopt;
  }

  kernel::ConvChoice conv_choice(const ir::Node&) const override { return {}; }
  const kernel::BatchLimits* batching() const override {
    static constexpr kernel::BatchLimits limits;
    return &limits;
  }
  int64_t arena_alignment() const override { return 256; }
  ir::Dtype fast_dtype() const override { return ir::Dtype::bf16; }
  int64_t cache_bytes() const override {
    return int64_t{40} << 20;
  }  // the L2 cache of the smallest of `arches` that trains

 private:
  const Arch& arch_;
  const Libraries& libraries_;
};

/// What is to be prepared.
struct Request {
  const ir::Node& node;
  const ir::Graph& body;
  const PrepareOptions& options;
  const Libraries& libraries;
  const Arch& arch;
  std::span<const ir::Array* const> constants;
  MapOptions map;
  std::vector<std::string>& notes;
};

bool is_contraction(const Request& r) {
  for (const ir::Node* n : r.body.nodes())
    if (n->op().kind == ir::Kind::contraction) return true;
  return false;
}

/// TF32 is permitted, not asked for: what the library does not do in it, it may do in f32.
Made library(const Request& r) {
  std::vector<char> constant;
  for (const ir::Array* array : r.constants) constant.push_back(array != nullptr);
  LibraryOptions options{.exact = r.options.exact,
                         .tf32 = r.options.tf32,
                         .constant = constant,
                         .alignment = r.map.alignment,
                         .notes = &r.notes};
  Made made = library_calls(r.libraries, r.body, options);
  const bool product = &kernel::contraction_root(r.body).op() == &op::dot_op;
  if (!options.tf32 || !std::holds_alternative<Refusal>(made) || !r.libraries.missing(product).empty())
    return made;
  options.tf32 = false;
  return library_calls(r.libraries, r.body, options);
}

/// A product where tiles pay: fewer rows or columns are sums, which loops compute as well.
bool is_wide_product(const Request& r) {
  constexpr int64_t tile = 16;
  if (&r.node.op() != &op::dot_op) return false;
  const auto read = contraction_of(r.node);
  const auto* c = std::get_if<Contraction>(&read);
  return c && c->points(c->rows) >= tile && c->points(c->columns) >= tile && c->points(c->folded) > 0;
}

Made by_hand(const Request& r) {
  return contraction_calls(r.node, {.map = r.map, .shared_limit = r.arch.shared_per_block});
}

struct Entry {
  bool (*is_for)(const Request&);
  Made (*make)(const Request&);
};

bool is_any(const Request&) { return true; }

bool is_batch(const Request& r) {
  return kernel::fusion_body(r.node) && r.node.attrs<kernel::FusionAttrs>().kind == FusionKind::batch;
}

/// What a node's kernel may be, best first: a library's, generated loops, kernels of our own.
constexpr Entry entries[] = {
    {is_contraction, library},
    {is_wide_product, by_hand},
    {is_batch, [](const Request& r) { return batch_calls(r.body, r.map); }},
    {is_any, [](const Request& r) { return loop_calls(r.body, r.map); }},
    {is_any, [](const Request& r) { return scatter_calls(r.node, {.map = r.map}); }},
    {is_any, by_hand},
};

class CudaTarget final : public Target {
 public:
  CudaTarget(const Arch& arch, Libraries libraries)
      : arch_(arch), libraries_(std::move(libraries)), spec_(arch, libraries_) {}
  CudaTarget(const CudaTarget&) = delete;
  CudaTarget& operator=(const CudaTarget&) = delete;
  const kernel::TargetSpec& spec() const override { return spec_; }
  bool nests_bodies() const override { return true; }

  Prepared prepare(const ir::Node& node, std::span<const ir::Array* const> constants,
                   const PrepareOptions& options) const override {
    const ir::Graph body = kernel::body_of(node);
    Prepared out;
    const Request request{.node = node,
                          .body = body,
                          .options = options,
                          .libraries = libraries_,
                          .arch = arch_,
                          .constants = constants,
                          .map = {.alignment = {options.alignment.begin(), options.alignment.end()}},
                          .notes = out.notes};
    for (const Entry& entry : entries) {
      if (!entry.is_for(request)) continue;
      Made made = entry.make(request);
      if (auto* list = std::get_if<CallList>(&made)) {
        out.kernel = make_call_kernel(std::move(*list));
        break;
      }
      out.refusals.push_back(std::move(std::get<Refusal>(made)));
    }
    return out;
  }

 private:
  const Arch& arch_;
  const Libraries libraries_;
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

const Target& cuda_target(int capability, const MissingLibraries& missing) {
  const Arch& arch = arch_of(capability);
  static std::mutex one;
  static std::map<std::tuple<int, std::string, std::string>, std::unique_ptr<const CudaTarget>> all;
  const std::lock_guard lock(one);
  auto& made = all[{arch.capability, missing.cublaslt, missing.cudnn}];
  if (!made)
    made = std::make_unique<const CudaTarget>(arch, Libraries(missing, recorded_products(arch.capability)));
  return *made;
}

std::shared_ptr<const Target> cuda_target(std::shared_ptr<Device> device) {
  const std::optional<int64_t> capability = device->info().capability;
  if (!capability)
    throw UserError({"a plan for a device", "its driver does not tell its compute capability", "", ""});
  const Arch& arch = arch_of(static_cast<int>(*capability));
  return std::make_shared<const CudaTarget>(arch, Libraries(std::move(device)));
}

}  // namespace espalier::target::cuda

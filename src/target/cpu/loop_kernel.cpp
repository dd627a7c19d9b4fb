#include "target/cpu/loop_kernel.h"

#include "base/align.h"
#include "base/threads.h"
#include "target/cpu/compile.h"

namespace espalier::target::cpu {

namespace {

using kernel::Role;

std::vector<InPlace> shared_buffers(const kernel::Lowered& lowered, int inputs, int outputs) {
  std::vector<InPlace> out;
  for (int o = 0; o < outputs; ++o)
    for (int i = 0; i < inputs; ++i)
      if (kernel::can_share(lowered, o, i)) out.push_back({o, i});
  return out;
}

class OneNest : public Kernel {
 public:
  OneNest(CompiledKernel compiled, std::vector<InPlace> in_place)
      : compiled_(std::move(compiled)), in_place_(std::move(in_place)) {}
  std::string_view name() const override { return "loops"; }
  int64_t chunks() const override { return compiled_.chunks; }
  void run(void* const* buffers, void*, int64_t chunk) const override { compiled_.fn(buffers, chunk); }
  std::vector<InPlace> in_place() const override { return in_place_; }

 private:
  CompiledKernel compiled_;
  std::vector<InPlace> in_place_;
};

/// Nests that need each other's results: run one after the other, each on the pool.
class SeveralNests : public Kernel {
 public:
  SeveralNests(std::vector<CompiledKernel> nests, const kernel::Lowered& lowered, int outer,
               std::vector<InPlace> in_place)
      : nests_(std::move(nests)), outer_(outer), in_place_(std::move(in_place)) {
    int64_t at = 0;
    for (size_t b = static_cast<size_t>(outer); b < lowered.buffers.size(); ++b) {
      if (lowered.buffers[b].role != Role::scratch) continue;
      offsets_.push_back(at);
      at += whole_lines(lowered.buffers[b].elements * ir::dtype_size(lowered.buffers[b].dtype));
    }
    scratch_bytes_ = at;
    ESPALIER_CHECK(static_cast<size_t>(outer_) + offsets_.size() <= max_buffers,
                   "loops with too many buffers");
  }
  std::string_view name() const override { return "loops"; }
  int64_t scratch_bytes() const override { return scratch_bytes_; }
  std::vector<InPlace> in_place() const override { return in_place_; }
  void run(void* const* buffers, void* scratch, int64_t) const override {
    void* all[max_buffers];
    for (int i = 0; i < outer_; ++i) all[i] = buffers[i];
    for (size_t i = 0; i < offsets_.size(); ++i)
      all[static_cast<size_t>(outer_) + i] = static_cast<char*>(scratch) + offsets_[i];
    for (const CompiledKernel& k : nests_) {
      if (k.chunks == 1) k.fn(all, 0);
      else parallel_for(k.chunks, [&](int64_t chunk) { k.fn(all, chunk); });
    }
  }

 private:
  static constexpr size_t max_buffers = 128;
  std::vector<CompiledKernel> nests_;
  int outer_;
  std::vector<int64_t> offsets_;
  int64_t scratch_bytes_ = 0;
  std::vector<InPlace> in_place_;
};

/// Nothing to compute: every result is empty.
class Nothing : public Kernel {
 public:
  std::string_view name() const override { return "nothing"; }
  void run(void* const*, void*, int64_t) const override {}
};

}  // namespace

std::unique_ptr<Kernel> make_loop_kernel(const ir::Graph& body, const kernel::Lowered& lowered) {
  const auto inputs = static_cast<int>(body.inputs.size()), outputs = static_cast<int>(body.outputs.size());
  std::vector<CompiledKernel> compiled = compile(std::span(lowered.nests));
  std::erase_if(compiled, [](const CompiledKernel& k) { return k.fn == nullptr || k.chunks == 0; });
  if (compiled.empty()) return std::make_unique<Nothing>();
  std::vector<InPlace> in_place = shared_buffers(lowered, inputs, outputs);
  if (compiled.size() == 1 && lowered.buffers.size() == body.inputs.size() + body.outputs.size())
    return std::make_unique<OneNest>(std::move(compiled[0]), std::move(in_place));
  return std::make_unique<SeveralNests>(std::move(compiled), lowered, inputs + outputs, std::move(in_place));
}

}  // namespace espalier::target::cpu

#include "target/cuda/call_kernel.h"

#include "base/align.h"

namespace espalier::target::cuda {

namespace {

class CallKernel final : public Kernel {
 public:
  explicit CallKernel(CallList list) : list_(std::move(list)) {}
  std::string_view name() const override { return list_.name; }
  int64_t scratch_bytes() const override { return list_.scratch_bytes; }
  void run(void* const*, void*, int64_t) const override {
    ESPALIER_CHECK(false, "a step of a device was run on the host");
  }
  bool on_device() const override { return true; }
  std::span<const CallRecord> calls() const override { return list_.calls; }
  std::span<const KernelSource> sources() const override { return list_.sources; }
  std::vector<InPlace> in_place() const override { return list_.in_place; }

 private:
  CallList list_;
};

}  // namespace

std::unique_ptr<Kernel> make_call_kernel(CallList list) {
  return std::make_unique<CallKernel>(std::move(list));
}

std::variant<CallList, kernel::Refusal> loop_calls(const ir::Graph& body, const MapOptions& options) {
  auto made = kernel::lower(body, lower_options);
  if (const auto* refusal = std::get_if<kernel::Refusal>(&made)) return *refusal;
  const auto& lowered = std::get<kernel::Lowered>(made);
  auto emitted = emit(lowered, options);
  if (const auto* refusal = std::get_if<kernel::Refusal>(&emitted)) return *refusal;

  CallList out{
      .name = "loops", .calls = {}, .sources = {}, .scratch_bytes = lowered.scratch_bytes(), .in_place = {}};
  const auto inputs = static_cast<int>(body.inputs.size()), outputs = static_cast<int>(body.outputs.size());
  std::vector<Operand> place;  // of each buffer of the nests
  int64_t at = 0;
  for (int b = 0; b < static_cast<int>(lowered.buffers.size()); ++b) {
    const kernel::Buffer& buffer = lowered.buffers[static_cast<size_t>(b)];
    place.push_back(b < inputs + outputs ? Operand{b, 0} : Operand{inputs + outputs, at});
    if (b >= inputs + outputs && buffer.role == kernel::Role::scratch)
      at += whole_lines(buffer.elements * ir::dtype_size(buffer.dtype));
  }
  for (Emitted& e : std::get<std::vector<Emitted>>(emitted)) {
    CallRecord call{.work = std::move(e.call), .operands = {}, .cost = {}};
    for (const int b : e.operands) call.operands.push_back(place[static_cast<size_t>(b)]);
    call.cost = {.bytes = e.bytes, .flops = static_cast<double>(e.operations)};
    out.calls.push_back(std::move(call));
    out.sources.push_back(std::move(e.source));
  }
  for (int o = 0; o < outputs; ++o)
    for (int i = 0; i < inputs; ++i)
      if (kernel::can_share(lowered, o, i)) out.in_place.push_back({o, i});
  return out;
}

}  // namespace espalier::target::cuda

#include "target/cuda/call_kernel.h"

#include <set>
#include <unordered_map>

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
  return loop_calls(body, std::get<kernel::Lowered>(made), options);
}

std::variant<CallList, kernel::Refusal> loop_calls(const ir::Graph& body, const kernel::Lowered& lowered,
                                                   const MapOptions& options) {
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
  std::set<std::pair<int, int>> apart;
  for (Emitted& e : std::get<std::vector<Emitted>>(emitted)) {
    apart.insert(e.apart.begin(), e.apart.end());
    CallRecord call{.work = std::move(e.call), .operands = {}, .cost = {}};
    for (const int b : e.operands) call.operands.push_back(place[static_cast<size_t>(b)]);
    call.cost = {.bytes = e.bytes, .flops = static_cast<double>(e.operations)};
    out.calls.push_back(std::move(call));
    out.sources.push_back(std::move(e.source));
  }
  for (int o = 0; o < outputs; ++o)
    for (int i = 0; i < inputs; ++i)
      if (kernel::can_share(lowered, o, i) && !apart.contains({inputs + o, i}))
        out.in_place.push_back({o, i});
  return out;
}

namespace {

/// A batch's fusions with their nests, and which of its operands their buffers are: inputs, then outputs.
struct Members {
  std::vector<BatchMember> list;
  std::vector<InPlace> in_place;
};

std::variant<Members, kernel::Refusal> members_of(const ir::Graph& body) {
  std::unordered_map<ir::Value, int, ir::ValueHash> place;
  std::unordered_map<int, int> readers;
  for (const ir::Value& v : body.inputs) place.emplace(v, static_cast<int>(place.size()));
  for (const ir::Output& o : body.outputs) place.emplace(o.value, static_cast<int>(place.size()));
  Members out;
  for (const ir::Node* n : body.nodes()) {
    if (n->op().kind == ir::Kind::leaf) continue;
    const ir::Graph* inner = kernel::fusion_body(*n);
    if (!inner) return kernel::Refusal{"batch", "a member that is no fusion"};
    auto made = kernel::lower(*inner, lower_options);
    if (const auto* refusal = std::get_if<kernel::Refusal>(&made)) return *refusal;
    const auto& lowered = std::get<kernel::Lowered>(made);
    if (lowered.nests.size() != 1) return kernel::Refusal{"batch", "a member of several nests"};
    std::vector<int> buffers;
    for (const ir::Value& v : n->inputs()) ++readers[buffers.emplace_back(place.at(v))];
    for (int r = 0; r < n->results(); ++r) buffers.push_back(place.at(n->value(r)));
    const auto inputs = static_cast<int>(n->inputs().size());
    for (int r = 0; r < n->results(); ++r)
      for (int i = 0; i < inputs; ++i)
        if (kernel::can_share(lowered, r, i))
          out.in_place.push_back(
              {place.at(n->value(r)) - static_cast<int>(body.inputs.size()), place.at(n->input(i))});
    out.list.push_back({lowered.nests[0], std::move(buffers)});
  }
  std::erase_if(out.in_place, [&](const InPlace& p) { return readers[p.operand] > 1; });
  return out;
}

}  // namespace

std::variant<CallList, kernel::Refusal> batch_calls(const ir::Graph& body, const MapOptions& options) {
  auto read = members_of(body);
  if (const auto* refusal = std::get_if<kernel::Refusal>(&read)) return *refusal;
  auto& members = std::get<Members>(read);
  auto emitted = emit_batch(members.list, options);
  if (const auto* refusal = std::get_if<kernel::Refusal>(&emitted)) return *refusal;
  auto& e = std::get<Emitted>(emitted);
  CallList out{.name = "batch",
               .calls = {},
               .sources = {},
               .scratch_bytes = 0,
               .in_place = std::move(members.in_place)};
  CallRecord call{.work = std::move(e.call), .operands = {}, .cost = {}};
  for (const int b : e.operands) call.operands.push_back({b, 0});
  call.cost = {.bytes = e.bytes, .flops = static_cast<double>(e.operations)};
  out.calls.push_back(std::move(call));
  out.sources.push_back(std::move(e.source));
  return out;
}

}  // namespace espalier::target::cuda

#include "target/call.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace espalier::target {

namespace {

std::string grid_text(const Grid& g) {
  std::string text = std::to_string(g.x);
  if (g.y != 1 || g.z != 1) text += fmt::format(",{}", g.y);
  if (g.z != 1) text += fmt::format(",{}", g.z);
  return text;
}

std::string work_text(const KernelCall& c) {
  std::string text = fmt::format("launch {} {} x {}", c.kernel, grid_text(c.grid), grid_text(c.block));
  if (c.shared_bytes > 0) text += fmt::format(", {} bytes shared", c.shared_bytes);
  return text;
}
std::string work_text(const CopyCall& c) { return fmt::format("copy {} bytes", c.bytes); }
std::string work_text(const FillCall& c) { return fmt::format("fill {} bytes with {}", c.bytes, c.byte); }
std::string work_text(const ConvCall& c) { return text(c); }

std::string matrix_text(const char* name, const GemmMatrix& m) {
  std::string text =
      fmt::format(", {} {}{} ld {}", name, ir::dtype_name(m.dtype), m.transposed ? " t" : "", m.ld);
  if (m.stride != 0) text += fmt::format(" by {}", m.stride);
  return text;
}

std::string work_text(const GemmCall& c) {
  std::string text = fmt::format("gemm {} x {} x {}", c.m, c.n, c.k);
  if (c.batch != 1) text += fmt::format(" times {}", c.batch);
  text += matrix_text("a", c.a) + matrix_text("b", c.b) + matrix_text("d", c.d);
  text += fmt::format(", in {}", c.tf32 ? "tf32" : ir::dtype_name(c.compute));
  if (c.alpha != 1) text += ", alpha " + number_text(c.alpha);
  if (c.beta != 0) text += ", beta " + number_text(c.beta);
  if (c.epilogue != GemmEpilogue::none) text += fmt::format(", {}", epilogue_name(c.epilogue));
  if (c.mask_ld != 0) text += fmt::format(" ld {}", c.mask_ld);
  return text;
}

}  // namespace

std::string_view epilogue_name(GemmEpilogue epilogue) {
  switch (epilogue) {
    case GemmEpilogue::none: return "none";
    case GemmEpilogue::bias: return "bias";
    case GemmEpilogue::relu: return "relu";
    case GemmEpilogue::relu_bias: return "relu_bias";
    case GemmEpilogue::gelu: return "gelu";
    case GemmEpilogue::gelu_bias: return "gelu_bias";
    case GemmEpilogue::gelu_aux: return "gelu_aux";
    case GemmEpilogue::gelu_aux_bias: return "gelu_aux_bias";
    case GemmEpilogue::relu_aux: return "relu_aux";
    case GemmEpilogue::relu_aux_bias: return "relu_aux_bias";
    case GemmEpilogue::drelu: return "drelu";
    case GemmEpilogue::sum_a: return "sum_a";
    case GemmEpilogue::sum_b: return "sum_b";
  }
  throw InternalError("no such epilogue");
}

int64_t alignment_of(const CallRecord& call, size_t operand) {
  if (const auto* kernel = std::get_if<KernelCall>(&call.work))
    return operand < kernel->alignment.size() ? kernel->alignment[operand] : kernel_alignment;
  if (std::holds_alternative<GemmCall>(call.work)) return gemm_alignment;
  if (std::holds_alternative<ConvCall>(call.work)) return conv_alignment;
  return 1;  // bytes are copied and filled
}

std::vector<KernelParameter> parameters_of(const KernelSource& source) {
  const std::string entry = "(" + source.name + ",";
  const size_t at = source.text.find(entry), begin = source.text.find(")(", at);
  const size_t end = begin == std::string::npos ? begin : source.text.find(')', begin + 2);
  ESPALIER_CHECK(at != std::string::npos && end != std::string::npos,
                 "the text of " + source.name + " has no entry of that name");
  std::vector<KernelParameter> out;
  const std::string_view list = std::string_view(source.text).substr(begin + 2, end - begin - 2);
  for (size_t from = 0; from < list.size();) {
    const size_t to = std::min(list.find(',', from), list.size());
    const std::string_view one = list.substr(from, to - from);
    const size_t first = one.find_first_not_of(" \n");
    out.push_back({.written = first != std::string_view::npos && !one.substr(first).starts_with("const "),
                   .restricted = one.find("__restrict__") != std::string_view::npos});
    from = to + 1;
  }
  return out;
}

std::string text(const CallRecord& call) {
  std::string out = std::visit([](const auto& work) { return work_text(work); }, call.work) + " :";
  for (size_t i = 0; i < call.operands.size(); ++i) {
    const Operand& o = call.operands[i];
    out += fmt::format(" b{}", o.buffer);
    if (o.offset != 0) out += fmt::format("+{}", o.offset);
    if (std::holds_alternative<KernelCall>(call.work) && alignment_of(call, i) != kernel_alignment)
      out += fmt::format("@{}", alignment_of(call, i));
  }
  return out;
}

}  // namespace espalier::target

#include "target/call.h"

#include <fmt/format.h>

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
  return fmt::format("launch {} {} x {}", c.kernel, grid_text(c.grid), grid_text(c.block));
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

std::string text(const CallRecord& call) {
  std::string out = std::visit([](const auto& work) { return work_text(work); }, call.work) + " :";
  for (const Operand& o : call.operands) {
    out += fmt::format(" b{}", o.buffer);
    if (o.offset != 0) out += fmt::format("+{}", o.offset);
  }
  return out;
}

}  // namespace espalier::target

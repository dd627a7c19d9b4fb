// Prints the op reference page (docs/ops.md) from the op table: what each op is, takes and promises.
#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <string>

#include "op/table.h"

namespace espalier {
namespace {

using ir::Dtype;
using ir::Kind;
using ir::OpDef;

struct Section {
  Kind kind;
  std::string_view title, about;
};
constexpr Section sections[] = {
    {Kind::elementwise, "Elementwise", "Element i of the result depends on the elements i of the operands."},
    {Kind::movement, "Movement", "Elements change places."},
    {Kind::reduction, "Reductions", "Axes are folded away, in one fixed order."},
    {Kind::contraction, "Contractions", "Products summed over shared axes."},
    {Kind::window, "Windows", "Each element of the result sees a window of the operand."},
    {Kind::indexed, "Indexed", "Positions come from data."},
    {Kind::random, "Random", "Counter-based random numbers: a seed gives the same numbers on any device."},
    {Kind::control, "Control", "The node holds closed body graphs."},
    {Kind::composite, "Composites",
     "The meaning is a decomposition into simpler ops; a target may run the whole faster."},
};

std::string dtypes_text(const OpDef& op) {
  if (op.dtypes == ir::all_types) return "all";
  if (op.dtypes == ir::number_types) return "numbers";
  std::string out;
  const auto add = [&](std::string_view name) { (out += out.empty() ? "" : " ") += name; };
  ir::DtypeSet rest = op.dtypes;
  const std::pair<ir::DtypeSet, std::string_view> groups[] = {{ir::float_types, "floats"},
                                                              {ir::integer_types, "integers"}};
  for (const auto& [group, name] : groups)
    if ((rest.bits & group.bits) == group.bits) {
      add(name);
      rest.bits = static_cast<uint16_t>(rest.bits & ~group.bits);
    }
  for (int i = 0; i < ir::dtype_count; ++i)
    if (rest.has(static_cast<Dtype>(i))) add(ir::dtype_name(static_cast<Dtype>(i)));
  return out;
}

std::string operands_text(ir::Arity arity) {
  if (arity.max < 0) return fmt::format("{} or more", arity.min);
  return arity.min == arity.max ? std::to_string(arity.min) : fmt::format("{} to {}", arity.min, arity.max);
}

std::string attributes_text(const OpDef& op) {
  std::string out;
  ir::FieldPrinter printer{.out = out};
  op.attrs->print(op.attrs->make_default().get(), printer);
  return out.empty() ? "" : "`" + out.substr(1, out.size() - 2) + "`";
}

std::string_view gradient_text(const OpDef& op) {
  switch (op.grad.kind) {
    case ir::GradKind::rule: return "rule";
    case ir::GradKind::by_expansion: return "by expansion";
    case ir::GradKind::none: break;
  }
  return "none";
}

std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) (out += c == '|' ? "\\" : "") += c == '\n' ? ' ' : c;
  return out;
}

void print_section(const Section& section) {
  bool first = true;
  for (const OpDef* op : op::all_ops()) {
    if (op->kind != section.kind) continue;
    if (first)
      fmt::print(
          "\n## {}\n\n{}\n\n| op | what it is | operands | dtypes | attributes (defaults) | gradient |\n"
          "| --- | --- | --- | --- | --- | --- |\n",
          section.title, section.about);
    first = false;
    fmt::print("| `{}` | {} | {} | {} | {} | {} |\n", op->name, cell(op->doc), operands_text(op->arity),
               dtypes_text(*op), cell(attributes_text(*op)), gradient_text(*op));
  }
}

}  // namespace
}  // namespace espalier

int main() {
  using namespace espalier;
  fmt::print(
      "# Operations\n\nMade from the op table by `./run docs`. The reference interpreter runs every op; "
      "dtypes are "
      "those of the first\noperand (of the result for ops without operands).\n");
  for (const Section& section : sections) print_section(section);
}

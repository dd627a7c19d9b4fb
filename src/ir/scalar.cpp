#include "ir/scalar.h"

#include <unordered_map>

#include "base/error.h"
#include "base/text.h"

namespace espalier::ir {

namespace {
constexpr std::string_view code_names[] = {
    "argument",    "constant",   "neg",         "abs",   "sign",        "exp",    "expm1",       "log",
    "log1p",       "sqrt",       "rsqrt",       "sin",   "cos",         "tan",    "tanh",        "erf",
    "floor",       "ceil",       "round",       "trunc", "logical_not", "is_nan", "atan",        "add",
    "sub",         "mul",        "div",         "rem",   "pow",         "max",    "min",         "atan2",
    "eq",          "ne",         "lt",          "le",    "gt",          "ge",     "logical_and", "logical_or",
    "logical_xor", "shift_left", "shift_right", "select"};
static_assert(std::size(code_names) == static_cast<size_t>(ScalarCode::select) + 1);
}  // namespace

std::string_view scalar_code_name(ScalarCode code) { return code_names[static_cast<size_t>(code)]; }

struct Expr::Item {
  ScalarCode code;
  int index;
  double value;
  std::vector<Expr> operands;
};

Expr::Expr(double value) : item_(std::make_shared<Item>(Item{ScalarCode::constant, 0, value, {}})) {}

Expr Expr::argument(int index) {
  return Expr(std::make_shared<const Item>(Item{ScalarCode::argument, index, 0, {}}));
}

Expr Expr::make(ScalarCode code, std::span<const Expr> operands) {
  return Expr(std::make_shared<const Item>(Item{code, 0, 0, {operands.begin(), operands.end()}}));
}

ScalarProgram Expr::program() const {
  ScalarProgram out;
  std::unordered_map<const Item*, int> done;
  const auto emit = [&](auto& self, const Item* item) -> int {
    if (const auto it = done.find(item); it != done.end()) return it->second;
    ScalarInstr instr{.code = item->code, .index = item->index, .value = item->value};
    for (size_t i = 0; i < item->operands.size(); ++i)
      instr.operand[i] = self(self, item->operands[i].item_.get());
    for (size_t i = 0; i < out.instrs.size(); ++i)  // equal subexpressions are one instruction
      if (out.instrs[i] == instr) return done[item] = static_cast<int>(i);
    out.instrs.push_back(instr);
    return done[item] = static_cast<int>(out.instrs.size()) - 1;
  };
  const int last = emit(emit, item_.get());
  if (last != static_cast<int>(out.instrs.size()) - 1)
    out.instrs.push_back(out.instrs[static_cast<size_t>(last)]);
  return out;
}

ScalarProgram Scalar::program(int arity) const {
  ESPALIER_CHECK(record != nullptr, "op has no scalar body");
  std::vector<Expr> arguments;
  for (int i = 0; i < arity; ++i) arguments.push_back(Expr::argument(i));
  return record(arguments.data()).program();
}

std::string ScalarProgram::text() const {
  const auto print = [&](auto& self, int i) -> std::string {
    const ScalarInstr& in = instrs[static_cast<size_t>(i)];
    if (in.code == ScalarCode::argument) return "a" + std::to_string(in.index);
    if (in.code == ScalarCode::constant) return number_text(in.value);
    std::string out = std::string(scalar_code_name(in.code)) + "(";
    for (size_t k = 0; k < 3 && in.operand[k] >= 0; ++k) (out += k ? ", " : "") += self(self, in.operand[k]);
    return out + ")";
  };
  return instrs.empty() ? "" : print(print, static_cast<int>(instrs.size()) - 1);
}

}  // namespace espalier::ir

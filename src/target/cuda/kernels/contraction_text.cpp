#include "target/cuda/kernels/contraction_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "target/cuda/kernels/pattern.h"

namespace espalier::target::cuda {

using kernel::Affine;
using kernel::Guard;

void ContractionText::decode(Source& out, const std::vector<int>& list, const std::string& value) const {
  int64_t below = 1;
  for (size_t i = list.size(); i-- > 0;) {
    const int64_t extent = c_.extents[static_cast<size_t>(list[i])];
    std::string text = below == 1 ? value : fmt::format("{} / {}", value, number(below));
    if (i > 0) text += fmt::format(" % {}", number(extent));
    out.line(fmt::format("const {} v{} = static_cast<{}>({});", index_type(), list[i], index_type(), text));
    below *= extent;
  }
}

void ContractionText::derived(Source& out) const {
  for (const Contraction::Derived& d : c_.derived)
    out.line(fmt::format("const {} v{} = {};", index_type(), d.var, d.text));
}

void ContractionText::folded_run(Source& out) const {
  const int64_t whole = c_.points(c_.folded);
  if (p_.parts == 1) {
    out.line(fmt::format("constexpr {} begin = 0, end = {};", unsigned_type(), number(whole)));
    return;
  }
  out.line(fmt::format("const {} begin = static_cast<{}>(v{}) * {}, upto = begin + {};", unsigned_type(),
                       unsigned_type(), p_.part_var, number(p_.part_length), number(p_.part_length)));
  out.line(
      fmt::format("const {} end = upto < {} ? upto : {};", unsigned_type(), number(whole), number(whole)));
}

namespace {

std::string term(const Affine::Term& t) {
  return t.coef == 1 ? fmt::format("v{}", t.var) : fmt::format("v{} * {}", t.var, t.coef);
}
bool is_in(const std::vector<int>& vars, int v) {
  return std::find(vars.begin(), vars.end(), v) != vars.end();
}

}  // namespace

std::string ContractionText::moving(const Affine& a, const std::vector<int>& vars) const {
  std::string text;
  for (const Affine::Term& t : a.terms)
    if (is_in(vars, t.var)) text += (text.empty() ? "" : " + ") + term(t);
  return text.empty() ? "0" : text;
}

std::string ContractionText::fixed(const Affine& a, const std::vector<int>& without) const {
  std::string text = std::to_string(a.offset);
  for (const Affine::Term& t : a.terms)
    if (!is_in(without, t.var)) text += " + " + term(t);
  return text;
}

std::string ContractionText::inside(const std::string& index, const Guard& guard) const {
  return fmt::format("static_cast<{}>({}) < {}", unsigned_type(), index, number(guard.high));
}

std::string ContractionText::all_inside(const Contraction::Side& side) const {
  std::string text;
  for (const Guard& g : side.guards) text += " && " + inside(fixed(g.index, {}), g);
  return text;
}

std::string ContractionText::multiply_add(const std::string& x, const std::string& y,
                                          const std::string& sum) const {
  if (c_.sum == Dtype::f64) return fmt::format("fma({}, {}, {})", x, y, sum);
  if (c_.sum == Dtype::f32) return fmt::format("fmaf({}, {}, {})", x, y, sum);
  return fmt::format("esp_add<{}>({}, esp_mul<{}>({}, {}))", sum_type(), sum, sum_type(), x, y);
}

std::string ContractionText::stored(const std::string& sum) const {
  return to_memory(is_float(c_.result) ? sum : cast({sum, c_.sum}, c_.result), c_.result);
}

int vector_along(const Contraction& c, const Contraction::Side& side, const std::vector<int>& list,
                 Dtype dtype, int64_t alignment) {
  if (list.empty() || side.address.coef(list.back()) != 1) return 1;
  const int var = list.back();
  const bool guarded = std::any_of(side.guards.begin(), side.guards.end(),
                                   [&](const Guard& g) { return g.index.coef(var) != 0; });
  int64_t v = guarded ? 1 : 16 / ir::dtype_size(dtype);
  const auto fits = [&] {
    return c.extents[static_cast<size_t>(var)] % v == 0 && side.address.offset % v == 0 &&
           alignment % (v * ir::dtype_size(dtype)) == 0 &&
           std::all_of(side.address.terms.begin(), side.address.terms.end(),
                       [&](const Affine::Term& t) { return t.var == var || t.coef % v == 0; });
  };
  while (v > 1 && !fits()) v /= 2;
  return static_cast<int>(v);
}

KernelSource parts_kernel(const ContractionPart& part, const Contraction::Side& result, Dtype dtype) {
  const Contraction& c = part.loops;
  const ContractionText text(part);
  std::vector<int> all = c.batch;
  all.insert(all.end(), c.rows.begin(), c.rows.end());
  all.insert(all.end(), c.columns.begin(), c.columns.end());
  const int64_t units = c.points(all);
  Source out(1);
  out.line(fmt::format("const {} unit = static_cast<{}>(blockIdx.x) * 256u + threadIdx.x;",
                       text.unsigned_type(), text.unsigned_type()));
  out.line(fmt::format("if (unit >= {}) return;", text.number(units)));
  text.decode(out, all, "unit");
  text.derived(out);
  if (!result.guards.empty()) out.line(fmt::format("if (!({})) return;", text.all_inside(result).substr(4)));
  out.line(fmt::format("{} sum = parts[unit];", text.sum_type()));
  out.pragma("#pragma unroll 4");
  out.open(fmt::format("for (int p = 1; p < {}; ++p)", part.parts));
  const std::string next =
      fmt::format("parts[unit + static_cast<{}>(p) * {}]", text.unsigned_type(), text.number(units));
  out.line(is_float(c.sum) ? fmt::format("sum += {};", next)
                           : fmt::format("sum = esp_add<{}>(sum, {});", text.sum_type(), next));
  out.close();
  out.line(fmt::format("c[{}] = {};", text.fixed(result.address, {}),
                       to_memory(is_float(dtype) ? "sum" : cast({"sum", c.sum}, dtype), dtype)));
  return kernel_source("contraction_parts",
                       fmt::format("(const {}* __restrict__ parts, {}* __restrict__ c) {{\n{}}}\n",
                                   text.sum_type(), memory_type(dtype), out.text()),
                       256, false);
}

ContractionKernel direct_kernel(const ContractionPart& part) {
  const Contraction& c = part.loops;
  const ContractionText text(part);
  std::vector<int> all = c.batch;
  all.insert(all.end(), c.rows.begin(), c.rows.end());
  all.insert(all.end(), c.columns.begin(), c.columns.end());
  // Neighbouring threads along the variable that moves the most accesses by one element.
  const auto unit_steps = [&](int v) {
    return (c.a.address.coef(v) == 1) + (c.b.address.coef(v) == 1) + (c.c.address.coef(v) == 1);
  };
  std::ranges::stable_sort(all, {}, unit_steps);
  if (part.parts > 1) all.insert(all.begin(), part.part_var);
  const int64_t all_threads = c.points(all);
  Source out(1);
  out.line(fmt::format("const {} unit = static_cast<{}>(blockIdx.x) * 256u + threadIdx.x;",
                       text.unsigned_type(), text.unsigned_type()));
  out.line(fmt::format("if (unit >= {}) return;", text.number(all_threads)));
  text.decode(out, all, "unit");
  text.derived(out);
  if (!c.c.guards.empty()) out.line(fmt::format("if (!({})) return;", text.all_inside(c.c).substr(4)));
  text.folded_run(out);
  const char* index = text.index_type();
  out.line(fmt::format("const {} a_at = {}, b_at = {};", index, text.fixed(c.a.address, c.folded),
                       text.fixed(c.b.address, c.folded)));
  out.line(fmt::format("{} sum = 0;", text.sum_type()));
  out.open(fmt::format("for ({} k = begin; k < end; ++k)", text.unsigned_type()));
  text.decode(out, c.folded, "k");
  const std::string guards = text.all_inside(c.a) + text.all_inside(c.b);
  if (!guards.empty()) out.line(fmt::format("if (!({})) continue;", guards.substr(4)));
  const auto value = [&](const char* side, const Contraction::Side& s) {
    return fmt::format(
        "static_cast<{}>({})", text.sum_type(),
        from_memory(fmt::format("{}[{}_at + {}]", side, side, text.moving(s.address, c.folded)), c.operand));
  };
  out.line(fmt::format("sum = {};", text.multiply_add(value("a", c.a), value("b", c.b), "sum")));
  out.close();
  out.line(fmt::format("c[{}] = {};", text.fixed(c.c.address, {}), text.stored("sum")));
  ContractionKernel made;
  made.source = kernel_source(
      "contraction_direct",
      fmt::format("(const {0}* __restrict__ a, const {0}* __restrict__ b, {1}* __restrict__ c) {{\n{2}}}\n",
                  memory_type(c.operand), text.result_type(), out.text()),
      256, false);
  made.call = launch_of(made.source, all_threads);
  made.call.alignment = {ir::dtype_size(c.operand), ir::dtype_size(c.operand), ir::dtype_size(c.result)};
  return made;
}

}  // namespace espalier::target::cuda

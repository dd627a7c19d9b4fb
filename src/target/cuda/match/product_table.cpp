#include "target/cuda/match/product_table.h"

#include <fmt/format.h>

#include <product_tables.h>
#include <algorithm>
#include <optional>
#include <set>

#include "base/text.h"
#include "kernel/bit_mask.h"
#include "target/cuda/match/ask.h"

namespace espalier::target::cuda {

namespace {

using ir::Dtype;

constexpr std::string_view first_line = "espalier products 1";

constexpr GemmEpilogue epilogues[] = {
    GemmEpilogue::none,     GemmEpilogue::bias,          GemmEpilogue::relu,     GemmEpilogue::relu_bias,
    GemmEpilogue::gelu,     GemmEpilogue::gelu_bias,     GemmEpilogue::gelu_aux, GemmEpilogue::gelu_aux_bias,
    GemmEpilogue::relu_aux, GemmEpilogue::relu_aux_bias, GemmEpilogue::drelu,    GemmEpilogue::sum_a,
    GemmEpilogue::sum_b};

struct Numbers {
  Dtype operands, result, compute;
  bool tf32;
};
constexpr Numbers numbers[] = {
    {Dtype::f32, Dtype::f32, Dtype::f32, false},   {Dtype::f32, Dtype::f32, Dtype::f32, true},
    {Dtype::bf16, Dtype::bf16, Dtype::f32, false}, {Dtype::bf16, Dtype::f32, Dtype::f32, false},
    {Dtype::f16, Dtype::f16, Dtype::f32, false},   {Dtype::f16, Dtype::f32, Dtype::f32, false},
    {Dtype::f64, Dtype::f64, Dtype::f64, false},   {Dtype::i8, Dtype::i32, Dtype::i32, false}};

GemmCall square(const Numbers& n, GemmEpilogue epilogue, bool adds, bool batched, int64_t size) {
  GemmCall g;
  g.m = g.n = g.k = size;
  g.batch = batched ? 2 : 1;
  g.a = g.b = {.dtype = n.operands, .transposed = false, .ld = size, .stride = batched ? size * size : 0};
  g.d = {.dtype = n.result, .transposed = false, .ld = size, .stride = g.a.stride};
  g.compute = n.compute;
  g.tf32 = n.tf32;
  g.beta = adds ? 1 : 0;
  g.epilogue = epilogue;
  if (gives_mask(epilogue) || takes_mask(epilogue)) g.mask_ld = kernel::row_bits(size);
  return g;
}

/// The part of `rest` before `separator`; `rest` loses both.
std::string_view part(std::string_view& rest, std::string_view separator) {
  const size_t end = rest.find(separator);
  const std::string_view out = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + separator.size());
  return out;
}

std::optional<int64_t> number(std::string_view text) {
  const auto value = number_of<int64_t>(text);
  return value && *value >= 0 ? value : std::nullopt;
}

std::set<std::string> all_kinds() {
  std::set<std::string> out;
  for (const GemmCall& call : product_kinds(1)) out.insert(product_kind(call));
  return out;
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view source) : rest_(text), source_(source) {}

  ProductTable run() {
    if (next() != first_line) fail("is no table of products", std::string(first_line));
    const std::optional<int64_t> capability = number(field("capability"));
    if (!capability || *capability > 9999) fail("has no compute capability", "a number as 90");
    out_.capability = static_cast<int>(*capability);
    out_.device = field("device");
    out_.library = field("library");
    while (!rest_.empty()) row();
    return std::move(out_);
  }

 private:
  std::string_view next() {
    ++number_;
    if (rest_.find('\n') == std::string_view::npos) fail("ends in the middle of a line", "a whole table");
    return line_ = part(rest_, "\n");
  }

  std::string_view field(std::string_view name) {
    std::string_view line = next();
    if (part(line, " ") != name || line.empty()) fail("is no such line", fmt::format("{} ...", name));
    return line;
  }

  void row() {
    std::string_view cells = next();
    const std::string kind(part(cells, " : "));
    if (!kinds_.contains(kind))
      fail("is of a kind that no plan asks for", "a kind as \"bf16 bf16 f32 bias\"");
    std::array<ProductCell, 4> made;
    for (ProductCell& c : made) c = cell(part(cells, ", "));
    if (!cells.empty() || !out_.rows.emplace(kind, made).second)
      fail("is no row, or a second one of its kind", "KIND : a cell for each layout");
  }

  ProductCell cell(std::string_view text) const {
    if (text == "assumed") return {};
    if (text == "none") return {.recorded = true};
    const std::optional<int64_t> algorithms = number(part(text, " ")), workspace = number(text);
    if (!algorithms || !workspace || *algorithms == 0)
      fail("has a cell that is none", "ALGORITHMS WORKSPACE, none or assumed");
    return {.recorded = true, .algorithms = *algorithms, .workspace = *workspace};
  }

  [[noreturn]] void fail(std::string_view problem, std::string allowed) const {
    constexpr size_t shown = 120;
    throw UserError({fmt::format("{}, line {}", source_, number_), std::string(problem),
                     std::string(line_.substr(0, shown)), std::move(allowed)});
  }

  const std::set<std::string> kinds_ = all_kinds();
  std::string_view rest_, line_, source_;
  int64_t number_ = 0;
  ProductTable out_;
};

}  // namespace

std::string product_kind(const GemmCall& c) {
  std::string out = fmt::format("{} {} {}", ir::dtype_name(c.a.dtype), ir::dtype_name(c.d.dtype),
                                c.tf32 ? "tf32" : ir::dtype_name(c.compute));
  if (c.beta != 0) out += " beta";
  if (c.batch != 1) out += " batch";
  if (c.epilogue != GemmEpilogue::none) out += fmt::format(" {}", epilogue_name(c.epilogue));
  return out;
}

size_t product_layout(const GemmCall& c) { return (c.a.transposed ? 1u : 0u) + (c.b.transposed ? 2u : 0u); }

std::vector<GemmCall> product_kinds(int64_t n) {
  std::vector<GemmCall> out;
  for (const Numbers& of : numbers)
    for (const GemmEpilogue epilogue : epilogues)
      for (const bool adds : {false, true})
        for (const bool batched : {false, true}) {
          if (batched && (has_second_result(epilogue) || takes_mask(epilogue))) continue;
          if (of.operands == Dtype::i8 && (epilogue != GemmEpilogue::none || adds)) continue;
          out.push_back(square(of, epilogue, adds, batched, n));
        }
  return out;
}

std::string text(const ProductTable& t) {
  std::string out = fmt::format("{}\ncapability {}\ndevice {}\nlibrary {}\n", first_line, t.capability,
                                t.device, t.library);
  for (const auto& [kind, cells] : t.rows) {
    out += kind + " : ";
    for (size_t i = 0; i < cells.size(); ++i) {
      const ProductCell& c = cells[i];
      out += i > 0 ? ", " : "";
      out += !c.recorded         ? "assumed"
             : c.algorithms == 0 ? "none"
                                 : fmt::format("{} {}", c.algorithms, c.workspace);
    }
    out += "\n";
  }
  return out;
}

ProductTable parse_product_table(std::string_view text, std::string_view source) {
  return Parser(text, source).run();
}

const ProductTable* recorded_products(int capability) {
  static const ProductTable sm90 = parse_product_table(products_sm90_text, "products_sm90.txt");
  return capability == sm90.capability ? &sm90 : nullptr;
}

LibraryAnswer recorded_answer(const ProductTable* table, const CallRecord::Work& work) {
  const auto* const product = std::get_if<GemmCall>(&work);
  if (!table || !product) return assume(work);
  const auto row = table->rows.find(product_kind(*product));
  if (row == table->rows.end()) return assume(work);
  const ProductCell& cell = row->second[product_layout(*product)];
  if (!cell.recorded) return assume(work);
  if (cell.algorithms == 0)
    return {.refusal =
                fmt::format("cublaslt {} has no algorithm for {} {}, as recorded on {}", table->library,
                            row->first, product_layouts[product_layout(*product)], table->device)};
  return {.workspace = product->workspace};
}

}  // namespace espalier::target::cuda

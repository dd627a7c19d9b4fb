#include "ir/attrs.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "ir/graph.h"

namespace espalier::ir {

namespace {

template <class T, class F>
void print_list(std::string& out, const std::vector<T>& v, F&& each) {
  out += "[";
  for (size_t i = 0; i < v.size(); ++i) {
    if (i) out += ",";
    each(v[i]);
  }
  out += "]";
}

template <class T, class F>
void parse_list(TextReader& in, std::vector<T>& v, F&& each) {
  v.clear();
  in.expect("[");
  while (!in.accept("]")) {
    v.push_back(each());
    if (!in.next_is("]")) in.expect(",");
  }
}

template <class T>
size_t hash_list(const std::vector<T>& v) {
  size_t h = v.size();
  for (const T& x : v) h = hash_combine(h, hash_field(x));
  return h;
}

Dim parse_dim(TextReader& in) {
  in.skip_space();
  if (!in.next_is("-")) {
    // a symbol starts with a letter; anything else is a number, maybe times a symbol
    TextReader probe = in;
    try {
      return Dim::symbol(in.word());
    } catch (const UserError&) {
      in = probe;
    }
  }
  const int64_t factor = in.integer();
  return in.accept("*") ? Dim(factor) * Dim::symbol(in.word()) : Dim(factor);
}

void print_elements(std::string& out, const Array& a) {
  for (int64_t i = 0; i < a.size(); ++i) {
    if (i) out += ",";
    if (a.dtype() == Dtype::i64) out += std::to_string(a.data<int64_t>()[i]);
    else if (a.dtype() == Dtype::f32 && std::isfinite(a.data<float>()[i]))
      out += fmt::format("{}", a.data<float>()[i]);
    else out += number_text(a.at(i));
  }
}

}  // namespace

void FieldPrinter::operator()(bool v) { out += v ? "true" : "false"; }
void FieldPrinter::operator()(int64_t v) { out += std::to_string(v); }
void FieldPrinter::operator()(double v) { out += number_text(v); }
void FieldPrinter::operator()(const std::string& v) { out += quote(v); }
void FieldPrinter::operator()(Dtype v) { out += dtype_name(v); }
void FieldPrinter::operator()(Dim v) { out += v.text(); }
void FieldPrinter::operator()(const Dims& v) { out += dims_text(v); }
void FieldPrinter::operator()(const Type& v) { out += v.text(); }
void FieldPrinter::operator()(const Array& v) {
  out += v.type().text();
  if (pool && v.size() > inline_limit) {
    out += fmt::format("@{}", pool->size());
    pool->push_back(v);
    return;
  }
  out += "(";
  print_elements(out, v);
  out += ")";
}
void FieldPrinter::operator()(const GraphRef& v) { out += v ? print(*v, pool, indent + 2) : "none"; }
void FieldPrinter::operator()(const std::vector<int64_t>& v) {
  print_list(out, v, [&](int64_t x) { (*this)(x); });
}
void FieldPrinter::operator()(const std::vector<double>& v) {
  print_list(out, v, [&](double x) { (*this)(x); });
}
void FieldPrinter::operator()(const std::vector<std::string>& v) {
  print_list(out, v, [&](const std::string& x) { (*this)(x); });
}

void FieldParser::operator()(bool& v) {
  v = in.accept("true");
  if (!v) in.expect("false");
}
void FieldParser::operator()(int64_t& v) { v = in.integer(); }
void FieldParser::operator()(double& v) { v = in.number(); }
void FieldParser::operator()(std::string& v) { v = in.string(); }
void FieldParser::operator()(Dtype& v) { v = dtype_of_name(in.word()); }
void FieldParser::operator()(Dim& v) { v = parse_dim(in); }
void FieldParser::operator()(Dims& v) {
  parse_list(in, v, [&] { return parse_dim(in); });
}
void FieldParser::operator()(Type& v) {
  (*this)(v.dtype);
  (*this)(v.dims);
}
void FieldParser::operator()(Array& v) {
  Type type;
  (*this)(type);
  if (!type.is_static()) in.fail("array with a symbolic dim");
  for (const Dim d : type.dims)
    if (d.factor() < 0) in.fail("array with a negative dim");
  if (in.accept("@")) {
    const int64_t n = in.integer();
    if (!pool || n < 0 || n >= static_cast<int64_t>(pool->size())) in.fail("constant is not in the pool");
    v = (*pool)[static_cast<size_t>(n)];
    if (v.type() != type) in.fail("constant in the pool has another type", v.type().text());
    return;
  }
  in.expect("(");
  if (type.elements() > (int64_t{1} << 24)) in.fail("inline array is too large", "at most 2^24 elements");
  v = Array(type.dtype, static_dims(type.dims));
  for (int64_t i = 0; i < v.size(); ++i) {
    if (i) in.expect(",");
    if (type.dtype == Dtype::i64) v.write<int64_t>()[i] = in.integer();
    else v.set(i, in.number());
  }
  in.expect(")");
}
void FieldParser::operator()(GraphRef& v) {
  if (in.accept("none")) v = nullptr;
  else v = std::make_shared<const Graph>(parse_body(in, pool));
}
void FieldParser::operator()(std::vector<int64_t>& v) {
  parse_list(in, v, [&] { return in.integer(); });
}
void FieldParser::operator()(std::vector<double>& v) {
  parse_list(in, v, [&] { return in.number(); });
}
void FieldParser::operator()(std::vector<std::string>& v) {
  parse_list(in, v, [&] { return in.string(); });
}

size_t hash_field(bool v) { return v ? 2 : 1; }
size_t hash_field(int64_t v) { return static_cast<size_t>(v) * 0x9e3779b97f4a7c15ull; }
size_t hash_field(double v) { return std::isnan(v) ? 7 : std::bit_cast<size_t>(v) * 0x9e3779b97f4a7c15ull; }
size_t hash_field(const std::string& v) { return std::hash<std::string>{}(v); }
size_t hash_field(Dtype v) { return static_cast<size_t>(v) + 1; }
size_t hash_field(Dim v) { return v.hash(); }
size_t hash_field(const Dims& v) { return hash_list(v); }
size_t hash_field(const Type& v) { return hash_combine(hash_field(v.dtype), hash_list(v.dims)); }
size_t hash_field(const Array& v) { return v.hash(); }
size_t hash_field(const GraphRef& v) { return v ? structure_hash(*v) : 0; }
size_t hash_field(const std::vector<int64_t>& v) { return hash_list(v); }
size_t hash_field(const std::vector<double>& v) { return hash_list(v); }
size_t hash_field(const std::vector<std::string>& v) { return hash_list(v); }

void substitute_field(Dim& v, const DimMap& map) { v = map(v); }
void substitute_field(Dims& v, const DimMap& map) {
  for (Dim& d : v) d = map(d);
}
void substitute_field(Type& v, const DimMap& map) { substitute_field(v.dims, map); }
void substitute_field(GraphRef& v, const DimMap& map) {
  if (!v) return;
  std::map<std::string, int64_t> bound;
  for (const std::string& s : symbols_of(*v))
    if (const Dim d = map(Dim::symbol(s)); d.is_static()) bound[s] = d.value();
  v = std::make_shared<const Graph>(specialise(*v, bound));
}

bool equal_field(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b) || (a != a && b != b);
}
bool equal_field(const GraphRef& a, const GraphRef& b) {
  return a == b || (a && b && structure_hash(*a) == structure_hash(*b) && same_structure(*a, *b));
}

Attrs::Attrs() {
  static const Attrs none{NoAttrs{}};
  *this = none;
}

bool Attrs::has_body() const {
  bool found = false;
  each_body([&](const GraphRef& g) { found = found || g; });
  return found;
}

}  // namespace espalier::ir

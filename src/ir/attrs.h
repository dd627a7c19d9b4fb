#pragma once
// Attributes of a node: a plain struct beside its op, held type-erased. A static `fields()` tuple per struct gives
// equality, hash, print, parse and dim substitution once:
//
//     struct SliceAttrs {
//       std::vector<int64_t> start, size, step;
//       bool operator==(const SliceAttrs&) const = default;
//       static constexpr auto fields() {
//         return std::tuple{field("start", &SliceAttrs::start), field("size", &SliceAttrs::size), ...};
//       }
//     };
//
// Field types: bool, int64_t, double, std::string, Dtype, Dim, Dims, Type, Array, GraphRef, vectors of int64_t, double
// and string, and enums with an ADL function `constexpr std::span<const std::string_view> enum_names(E)`.
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <typeinfo>
#include <vector>

#include "base/text.h"
#include "ir/array.h"
#include "ir/type.h"

namespace espalier::ir {

class Graph;
/// A closed body graph held by a node (cond, scan, fusion); compared by structure.
using GraphRef = std::shared_ptr<const Graph>;
/// What a dim becomes under a substitution of symbols.
using DimMap = std::function<Dim(Dim)>;
/// Large constants of a printed graph by their number: print() puts them aside, parse() takes them back.
using ConstantPool = std::vector<Array>;

/// One named member of an attribute struct.
template <class A, class T>
struct Field {
  std::string_view name;
  T A::*member;
  bool optional = false;  ///< not printed while it has its type's default value
};
template <class A, class T>
constexpr Field<A, T> field(std::string_view name, T A::*member) {
  return {name, member};
}
template <class A, class T>
constexpr Field<A, T> optional_field(std::string_view name, T A::*member) {
  return {name, member, true};
}

template <class E>
concept NamedEnum = std::is_enum_v<E> && requires(E e) {
  { enum_names(e) } -> std::convertible_to<std::span<const std::string_view>>;
};

/// Print, parse, hash and substitute one field; overloads, found by type.
struct FieldPrinter {
  std::string& out;
  ConstantPool* pool =
      nullptr;  ///< where constants of more than `inline_limit` elements go; null = all inline
  int64_t inline_limit = 16;
  int indent = 0;
  void operator()(bool v);
  void operator()(int64_t v);
  void operator()(double v);
  void operator()(const std::string& v);
  void operator()(Dtype v);
  void operator()(Dim v);
  void operator()(const Dims& v);
  void operator()(const Type& v);
  void operator()(const Array& v);
  void operator()(const GraphRef& v);
  void operator()(const std::vector<int64_t>& v);
  void operator()(const std::vector<double>& v);
  void operator()(const std::vector<std::string>& v);
  template <NamedEnum E>
  void operator()(E v) {
    out += enum_names(v)[static_cast<size_t>(v)];
  }
};

struct FieldParser {
  TextReader& in;
  const ConstantPool* pool = nullptr;
  void operator()(bool& v);
  void operator()(int64_t& v);
  void operator()(double& v);
  void operator()(std::string& v);
  void operator()(Dtype& v);
  void operator()(Dim& v);
  void operator()(Dims& v);
  void operator()(Type& v);
  void operator()(Array& v);
  void operator()(GraphRef& v);
  void operator()(std::vector<int64_t>& v);
  void operator()(std::vector<double>& v);
  void operator()(std::vector<std::string>& v);
  template <NamedEnum E>
  void operator()(E& v) {
    const std::string_view word = in.word();
    const std::span<const std::string_view> names = enum_names(E{});
    for (size_t i = 0; i < names.size(); ++i)
      if (names[i] == word) {
        v = static_cast<E>(i);
        return;
      }
    in.fail("unknown name '" + std::string(word) + "'",
            join(std::vector<std::string>(names.begin(), names.end()), " "));
  }
};

size_t hash_field(bool v);
size_t hash_field(int64_t v);
size_t hash_field(double v);
size_t hash_field(const std::string& v);
size_t hash_field(Dtype v);
size_t hash_field(Dim v);
size_t hash_field(const Dims& v);
size_t hash_field(const Type& v);
size_t hash_field(const Array& v);
size_t hash_field(const GraphRef& v);
size_t hash_field(const std::vector<int64_t>& v);
size_t hash_field(const std::vector<double>& v);
size_t hash_field(const std::vector<std::string>& v);
template <NamedEnum E>
size_t hash_field(E v) {
  return hash_field(static_cast<int64_t>(v));
}

void substitute_field(Dim& v, const DimMap& map);
void substitute_field(Dims& v, const DimMap& map);
void substitute_field(Type& v, const DimMap& map);
void substitute_field(GraphRef& v, const DimMap& map);
template <class T>
void substitute_field(T&, const DimMap&) {}

bool equal_field(const GraphRef& a, const GraphRef& b);
bool equal_field(double a, double b);  ///< NaN equals NaN
template <class T>
bool equal_field(const T& a, const T& b) {
  return a == b;
}

inline size_t hash_combine(size_t a, size_t b) {
  return (a ^ (b + 0x9e3779b97f4a7c15ull + (a << 6) + (a >> 2))) * 0xff51afd7ed558ccdull;
}

/// What can be done with an attribute struct without knowing it.
struct AttrType {
  const std::type_info* type;
  std::shared_ptr<const void> (*make_default)();
  bool (*equal)(const void*, const void*);
  size_t (*hash)(const void*);
  void (*print)(const void*, FieldPrinter&);
  std::shared_ptr<const void> (*parse)(FieldParser&);
  std::shared_ptr<const void> (*substitute)(const void*, const DimMap&);
  void (*each_body)(const void*, const std::function<void(const GraphRef&)>&);
  std::shared_ptr<const void> (*map_bodies)(const void*, const std::function<GraphRef(const GraphRef&)>&);
};

/// Attributes of an op that has none.
struct NoAttrs {
  bool operator==(const NoAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

namespace detail {

template <class A, class F>
void each_field(F&& f) {
  std::apply([&](const auto&... fields) { (f(fields), ...); }, A::fields());
}

template <class A>
std::shared_ptr<const void> parse_attrs(FieldParser& p) {
  auto a = std::make_shared<A>();
  if (!p.in.accept("{")) return a;
  while (!p.in.accept("}")) {
    const std::string_view name = p.in.word();
    p.in.expect("=");
    bool known = false;
    each_field<A>([&](const auto& f) {
      if (!known && f.name == name) {
        p((*a).*(f.member));
        known = true;
      }
    });
    if (!known) p.in.fail("unknown attribute '" + std::string(name) + "'");
    if (!p.in.next_is("}")) p.in.expect(",");
  }
  return a;
}

template <class A>
constexpr AttrType attr_type_of{
    .type = &typeid(A),
    .make_default = []() -> std::shared_ptr<const void> { return std::make_shared<A>(); },
    .equal =
        [](const void* x, const void* y) {
          bool same = true;
          each_field<A>([&](const auto& f) {
            same = same &&
                   equal_field(static_cast<const A*>(x)->*(f.member), static_cast<const A*>(y)->*(f.member));
          });
          return same;
        },
    .hash =
        [](const void* x) {
          size_t h = typeid(A).hash_code();
          each_field<A>(
              [&](const auto& f) { h = hash_combine(h, hash_field(static_cast<const A*>(x)->*(f.member))); });
          return h;
        },
    .print =
        [](const void* x, FieldPrinter& p) {
          bool first = true;
          each_field<A>([&](const auto& f) {
            const auto& value = static_cast<const A*>(x)->*(f.member);
            if (f.optional && equal_field(value, std::remove_cvref_t<decltype(value)>{})) return;
            p.out += first ? "{" : ", ";
            first = false;
            (p.out += f.name) += "=";
            p(value);
          });
          if (!first) p.out += "}";
        },
    .parse = parse_attrs<A>,
    .substitute = [](const void* x, const DimMap& map) -> std::shared_ptr<const void> {
      auto a = std::make_shared<A>(*static_cast<const A*>(x));
      each_field<A>([&](const auto& f) { substitute_field((*a).*(f.member), map); });
      return a;
    },
    .each_body =
        [](const void* x, const std::function<void(const GraphRef&)>& visit) {
          each_field<A>([&](const auto& f) {
            if constexpr (std::is_same_v<std::remove_cvref_t<decltype(std::declval<A>().*(f.member))>,
                                         GraphRef>)
              visit(static_cast<const A*>(x)->*(f.member));
          });
        },
    .map_bodies = [](const void* x,
                     const std::function<GraphRef(const GraphRef&)>& map) -> std::shared_ptr<const void> {
      auto a = std::make_shared<A>(*static_cast<const A*>(x));
      each_field<A>([&](const auto& f) {
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype((*a).*(f.member))>, GraphRef>)
          (*a).*(f.member) = map((*a).*(f.member));
      });
      return a;
    },
};

}  // namespace detail

/// The descriptor of attribute struct A, as an op record names it.
template <class A>
constexpr const AttrType* attr_type() {
  return &detail::attr_type_of<A>;
}

/// Attributes of a node: immutable, shared, compared by content.
class ESPALIER_API Attrs {
 public:
  Attrs();  ///< NoAttrs
  template <class A>
  requires requires { A::fields(); }
  Attrs(A a)
      : type_(attr_type<A>()),
        data_(std::make_shared<const A>(std::move(a))) {}  // NOLINT: implicit on purpose
  Attrs(const AttrType* type, std::shared_ptr<const void> data) : type_(type), data_(std::move(data)) {}

  /// The struct itself; InternalError when it is of another type.
  template <class A>
  const A& get() const {
    ESPALIER_CHECK(*type_->type == typeid(A), "attributes are of another struct");
    return *static_cast<const A*>(data_.get());
  }
  const AttrType* type() const { return type_; }
  size_t hash() const { return type_->hash(data_.get()); }
  void print(FieldPrinter& printer) const { type_->print(data_.get(), printer); }
  Attrs substituted(const DimMap& map) const { return {type_, type_->substitute(data_.get(), map)}; }
  void each_body(const std::function<void(const GraphRef&)>& visit) const {
    type_->each_body(data_.get(), visit);
  }
  bool has_body() const;
  /// The same attributes with every body graph replaced by map(body).
  Attrs with_bodies(const std::function<GraphRef(const GraphRef&)>& map) const {
    return {type_, type_->map_bodies(data_.get(), map)};
  }
  bool operator==(const Attrs& o) const {
    return *type_->type == *o.type_->type && (data_ == o.data_ || type_->equal(data_.get(), o.data_.get()));
  }

 private:
  const AttrType* type_;
  std::shared_ptr<const void> data_;
};

}  // namespace espalier::ir

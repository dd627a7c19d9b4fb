#include "ir/type.h"

#include <deque>
#include <map>
#include <mutex>

#include "base/error.h"

namespace espalier::ir {

namespace {

struct Symbols {
  std::mutex mutex;
  std::map<std::string, uint32_t, std::less<>> ids;
  std::deque<std::string> names{""};  // by id; 0 is no symbol
};

Symbols& symbols() {
  static Symbols table;
  return table;
}

[[noreturn]] void fail(const char* problem, Dim a, Dim b) {
  throw UserError({"symbolic dim", problem, a.text() + " and " + b.text(), "number * one symbol"});
}

int64_t checked_product(int64_t a, int64_t b) {
  int64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r))
    throw UserError(
        {"dims", "more elements than 64 bits count", std::to_string(a) + " * " + std::to_string(b), ""});
  return r;
}

}  // namespace

Dim Dim::symbol(std::string_view name) {
  Symbols& t = symbols();
  const std::lock_guard lock(t.mutex);
  auto it = t.ids.find(name);
  if (it == t.ids.end()) {
    it = t.ids.emplace(std::string(name), static_cast<uint32_t>(t.names.size())).first;
    t.names.emplace_back(name);
  }
  return {1, it->second};
}

int64_t Dim::value() const {
  ESPALIER_CHECK(is_static(), "dim " + text() + " is not bound");
  return factor_;
}

std::string_view Dim::symbol_name() const {
  Symbols& t = symbols();
  const std::lock_guard lock(t.mutex);
  return t.names[symbol_];
}

std::string Dim::text() const {
  if (is_static()) return std::to_string(factor_);
  return (factor_ == 1 ? "" : std::to_string(factor_) + "*") + std::string(symbol_name());
}

Dim operator*(Dim a, Dim b) {
  if (a.factor_ == 0 || b.factor_ == 0) return 0;
  if (a.symbol_ && b.symbol_) fail("two symbols cannot be multiplied", a, b);
  return {checked_product(a.factor_, b.factor_), a.symbol_ | b.symbol_};
}

Dim operator/(Dim a, Dim b) {
  if (b.factor_ == 0 || a.factor_ % b.factor_ != 0 || (b.symbol_ && a.symbol_ != b.symbol_))
    fail("does not divide", a, b);
  return {a.factor_ / b.factor_, b.symbol_ ? 0 : a.symbol_};
}

Dim operator+(Dim a, Dim b) {
  if (a.factor_ == 0) return b;
  if (b.factor_ == 0) return a;
  if (a.symbol_ != b.symbol_) fail("different symbols cannot be added", a, b);
  int64_t sum = 0;
  if (__builtin_add_overflow(a.factor_, b.factor_, &sum)) fail("too large", a, b);
  return sum == 0 ? Dim(0) : Dim(sum, a.symbol_);
}

std::vector<int64_t> static_dims(std::span<const Dim> dims) {
  std::vector<int64_t> out;
  out.reserve(dims.size());
  for (const Dim d : dims) out.push_back(d.value());
  return out;
}

Dims to_dims(std::span<const int64_t> dims) { return {dims.begin(), dims.end()}; }

Dim count(std::span<const Dim> dims) {
  Dim n = 1;
  for (const Dim d : dims) n = n * d;
  return n;
}

int64_t count(std::span<const int64_t> dims) {
  int64_t n = 1;
  for (const int64_t d : dims) n = checked_product(n, d);
  return n;
}

std::string dims_text(std::span<const Dim> dims) {
  std::string out = "[";
  for (size_t i = 0; i < dims.size(); ++i) (out += i ? "," : "") += dims[i].text();
  return out += "]";
}

std::string dims_text(std::span<const int64_t> dims) { return dims_text(to_dims(dims)); }

bool Type::is_static() const {
  for (const Dim d : dims)
    if (!d.is_static()) return false;
  return true;
}

std::string types_text(std::span<const Type> types) {
  std::string out;
  for (const Type& t : types) (out += out.empty() ? "" : ", ") += t.text();
  return out.empty() ? "nothing" : out;
}

bool bind_dims(const Dims& wanted, const Dims& given, std::map<std::string, int64_t>& symbols) {
  if (wanted.size() != given.size()) return false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Dim w = wanted[i], g = given[i];
    if (w == g) continue;
    if (w.is_static() || !g.is_static() || g.value() % w.factor() != 0) return false;
    const int64_t n = g.value() / w.factor();
    if (symbols.emplace(std::string(w.symbol_name()), n).first->second != n) return false;
  }
  return true;
}

std::vector<int64_t> row_major_strides(std::span<const int64_t> dims) {
  std::vector<int64_t> strides(dims.size(), 1);
  for (size_t i = dims.size(); i-- > 1;) strides[i - 1] = strides[i] * dims[i];
  return strides;
}

}  // namespace espalier::ir

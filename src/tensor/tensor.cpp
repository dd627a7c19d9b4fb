#include "tensor/tensor.h"

#include <fmt/core.h>

#include <cmath>
#include <ostream>
#include <unordered_set>

#include "base/text.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "tensor/impl.h"

namespace espalier {

using ir::Value;

Tensor::Impl::~Impl() {
  // A long chain of unevaluated operations must not be destroyed by recursion.
  std::vector<Edge> pending = std::move(parents);
  while (!pending.empty()) {
    const Edge p = std::move(pending.back());
    pending.pop_back();
    if (p.get().use_count() != 1) continue;
    for (Edge& q : (*p).parents) pending.push_back(std::move(q));
    (*p).parents.clear();
  }
}

Tensor::Tensor(Array array) : impl_(std::make_shared<Impl>()) {
  impl_->value = impl_->leaf = ir::new_input("leaf", array.type());
  impl_->data = std::move(array);
}

Tensor::Tensor(double value) : Tensor(Array::scalar(Dtype::f32, value)) {}

Tensor Tensor::from(Value value, std::span<const Tensor> parents) {
  auto impl = std::make_shared<Impl>();
  impl->value = std::move(value);
  for (const Tensor& t : parents) {
    if (!t.defined()) continue;
    impl->parents.emplace_back(t.impl_);
    impl->depth = std::max(impl->depth.load(), t.impl_->depth.load());
    impl->searched = std::max(impl->searched.load(), t.impl_->searched.load());
  }
  return Tensor(std::move(impl));
}

Tensor::Impl& Tensor::impl() const {
  if (!impl_) throw UserError({"tensor", "is empty", "", "a tensor with a value"});
  return *impl_;
}

const Value& Tensor::value() const {
  Impl& i = impl();
  const std::lock_guard lock(i.mutex);
  return i.leaf ? i.leaf : i.value;
}

const Dims& Tensor::dims() const { return impl().value.dims(); }
int Tensor::rank() const { return impl().value.rank(); }
Dtype Tensor::dtype() const { return impl().value.dtype(); }
bool Tensor::computed() const {
  Impl& i = impl();
  const std::lock_guard lock(i.mutex);
  return i.data.has_value();
}

namespace {

int64_t axis_of(int64_t axis, int rank, const char* what) {
  const int64_t a = axis < 0 ? axis + rank : axis;
  if (a < 0 || a >= rank)
    throw UserError({std::string(what) + ": axis", "out of range", std::to_string(axis),
                     std::to_string(-rank) + " to " + std::to_string(rank - 1)});
  return a;
}

std::vector<int64_t> axes_of(std::vector<int64_t> axes, int rank, const char* what) {
  if (axes.empty())
    for (int64_t i = 0; i < rank; ++i) axes.push_back(i);
  for (int64_t& a : axes) a = axis_of(a, rank, what);
  return axes;
}

using Binary = Value (*)(Value, Value);

Tensor binary(const char* name, Binary build, const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype())
    throw UserError(
        {std::string("operator ") + name, "operands differ in dtype",
         std::string(ir::dtype_name(a.dtype())) + " and " + std::string(ir::dtype_name(b.dtype())),
         "equal dtypes (use cast)"});
  const Dims dims = op::broadcast_dims(a.dims(), b.dims());
  return Tensor::from(build(op::broadcast_to(a.value(), dims), op::broadcast_to(b.value(), dims)), {a, b});
}

/// UserError where an integer dtype or bool has no such number.
void check_number(const char* what, Dtype dtype, double value) {
  if (ir::is_float(dtype)) return;
  const std::string got = fmt::format("{} and {}", number_text(value), ir::dtype_name(dtype));
  if (value != std::trunc(value))
    throw UserError(
        {what, "has a fraction that the dtype has not", got, "a whole number, or a floating dtype"});
  ir::dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T>) {
      constexpr auto low = static_cast<double>(std::numeric_limits<T>::lowest()),
                     high = static_cast<double>(std::numeric_limits<T>::max());  // of i64: 2^63, beyond
      if (!(value >= low && (value < high || (sizeof(T) < 8 && value == high))))
        throw UserError(
            {what, "is beyond the dtype's range", got,
             fmt::format("{} to {}", +std::numeric_limits<T>::lowest(), +std::numeric_limits<T>::max())});
    }
  });
}

Tensor number_like(const Tensor& like, double value) {
  check_number("number beside a tensor", like.dtype(), value);
  return Tensor::from(ir::constant(like.dtype(), value), std::span<const Tensor>());
}

template <class F>
Tensor unary(const Tensor& x, F&& build) {
  return Tensor::from(build(x.value()), {x});
}

}  // namespace

Dim Tensor::dim(int64_t axis) const { return dims()[static_cast<size_t>(axis_of(axis, rank(), "dim"))]; }

Tensor Tensor::zeros(std::vector<int64_t> dims, Dtype dtype) { return Tensor(Array(dtype, std::move(dims))); }
Tensor Tensor::ones(std::vector<int64_t> dims, Dtype dtype) { return full(std::move(dims), 1, dtype); }
Tensor Tensor::full(std::vector<int64_t> dims, double value, Dtype dtype) {
  check_number("number of a tensor", dtype, value);
  return Tensor(Array::full(dtype, std::move(dims), value));
}
Tensor Tensor::arange(int64_t count, Dtype dtype) {
  Array a(dtype, {count});
  for (int64_t i = 0; i < count; ++i) a.set(i, static_cast<double>(i));
  return Tensor(std::move(a));
}

namespace {

Tensor drawn(Value (*draw)(Value, Value, ir::Type, int64_t), std::vector<int64_t> dims, uint64_t seed,
             Dtype dtype) {
  const Value key = ir::constant(Array::of<int64_t>({}, {static_cast<int64_t>(seed)}));
  const Value counter = ir::constant(Array::of<int64_t>({}, {0}));
  return Tensor::from(draw(key, counter, {dtype, ir::to_dims(dims)}, 0), std::span<const Tensor>());
}

}  // namespace

Tensor Tensor::randn(std::vector<int64_t> dims, uint64_t seed, Dtype dtype) {
  return drawn(op::random_normal, std::move(dims), seed, dtype);
}
Tensor Tensor::rand(std::vector<int64_t> dims, uint64_t seed, Dtype dtype) {
  return drawn(op::random_uniform, std::move(dims), seed, dtype);
}

Tensor Tensor::of(std::initializer_list<Number> values, Dtype dtype) {
  Array a(dtype, {static_cast<int64_t>(values.size())});
  int64_t i = 0;
  for (const Number& n : values) a.set(i++, n.value);
  return Tensor(std::move(a));
}

Tensor Tensor::of(std::initializer_list<std::initializer_list<double>> rows, Dtype dtype) {
  const size_t columns = rows.size() ? rows.begin()->size() : 0;
  Array a(dtype, {static_cast<int64_t>(rows.size()), static_cast<int64_t>(columns)});
  int64_t i = 0;
  for (const auto& row : rows) {
    if (row.size() != columns)
      throw UserError(
          {"Tensor::of", "rows differ in length", std::to_string(row.size()), std::to_string(columns)});
    for (const double v : row) a.set(i++, v);
  }
  return Tensor(std::move(a));
}

Tensor Tensor::operator-() const { return unary(*this, op::neg); }
Tensor Tensor::cast(Dtype dtype) const {
  return dtype == this->dtype() ? *this : unary(*this, [&](Value v) { return op::cast(v, dtype); });
}
namespace {

/// The dim for -1 in a reshape of `from` to `wanted`: what its other dims, `rest`, leave.
Dim left_over(const Dims& from, Dim rest, const Dims& wanted) {
  try {
    return ir::count(from) / rest;
  } catch (const UserError&) {
    throw UserError({"reshape", "no number in the place of -1 keeps the elements", ir::dims_text(wanted),
                     "the elements of " + ir::dims_text(from)});
  }
}

}  // namespace

Tensor Tensor::reshape(Dims wanted) const {
  int unknown = -1;
  Dim rest = 1;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == Dim(-1)) {
      if (unknown >= 0) throw UserError({"reshape", "more than one -1", ir::dims_text(wanted), "one"});
      unknown = static_cast<int>(i);
    } else {
      rest = rest * wanted[i];
    }
  }
  if (unknown >= 0) wanted[static_cast<size_t>(unknown)] = left_over(dims(), rest, wanted);
  return unary(*this, [&](Value v) { return op::reshape(v, wanted); });
}
Tensor Tensor::transpose(std::vector<int64_t> perm) const {
  for (int64_t& p : perm) p = axis_of(p, rank(), "transpose");
  return unary(*this, [&](Value v) { return op::transpose(v, perm); });
}
Tensor Tensor::transpose() const {
  std::vector<int64_t> perm;
  for (int64_t i = rank() - 1; i >= 0; --i) perm.push_back(i);
  return transpose(perm);
}
Tensor Tensor::broadcast_to(const Dims& wanted) const {
  return unary(*this, [&](Value v) { return op::broadcast_to(v, wanted); });
}
Tensor Tensor::slice(int64_t axis, int64_t from, Dim size) const {
  const int64_t a = axis_of(axis, rank(), "slice");
  return unary(*this, [&](Value v) { return op::slice_axis(v, a, from, size); });
}
Tensor Tensor::flatten(int64_t from_axis) const {
  const auto from = static_cast<size_t>(axis_of(from_axis, rank(), "flatten"));
  Dims d(dims().begin(), dims().begin() + static_cast<long>(from));
  d.push_back(ir::count(std::span<const Dim>(dims()).subspan(from)));
  return reshape(d);
}
Tensor Tensor::sum(std::vector<int64_t> axes) const {
  return unary(*this, [&](Value v) { return op::reduce_sum(v, axes_of(axes, rank(), "sum")); });
}
Tensor Tensor::mean(std::vector<int64_t> axes) const {
  return unary(*this, [&](Value v) { return op::reduce_mean(v, axes_of(axes, rank(), "mean")); });
}
Tensor Tensor::max(std::vector<int64_t> axes) const {
  return unary(*this, [&](Value v) { return op::reduce_max(v, axes_of(axes, rank(), "max")); });
}
Tensor Tensor::min(std::vector<int64_t> axes) const {
  return unary(*this, [&](Value v) { return op::reduce_min(v, axes_of(axes, rank(), "min")); });
}
Tensor Tensor::argmax(int64_t axis) const {
  return unary(*this, [&](Value v) { return op::argmax(v, axis_of(axis, rank(), "argmax")); });
}
Tensor Tensor::exp() const { return unary(*this, op::exp); }
Tensor Tensor::log() const { return unary(*this, op::log); }
Tensor Tensor::sqrt() const { return unary(*this, op::sqrt); }
Tensor Tensor::tanh() const { return unary(*this, op::tanh); }
Tensor Tensor::relu() const { return unary(*this, op::relu); }
Tensor Tensor::sigmoid() const { return unary(*this, op::sigmoid); }
Tensor Tensor::square() const { return unary(*this, op::square); }
Tensor Tensor::abs() const { return unary(*this, op::abs); }

Tensor operator+(const Tensor& a, const Tensor& b) { return binary("+", op::add, a, b); }
Tensor operator-(const Tensor& a, const Tensor& b) { return binary("-", op::sub, a, b); }
Tensor operator*(const Tensor& a, const Tensor& b) { return binary("*", op::mul, a, b); }
Tensor operator/(const Tensor& a, const Tensor& b) { return binary("/", op::div, a, b); }
Tensor operator+(const Tensor& a, double b) { return a + number_like(a, b); }
Tensor operator-(const Tensor& a, double b) { return a - number_like(a, b); }
Tensor operator*(const Tensor& a, double b) { return a * number_like(a, b); }
Tensor operator/(const Tensor& a, double b) { return a / number_like(a, b); }
Tensor operator+(double a, const Tensor& b) { return number_like(b, a) + b; }
Tensor operator-(double a, const Tensor& b) { return number_like(b, a) - b; }
Tensor operator*(double a, const Tensor& b) { return number_like(b, a) * b; }
Tensor operator/(double a, const Tensor& b) { return number_like(b, a) / b; }
Tensor operator==(const Tensor& a, const Tensor& b) { return binary("==", op::eq, a, b); }
Tensor operator!=(const Tensor& a, const Tensor& b) { return binary("!=", op::ne, a, b); }
Tensor operator<(const Tensor& a, const Tensor& b) { return binary("<", op::lt, a, b); }
Tensor operator<=(const Tensor& a, const Tensor& b) { return binary("<=", op::le, a, b); }
Tensor operator>(const Tensor& a, const Tensor& b) { return binary(">", op::gt, a, b); }
Tensor operator>=(const Tensor& a, const Tensor& b) { return binary(">=", op::ge, a, b); }
Tensor operator==(const Tensor& a, double b) { return a == number_like(a, b); }
Tensor operator!=(const Tensor& a, double b) { return a != number_like(a, b); }
Tensor operator<(const Tensor& a, double b) { return a < number_like(a, b); }
Tensor operator<=(const Tensor& a, double b) { return a <= number_like(a, b); }
Tensor operator>(const Tensor& a, double b) { return a > number_like(a, b); }
Tensor operator>=(const Tensor& a, double b) { return a >= number_like(a, b); }
Tensor maximum(const Tensor& a, const Tensor& b) { return binary("maximum", op::max, a, b); }
Tensor maximum(const Tensor& a, double b) { return maximum(a, number_like(a, b)); }
Tensor minimum(const Tensor& a, const Tensor& b) { return binary("minimum", op::min, a, b); }
Tensor minimum(const Tensor& a, double b) { return minimum(a, number_like(a, b)); }
Tensor pow(const Tensor& a, const Tensor& b) { return binary("pow", op::pow, a, b); }
Tensor pow(const Tensor& a, double b) { return pow(a, number_like(a, b)); }

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  const Dims dims = op::broadcast_dims(condition.dims(), op::broadcast_dims(a.dims(), b.dims()));
  return Tensor::from(op::select(op::broadcast_to(condition.value(), dims), op::broadcast_to(a.value(), dims),
                                 op::broadcast_to(b.value(), dims)),
                      {condition, a, b});
}

Tensor where(const Tensor& condition, const Tensor& a, double b) {
  return where(condition, a, number_like(a, b));
}
Tensor where(const Tensor& condition, double a, const Tensor& b) {
  return where(condition, number_like(b, a), b);
}
Tensor where(const Tensor& condition, double a, double b) { return where(condition, Tensor(a), b); }

Tensor matmul(const Tensor& a, const Tensor& b) {
  return Tensor::from(op::matmul(a.value(), b.value()), {a, b});
}

Tensor concat(std::span<const Tensor> parts, int64_t axis) {
  if (parts.empty()) throw UserError({"concat", "no parts", "0", "at least one"});
  std::vector<Value> values;
  for (const Tensor& t : parts) values.push_back(t.value());
  return Tensor::from(op::concat(std::move(values), axis_of(axis, parts[0].rank(), "concat")), parts);
}

Tensor softmax(const Tensor& x, int64_t axis) {
  return unary(x, [&](Value v) { return op::softmax(v, axis_of(axis, x.rank(), "softmax")); });
}

// ---- what is known below a tensor -----------------------------------------------------------------------------------

std::unordered_map<Value, Array, ir::ValueHash> TensorAccess::known_below(std::span<const Tensor> roots) {
  std::unordered_map<Value, Array, ir::ValueHash> known;
  std::unordered_set<const Impl*> seen;
  std::vector<std::shared_ptr<Impl>> stack;
  for (const Tensor& t : roots)
    if (t.defined()) stack.push_back(t.impl_);
  while (!stack.empty()) {
    const std::shared_ptr<Impl> i = std::move(stack.back());
    stack.pop_back();
    if (!seen.insert(i.get()).second) continue;
    const std::lock_guard lock(i->mutex);
    if (i->data) {
      known.emplace(i->value, *i->data);
      known.emplace(i->leaf, *i->data);
    } else {
      for (const Impl::Edge& p : i->parents) stack.push_back(p.get());
    }
  }
  return known;
}

void TensorAccess::set_data(const Tensor& t, Array data) {
  {
    Impl& i = t.impl();
    const std::lock_guard lock(i.mutex);
    if (i.data) return;
    i.leaf = ir::new_input("leaf", data.type());
    i.data = std::move(data);
    ++i.depth;
  }
  forget_unreachable(t);
}

std::vector<Value> rebuild_over(std::span<const Value> outputs, ir::ValueMap& map) {
  struct Frame {
    const ir::Node* node;
    size_t next;
  };
  std::unordered_set<const ir::Node*> done;
  std::vector<Frame> stack;
  const auto push = [&](const Value& v) {
    if (!map.has(v) && done.insert(&v.node()).second) stack.push_back({&v.node(), 0});
  };
  for (const Value& out : outputs) {
    push(out);
    while (!stack.empty()) {
      Frame& top = stack.back();
      const ir::Node& n = *top.node;
      if (top.next < n.inputs().size()) {
        push(n.inputs()[top.next++]);
        continue;
      }
      std::vector<Value> operands;
      for (const Value& v : n.inputs()) operands.push_back(map.of(v));
      if (operands != n.inputs()) {
        const std::vector<Value> made = ir::make_all(n.op(), std::move(operands), n.attrs());
        for (int r = 0; r < n.results(); ++r)
          if (!map.has(n.value(r))) map.set(n.value(r), made[static_cast<size_t>(r)]);
      }
      stack.pop_back();
    }
  }
  std::vector<Value> out;
  for (const Value& v : outputs) out.push_back(map.of(v));
  return out;
}

std::vector<Value> inputs_below(std::span<const Value> outputs,
                                const std::unordered_map<Value, Array, ir::ValueHash>& cut) {
  std::vector<Value> found;
  std::unordered_set<Value, ir::ValueHash> seen;
  std::vector<Value> stack(outputs.rbegin(), outputs.rend());
  while (!stack.empty()) {
    const Value v = std::move(stack.back());
    stack.pop_back();
    if (!seen.insert(v).second) continue;
    if (cut.contains(v) || ir::is_input(v)) {
      found.push_back(v);
      continue;
    }
    for (auto it = v->inputs().rbegin(); it != v->inputs().rend(); ++it) stack.push_back(*it);
  }
  return found;
}

// ---- text ----------------------------------------------------------------------------------------------------------

namespace {

void print_axis(std::string& out, const Array& a, size_t axis, int64_t& at) {
  if (axis == a.dims().size()) {
    out += fmt::format("{:.6g}", a.at(at++));
    return;
  }
  constexpr int64_t longest = 8;
  const int64_t n = a.dims()[axis];
  int64_t below = 1;
  for (size_t i = axis + 1; i < a.dims().size(); ++i) below *= a.dims()[i];
  out += "[";
  for (int64_t i = 0; i < n; ++i) {
    if (i) out += ", ";
    if (n > longest && i == longest / 2) {
      out += "..., ";
      at += (n - longest) * below;
      i += n - longest;
    }
    print_axis(out, a, axis + 1, at);
  }
  out += "]";
}

}  // namespace

std::string to_text(const Tensor& tensor) {
  const Array& a = tensor.array();
  std::string out = a.type().text() + " ";
  int64_t at = 0;
  print_axis(out, a, 0, at);
  return out;
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) { return out << to_text(tensor); }

}  // namespace espalier

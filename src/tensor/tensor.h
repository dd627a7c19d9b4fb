#pragma once
// Tensor: what people program with. A value: a node of the graph plus, once computed, its elements. Operations build graph;
// looking at a value (item(), array(), printing) compiles what is needed, runs it and keeps the result; compiled programs
// are cached by structure, so the second look at the same computation on other data costs no compilation.
//
// Operators broadcast as NumPy does; C++ numbers take the dtype of the tensor before them (UserError where that
// has no such fraction); tensors of different dtypes are a UserError.
// Threads: a Tensor may be copied and read from any thread; building on one tensor from several threads is safe.
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ir/array.h"
#include "ir/node.h"

namespace espalier {

using ir::Array;
using ir::Dim;
using ir::Dims;
using ir::Dtype;

class ESPALIER_API Tensor {
 public:
  /// An empty tensor: stands for "none"; any use but assignment and defined() is a UserError.
  Tensor() = default;
  /// A scalar (rank 0) of dtype f32.
  Tensor(double value);  // NOLINT: numbers are tensors
  /// The elements of `array` (shared, not copied).
  explicit Tensor(Array array);
  /// A value of a graph computed from `parents` (for code that builds graph itself: layers, losses, models).
  static Tensor from(ir::Value value, std::span<const Tensor> parents);
  static Tensor from(ir::Value value, std::initializer_list<Tensor> parents) {
    return from(std::move(value), std::span<const Tensor>(parents.begin(), parents.size()));
  }

  /// Tensors of `dims` filled with one number; UserError for a negative dim, and for a number that the dtype has not.
  static Tensor zeros(std::vector<int64_t> dims, Dtype dtype = Dtype::f32);
  static Tensor ones(std::vector<int64_t> dims, Dtype dtype = Dtype::f32);
  static Tensor full(std::vector<int64_t> dims, double value, Dtype dtype = Dtype::f32);
  /// 0, 1, ..., count - 1: [count].
  static Tensor arange(int64_t count, Dtype dtype = Dtype::f32);
  /// Standard normal (or uniform in [0,1)) numbers of one seed: the same on every machine.
  static Tensor randn(std::vector<int64_t> dims, uint64_t seed = 0, Dtype dtype = Dtype::f32);
  static Tensor rand(std::vector<int64_t> dims, uint64_t seed = 0, Dtype dtype = Dtype::f32);
  /// A number in a list of numbers. (Were it a double, {{0}, {4}} could be a list of two numbers as well as two rows.)
  struct Number {
    double value;
    Number(double v) : value(v) {}
  };
  /// Numbers: [count].
  static Tensor of(std::initializer_list<Number> values, Dtype dtype = Dtype::f32);
  /// Rows of numbers: [rows, columns]; UserError when they differ in length.
  static Tensor of(std::initializer_list<std::initializer_list<double>> rows, Dtype dtype = Dtype::f32);

  bool defined() const { return impl_ != nullptr; }  ///< is it not empty?
  const Dims& dims() const;
  Dim dim(int64_t axis) const;  ///< negative axes count from the end
  int rank() const;
  Dtype dtype() const;

  /// The elements, computed if need be. UserError inside a traced function, where values are not known yet.
  const Array& array() const;
  /// The one element as a double; UserError when there are more.
  double item() const;
  /// The elements in row-major order; T must be the tensor's element type (float for f32, ...), else UserError.
  template <class T>
  std::vector<T> to_vector() const {
    const Array& a = array();
    if (ir::dtype_of<T>() != a.dtype())
      throw UserError({"to_vector", "is asked for another type than the elements'",
                       std::string(ir::dtype_name(ir::dtype_of<T>())),
                       std::string(ir::dtype_name(a.dtype()))});
    const T* p = a.data<T>();
    return {p, p + a.size()};
  }
  /// Are the elements known without computing?
  bool computed() const;

  const ir::Value& value() const;  ///< the node to build on

  Tensor operator-() const;
  /// Floats round to nearest even; floats to integers truncate and saturate (NaN gives 0); integers wrap.
  Tensor cast(Dtype dtype) const;
  /// The same elements in row-major order; one dim may be -1. UserError where their number differs.
  Tensor reshape(Dims dims) const;
  /// Axis i of the result is axis perm[i]; UserError unless perm names each axis once.
  Tensor transpose(std::vector<int64_t> perm) const;
  Tensor transpose() const;  ///< reverses the axes
  /// Repeated along axes that are 1 or missing in front, as NumPy does; UserError for other dims.
  Tensor broadcast_to(const Dims& dims) const;
  /// `size` elements of an axis, beginning at `from`; UserError where they do not lie in it.
  Tensor slice(int64_t axis, int64_t from, Dim size) const;
  Tensor flatten(int64_t from_axis = 1) const;  ///< merges all axes from `from_axis` on
  // Over the given axes (negative ones count from the end; none: all), which fall away.
  Tensor sum(std::vector<int64_t> axes = {}) const;
  Tensor mean(std::vector<int64_t> axes = {}) const;
  Tensor max(std::vector<int64_t> axes = {}) const;
  Tensor min(std::vector<int64_t> axes = {}) const;
  /// The index of the first largest element along an axis, i64; NaN counts as largest.
  Tensor argmax(int64_t axis = -1) const;
  // Element by element.
  Tensor exp() const;
  Tensor log() const;
  Tensor sqrt() const;
  Tensor tanh() const;
  Tensor relu() const;
  Tensor sigmoid() const;
  Tensor square() const;
  Tensor abs() const;

 private:
  struct Impl;
  friend class TensorAccess;
  explicit Tensor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  Impl& impl() const;
  std::shared_ptr<Impl> impl_;
};

ESPALIER_API Tensor operator+(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator-(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator*(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator/(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator+(const Tensor& a, double b);
ESPALIER_API Tensor operator-(const Tensor& a, double b);
ESPALIER_API Tensor operator*(const Tensor& a, double b);
ESPALIER_API Tensor operator/(const Tensor& a, double b);
ESPALIER_API Tensor operator+(double a, const Tensor& b);
ESPALIER_API Tensor operator-(double a, const Tensor& b);
ESPALIER_API Tensor operator*(double a, const Tensor& b);
ESPALIER_API Tensor operator/(double a, const Tensor& b);
// Comparisons, element by element: a bool tensor.
ESPALIER_API Tensor operator==(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator!=(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator<(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator<=(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator>(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator>=(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor operator==(const Tensor& a, double b);
ESPALIER_API Tensor operator!=(const Tensor& a, double b);
ESPALIER_API Tensor operator<(const Tensor& a, double b);
ESPALIER_API Tensor operator<=(const Tensor& a, double b);
ESPALIER_API Tensor operator>(const Tensor& a, double b);
ESPALIER_API Tensor operator>=(const Tensor& a, double b);

/// Element by element after broadcasting; maximum and minimum give NaN where one of the two is.
ESPALIER_API Tensor maximum(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor maximum(const Tensor& a, double b);
ESPALIER_API Tensor minimum(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor minimum(const Tensor& a, double b);
ESPALIER_API Tensor pow(const Tensor& a, const Tensor& b);
ESPALIER_API Tensor pow(const Tensor& a, double b);
/// `condition` (bool) chooses, element by element, after broadcasting; two numbers give f32.
ESPALIER_API Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
ESPALIER_API Tensor where(const Tensor& condition, const Tensor& a, double b);
ESPALIER_API Tensor where(const Tensor& condition, double a, const Tensor& b);
ESPALIER_API Tensor where(const Tensor& condition, double a, double b);
/// [..., M, K] times [K, N] or [..., K, N] (equal leading dims). Accumulates in f32 (f64 for f64); UserError for other ranks
/// and dims.
ESPALIER_API Tensor matmul(const Tensor& a, const Tensor& b);
/// The parts one after the other along `axis`; UserError unless dtypes and all other dims are equal.
ESPALIER_API Tensor concat(std::span<const Tensor> parts, int64_t axis);
/// exp(x) over its sum along `axis`, without overflow; floats only.
ESPALIER_API Tensor softmax(const Tensor& x, int64_t axis = -1);

/// Compute several tensors in one program.
ESPALIER_API void evaluate(std::span<const Tensor> tensors);
/// "f32[2,3] [[1, 2, 3], [4, 5, 6]]"; long axes are shortened.
ESPALIER_API std::string to_text(const Tensor& tensor);
ESPALIER_API std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

/// The gradient of scalar `loss` (a float of rank 0) with respect to each tensor of `wrt`, as tensors of the same graph and
/// of the types of `wrt`, by reverse mode; zeros where the loss does not depend on one. It goes through tensors that were
/// looked at: they keep how they were computed as long as a tensor that they depend on is held or is a parameter's value
/// (Tensor(t.array()) forgets it). UserError for a loss that is no scalar, where an op on the way has no gradient, and where
/// the loss was computed with another value of a parameter than the one that is asked for.
ESPALIER_API std::vector<Tensor> grad(const Tensor& loss, std::span<const Tensor> wrt);

}  // namespace espalier

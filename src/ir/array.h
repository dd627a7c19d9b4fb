#pragma once
// Array: elements in host memory, row-major, 64-byte aligned, shared by copies. What constants, files and the reference
// interpreter hold. Copies share the bytes; write() is for the one who made it, before it is shared.
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "ir/type.h"

namespace espalier::ir {

class ESPALIER_API Array {
 public:
  Array() : Array(Dtype::f32, std::vector<int64_t>{0}) {}
  /// Zeroed elements; UserError for a negative dim or more bytes than memory gives.
  Array(Dtype dtype, std::vector<int64_t> dims);
  /// Bytes owned by `keep` (a mapped file, a tensor): nothing is copied. `data` holds the elements, row-major.
  static Array borrow(Dtype dtype, std::vector<int64_t> dims, const void* data,
                      std::shared_ptr<const void> keep);
  /// Copies of `values`, shaped `dims`; UserError when the counts differ.
  template <class T>
  static Array of(std::vector<int64_t> dims, std::span<const T> values) {
    Array a(dtype_of<T>(), std::move(dims));
    a.check_count(static_cast<int64_t>(values.size()));
    T* out = a.template write<T>();
    for (size_t i = 0; i < values.size(); ++i) out[i] = values[i];
    return a;
  }
  template <class T>
  static Array of(std::vector<int64_t> dims, std::initializer_list<T> values) {
    return of<T>(std::move(dims), std::span<const T>(values.begin(), values.size()));
  }
  /// Copies of `values` as a list, of rank 1.
  template <class T>
  static Array list(const std::vector<T>& values) {
    return of<T>({static_cast<int64_t>(values.size())}, std::span<const T>(values));
  }
  /// A scalar of any dtype, rounded from a double (or wrapped, for integers).
  static Array scalar(Dtype dtype, double value);
  /// `dims` filled with one value.
  static Array full(Dtype dtype, std::vector<int64_t> dims, double value);

  /// The same elements in memory of their own.
  Array copied() const;

  Dtype dtype() const { return dtype_; }
  const std::vector<int64_t>& dims() const { return dims_; }
  Type type() const { return {dtype_, to_dims(dims_)}; }
  int rank() const { return static_cast<int>(dims_.size()); }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * dtype_size(dtype_); }

  const void* data() const { return data_; }
  void* write() { return const_cast<void*>(data_); }
  /// Elements as T; InternalError when T is not the dtype's C++ type.
  template <class T>
  const T* data() const {
    ESPALIER_CHECK(dtype_of<T>() == dtype_, std::string("array holds ") + std::string(dtype_name(dtype_)));
    return static_cast<const T*>(data_);
  }
  template <class T>
  T* write() {
    return const_cast<T*>(data<T>());
  }
  /// Element i (row-major) as a double (integers beyond 2^53 round).
  double at(int64_t i) const;
  /// Set element i from a double, rounding as the dtype does.
  void set(int64_t i, double value);

  /// The same elements with other dims; UserError when the counts differ.
  Array reshaped(std::vector<int64_t> dims) const;
  /// Elements converted to another dtype (floats round to even, floats to integers truncate and saturate, NaN gives 0).
  Array cast(Dtype dtype) const;
  /// Are all elements the same, bit by bit (so -0 is not 0)? Not where there are none.
  bool is_splat() const;
  /// Hash of dtype, dims and bytes; computed once per buffer and kept.
  size_t hash() const;
  /// Same dtype, dims and bytes (so NaN equals itself, 0 and -0 differ). Shared buffers compare by address.
  friend ESPALIER_API bool operator==(const Array& a, const Array& b);

 private:
  struct Storage;
  void check_count(int64_t n) const;
  Dtype dtype_;
  std::vector<int64_t> dims_;
  int64_t size_ = 0;
  const void* data_ = nullptr;
  std::shared_ptr<Storage> storage_;
};

}  // namespace espalier::ir

#include "ir/array.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string_view>

#include "base/align.h"

namespace espalier::ir {

struct Array::Storage {
  void* owned = nullptr;
  std::shared_ptr<const void> keep;
  std::atomic<size_t> hash{0};  // of the bytes; 0 = not yet computed
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage() { std::free(owned); }
};

namespace {

int64_t checked_count(const std::vector<int64_t>& dims) {
  for (const int64_t d : dims)
    if (d < 0) throw UserError({"array", "negative dim", dims_text(dims), "dims >= 0"});
  return count(std::span<const int64_t>(dims));
}

template <class To>
To convert(double v) {
  if constexpr (std::is_same_v<To, bool>) return v != 0;
  else if constexpr (std::is_integral_v<To>) {
    if (std::isnan(v)) return 0;
    if (v <= static_cast<double>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (v >= static_cast<double>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    return static_cast<To>(v);
  } else return number_cast<To>(v);
}

}  // namespace

Array::Array(Dtype dtype, std::vector<int64_t> dims)
    : dtype_(dtype),
      dims_(std::move(dims)),
      size_(checked_count(dims_)),
      storage_(std::make_shared<Storage>()) {
  int64_t n = 0;
  if (__builtin_mul_overflow(size_, dtype_size(dtype), &n) || n > (int64_t{1} << 46))
    throw UserError({"array", "too large", dims_text(dims_), "at most 64 TiB"});
  // A vector load at the end stays inside.
  const auto rounded = static_cast<size_t>(whole_lines(n) + cache_line);
  storage_->owned = std::aligned_alloc(cache_line, rounded);
  if (!storage_->owned) throw UserError({"array", "out of memory", dims_text(dims_), ""});
  std::memset(storage_->owned, 0, rounded);
  data_ = storage_->owned;
}

Array Array::borrow(Dtype dtype, std::vector<int64_t> dims, const void* data,
                    std::shared_ptr<const void> keep) {
  Array a(dtype, {0});
  a.size_ = checked_count(dims);
  a.dims_ = std::move(dims);
  a.data_ = data;
  a.storage_ = std::make_shared<Storage>();
  a.storage_->keep = std::move(keep);
  return a;
}

Array Array::scalar(Dtype dtype, double value) { return full(dtype, {}, value); }

Array Array::full(Dtype dtype, std::vector<int64_t> dims, double value) {
  Array a(dtype, std::move(dims));
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T v = convert<T>(value);
    T* out = a.write<T>();
    for (int64_t i = 0; i < a.size_; ++i) out[i] = v;
  });
  return a;
}

Array Array::copied() const {
  Array copy(dtype_, dims_);
  std::memcpy(copy.write(), data_, static_cast<size_t>(bytes()));
  return copy;
}

double Array::at(int64_t i) const {
  ESPALIER_CHECK(i >= 0 && i < size_);
  return dispatch(dtype_, [&](auto tag) {
    return number_cast<double>(static_cast<const typename decltype(tag)::type*>(data_)[i]);
  });
}

void Array::set(int64_t i, double value) {
  ESPALIER_CHECK(i >= 0 && i < size_);
  dispatch(dtype_, [&](auto tag) {
    using T = typename decltype(tag)::type;
    write<T>()[i] = convert<T>(value);
  });
}

Array Array::reshaped(std::vector<int64_t> dims) const {
  Array a = *this;
  a.size_ = checked_count(dims);
  a.dims_ = std::move(dims);
  if (a.size_ != size_)
    throw UserError(
        {"array", "reshape changes the number of elements", dims_text(a.dims_), dims_text(dims_)});
  return a;
}

Array Array::cast(Dtype dtype) const {
  if (dtype == dtype_) return *this;
  Array out(dtype, dims_);
  dispatch(dtype_, [&](auto from) {
    using From = typename decltype(from)::type;
    const From* in = data<From>();
    dispatch(dtype, [&](auto to) {
      using To = typename decltype(to)::type;
      To* o = out.write<To>();
      constexpr bool both_integers = std::is_integral_v<From> && std::is_integral_v<To>;
      for (int64_t i = 0; i < size_; ++i) {
        if constexpr (both_integers) o[i] = static_cast<To>(in[i]);  // integers wrap
        else if constexpr (std::is_integral_v<From> && std::is_floating_point_v<To>)
          o[i] = static_cast<To>(in[i]);
        else if constexpr (std::is_integral_v<From>) o[i] = To(static_cast<float>(in[i]));
        else o[i] = convert<To>(number_cast<double>(in[i]));
      }
    });
  });
  return out;
}

void Array::check_count(int64_t n) const {
  if (n != size_)
    throw UserError(
        {"array", "number of values does not fit the dims", std::to_string(n), std::to_string(size_)});
}

bool Array::is_splat() const {
  if (size_ == 0) return false;
  const auto* bytes = static_cast<const char*>(data_);
  const auto all = static_cast<size_t>(this->bytes()), each = all / static_cast<size_t>(size_);
  return std::memcmp(bytes, bytes + each, all - each) == 0;  // each is as the next
}

size_t Array::hash() const {
  size_t h = storage_->hash.load(std::memory_order_relaxed);
  if (h == 0) {
    h = std::hash<std::string_view>{}({static_cast<const char*>(data_), static_cast<size_t>(bytes())}) | 1;
    storage_->hash.store(h, std::memory_order_relaxed);
  }
  for (const int64_t d : dims_) h = h * 0x100000001b3ull + static_cast<size_t>(d);
  return h * 31 + static_cast<size_t>(dtype_);
}

bool operator==(const Array& a, const Array& b) {
  if (a.dtype_ != b.dtype_ || a.dims_ != b.dims_) return false;
  if (a.data_ == b.data_) return true;
  return a.hash() == b.hash() && std::memcmp(a.data_, b.data_, static_cast<size_t>(a.bytes())) == 0;
}

}  // namespace espalier::ir

#pragma once
// A Type is a dtype and dims. A dim is a number, or a number times a named symbol (batch) that specialise() binds.
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/dtype.h"

namespace espalier::ir {

/// One dimension: `factor`, or `factor * symbol`. Products and exact quotients of dims are dims again; a sum is a dim
/// where both sides have the same symbol.
class Dim {
 public:
  constexpr Dim() = default;
  constexpr Dim(int64_t value) : factor_(value) {}  // NOLINT: a number is a dim
  constexpr Dim(int value) : factor_(value) {}      // NOLINT
  /// The symbol `name` itself; equal names are equal symbols.
  ESPALIER_API static Dim symbol(std::string_view name);

  constexpr bool is_static() const { return symbol_ == 0; }
  constexpr int64_t factor() const { return factor_; }
  /// The number; InternalError for a symbolic dim.
  ESPALIER_API int64_t value() const;
  /// The symbol's name ("" for a static dim).
  ESPALIER_API std::string_view symbol_name() const;
  ESPALIER_API std::string text() const;  ///< "12", "batch", "4*batch"
  bool operator==(const Dim&) const = default;
  size_t hash() const { return static_cast<size_t>(factor_) * 0x9e3779b97f4a7c15ull + symbol_; }

  /// UserError where the result is no dim (two symbols multiplied, symbols of different names added, a remainder).
  ESPALIER_API friend Dim operator*(Dim a, Dim b);
  ESPALIER_API friend Dim operator/(Dim a, Dim b);
  ESPALIER_API friend Dim operator+(Dim a, Dim b);

 private:
  constexpr Dim(int64_t factor, uint32_t symbol) : factor_(factor), symbol_(symbol) {}
  int64_t factor_ = 0;
  uint32_t symbol_ = 0;
};

using Dims = std::vector<Dim>;

/// Static dims as numbers; InternalError when one is symbolic.
ESPALIER_API std::vector<int64_t> static_dims(std::span<const Dim> dims);
/// Numbers as dims.
ESPALIER_API Dims to_dims(std::span<const int64_t> dims);
/// The product of all dims (1 for none).
ESPALIER_API Dim count(std::span<const Dim> dims);
/// The product of numbers.
ESPALIER_API int64_t count(std::span<const int64_t> dims);
/// "[2,batch]".
ESPALIER_API std::string dims_text(std::span<const Dim> dims);
ESPALIER_API std::string dims_text(std::span<const int64_t> dims);

struct Type {
  Dtype dtype = Dtype::f32;
  Dims dims;

  int rank() const { return static_cast<int>(dims.size()); }
  bool is_static() const;
  int64_t elements() const { return count(dims).value(); }
  int64_t bytes() const { return elements() * dtype_size(dtype); }
  std::string text() const { return std::string(dtype_name(dtype)) + dims_text(dims); }  ///< "f32[2,batch]"
  bool operator==(const Type&) const = default;
};

/// "f32[2,batch], i64[]"; "nothing" for none.
ESPALIER_API std::string types_text(std::span<const Type> types);
/// Do dims `given` fit `wanted`, where a symbol stands for one number throughout? What the symbols must be is added to
/// `symbols`, which may hold some already; a given dim may itself be symbolic, and fits itself only.
ESPALIER_API bool bind_dims(const Dims& wanted, const Dims& given, std::map<std::string, int64_t>& symbols);

/// Row-major strides of static dims, in elements.
ESPALIER_API std::vector<int64_t> row_major_strides(std::span<const int64_t> dims);

}  // namespace espalier::ir

#pragma once
// The element types, and a way from a run-time dtype to a C++ type.
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "base/export.h"
#include "base/float16.h"

namespace espalier::ir {

enum class Dtype : uint8_t { f64, f32, bf16, f16, i64, i32, i8, u8, boolean };
inline constexpr int dtype_count = 9;

/// "f64", "f32", "bf16", "f16", "i64", "i32", "i8", "u8", "bool".
ESPALIER_API std::string_view dtype_name(Dtype dtype);
/// The dtype of that name; UserError lists the names otherwise.
ESPALIER_API Dtype dtype_of_name(std::string_view name);
/// Bytes of one element (bool takes one).
constexpr int64_t dtype_size(Dtype d) {
  constexpr int8_t size[] = {8, 4, 2, 2, 8, 4, 1, 1, 1};
  return size[static_cast<int>(d)];
}
constexpr bool is_float(Dtype d) { return d <= Dtype::f16; }
constexpr bool is_integer(Dtype d) { return d >= Dtype::i64 && d <= Dtype::u8; }

/// A set of dtypes, as the op table states what an op takes.
struct DtypeSet {
  uint16_t bits;
  constexpr bool has(Dtype d) const { return (bits >> static_cast<int>(d)) & 1; }
  constexpr DtypeSet operator|(DtypeSet o) const { return {static_cast<uint16_t>(bits | o.bits)}; }
  bool operator==(const DtypeSet&) const = default;
};
constexpr DtypeSet dtype_set(Dtype d) { return {static_cast<uint16_t>(1u << static_cast<int>(d))}; }
inline constexpr DtypeSet float_types{0b000001111}, integer_types{0b011110000}, bool_type{0b100000000};
inline constexpr DtypeSet number_types = float_types | integer_types, all_types = number_types | bool_type;

template <class T>
struct TypeTag {
  using type = T;
};

/// The dtype a C++ element type stands for (bool is stored as one byte, 0 or 1).
template <class T>
constexpr Dtype dtype_of() {
  if constexpr (std::is_same_v<T, double>) return Dtype::f64;
  else if constexpr (std::is_same_v<T, float>) return Dtype::f32;
  else if constexpr (std::is_same_v<T, bf16>) return Dtype::bf16;
  else if constexpr (std::is_same_v<T, f16>) return Dtype::f16;
  else if constexpr (std::is_same_v<T, int64_t>) return Dtype::i64;
  else if constexpr (std::is_same_v<T, int32_t>) return Dtype::i32;
  else if constexpr (std::is_same_v<T, int8_t>) return Dtype::i8;
  else if constexpr (std::is_same_v<T, uint8_t>) return Dtype::u8;
  else {
    static_assert(std::is_same_v<T, bool>, "no dtype for this C++ type");
    return Dtype::boolean;
  }
}

/// Call `f(TypeTag<T>{})` with the C++ element type of `dtype`.
template <class F>
decltype(auto) dispatch(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f64: return f(TypeTag<double>{});
    case Dtype::f32: return f(TypeTag<float>{});
    case Dtype::bf16: return f(TypeTag<bf16>{});
    case Dtype::f16: return f(TypeTag<f16>{});
    case Dtype::i64: return f(TypeTag<int64_t>{});
    case Dtype::i32: return f(TypeTag<int32_t>{});
    case Dtype::i8: return f(TypeTag<int8_t>{});
    case Dtype::u8: return f(TypeTag<uint8_t>{});
    case Dtype::boolean: break;
  }
  return f(TypeTag<bool>{});
}

}  // namespace espalier::ir

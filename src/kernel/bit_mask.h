#pragma once
// Masks of one bit an element, as plain values, so that no other level needs to know of them: what relu's gradient reads of relu where a
// library's products give and take it.
#include "ir/graph.h"

namespace espalier::kernel {

/// Bits of a row of `elements`: a multiple of 128.
constexpr int64_t row_bits(int64_t elements) { return (elements + 127) / 128 * 128; }

/// Bools [..., n] as u8 [..., row_bits(n) / 8]: element i of a row is bit i % 8 of byte i / 8. The rest of a row is 0 here; a library may
/// leave anything there, and nothing may read it.
ir::Value pack_bits(const ir::Value& x);
/// The first `n` bits of each row as bools [..., n].
ir::Value unpack_bits(const ir::Value& x, int64_t n);

/// If `x` is pack_bits(v): v. Else no value.
ir::Value match_packed(const ir::Value& x);
/// If `x` is unpack_bits(v, n): v. Else no value.
ir::Value match_unpacked(const ir::Value& x);

}  // namespace espalier::kernel

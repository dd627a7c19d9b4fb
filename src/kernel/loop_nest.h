#pragma once
// The level under tensors: loops over static extents, affine accesses, scalar instructions. lower() makes it from a fusion
// body; the code generators (CPU, CUDA) read it.
//
// Meaning. For every point of the outer loops (independent of each other, any order, in parallel), the stages run in
// order; a stage runs its body for every point of its own loops. What a stage reduces is known to the stages after it, at
// the same outer point. A load whose guards do not all hold reads nothing and gives 0. bf16 and f16 are storage: their
// values are f32 in registers, rounded by `cast` and by stores. A bool is one byte, 0 or 1.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/dtype.h"
#include "ir/scalar.h"

namespace espalier::kernel {

using ir::Dtype;

/// offset + sum of coef * loop variable. Terms are sorted by variable, without zeros.
struct Affine {
  struct Term {
    int var;
    int64_t coef;
    bool operator==(const Term&) const = default;
  };
  int64_t offset = 0;
  std::vector<Term> terms;

  static Affine constant(int64_t value) { return {value, {}}; }
  static Affine var(int v, int64_t coef = 1);
  int64_t coef(int var) const;
  Affine& add(const Affine& other, int64_t factor = 1);
  /// The same with `var` replaced by `by`.
  Affine replaced(int var, const Affine& by) const;
  std::string text() const;  ///< "3 + 16*v0 + v1"
  bool operator==(const Affine&) const = default;
};

/// Holds where low <= index < high.
struct Guard {
  Affine index;
  int64_t low = 0, high = 0;
  bool operator==(const Guard&) const = default;
};

/// A part of an address that comes from data: clamp(value, 0, bound - 1) * stride elements.
struct Indirect {
  int value = -1;  ///< an integer instruction of the same stage
  int64_t bound = 1, stride = 0;
  bool operator==(const Indirect&) const = default;
};

struct Instr {
  enum class Kind : uint8_t {
    constant,  ///< `value` (floats) or `integer`
    index,     ///< the affine `address` as a number (i64, converted to dtype)
    load,      ///< element `address` (+ indirect parts) of `buffer`, where all guards hold
    inside,    ///< bool: do all guards hold?
    scalar,    ///< `code` of the operands, computed in their dtype
    cast,      ///< operand 0 converted to dtype as Array::cast does
    reduced,   ///< result operand[1] of the reductions of stage operand[0], an earlier one
  };
  Kind kind = Kind::constant;
  Dtype dtype = Dtype::f32;  ///< of the result
  ir::ScalarCode code = ir::ScalarCode::add;
  std::array<int, 3> operand{-1, -1, -1};  ///< earlier instructions of the stage
  double value = 0;
  int64_t integer = 0;
  int buffer = -1;
  Affine address;
  std::vector<Guard> guards;
  std::vector<Indirect> indirect;
  bool operator==(const Instr&) const = default;
};

enum class ReduceOp : uint8_t { sum, prod, max, min, argmax, argmin };
std::string_view reduce_op_name(ReduceOp op);

struct Reduction {
  ReduceOp op = ReduceOp::sum;
  Dtype dtype = Dtype::f32;  ///< of the accumulator and (but for argmax, argmin) of the result
  int value = -1;            ///< the instruction that is reduced
  int position =
      -1;  ///< argmax, argmin: the integer instruction that numbers the elements, whose dtype the result has; the lowest of equals wins
};

/// Instruction `value` is written to element `address` of `buffer`, converted to its dtype.
struct Store {
  int buffer = -1;
  Affine address;
  int value = -1;
};

struct Stage {
  std::vector<int> loops;  ///< variables, outermost first
  std::vector<Instr> body;
  std::vector<Reduction> reductions;
  std::vector<Store> stores;
};

enum class Role : uint8_t { input, output, scratch, local };
std::string_view role_name(Role role);

struct Buffer {
  Role role = Role::input;  ///< local: private to one point of the outer loops, not passed in
  Dtype dtype = Dtype::f32;
  int64_t elements = 0;
};

struct LoopNest {
  std::vector<Buffer>
      buffers;  ///< what the caller passes, in this order (locals come last and are not passed)
  std::vector<int64_t> extents;  ///< of every loop variable
  std::vector<int> outer;        ///< variables of the outer loops, outermost first
  std::vector<Stage> stages;

  int64_t extent(int var) const { return extents[static_cast<size_t>(var)]; }
  std::string text() const;  ///< complete: the key of compiled kernels, and the golden text
};

/// Loop variables in range, accesses inside their buffers (where guards hold), operands earlier than their use; InternalError
/// says what is wrong.
void verify(const LoopNest& nest);

/// Smallest and largest value of `index` over all points of the variables' extents (every extent at least 1).
std::pair<int64_t, int64_t> bounds(const Affine& index, const std::vector<int64_t>& extents);

/// May buffer `out` be the very memory of buffer `in`? True when each element of `in` is read only where (and before) the same
/// element of `out` is written.
bool can_share(const LoopNest& nest, int out, int in);

}  // namespace espalier::kernel

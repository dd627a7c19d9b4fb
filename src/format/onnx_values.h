#pragma once
// Values while a file is read: which layout they are stored in, builders that fold as they go, and constants' values.
//
// ONNX's tensors are channels-first, ours channels-last. A Held tensor is either stored as ONNX sees it, or channels-last
// (`last`: N, spatial..., C where ONNX sees N, C, spatial...). Transposes between the two only switch the view, so the
// ones that a file has around its channels-first chains vanish.
#include <functional>
#include <optional>

#include "ir/graph.h"

namespace espalier::format {

using Ints = std::vector<int64_t>;

struct Held {
  ir::Value value;    ///< empty where only `sizes` is known
  bool last = false;  ///< stored channels-last (rank >= 3)
  std::optional<ir::Dims>
      sizes;  ///< integers that hold symbolic sizes (rank 0 or 1); set only where there is no value
  bool scalar_sizes = false;  ///< sizes of rank 0

  explicit operator bool() const { return value || sizes; }
};

inline Held held(ir::Value v, bool last = false) {
  return {.value = std::move(v), .last = last, .sizes = {}};
}
inline Held held_last(ir::Value v) { return held(std::move(v), true); }

/// Axes of stored dims by ONNX's order: 0, r-1, 1, ..., r-2.
Ints to_first_perm(int rank);
/// 0, 2, ..., r-1, 1.
Ints to_last_perm(int rank);
/// Where ONNX's axis stands in a channels-last tensor.
int64_t last_axis(int64_t axis, int rank);

/// As ONNX sees them.
ir::Dims dims_of(const Held& held);
ir::Value plain(const Held& held);
/// Stored channels-last; rank >= 3.
ir::Value stored_last(const Held& held);

/// As the builders of op/, but reshapes of reshapes are one, transposes of transposes compose, constants are moved here,
/// and a transpose that moves only dims of 1 is a reshape.
ir::Value reshaped(const ir::Value& x, const ir::Dims& dims);
ir::Value transposed(const ir::Value& x, const Ints& perm);
/// While a model is read, a named constant that was moved is named after it and its moves: NAME, then for each move this
/// mark, "t" or "r", and the permutation or the dims.
inline constexpr char move_mark = '\x1f';
/// That name taken apart: NAME and the moves.
std::pair<std::string, std::string> moved_name(const std::string& name);
/// Nodes that move the constant so.
ir::Value moved(const ir::Value& constant, const std::string& moves);
/// The last axis moved to stand at `axis`.
ir::Value last_moved_to(const ir::Value& x, int64_t axis);
/// A reduction's result, with the axes that it folded from dims `from` kept as 1.
ir::Value kept_as_ones(const ir::Value& reduced, ir::Dims from, const Ints& axes);
/// Sums of `length` elements in a row along an axis of known size n, by doubling: n - length + 1 of them. What is not finite
/// reaches only the sums that hold it.
ir::Value window_sums(const ir::Value& x, int64_t axis, int64_t length);
/// x with this many zeros before and behind along an axis.
ir::Value zeros_around(const ir::Value& x, int64_t axis, int64_t before, int64_t behind);
/// f(x), computed in f32 where x is of 16 bits.
ir::Value in_f32_at_least(const ir::Value& x, const std::function<ir::Value(const ir::Value&)>& f);
/// x, whose axis i stands at result axis at[i] (rising), stretched to `dims`.
ir::Value stretched(const ir::Value& x, const ir::Dims& dims, const Ints& at);
/// NumPy's rule: trailing axes align.
ir::Value stretched(const ir::Value& x, const ir::Dims& dims);

/// The known number, of rank 0, that every element of a value is, bit by bit; nullopt where there is none.
std::optional<ir::Array> one_number(const ir::Value& v);
/// What the names of indices begin with that were clipped for a gathering as it is written; reading takes that away again.
inline constexpr std::string_view nearest_mark = "#nearest:";

/// Constants computed from constants: integers, bools, small floats and what only moves; the same Value otherwise. Moved
/// constants of a name get names that say how.
class Folder {
 public:
  ir::Value fold(const ir::Value& v);

 private:
  ir::ValueMap memo_;
};

/// Results of a node for constant operands, as the op records define it.
std::vector<ir::Array> evaluate_node(const ir::Node& node, std::span<const ir::Array> operands);

}  // namespace espalier::format

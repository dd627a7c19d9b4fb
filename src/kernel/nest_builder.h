#pragma once
// Builds one loop nest for some values of a body that are to be stored. Values are pulled from the stored elements backwards:
// each op says which elements of its operands one element of its result needs (nest_ops.cpp). A fold (reduction, dot) becomes
// a stage of its own, which later stages refer to.
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "kernel/lower.h"

namespace espalier::op {
struct ResizeAttrs;
}

namespace espalier::kernel {

/// Where along one axis: an affine part, and parts that come from data: clamp(value, 0, bound - 1) * coef.
struct Position {
  Affine affine;
  struct Data {
    int value;  ///< instruction of the stage
    int64_t bound, coef;
    bool operator==(const Data&) const = default;
  };
  std::vector<Data> data;
};
using Index = std::vector<Position>;

using ValueKey = std::pair<uint64_t, int>;  ///< node id, result
inline ValueKey key_of(const ir::Value& v) { return {v.node().id(), v.result()}; }

/// An axis whose loop may stand for several: (value, axis); folded axes count from `folded_axis`.
using AxisKey = std::pair<ValueKey, int64_t>;
inline constexpr int64_t folded_axis = 1000;

// Thrown while a nest is built and caught by lower(), which begins again knowing more.
struct MustSplitAxis {  ///< factor `position` of the axis is two: the inner of `inner` elements
  AxisKey axis;
  size_t position;
  int64_t inner;
};
struct MustStore {  ///< `value` is to be computed by a nest of its own
  ir::Value value;
};
struct MustCut {  ///< the fold `value` is long: its folded axis `axis` is cut in `parts`,
  ir::Value value;
  size_t axis;
  int64_t parts;
  bool leading = false;  ///< and each element of the axes before it is a part of its own
};
struct CannotLower {
  std::string reason;
};

/// A long fold in parts: part p covers p*step .. (p+1)*step of the folded axis. Where axes before it are cut as well, p is a
/// row-major number: their elements, then the part of the axis.
struct Cut {
  size_t axis = 0;
  int64_t parts = 1, step = 1;
  int buffer = -1;
  std::vector<int64_t>
      factors;  ///< of `parts`: the axes before, and the axis; empty where that is the only one
  bool operator==(const Cut&) const = default;
};

/// What has been decided about a body so far.
struct Decisions {
  std::map<ValueKey, int> stored;  ///< value -> the buffer that holds it
  std::map<ValueKey, Cut> cuts;
  std::map<AxisKey, std::vector<int64_t>> factors;  ///< extents, outermost first
  mutable std::vector<ir::Value> keep_alive;  ///< expansions of composites, so that their nodes stay the same
};

/// A value to store in `buffer`: all of it, or (`in_parts`) the parts of a long fold, with the part as the outermost axis.
struct Target {
  ir::Value value;
  bool in_parts = false;
  int buffer = -1;
};

/// What computes a value by folding: over which extents, with which operation, in which accumulator.
struct Fold {
  ReduceOp op = ReduceOp::sum;
  Dtype accumulator = Dtype::f32;
  Dtype position = Dtype::i64;  ///< of an arg-reduction's result
  std::vector<int64_t> extents;
  bool last_axis_kept = false;
};
/// Nothing when `v` is not computed by folding.
std::optional<Fold> fold_of(const ir::Value& v);
/// Is a fold's result (or what an arg-reduction numbers) one of its elements?
inline bool picks_an_element(ReduceOp op) { return op >= ReduceOp::max; }

/// A nest and the stored values (or parts) it reads.
struct Built {
  LoopNest nest;
  std::set<ValueKey> reads, reads_parts;
};

class NestBuilder {
 public:
  NestBuilder(const std::map<ValueKey, int>& inputs, const std::vector<Buffer>& buffers,
              const Decisions& decisions, const LowerOptions& options)
      : inputs_(inputs), decisions_(decisions), options_(options) {
    nest_.buffers = buffers;
  }
  /// The nest that stores `targets`: of the same dims, or related by folds they share. Throws what stands above.
  Built build(std::span<const Target> targets);
  /// The values whose axes this builder has named, for those who catch MustSplitAxis.
  void note_values(std::map<ValueKey, ir::Value>& values) const;

 private:
  using Guards = std::vector<Guard>;
  struct StageDraft {
    Stage stage;
    std::map<std::string, int> memo;
    std::set<int> requests;  // folds its body refers to
  };
  /// A fold at one place of the outer loops.
  struct Request {
    ir::Value value;
    std::vector<Affine> index;
    std::optional<Affine> part;  // of a target in parts: the part it folds
    Fold fold;
    StageDraft draft;
    Reduction reduction;
    int stage = -1, result = -1;  // where it ends up
  };
  struct Variable {
    AxisKey axis;
    size_t position;
  };

  // Variables and stages (nest_builder.cpp).
  Affine new_axis(const AxisKey& axis, int64_t extent, std::vector<int>& loops);
  Index target_index(const Target& t, std::vector<int>& loops);
  void add_target(const Target& t);
  int part_value(StageDraft& d, const ir::Value& v, const Index& index, const Affine& part);
  void apply_aliases();
  int request(StageDraft& d, const ir::Value& v, const Index& index, const Guards& guards);
  int add_request(const ir::Value& v, std::vector<Affine> index, std::optional<Affine> part);
  int neutral(StageDraft& d, ReduceOp op, Dtype dtype);
  void draft_fold(int id);
  std::vector<Affine> folded_index(const Request& r, std::vector<int>& loops, Guards& inside);
  void maybe_cut(const Request& r) const;
  void cut_axes(const Request& r, int64_t wanted) const;
  static Affine part_begin(const Cut& cut, const Affine& part, size_t i);
  bool alias(const Request& r, const std::vector<Affine>& index);
  std::vector<int> outer_of_requests() const;
  void check_sizes() const;
  std::vector<int> order_of_requests() const;
  void place_requests();
  bool try_join(Request& r, size_t stage, const std::set<int>& members);
  void place_targets();
  void resolve(Stage& stage) const;

  // Ops (nest_ops.cpp).
  int eval(StageDraft& d, const ir::Value& v, const Index& index, const Guards& guards);
  int eval_new(StageDraft& d, const ir::Value& v, const Index& index, const Guards& guards);
  int eval_movement(StageDraft& d, const ir::Value& v, const Index& index, const Guards& guards);
  int eval_scalar(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards);
  int eval_pad(StageDraft& d, const ir::Node& n, const Index& index, Guards guards);
  Position spread(StageDraft& d, const Affine& at, int64_t step, int64_t dim, int& inside);
  int eval_concat(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards);
  int eval_gather(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards, bool along);
  int eval_one_hot(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards);
  struct Element {
    int value, position = -1;  ///< instructions; the position of an arg-reduction
  };
  Element eval_fold_element(StageDraft& d, const Request& r, const std::vector<Affine>& folded,
                            const Guards& guards);
  int eval_dot_element(StageDraft& d, const Request& r, const std::vector<Affine>& folded,
                       const Guards& guards);
  // Random numbers (nest_random.cpp).
  std::array<int, 4> philox(StageDraft& d, int key, int low, int high);
  int eval_random(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards);

  // Windows and resizing (nest_windows.cpp).
  Element eval_window_element(StageDraft& d, const Request& r, const std::vector<Affine>& folded,
                              Guards guards);
  int eval_window_grad_element(StageDraft& d, const Request& r, const std::vector<Affine>& folded,
                               Guards guards);
  struct Neighbours {  ///< of an element of a resized axis
    Position low, high;
    int low_index = -1, high_index = -1;  ///< as i64 instructions
    int weight = -1;                      ///< of high; -1: nearest
  };
  Neighbours neighbours_of(StageDraft& d, const op::ResizeAttrs& a, int64_t in, int64_t out, int at,
                           Dtype dtype);
  int eval_resize_grad_element(StageDraft& d, const Request& r, const std::vector<Affine>& folded,
                               const Guards& guards);
  int eval_resize(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards);
  int divided_by_count(StageDraft& d, const ir::Node& n, int sum, const std::vector<int>& windows);
  struct Tap {  ///< of one axis: which window covers an element, and where in that window the element is
    Position window;
    int window_index = -1, tap = -1;  ///< as i64 instructions
    int inside = -1;                  ///< a condition that is no guard
  };
  Tap tap_of(StageDraft& d, const ir::Node& n, size_t axis, const Affine& at, const Affine& candidate,
             Guards& guards);
  int index(StageDraft& d, const Affine& a, Dtype dtype = Dtype::i64);
  int both(StageDraft& d, int condition, int other);
  Index reshaped(const Index& index, const std::vector<int64_t>& from, const std::vector<int64_t>& to,
                 const ir::Value& operand);
  int load(StageDraft& d, int buffer, Dtype dtype, const std::vector<int64_t>& dims, const Index& index,
           const Guards& guards);
  int constant(StageDraft& d, Dtype dtype, double value);
  int whole_number(StageDraft& d, Dtype dtype, int64_t value);
  int constant(StageDraft& d, const ir::Array& a);
  int scalar(StageDraft& d, ir::ScalarCode code, Dtype dtype, std::array<int, 3> operands);
  int cast(StageDraft& d, int value, Dtype dtype);
  bool is_rounded(const StageDraft& d, int id, Dtype dtype) const;
  int rounded(StageDraft& d, int id, Dtype dtype);
  int inside(StageDraft& d, Guards guards);
  int add(StageDraft& d, Instr in);
  /// true, false or (nothing) both, over all points of the loops.
  std::optional<bool> always(const Guard& g) const;
  const int* find_stored(const ir::Value& v) const;

  LoopNest nest_;
  const std::map<ValueKey, int>& inputs_;
  const Decisions& decisions_;
  const LowerOptions& options_;
  std::vector<Variable> variables_;
  std::vector<Request> requests_;
  std::vector<StageDraft> target_drafts_;
  std::vector<ir::Value> targets_;
  Index first_index_;  // the first target's loops, and what it stores
  Affine first_part_;
  std::vector<int64_t> first_dims_;
  Cut first_cut_;                    // of the first target, where it is in parts
  std::map<int, Affine> aliases_;    // a later target's variable -> the first target's
  std::set<int> alias_candidates_;   // variables of the target being added
  std::optional<ValueKey> storing_;  // the target itself is computed, not loaded
  std::set<ValueKey> own_folds_;     // targets that are folds: at hand for the nest's other targets
  Built built_;
};

}  // namespace espalier::kernel

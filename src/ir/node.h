#pragma once
// Node and Value: the immutable graph. Nodes are built only by make(), which checks them, and are hash-consed: equal
// nodes are one node, so a common subexpression never exists twice.
//
// IR semantics, for every op and every target
//   broadcasting   explicit (broadcast_to); operands of a node have equal dtypes unless its op says otherwise
//   rounding       to nearest even; bf16 and f16 compute in f32 and round once per op
//   integers       wrap on overflow; division by zero gives 0
//   NaN            propagates through arithmetic, max and min; comparisons with NaN are false (ne: true)
//   reductions     f64 accumulates in f64, other floats in at least f32, integers wrap in i64; one fixed order
//   dims           may be 0; a sum over nothing is 0, a max is -inf (the lowest integer)
//   layout         tensors are channels-last: N, spatial dims, C
//
// Threads: nodes are immutable and may be read from any thread; make() and the copying of Values are thread-safe.
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ir/attrs.h"
#include "ir/type.h"

namespace espalier::ir {

struct OpDef;
class Node;

/// A result of a node: the node (kept alive) and which of its results. An empty Value stands for "none".
class ESPALIER_API Value {
 public:
  Value() = default;
  Value(const Node* node, int result);
  Value(const Value& o);
  Value(Value&& o) noexcept : node_(o.node_), result_(o.result_) { o.node_ = nullptr; }
  Value& operator=(Value o) noexcept {
    std::swap(node_, o.node_);
    std::swap(result_, o.result_);
    return *this;
  }
  ~Value();

  explicit operator bool() const { return node_ != nullptr; }
  const Node& node() const { return *node_; }
  const Node* operator->() const { return node_; }
  int result() const { return result_; }
  const Type& type() const;
  const Dims& dims() const { return type().dims; }
  Dtype dtype() const { return type().dtype; }
  int rank() const { return type().rank(); }
  /// Another result of the same node.
  Value sibling(int result) const { return {node_, result}; }
  bool operator==(const Value&) const = default;

 private:
  const Node* node_ = nullptr;
  int result_ = 0;
};

struct ValueHash {
  size_t operator()(const Value& v) const {
    return reinterpret_cast<size_t>(v ? &v.node() : nullptr) * 31 + static_cast<size_t>(v.result());
  }
};

class ESPALIER_API Node {
 public:
  const OpDef& op() const { return *op_; }
  const std::vector<Value>& inputs() const { return inputs_; }
  const Value& input(int i) const { return inputs_[static_cast<size_t>(i)]; }
  const Attrs& attrs() const { return attrs_; }
  template <class A>
  const A& attrs() const {
    return attrs_.get<A>();
  }
  const std::vector<Type>& types() const { return types_; }
  int results() const { return static_cast<int>(types_.size()); }
  Value value(int result = 0) const { return {this, result}; }
  /// Unique for the life of the process, rising in the order of creation.
  uint64_t id() const { return id_; }
  size_t hash() const { return hash_; }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

 private:
  friend class Value;
  friend class NodeTable;
  Node(const OpDef& op, std::vector<Value> inputs, Attrs attrs, std::vector<Type> types, size_t hash,
       uint64_t id);
  ~Node() = default;
  void retain() const { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() const;

  const OpDef* op_;
  std::vector<Value> inputs_;
  Attrs attrs_;
  std::vector<Type> types_;
  size_t hash_;
  uint64_t id_;
  mutable std::atomic<int64_t> refs_{0};
};

inline Value::Value(const Node* node, int result) : node_(node), result_(result) {
  if (node_) node_->retain();
}
inline Value::Value(const Value& o) : Value(o.node_, o.result_) {}
inline Value::~Value() {
  if (node_) node_->release();
}
inline const Type& Value::type() const { return node_->types()[static_cast<size_t>(result_)]; }

/// The node of `op` over `inputs`, result 0: checked (arity, dtypes, shapes, attributes; UserError names the op and
/// what it got), and shared with any equal node that is alive.
ESPALIER_API Value make(const OpDef& op, std::vector<Value> inputs, Attrs attrs = {});
/// All results of the node.
ESPALIER_API std::vector<Value> make_all(const OpDef& op, std::vector<Value> inputs, Attrs attrs = {});

/// Attributes of `input`: a graph's argument. Every input is itself: `uid` differs for each call of new_input().
struct InputAttrs {
  std::string name;
  Type type;
  int64_t uid = 0;
  bool operator==(const InputAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{field("name", &InputAttrs::name), field("type", &InputAttrs::type),
                      field("uid", &InputAttrs::uid)};
  }
};
/// Attributes of `constant`. A name makes it the present value of a parameter: itself, not merged with another parameter that
/// happens to hold the same numbers. Only models have such constants; fold_constants takes the names off.
struct ConstantAttrs {
  Array value;
  std::string name = {};
  bool operator==(const ConstantAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{field("value", &ConstantAttrs::value), optional_field("name", &ConstantAttrs::name)};
  }
};

extern const OpDef input_op, constant_op;

/// A new argument of a graph.
ESPALIER_API Value new_input(std::string name, Type type);
/// A constant; equal arrays of equal names give one node.
ESPALIER_API Value constant(Array value, std::string name = {});
/// A scalar constant of rank 0.
ESPALIER_API Value constant(Dtype dtype, double value);
bool is_input(const Value& v);
/// The array of a constant node, or null.
const Array* constant_value(const Value& v);
/// The name of a constant node; "" for all others.
const std::string& constant_name(const Value& v);

/// How many nodes are alive (for tests of the weak table).
ESPALIER_API int64_t live_nodes();

}  // namespace espalier::ir

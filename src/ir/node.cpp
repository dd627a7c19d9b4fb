#include "ir/node.h"

#include <mutex>
#include <unordered_map>

#include "ir/op_def.h"

namespace espalier::ir {

/// The weak table of live nodes. A node whose last reference goes leaves the table under the same lock that lookups take,
/// so a lookup never revives a dying node.
class NodeTable {
 public:
  static NodeTable& get() {
    static NodeTable* table = new NodeTable;  // never destroyed: nodes may outlive static destruction
    return *table;
  }

  Value intern(const OpDef& op, std::vector<Value> inputs, Attrs attrs, std::vector<Type> types) {
    const size_t hash = hash_of(op, inputs, attrs);
    const std::lock_guard lock(mutex_);
    auto [from, to] = nodes_.equal_range(hash);
    for (; from != to; ++from) {
      const Node* n = from->second;
      if (&n->op() == &op && n->inputs() == inputs && n->attrs() == attrs) {
        Value v(n, 0);
        return v;
      }
    }
    const Node* n = new Node(op, std::move(inputs), std::move(attrs), std::move(types), hash, next_id_++);
    nodes_.emplace(hash, n);
    return {n, 0};
  }

  /// Drop one reference; true when it was the last and the node has left the table.
  bool drop(const Node* n) {
    // Fast path: not the last reference.
    int64_t refs = n->refs_.load(std::memory_order_relaxed);
    while (refs > 1)
      if (n->refs_.compare_exchange_weak(refs, refs - 1, std::memory_order_acq_rel)) return false;
    const std::lock_guard lock(mutex_);
    if (n->refs_.fetch_sub(1, std::memory_order_acq_rel) != 1)
      return false;  // a lookup took a reference meanwhile
    auto [from, to] = nodes_.equal_range(n->hash());
    for (; from != to; ++from)
      if (from->second == n) {
        nodes_.erase(from);
        break;
      }
    return true;
  }

  /// Destroy a node that has left the table, and whatever its operands' last references were, without recursion.
  void destroy(const Node* first) {
    thread_local std::vector<const Node*>* pending = nullptr;
    if (pending) {
      pending->push_back(first);
      return;
    }
    std::vector<const Node*> list{first};
    pending = &list;
    while (!list.empty()) {
      const Node* n = list.back();
      list.pop_back();
      delete n;
    }
    pending = nullptr;
  }

  int64_t size() {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(nodes_.size());
  }

 private:
  static size_t hash_of(const OpDef& op, const std::vector<Value>& inputs, const Attrs& attrs) {
    size_t h = reinterpret_cast<size_t>(&op);
    for (const Value& v : inputs) h = hash_combine(h, v ? v->id() * 8 + static_cast<size_t>(v.result()) : 0);
    return hash_combine(h, attrs.hash());
  }

  std::mutex mutex_;
  std::unordered_multimap<size_t, const Node*> nodes_;
  uint64_t next_id_ = 1;
};

Node::Node(const OpDef& op, std::vector<Value> inputs, Attrs attrs, std::vector<Type> types, size_t hash,
           uint64_t id)
    : op_(&op),
      inputs_(std::move(inputs)),
      attrs_(std::move(attrs)),
      types_(std::move(types)),
      hash_(hash),
      id_(id) {}

void Node::release() const {
  NodeTable& table = NodeTable::get();
  if (table.drop(this)) table.destroy(this);
}

namespace {

void check_operands(const OpDef& op, const std::vector<Value>& inputs, const std::vector<Type>& types,
                    const Attrs& attrs) {
  const InferCtx ctx{op, types, attrs};
  const auto n = static_cast<int>(inputs.size());
  if (n < op.arity.min || (op.arity.max >= 0 && n > op.arity.max))
    ctx.fail("wrong number of operands",
             op.arity.max < 0 ? "at least " + std::to_string(op.arity.min)
                              : std::to_string(op.arity.min) + " to " + std::to_string(op.arity.max),
             std::to_string(n));
  ESPALIER_CHECK(*attrs.type()->type == *op.attrs->type,
                 "op " + std::string(op.name) + ": attributes of another struct");
  if (!types.empty() && !op.dtypes.has(types[0].dtype)) {
    std::string allowed;
    for (int d = 0; d < dtype_count; ++d)
      if (op.dtypes.has(static_cast<Dtype>(d)))
        (allowed += allowed.empty() ? "" : " ") += dtype_name(static_cast<Dtype>(d));
    ctx.fail("dtype is not supported", allowed);
  }
}

}  // namespace

void InferCtx::fail(std::string problem, std::string allowed, std::string got) const {
  throw UserError({"op " + std::string(op.name), std::move(problem),
                   got.empty() ? types_text(in) : std::move(got), std::move(allowed)});
}

Value make(const OpDef& op, std::vector<Value> inputs, Attrs attrs) {
  std::vector<Type> types;
  types.reserve(inputs.size());
  for (const Value& v : inputs) {
    if (!v)
      throw UserError({"op " + std::string(op.name), "operand " + std::to_string(types.size()) + " is empty",
                       "", "a value"});
    types.push_back(v.type());
  }
  check_operands(op, inputs, types, attrs);
  std::vector<Type> results = op.infer({op, types, attrs});
  if (results.empty()) InferCtx{op, types, attrs}.fail("has no result", "at least one");
  return NodeTable::get().intern(op, std::move(inputs), std::move(attrs), std::move(results));
}

std::vector<Value> make_all(const OpDef& op, std::vector<Value> inputs, Attrs attrs) {
  const Value first = make(op, std::move(inputs), std::move(attrs));
  std::vector<Value> all;
  for (int i = 0; i < first->results(); ++i) all.push_back(first.sibling(i));
  return all;
}

constinit const OpDef input_op{
    .name = "input",
    .doc = "An argument of a graph.",
    .kind = Kind::leaf,
    .arity = {0, 0},
    .dtypes = all_types,
    .attrs = attr_type<InputAttrs>(),
    .infer = [](const InferCtx& c) { return std::vector{c.attrs.get<InputAttrs>().type}; },
    .grad = not_differentiable,
    .expand = nullptr,
    .scalar = {},
    .eval = nullptr,
    .sample = nullptr,
};

constinit const OpDef constant_op{
    .name = "constant",
    .doc = "A constant array.",
    .kind = Kind::leaf,
    .arity = {0, 0},
    .dtypes = all_types,
    .attrs = attr_type<ConstantAttrs>(),
    .infer = [](const InferCtx& c) { return std::vector{c.attrs.get<ConstantAttrs>().value.type()}; },
    .grad = not_differentiable,
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return std::vector{c.attrs<ConstantAttrs>().value}; },
    .sample = nullptr,
};

Value new_input(std::string name, Type type) {
  static std::atomic<int64_t> uid{1};
  return make(input_op, {}, InputAttrs{std::move(name), std::move(type), uid++});
}

Value constant(Array value, std::string name) {
  return make(constant_op, {}, ConstantAttrs{std::move(value), std::move(name)});
}
Value constant(Dtype dtype, double value) { return constant(Array::scalar(dtype, value)); }
bool is_input(const Value& v) { return &v->op() == &input_op; }
const Array* constant_value(const Value& v) {
  return &v->op() == &constant_op ? &v->attrs<ConstantAttrs>().value : nullptr;
}
const std::string& constant_name(const Value& v) {
  static const std::string none;
  return &v->op() == &constant_op ? v->attrs<ConstantAttrs>().name : none;
}

int64_t live_nodes() { return NodeTable::get().size(); }

}  // namespace espalier::ir

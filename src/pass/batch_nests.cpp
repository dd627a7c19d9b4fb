// Which fusions become one: those that only outputs read (updates of parameters and running statistics) all together, the others
// (casts of weights, arithmetic on a step's numbers) by how many of their kind stand before them. A step that both makes a state's
// new value and is read inside the graph stays by itself: its batch might have to come before a reader of the old value.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "pass/passes.h"
#include "pass/storage.h"
#include "rewrite/pattern.h"
#include "rewrite/uses.h"

namespace espalier::pass {

namespace {

using ir::Node;
using ir::Value;
using kernel::FusionKind;

/// Fusions that become one.
struct Batch {
  std::vector<const Node*> members;
  size_t buffers = 0;
};

const kernel::FusionAttrs* fusion_attrs(const Node& n) {
  return kernel::fusion_body(n) ? &n.attrs<kernel::FusionAttrs>() : nullptr;
}

/// The members over inputs of the body's own: each value that they read is one input.
struct Body {
  ir::Graph graph;
  std::vector<Value> operands, results;
};

Body body_of(const std::vector<const Node*>& members) {
  Body out;
  out.graph = {
      .name = "batch", .level = ir::Level::fused, .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  std::unordered_map<Value, Value, ir::ValueHash> inside;
  for (const Node* n : members) {
    std::vector<Value> operands;
    for (const Value& v : n->inputs()) {
      Value& in = inside[v];
      if (!in) {
        in = ir::new_input("x" + std::to_string(out.operands.size()), v.type());
        out.operands.push_back(v);
        out.graph.inputs.push_back(in);
      }
      operands.push_back(in);
    }
    const std::vector<Value> made = ir::make_all(n->op(), std::move(operands), n->attrs());
    for (size_t r = 0; r < made.size(); ++r) {
      out.graph.outputs.push_back({"y" + std::to_string(out.results.size()), made[r]});
      out.results.push_back(n->value(static_cast<int>(r)));
    }
  }
  return out;
}

class Batcher {
 public:
  Batcher(const ir::Graph& graph, const PassContext& context)
      : graph_(graph), context_(context), limits_(*context.spec.batching()), uses_(graph) {
    for (const ir::StatePair& s : graph.state)
      new_states_.insert(storage_of(graph.outputs[*graph.find_output(s.output)].value));
  }

  ir::Graph run() {
    choose();
    std::unordered_map<const Node*, const Batch*> batch_of;
    for (const Batch& b : batches_)
      for (const Node* n : b.members)
        if (b.members.size() > 1) batch_of[n] = &b;
    if (batch_of.empty()) return graph_;
    return emit(batch_of);
  }

 private:
  bool is_candidate(const Node& n) const {
    const kernel::FusionAttrs* fusion = fusion_attrs(n);
    if (!fusion || fusion->kind != FusionKind::loops) return false;
    int64_t bytes = 0;
    for (const ir::Type& t : n.types()) {
      if (!t.is_static()) return false;
      bytes += t.bytes();
    }
    if (bytes > limits_.member_bytes) return false;
    const Body alone = body_of({&n});
    const std::vector<char> constant(alone.operands.size(), 0);
    return !context_.spec.accepts(FusionKind::batch, alone.graph, constant, context_.exact);
  }

  bool is_batch(const Node& n) const {
    const kernel::FusionAttrs* fusion = fusion_attrs(n);
    return fusion && fusion->kind == FusionKind::batch;
  }

  /// Does nothing read its results, but for outputs?
  bool is_last(const Node& n) const {
    for (int r = 0; r < n.results(); ++r) {
      std::vector<Value> views{n.value(r)};
      while (!views.empty()) {
        const Value v = views.back();
        views.pop_back();
        for (const Node* user : uses_.of(v)) {
          if (!is_view(*user)) return false;
          views.push_back(user->value());
        }
      }
    }
    return true;
  }

  bool makes_state(const Node& n) const {
    for (int r = 0; r < n.results(); ++r)
      if (new_states_.contains(n.value(r))) return true;
    return false;
  }

  /// Paths lead from lower layers to higher ones and from all layers to the last, so batches depend on each other one way only.
  void choose() {
    std::unordered_map<const Node*, int> layer;  // candidates and batches that stand before a node, at most
    std::map<int, std::vector<Batch>> layers;
    std::vector<Batch> last;
    for (const Node* n : graph_.nodes()) {
      int& mine = layer[n];
      bool counted = is_batch(*n);
      for (const Value& v : n->inputs()) mine = std::max(mine, layer[&v.node()]);
      if (is_candidate(*n)) {
        const bool ends = is_last(*n);
        if (ends) add(last, *n);
        else if (!makes_state(*n)) add(layers[mine], *n);
        counted = !ends;
      }
      if (counted) ++mine;
    }
    for (auto& [number, batches] : layers) batches_.insert(batches_.end(), batches.begin(), batches.end());
    batches_.insert(batches_.end(), last.begin(), last.end());
  }

  void add(std::vector<Batch>& batches, const Node& n) const {
    const size_t more = n.inputs().size() + n.types().size();
    if (batches.empty() || batches.back().buffers + more > limits_.buffers) batches.emplace_back();
    batches.back().members.push_back(&n);
    batches.back().buffers += more;
  }

  /// A batch stands where all that its members read is made, which may be after readers of earlier members: nodes are made on demand.
  ir::Graph emit(const std::unordered_map<const Node*, const Batch*>& batch_of) const {
    ir::Graph out = graph_;
    out.level = ir::Level::fused;
    ir::ValueMap made;
    for (const Value& v : graph_.inputs) made.set(v, v);
    for (const Node* wanted : graph_.nodes()) {
      std::vector<const Node*> stack{wanted};
      while (!stack.empty()) {
        const Node& n = *stack.back();
        const auto batch = batch_of.find(&n);
        const std::vector<const Node*> group =
            batch == batch_of.end() ? std::vector{&n} : batch->second->members;
        const size_t before = stack.size();
        if (!is_made(n, made))
          for (const Node* member : group)
            for (const Value& v : member->inputs())
              if (!is_made(v.node(), made)) stack.push_back(&v.node());
        if (stack.size() > before) continue;
        stack.pop_back();
        if (is_made(n, made)) continue;
        if (group.size() > 1) make_batch(group, made);
        else make_alone(n, made);
      }
    }
    for (ir::Output& o : out.outputs) o.value = made.of(o.value);
    return out;
  }

  static bool is_made(const Node& n, const ir::ValueMap& made) {
    return &n.op() == &ir::input_op || (n.results() > 0 && made.has(n.value(0)));
  }

  static void make_alone(const Node& n, ir::ValueMap& made) {
    std::vector<Value> operands = n.inputs();
    for (Value& v : operands) v = made.of(v);
    const bool same = operands == n.inputs();
    const std::vector<Value> results =
        same ? std::vector<Value>{} : ir::make_all(n.op(), std::move(operands), n.attrs());
    for (int r = 0; r < n.results(); ++r)
      made.set(n.value(r), same ? n.value(r) : results[static_cast<size_t>(r)]);
  }

  static void make_batch(const std::vector<const Node*>& members, ir::ValueMap& made) {
    Body body = body_of(members);
    for (Value& v : body.operands) v = made.of(v);
    const std::vector<Value> results =
        kernel::fusion(FusionKind::batch, std::make_shared<const ir::Graph>(std::move(body.graph)),
                       std::move(body.operands));
    for (size_t r = 0; r < results.size(); ++r) made.set(body.results[r], results[r]);
  }

  const ir::Graph& graph_;
  const PassContext& context_;
  const kernel::BatchLimits& limits_;
  const rewrite::Uses uses_;
  std::unordered_set<Value, ir::ValueHash> new_states_;
  std::vector<Batch> batches_;
};

}  // namespace

ir::Graph batch_nests(const ir::Graph& graph, const PassContext& context) {
  if (!context.spec.batching()) return graph;
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) { return Batcher(g, context).run(); });
}

}  // namespace espalier::pass

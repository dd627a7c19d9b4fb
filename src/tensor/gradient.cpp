// Gradients of tensors, and what a tensor that was looked at keeps for them. New graph stands on the leaf of a computed tensor;
// grad() puts how it was computed in the leaf's place, differentiates, and puts the leaves back, so that nothing known is
// computed again.
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "grad/grad.h"
#include "tensor/impl.h"
#include "tensor/tracing.h"

namespace espalier {

using ir::Value;
using Impl = TensorAccess::Impl;
using Shared = std::shared_ptr<Impl>;

namespace {

/// Held while edges of computed tensors are followed or cut.
std::mutex histories;

/// Where the graph holds each tensor that `roots` were built from, and the roots: parents first. Needs `histories`.
std::vector<const Shared*> parents_first(std::span<const Shared> roots) {
  struct Frame {
    const Shared* impl;
    size_t next;
  };
  std::vector<const Shared*> order;
  std::unordered_set<const Impl*> seen;
  std::vector<Frame> stack;
  const auto visit = [&](const Shared& i) {
    if (seen.insert(i.get()).second) stack.push_back({&i, 0});
  };
  for (const Shared& root : roots) {
    visit(root);
    while (!stack.empty()) {
      Frame& top = stack.back();
      const std::vector<Impl::Edge>& parents = (*top.impl)->parents;
      if (top.next < parents.size()) {
        visit(parents[top.next++].get());
      } else {
        order.push_back(top.impl);
        stack.pop_back();
      }
    }
  }
  return order;
}

/// May a gradient be asked for with respect to this parent?
bool can_be_asked_for(const Shared& i) { return i.use_count() > i->children || !i->parameter.expired(); }

bool same_cell(const Impl& a, const Impl& b) {
  return !a.parameter.owner_before(b.parameter) && !b.parameter.owner_before(a.parameter);
}

/// Do `outputs` depend on `v`?
bool depends(const Value& output, const Value& v) {
  std::unordered_set<const ir::Node*> seen;
  std::vector<const ir::Node*> stack{&output.node()};
  while (!stack.empty()) {
    const ir::Node* n = stack.back();
    stack.pop_back();
    if (!seen.insert(n).second) continue;
    if (n == &v.node()) return true;
    for (const Value& in : n->inputs()) stack.push_back(&in.node());
  }
  return false;
}

/// A loss of an old value of a parameter has no gradient with respect to the new one: zeros would hide a mistake.
void check_parameter(const Impl& wrt, const Value& value, const Value& loss,
                     std::span<const Shared> history) {
  const std::shared_ptr<void> cell = wrt.parameter.lock();
  if (!cell) return;
  const bool other = std::any_of(history.begin(), history.end(),
                                 [&](const Shared& i) { return i.get() != &wrt && same_cell(*i, wrt); });
  if (other && !depends(loss, value))
    throw UserError({"gradient with respect to parameter " + static_cast<Parameter::Cell*>(cell.get())->name,
                     "the loss was computed with another value of it", "",
                     "a loss computed after the parameter was assigned to"});
}

/// `g` as a tensor over those of the history that its graph stands on.
Tensor over_history(const Value& g, const std::unordered_map<Value, Shared, ir::ValueHash>& inputs) {
  std::vector<Tensor> parents;
  for (const Value& v : inputs_below(std::span(&g, 1), {}))
    if (const auto it = inputs.find(v); it != inputs.end()) parents.push_back(TensorAccess::wrap(it->second));
  return Tensor::from(g, parents);
}

}  // namespace

void TensorAccess::forget_unreachable(const Tensor& t) {
  // A short history is searched at every look. A long one is really needed, most times: again once it has doubled.
  constexpr int64_t is_short = 64;
  Impl& root = t.impl();
  if (root.depth > is_short && root.depth < 2 * root.searched) return;
  std::vector<std::vector<Impl::Edge>> cut;
  const std::lock_guard lock(histories);
  std::unordered_set<const Impl*> reaching;
  for (const Shared* at : parents_first(std::span(&t.impl_, 1))) {
    Impl& i = **at;
    int64_t below = 0;
    for (const Impl::Edge& p : i.parents) {
      if (can_be_asked_for(p.get()) || reaching.contains(&*p)) reaching.insert(&i);
      below = std::max(below, (*p).depth.load());
    }
    const std::lock_guard of_impl(i.mutex);
    const bool forget = i.data && !reaching.contains(&i);
    if (forget) cut.push_back(std::exchange(i.parents, {}));
    i.depth = forget ? 0 : below + (i.data ? 1 : 0);
  }
  root.searched = root.depth.load();
}

std::vector<Tensor> grad(const Tensor& loss, std::span<const Tensor> wrt) {
  std::vector<Shared> roots;
  for (const Tensor& t : wrt) roots.push_back(TensorAccess::impl(t));
  roots.push_back(TensorAccess::impl(loss));
  std::vector<Shared> history;
  {
    const std::lock_guard lock(histories);
    for (const Shared* i : parents_first(roots)) history.push_back(*i);
  }
  ir::ValueMap whole, leaves;  // leaf -> how it was computed, and back
  std::unordered_map<Value, Shared, ir::ValueHash> inputs;
  for (const Shared& i : history) {
    const std::lock_guard lock(i->mutex);
    if (ir::is_input(i->value)) inputs.emplace(i->value, i);
    if (!i->leaf || i->leaf == i->value) continue;
    inputs.emplace(i->leaf, i);
    const Value computed = rebuild_over(std::span(&i->value, 1), whole)[0];
    whole.set(i->leaf, computed);
    if (!ir::is_input(computed) && !leaves.has(computed)) leaves.set(computed, i->leaf);
  }
  std::vector<Value> values;
  for (const Shared& i : roots) values.push_back(TensorAccess::wrap(i).value());
  values = rebuild_over(values, whole);
  const Value of_loss = std::move(values.back());
  values.pop_back();
  for (size_t i = 0; i < values.size(); ++i) check_parameter(*roots[i], values[i], of_loss, history);
  std::vector<Tensor> out;
  for (const Value& g : rebuild_over(autodiff::gradient(of_loss, values), leaves))
    out.push_back(over_history(g, inputs));
  return out;
}

}  // namespace espalier

#include <algorithm>

#include "op/contraction.h"
#include "op/control.h"
#include "target/interface.h"

namespace espalier::target {

namespace {

using ir::Node;

/// Multiplications and additions of a contraction, counted as the direct algorithm does them.
double contraction_flops(const Node& n) {
  if (&n.op() == &op::dot_op) {
    double flops = 2.0 * static_cast<double>(n.types()[0].elements());
    for (const int64_t axis : n.attrs<op::DotAttrs>().contract_a)
      flops *= static_cast<double>(n.input(0).dims()[static_cast<size_t>(axis)].value());
    return flops;
  }
  // y [N, out..., O], w [O, kernel..., C/groups]: every element of y is a sum over one filter.
  const bool forward = &n.op() == &op::conv_op, to_data = &n.op() == &op::conv_data_grad_op;
  const ir::Type& y = forward ? n.types()[0] : n.input(to_data ? 0 : 1).type();
  const ir::Type& w = forward || to_data ? n.input(1).type() : n.types()[0];
  const int64_t filters = std::max<int64_t>(1, w.dims[0].value());
  return 2.0 * static_cast<double>(y.elements()) * static_cast<double>(w.elements() / filters);
}

Cost cost_of_body(const ir::Graph& body);

/// One operation per element of the larger side.
double plain_flops(const Node& n) {
  int64_t elements = 0;
  for (const ir::Value& v : n.inputs()) elements = std::max(elements, v.type().elements());
  for (const ir::Type& t : n.types()) elements = std::max(elements, t.elements());
  return static_cast<double>(elements);
}

void add_work(Cost& cost, const Node& n) {
  switch (n.op().kind) {
    case ir::Kind::leaf:
    case ir::Kind::movement:
    case ir::Kind::indexed: return;
    case ir::Kind::contraction:
      cost.flops += contraction_flops(n);
      cost.matrix = true;
      cost.dtype = n.input(0).dtype();
      return;
    case ir::Kind::control:
    case ir::Kind::fused: {
      double times = 1;
      if (&n.op() == &op::scan_op) times = static_cast<double>(n.attrs<op::ScanAttrs>().length);
      n.attrs().each_body([&](const ir::GraphRef& body) {
        if (!body) return;
        const Cost inner = cost_of_body(*body);
        cost.flops += times * inner.flops;
        if (inner.matrix) {
          cost.matrix = true;
          cost.dtype = inner.dtype;
        }
      });
      return;
    }
    default: cost.flops += plain_flops(n);
  }
}

Cost cost_of_body(const ir::Graph& body) {
  Cost cost;
  for (const Node* n : body.nodes()) add_work(cost, *n);
  return cost;
}

}  // namespace

Cost cost_of(const ir::Node& node) {
  Cost cost;
  if (!node.types().empty()) cost.dtype = node.types()[0].dtype;
  for (const ir::Value& v : node.inputs()) cost.bytes += v.type().bytes();
  for (const ir::Type& t : node.types()) cost.bytes += t.bytes();
  add_work(cost, node);
  return cost;
}

}  // namespace espalier::target

#include "kernel/fused.h"

#include "op/movement.h"
#include "op/table.h"

namespace espalier::kernel {

using ir::Value;

const ir::OpDef fusion_op{
    .name = "fusion",
    .doc = "A body graph run as one kernel.",
    .kind = ir::Kind::fused,
    .arity = {0, -1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<FusionAttrs>(),
    .infer =
        [](const ir::InferCtx& c) {
          const auto& a = c.attrs.get<FusionAttrs>();
          if (!a.body) c.fail("has no body");
          if (a.body->inputs.size() != c.in.size()) c.fail("operands do not match the body's inputs");
          for (size_t i = 0; i < c.in.size(); ++i)
            if (a.body->inputs[i].type() != c.in[i])
              c.fail("operand " + std::to_string(i) + " does not match the body's input",
                     a.body->inputs[i].type().text());
          std::vector<ir::Type> types;
          for (const ir::Output& o : a.body->outputs) types.push_back(o.value.type());
          return types;
        },
    .grad = ir::not_differentiable,
    .expand = [](const ir::Node& n) { return ir::inline_graph(*n.attrs<FusionAttrs>().body, n.inputs()); },
    .scalar = {},
    .eval = nullptr,
    .sample = nullptr,
};

namespace {
const bool registered = (op::register_op(fusion_op), true);
}

std::vector<Value> fusion(FusionKind kind, ir::GraphRef body, std::vector<Value> operands) {
  return ir::make_all(fusion_op, std::move(operands), FusionAttrs{kind, std::move(body)});
}

const ir::Graph* fusion_body(const ir::Node& node) {
  return &node.op() == &fusion_op ? node.attrs<FusionAttrs>().body.get() : nullptr;
}

const ir::Node& contraction_root(const ir::Graph& body) {
  const ir::Node* root = nullptr;
  for (const ir::Node* n : body.nodes())
    if (n->op().kind == ir::Kind::contraction) {
      ESPALIER_CHECK(root == nullptr, "contraction body has two roots");
      root = n;
    }
  ESPALIER_CHECK(root != nullptr, "contraction body has no root");
  return *root;
}

namespace {

/// Perm of [N, spatial..., C/b, b] -> [N, C/b, spatial..., b] for a blocked rank.
std::vector<int64_t> block_perm(int rank) {
  std::vector<int64_t> perm{0, rank - 2};
  for (int64_t i = 1; i < rank - 2; ++i) perm.push_back(i);
  perm.push_back(rank - 1);
  return perm;
}

std::vector<int64_t> unblock_perm(int rank) {
  std::vector<int64_t> perm{0};
  for (int64_t i = 2; i < rank - 1; ++i) perm.push_back(i);
  perm.push_back(1);
  perm.push_back(rank - 1);
  return perm;
}

}  // namespace

Value to_blocked(const Value& x, int64_t block) {
  ir::Dims dims = x.dims();
  const ir::Dim channels = dims.back();
  dims.back() = channels / block;
  dims.push_back(block);
  return op::transpose(op::reshape(x, dims), block_perm(static_cast<int>(dims.size())));
}

Value from_blocked(const Value& x) {
  const Value moved = op::transpose(x, unblock_perm(x.rank()));
  ir::Dims dims = moved.dims();
  const ir::Dim block = dims.back();
  dims.pop_back();
  dims.back() = dims.back() * block;
  return op::reshape(moved, dims);
}

Value match_from_blocked(const Value& x) {
  if (&x->op() != &op::reshape_op || x.rank() < 3) return {};
  const Value moved = x->input(0);
  if (&moved->op() != &op::transpose_op || moved.rank() != x.rank() + 1) return {};
  const Value v = moved->input(0);
  return from_blocked(v) == x ? v : Value();
}

Value match_to_blocked(const Value& x) {
  if (&x->op() != &op::transpose_op || x.rank() < 4) return {};
  const Value split = x->input(0);
  if (&split->op() != &op::reshape_op || split.rank() != x.rank() || !x.dims().back().is_static()) return {};
  const Value v = split->input(0);
  if (v.rank() + 1 != x.rank()) return {};
  const ir::Dim block = x.dims().back();
  if (v.dims().back() != x.dims()[1] * block) return {};
  return to_blocked(v, block.value()) == x ? v : Value();
}

}  // namespace espalier::kernel

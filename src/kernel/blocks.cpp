#include "kernel/blocks.h"

#include "op/movement.h"

namespace espalier::kernel {

using ir::Value;

namespace {

constexpr ActLayout cut_layouts[] = {ActLayout::blocked, ActLayout::batch_blocked};

/// The axes of a blocked value in the order in which the two parts of the cut axis are neighbours.
std::vector<int64_t> plain_order(const Blocks& blocks, int64_t rank) {
  std::vector<int64_t> order;
  for (int64_t a = 0; a < rank; ++a) {
    order.push_back(blocks.axis(a, rank));
    if (a == blocks.cut(rank)) order.push_back(rank);
  }
  return order;
}

std::vector<int64_t> inverse(const std::vector<int64_t>& order) {
  std::vector<int64_t> at(order.size());
  for (size_t i = 0; i < order.size(); ++i) at[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  return at;
}

}  // namespace

bool Blocks::divide(const ir::Dims& dims) const {
  if (dims.size() < 3) return false;
  const ir::Dim& d = dims[static_cast<size_t>(cut(static_cast<int64_t>(dims.size())))];
  return d.is_static() && d.value() % size == 0;
}

Value to_blocked(const Value& x, const Blocks& blocks) {
  ir::Dims dims = x.dims();
  const auto cut = dims.begin() + blocks.cut(x.rank());
  *cut = *cut / blocks.size;
  dims.insert(cut + 1, blocks.size);
  return op::transpose(op::reshape(x, dims), inverse(plain_order(blocks, x.rank())));
}

Value from_blocked(const Value& x, const Blocks& blocks) {
  const int64_t rank = x.rank() - 1;
  const Value moved = op::transpose(x, plain_order(blocks, rank));
  ir::Dims dims = moved.dims();
  const auto cut = dims.begin() + blocks.cut(rank);
  *cut = *cut * *(cut + 1);
  dims.erase(cut + 1);
  return op::reshape(moved, dims);
}

std::optional<BlockMatch> match_from_blocked(const Value& x) {
  if (&x->op() != &op::reshape_op || x.rank() < 3) return {};
  const Value moved = x->input(0);
  if (&moved->op() != &op::transpose_op || moved.rank() != x.rank() + 1) return {};
  const Value v = moved->input(0);
  if (!v.dims().back().is_static()) return {};
  for (const ActLayout layout : cut_layouts)
    if (const Blocks b{layout, v.dims().back().value()}; from_blocked(v, b) == x) return BlockMatch{v, b};
  return {};
}

std::optional<BlockMatch> match_to_blocked(const Value& x) {
  if (&x->op() != &op::transpose_op || x.rank() < 4) return {};
  const Value split = x->input(0);
  if (&split->op() != &op::reshape_op || split.rank() != x.rank() || !x.dims().back().is_static()) return {};
  const Value v = split->input(0);
  if (v.rank() + 1 != x.rank()) return {};
  for (const ActLayout layout : cut_layouts)
    if (const Blocks b{layout, x.dims().back().value()}; b.divide(v.dims()) && to_blocked(v, b) == x)
      return BlockMatch{v, b};
  return {};
}

}  // namespace espalier::kernel

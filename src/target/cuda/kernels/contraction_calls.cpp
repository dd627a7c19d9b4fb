// Which kernel a contraction gets, and in how many parts its sums are cut.
#include <fmt/format.h>

#include <algorithm>

#include "base/align.h"
#include "target/cuda/kernels/contraction_text.h"
#include "target/cuda/kernels/pattern.h"

namespace espalier::target::cuda {

using kernel::Affine;
using kernel::Refusal;

namespace {

constexpr int64_t fold_step =
    largest_fold_step;                     // parts are multiples of it: only the last may end inside a tile
constexpr int64_t shortest_part = 256;     // folded elements
constexpr int64_t narrow_limit = 1 << 30;  // with that many elements no sum of an address overflows 32 bits

/// Tiles would be mostly empty, and neighbouring batches are neighbours in memory.
bool wants_threads(const Contraction& c) {
  const int64_t rows = c.points(c.rows), columns = c.points(c.columns), batch = c.points(c.batch);
  return (batch >= 32 && std::min(rows, columns) < 8) || (batch >= 64 && rows * columns <= 256);
}

bool needs_wide_index(const ir::Node& node, const Contraction& c, int64_t limit) {
  const int64_t most = std::min(limit, narrow_limit);
  int64_t largest = std::max({node.input(0).type().elements(), node.input(1).type().elements(),
                              node.types()[0].elements(), c.points(c.folded)});
  largest = std::max(largest, c.points(c.batch) * c.points(c.rows) * c.points(c.columns));
  return largest > most;
}

class Calls {
 public:
  Calls(const ir::Node& node, Contraction loops, const ContractionOptions& options)
      : node_(node), loops_(std::move(loops)), options_(options), direct_(wants_threads(loops_)) {
    list_.name = "contraction";
    units_ = loops_.points(loops_.batch) * loops_.points(loops_.rows) * loops_.points(loops_.columns);
  }

  CallList make() {
    const int64_t folded = loops_.points(loops_.folded);
    if (node_.types()[0].elements() == 0) return std::move(list_);
    if (folded == 0) {
      list_.calls.push_back({FillCall{node_.types()[0].bytes(), 0}, {{2}}, cost_of(node_)});
      return std::move(list_);
    }
    const int64_t parts = wanted_parts(folded);
    if (parts == 1) {
      add(part_of(loops_, 1, 0, -1), {2});
      return std::move(list_);
    }
    const int64_t length = ((folded + parts - 1) / parts + fold_step - 1) / fold_step * fold_step;
    in_parts((folded + length - 1) / length, length);
    return std::move(list_);
  }

 private:
  ContractionPart part_of(const Contraction& loops, int64_t parts, int64_t length, int var) const {
    const auto aligned = [&](int operand) {
      const auto& known = options_.map.alignment;
      return static_cast<size_t>(operand) < known.size() ? known[static_cast<size_t>(operand)] : 16;
    };
    return {.loops = loops,
            .alignment = {aligned(loops.a_operand), aligned(loops.b_operand), parts > 1 ? 16 : aligned(2)},
            .wide_index = needs_wide_index(node_, loops_, options_.map.index_limit),
            .parts = parts,
            .part_length = length,
            .part_var = var,
            .shared_limit = options_.shared_limit,
            .wanted_blocks = options_.wanted_blocks};
  }

  /// As few as give every part of a GPU something to do.
  int64_t wanted_parts(int64_t folded) const {
    const int64_t blocks = direct_ ? (units_ + 255) / 256 : tiled_blocks(part_of(loops_, 1, 0, -1));
    if (blocks >= options_.wanted_blocks) return 1;
    return std::clamp<int64_t>(2 * options_.wanted_blocks / blocks, 1,
                               std::max<int64_t>(1, folded / shortest_part));
  }

  /// Sums of runs of the folded loops lie one after the other in the scratch; a second launch adds them.
  void in_parts(int64_t parts, int64_t length) {
    Contraction first = loops_;
    const int var = static_cast<int>(first.extents.size());
    first.extents.push_back(parts);
    first.result = first.sum;
    first.c = {};
    int64_t stride = 1;
    for (const auto* vars : {&first.columns, &first.rows, &first.batch})
      for (size_t i = vars->size(); i-- > 0;) {
        first.c.address.add(Affine::var((*vars)[i]), stride);
        stride *= first.extents[static_cast<size_t>((*vars)[i])];
      }
    first.c.address.add(Affine::var(var), stride);
    const int64_t bytes = parts * units_ * ir::dtype_size(first.sum);
    list_.scratch_bytes = whole_lines(bytes);
    add(part_of(first, parts, length, var), {3});
    const ContractionPart part = part_of(first, parts, length, var);
    KernelSource sum = parts_kernel(part, loops_.c, loops_.result);
    Cost cost{.bytes = bytes + node_.types()[0].bytes(), .flops = static_cast<double>(parts * units_)};
    cost.dtype = loops_.sum;
    KernelCall call = launch_of(sum, units_);
    call.alignment = {ir::dtype_size(loops_.sum), ir::dtype_size(loops_.result)};
    list_.calls.push_back({.work = std::move(call), .operands = {{3}, {2}}, .cost = cost});
    list_.sources.push_back(std::move(sum));
  }

  void add(const ContractionPart& part, Operand to) {
    ContractionKernel made = direct_ ? direct_kernel(part) : tiled_kernel(part);
    Cost cost = cost_of(node_);
    cost.loaded = made.loaded;
    list_.calls.push_back({.work = std::move(made.call),
                           .operands = {{loops_.a_operand}, {loops_.b_operand}, to},
                           .cost = cost});
    list_.sources.push_back(std::move(made.source));
  }

  const ir::Node& node_;
  const Contraction loops_;
  const ContractionOptions& options_;
  bool direct_;
  int64_t units_ = 1;  // sums
  CallList list_{};
};

}  // namespace

std::variant<CallList, Refusal> contraction_calls(const ir::Node& node, const ContractionOptions& options) {
  auto loops = contraction_of(node);
  if (const auto* refusal = std::get_if<Refusal>(&loops)) return *refusal;
  return Calls(node, std::move(std::get<Contraction>(loops)), options).make();
}

}  // namespace espalier::target::cuda

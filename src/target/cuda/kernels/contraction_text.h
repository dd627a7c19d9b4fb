#pragma once
// Text that the kernels of a contraction share: variables out of a number, addresses, guards, sums.
#include <string>
#include <vector>

#include "target/cuda/emit/scalar.h"
#include "target/cuda/emit/source.h"
#include "target/cuda/kernels/contraction.h"

namespace espalier::target::cuda {

/// Folded elements that a block takes at once, at most: those of tensor cores. Where the whole sum is a multiple, tiles do not look for a
/// part's end.
inline constexpr int largest_fold_step = 32;

/// One launch of a contraction: what its threads sum, and where that goes.
struct ContractionPart {
  const Contraction& loops;
  std::vector<int64_t> alignment;  ///< of a, b and the result, in bytes
  bool wide_index = false;
  int64_t parts = 1, part_length = 0;  ///< of the folded loops; a multiple of largest_fold_step
  int part_var = -1;                   ///< says which part this is, where there are several
  int64_t shared_limit = 48 << 10;     ///< bytes of shared memory that a block may have
  int64_t wanted_blocks = 128;         ///< no fewer for the sake of larger tiles
};

class ContractionText {
 public:
  explicit ContractionText(const ContractionPart& part) : p_(part), c_(part.loops) {}
  const char* index_type() const { return p_.wide_index ? "long long" : "int"; }
  const char* unsigned_type() const { return p_.wide_index ? "unsigned long long" : "unsigned"; }
  /// A whole number of the unsigned type.
  std::string number(int64_t n) const { return std::to_string(n) + (p_.wide_index ? "ull" : "u"); }

  /// The variables of `list`, a mixed-radix number: `value` is a name of the unsigned type.
  void decode(Source& out, const std::vector<int>& list, const std::string& value) const;
  void derived(Source& out) const;
  /// "const unsigned begin = ..., end = ...": the part's run of the folded loops.
  void folded_run(Source& out) const;
  /// The terms of `a` that move with `vars`, without its constant.
  std::string moving(const kernel::Affine& a, const std::vector<int>& vars) const;
  /// The others, over variables that are in reach, and the constant.
  std::string fixed(const kernel::Affine& a, const std::vector<int>& without) const;
  /// "index inside 0 and high" for an index of the signed type.
  std::string inside(const std::string& index, const kernel::Guard& guard) const;
  /// All guards of `side`, over variables that are in reach: " && ..." for each.
  std::string all_inside(const Contraction::Side& side) const;
  /// sum + x * y in registers of the sum's dtype.
  std::string multiply_add(const std::string& x, const std::string& y, const std::string& sum) const;
  /// A sum as memory of the result holds it.
  std::string stored(const std::string& sum) const;
  const char* sum_type() const { return register_type(c_.sum); }
  const char* result_type() const { return memory_type(c_.result); }

 private:
  const ContractionPart& p_;
  const Contraction& c_;
};

/// Neighbours along the last variable of `list` that `side` may move as one, 16 bytes at most.
int vector_along(const Contraction& c, const Contraction::Side& side, const std::vector<int>& list,
                 Dtype dtype, int64_t alignment);

/// A kernel with its launch.
struct ContractionKernel {
  KernelSource source;
  KernelCall call;
  int64_t loaded = 0;  ///< Cost::loaded
};
ContractionKernel tiled_kernel(const ContractionPart& part);
ContractionKernel direct_kernel(const ContractionPart& part);
/// Blocks that tiled_kernel() would have.
int64_t tiled_blocks(const ContractionPart& part);
/// The parts, dense one after the other, added in order.
KernelSource parts_kernel(const ContractionPart& part, const Contraction::Side& result, Dtype dtype);

}  // namespace espalier::target::cuda

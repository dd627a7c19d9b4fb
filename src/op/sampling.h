#pragma once
// Random arrays and dims for the samples of the op records.
#include "ir/op_def.h"

namespace espalier::op {

/// A whole number in [low, high].
int64_t draw(ir::SampleRng& rng, int64_t low, int64_t high);
/// True with probability `chance`.
bool draw_chance(ir::SampleRng& rng, double chance);
/// A dtype of indices: i32 or i64.
ir::Dtype draw_index_dtype(ir::SampleRng& rng);
/// A dim of at most `high`: often 1, seldom 0.
int64_t draw_dim(ir::SampleRng& rng, int64_t high = 6);
/// `rank` dims by draw_dim().
std::vector<int64_t> draw_dims(ir::SampleRng& rng, int64_t rank, int64_t high = 6);
/// Elements uniform in [low, high] (integers: whole numbers there, negative bounds become 0 for u8; bool: either).
ir::Array draw_array(ir::SampleRng& rng, ir::Dtype dtype, std::vector<int64_t> dims, double low = -2,
                     double high = 2);
/// Elements that differ pairwise by at least 0.01 (for max, min and sorting, whose gradients have no ties); floats only,
/// other dtypes as draw_array().
ir::Array draw_distinct(ir::SampleRng& rng, ir::Dtype dtype, std::vector<int64_t> dims);
/// Distinct rising axes of `rank`: any number of them.
std::vector<int64_t> draw_axes(ir::SampleRng& rng, int64_t rank);
/// A random order of 0..n-1.
std::vector<int64_t> draw_permutation(ir::SampleRng& rng, int64_t n);

}  // namespace espalier::op

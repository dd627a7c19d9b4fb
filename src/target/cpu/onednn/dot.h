#pragma once
// Batched matrix product: result[b, m, n] = sum over k of A[b, m, k] * B[b, k, n], with operands strided as they lie.
#include "target/cpu/onednn/call.h"

namespace espalier::target::cpu::onednn {

struct DotSpec {
  int64_t batch = 1, m = 1, n = 1, k = 1;
  int64_t a_strides[3] = {0, 0, 1};    ///< of A in elements: batch, m, k; one of the last two is 1
  int64_t b_strides[3] = {0, 0, 1};    ///< of B in elements: batch, k, n; one of the last two is 1
  ir::Dtype compute = ir::Dtype::f32;  ///< of A and B: f32 or bf16 (f32 accumulation)
  ir::Dtype result = ir::Dtype::f32;   ///< f32, or bf16 where compute is; the result is dense
  bool constant_b = false;  ///< B may be packed once: where packed_bytes() > 0, a run does not read it
  bool bias = false;        ///< n f32 are added to every row
  std::vector<Post> posts{};
};

#if ESPALIER_ONEDNN
/// The call for `spec`. Declined where the library has no fast kernel; never throws for a well-formed spec.
PreparedCall prepare_dot(const DotSpec& spec);
#else
inline PreparedCall prepare_dot(const DotSpec&) { return Declined{"built without oneDNN"}; }
#endif

}  // namespace espalier::target::cpu::onednn

#pragma once
// What a device is asked to do, as plain data: no addresses, no nodes. A planned program is a list of such records; the same list is
// run by a GPU's libraries, run by the simulator, printed, and compared.
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ir/dtype.h"
#include "target/conv_call.h"

namespace espalier::target {

/// What a kernel moves and computes, for the profiler.
struct Cost {
  int64_t bytes = 0;  ///< each operand and result once
  /// What blocks that compute a tile each ask memory or its cache for: of both operands, what their tile needs. 0: not counted.
  int64_t loaded = 0;
  double flops = 0;     ///< counting direct algorithms
  bool matrix = false;  ///< matrix work: its ceiling is the FMA peak of `dtype`, else memory's bandwidth
  ir::Dtype dtype = ir::Dtype::f32;
};

/// Blocks of a launch, or threads of a block.
struct Grid {
  uint32_t x = 1, y = 1, z = 1;
  int64_t count() const { return int64_t{x} * y * z; }
  bool operator==(const Grid&) const = default;
};

/// One kernel as CUDA C, without the header that stands before it.
struct KernelSource {
  std::string name;  ///< of the entry; equal texts have equal names
  std::string text;
  int32_t max_threads = 1024;  ///< a block's, as the text promises in its launch bounds
  bool synchronises = false;   ///< do the threads of a block wait for each other?
};

/// What a kernel's text promises of a parameter, which is an address.
struct KernelParameter {
  bool written = false;     ///< not const
  bool restricted = false;  ///< __restrict__: what it reaches and somebody writes is reached through no other
  bool operator==(const KernelParameter&) const = default;
};
/// Those of `source`, read from its text; InternalError where the text has no such entry.
std::vector<KernelParameter> parameters_of(const KernelSource& source);

/// A launch of the kernel of that name; the entry's parameters are the addresses of its operands.
struct KernelCall {
  std::string kernel;
  Grid grid, block;
  /// Shared memory of a block for what the text declares without a size (K_SHARED_REST).
  int64_t shared_bytes = 0;
  /// Bytes by which the address of each operand must divide, those of its widest access; of those not named: 16.
  std::vector<int64_t> alignment{};
  bool operator==(const KernelCall&) const = default;
};
inline constexpr int64_t kernel_alignment = 16;  ///< of the widest access that there is

/// Operand 0 to operand 1, both on the device.
struct CopyCall {
  int64_t bytes = 0;
  bool operator==(const CopyCall&) const = default;
};

/// Every byte of operand 0 becomes `byte`.
struct FillCall {
  int64_t bytes = 0;
  uint8_t byte = 0;
  bool operator==(const FillCall&) const = default;
};

/// A batch of matrices in memory, in column-major order: element (i, j) is at i + j * ld. Strides are in elements.
struct GemmMatrix {
  ir::Dtype dtype = ir::Dtype::f32;
  bool transposed = false;  ///< memory holds the transpose of what is multiplied; never of a result
  int64_t ld = 0;
  int64_t stride = 0;  ///< from one of the batch to the next; 0 where there is one
  bool operator==(const GemmMatrix&) const = default;
};

enum class GemmEpilogue : uint8_t {
  none,
  bias,
  relu,
  relu_bias,
  gelu,
  gelu_bias,
  gelu_aux,       ///< and what goes into gelu is a second result, which lies as D does
  gelu_aux_bias,  ///< the same
  relu_aux,       ///< and where what comes out of relu is above 0 is a second result: its mask
  relu_aux_bias,  ///< the same
  drelu,          ///< 0 where a mask that is an operand has no bit: relu's gradient
  sum_a,          ///< and the sums of A's rows, m of them, are a second result of D's dtype
  sum_b,          ///< and those of B's columns, n of them
};
std::string_view epilogue_name(GemmEpilogue epilogue);
constexpr bool has_bias(GemmEpilogue e) {
  return e == GemmEpilogue::bias || e == GemmEpilogue::relu_bias || e == GemmEpilogue::gelu_bias ||
         e == GemmEpilogue::gelu_aux_bias || e == GemmEpilogue::relu_aux_bias;
}
constexpr bool keeps_gelu_operand(GemmEpilogue e) {
  return e == GemmEpilogue::gelu_aux || e == GemmEpilogue::gelu_aux_bias;
}
constexpr bool sums_operand(GemmEpilogue e) { return e == GemmEpilogue::sum_a || e == GemmEpilogue::sum_b; }
constexpr bool gives_mask(GemmEpilogue e) {
  return e == GemmEpilogue::relu_aux || e == GemmEpilogue::relu_aux_bias;
}
constexpr bool takes_mask(GemmEpilogue e) { return e == GemmEpilogue::drelu; }
constexpr bool has_second_result(GemmEpilogue e) {
  return keeps_gelu_operand(e) || sums_operand(e) || gives_mask(e);
}

/// D [m, n] = epilogue(alpha A [m, k] B [k, n] + beta C + bias), for each of the batch, as cuBLASLt means it: column-major, the bias one
/// number for each row of D. C lies as D does, and may be D; bias has D's dtype. gelu is the tanh form.
/// Operands: A, B, C where beta is not 0, bias where the epilogue has one, the mask where it takes one, D, the second result where the epilogue
/// has one, then `workspace` bytes where that is not 0. All at multiples of gemm_alignment. A second result and a mask are of one product, not of a
/// batch, and gelu's operand wants a leading dimension of D in multiples of 8. relu makes 0 of NaN, and has no bit there. A mask has a bit for each
/// element, in columns of `mask_ld` bits, a multiple of 128; which bit of a byte comes first, and what lies behind the m bits of a column, is the
/// library's business.
struct GemmCall {
  int64_t m = 0, n = 0, k = 0, batch = 1;
  GemmMatrix a, b, d;
  ir::Dtype compute = ir::Dtype::f32;  ///< of products, sums, alpha and beta
  bool tf32 = false;                   ///< f32 operands may be rounded to 10 bits of fraction
  double alpha = 1, beta = 0;
  GemmEpilogue epilogue = GemmEpilogue::none;
  int64_t mask_ld = 0;
  int64_t workspace = 0;  ///< not in the text
  bool operator==(const GemmCall&) const = default;
};
inline constexpr int64_t gemm_alignment = 16;
/// Bytes of the mask that the epilogue gives or takes.
constexpr int64_t mask_bytes(const GemmCall& c) { return c.n * c.mask_ld / 8; }

/// Part of one of a step's buffers, which are its node's operands, then its results, then the scratch of its kernel.
struct Operand {
  int buffer = 0;
  int64_t offset = 0;  ///< bytes from where the buffer begins
  bool operator==(const Operand&) const = default;
};

struct CallRecord {
  using Work = std::variant<KernelCall, CopyCall, FillCall, GemmCall, ConvCall>;
  Work work;
  std::vector<Operand> operands;
  Cost cost;
};

/// Bytes by which the address of that operand must divide.
int64_t alignment_of(const CallRecord& call, size_t operand);

/// One line: "launch rows_12ab 16 x 256 : b0 b2+64@4", "copy 4096 bytes : b0 b1", "fill 128 bytes with 0 : b0",
/// "gemm 8 x 4 x 16, a f32 t ld 16, b f32 ld 16, d f32 ld 8, in f32, relu_bias : b1 b0 b2 b3 b4". "@4": the launch needs that alignment, and
/// where nothing stands 16; copies and fills need none, calls of libraries what stands in their records' comments.
std::string text(const CallRecord& call);

}  // namespace espalier::target

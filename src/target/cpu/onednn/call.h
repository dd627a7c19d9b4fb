#pragma once
// A matrix product or a convolution prepared with oneDNN: how it is cut in chunks, what scratch and packed weights it takes, and
// the call itself. No type of the library is seen here. Thread-safety: a Call is immutable; any number of threads may
// run it at once, each run with scratch of its own. Results have the same bits for any number of threads.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ir/dtype.h"

namespace espalier::target::cpu::onednn {

/// What is done to the result before it is stored, in order, after the bias was added.
/// Direct convolutions and products turn NaN into 0 in relu (it is the processor's max); Winograd keeps NaN.
enum class Post : uint8_t {
  sum,        ///< add a residual of the result's dtype and layout
  relu,       ///< max(x, 0)
  gelu,       ///< x * Phi(x)
  gelu_tanh,  ///< its approximation by tanh
  silu,       ///< x * sigmoid(x)
  sigmoid,
  tanh,
  mul_channel,  ///< times an f32 vector with one entry per channel (column) of the result
  add_channel,  ///< plus one
};

/// The pointers of one run; all 64-byte aligned.
struct CallArgs {
  const void* a = nullptr;  ///< first operand, in the order of the op: x, dy, x for the three convolutions
  const void* b = nullptr;  ///< second operand: w, w, dy; not read when the weights are packed
  const void* bias = nullptr;
  std::span<const void* const> channels{};  ///< one f32 vector per mul_channel and add_channel, in order
  const void* packed = nullptr;             ///< what pack() wrote, for calls with packed_bytes() > 0
  const void* residual = nullptr;  ///< what Post::sum adds, in the result's layout; null: the result holds it
  void* result = nullptr;
  void* scratch = nullptr;  ///< scratch_bytes(), shared by all chunks of this run
};

class Call {
 public:
  virtual ~Call() = default;
  /// The library's kernel, e.g. "jit_wino_4x3:avx512_core".
  virtual std::string name() const = 0;
  /// Independent pieces of work, fixed by shape. A call of one chunk uses the pool's threads by itself.
  virtual int64_t chunks() const { return 1; }
  virtual int64_t scratch_bytes() const = 0;
  /// Bytes of the constant second operand as the kernel reads it; 0 when it was not declared constant.
  virtual int64_t packed_bytes() const { return 0; }
  /// Write the packed form of the second operand (packed_bytes() long).
  virtual void pack(const void* b, void* packed) const { (void)b, (void)packed; }
  /// Names the packed form: equal names of two calls mean equal bytes for equal operands.
  virtual std::string packing() const { return {}; }
  virtual void run(const CallArgs& args, int64_t chunk) const = 0;
};

/// Why the library does not serve a description well (or at all).
struct Declined {
  std::string reason;
};

using PreparedCall = std::variant<std::unique_ptr<Call>, Declined>;

}  // namespace espalier::target::cpu::onednn

#include "target/cuda/sim/sim_gemm.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "base/error.h"
#include "base/float16.h"

namespace espalier::target::cuda::sim {

namespace {

using ir::Dtype;

constexpr Address element(Address base, Dtype dtype, int64_t i) {
  return base + static_cast<Address>(i * ir::dtype_size(dtype));
}

template <class T>
T load(Address base, Dtype dtype, int64_t i) {
  const auto* p = reinterpret_cast<const void*>(element(base, dtype, i));
  switch (dtype) {
    case Dtype::f64: return static_cast<T>(*static_cast<const double*>(p));
    case Dtype::f32: return static_cast<T>(*static_cast<const float*>(p));
    case Dtype::bf16: return static_cast<T>(float(*static_cast<const bf16*>(p)));
    case Dtype::f16: return static_cast<T>(float(*static_cast<const f16*>(p)));
    case Dtype::i32: return static_cast<T>(*static_cast<const int32_t*>(p));
    case Dtype::i8: return static_cast<T>(*static_cast<const int8_t*>(p));
    default: throw InternalError("a dtype that no matrix product has");
  }
}

template <class T>
void store(Address base, Dtype dtype, int64_t i, T value) {
  auto* p = reinterpret_cast<void*>(element(base, dtype, i));
  switch (dtype) {
    case Dtype::f64: *static_cast<double*>(p) = static_cast<double>(value); return;
    case Dtype::f32: *static_cast<float*>(p) = static_cast<float>(value); return;
    case Dtype::bf16: *static_cast<bf16*>(p) = bf16(static_cast<float>(value)); return;
    case Dtype::f16: *static_cast<f16*>(p) = f16(static_cast<float>(value)); return;
    case Dtype::i32: *static_cast<int32_t*>(p) = static_cast<int32_t>(value); return;
    default: throw InternalError("a dtype that no result has");
  }
}

/// A matrix as it lies in memory: `rows` contiguous elements in each of `columns`.
struct Stored {
  int64_t rows, columns;
};
Stored stored(const GemmMatrix& m, int64_t rows, int64_t columns) {
  return m.transposed ? Stored{columns, rows} : Stored{rows, columns};
}

std::string refuse_matrix(const char* name, const GemmMatrix& m, Stored s, int64_t batch, bool result) {
  if (m.ld < s.rows) return fmt::format("leading dimension {} of {}, which has {} rows", m.ld, name, s.rows);
  if (batch == 1 ? m.stride != 0 : m.stride < (result ? m.ld * (s.columns - 1) + s.rows : 0))
    return fmt::format("stride {} of {} in a batch of {}", m.stride, name, batch);
  return "";
}

std::string refuse_dtypes(const GemmCall& c) {
  const Dtype in = c.a.dtype, out = c.d.dtype;
  const bool narrow = in == Dtype::bf16 || in == Dtype::f16;
  const bool known = (in == Dtype::f32 && c.compute == Dtype::f32 && out == Dtype::f32) ||
                     (in == Dtype::f64 && c.compute == Dtype::f64 && out == Dtype::f64) ||
                     (narrow && c.compute == Dtype::f32 && (out == in || out == Dtype::f32)) ||
                     (in == Dtype::i8 && c.compute == Dtype::i32 && out == Dtype::i32);
  if (!known || c.b.dtype != in)
    return fmt::format("{} times {} to {} in {}", ir::dtype_name(in), ir::dtype_name(c.b.dtype),
                       ir::dtype_name(out), ir::dtype_name(c.compute));
  if (c.tf32 && in != Dtype::f32) return "tf32 of other operands than f32";
  if (c.epilogue != GemmEpilogue::none && c.compute != Dtype::f32)
    return "an epilogue that is not computed in f32";
  if (in != Dtype::i8) return "";
  if (!c.a.transposed || c.b.transposed)
    return "i8 must be multiplied along contiguous rows of both operands";
  for (const int64_t size : {c.m, c.k, c.a.ld, c.b.ld, c.d.ld, c.a.stride, c.b.stride})
    if (size % 4 != 0) return fmt::format("i8 with a size of {}, which is no multiple of 4", size);
  return "";
}

/// The product as numbers of T: op(A) and op(B) are copied with their sums' direction innermost.
template <class T>
class Product {
 public:
  Product(const GemmCall& call, std::span<const Address> operands)
      : c_(call), a_(operands[0]), b_(operands[1]), next_(operands.subspan(2)) {
    if (c_.beta != 0) residual_ = take();
    if (has_bias(c_.epilogue)) bias_ = take();
    if (takes_mask(c_.epilogue)) mask_ = take();
    d_ = take();
    if (has_second_result(c_.epilogue)) second_ = take();
  }

  void run() {
    std::vector<T> x(static_cast<size_t>(c_.m * c_.k)), y(static_cast<size_t>(c_.k)),
        sum(static_cast<size_t>(c_.m));
    for (int64_t s = 0; s < c_.batch; ++s) {
      for (int64_t l = 0; l < c_.k; ++l)
        for (int64_t i = 0; i < c_.m; ++i) x[static_cast<size_t>(l * c_.m + i)] = at(c_.a, a_, s, i, l);
      for (int64_t j = 0; j < c_.n; ++j) {
        std::fill(sum.begin(), sum.end(), T(0));
        for (int64_t l = 0; l < c_.k; ++l) {
          const T factor = at(c_.b, b_, s, l, j);
          const T* column = x.data() + l * c_.m;
          for (int64_t i = 0; i < c_.m; ++i) sum[static_cast<size_t>(i)] += column[i] * factor;
        }
        for (int64_t i = 0; i < c_.m; ++i) finish(s, i, j, sum[static_cast<size_t>(i)]);
        // Nobody may read what fills a column up.
        for (int64_t i = c_.m; gives_mask(c_.epilogue) && i < c_.mask_ld; ++i) set_bit(i, j, true);
      }
    }
    if (sums_operand(c_.epilogue)) sum_operand();
  }

 private:
  Address take() {
    const Address a = next_[0];
    next_ = next_.subspan(1);
    return a;
  }

  static int64_t index(const GemmMatrix& m, int64_t s, int64_t row, int64_t column) {
    return s * m.stride + (m.transposed ? column + row * m.ld : row + column * m.ld);
  }
  T at(const GemmMatrix& m, Address base, int64_t s, int64_t row, int64_t column) const {
    const T value = load<T>(base, m.dtype, index(m, s, row, column));
    if constexpr (std::is_same_v<T, float>)
      if (c_.tf32) return rounded_to_tf32(value);
    return value;
  }

  static float rounded_to_tf32(float value) {
    if (!std::isfinite(value)) return value;
    const auto bits = std::bit_cast<uint32_t>(value);
    return std::bit_cast<float>((bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu);
  }

  void finish(int64_t s, int64_t i, int64_t j, T sum) const {
    const int64_t to = index(c_.d, s, i, j);
    T value = static_cast<T>(c_.alpha) * sum;
    if (c_.beta != 0) value += static_cast<T>(c_.beta) * load<T>(residual_, c_.d.dtype, to);
    if (has_bias(c_.epilogue)) value += load<T>(bias_, c_.d.dtype, i);
    if (keeps_gelu_operand(c_.epilogue)) store(second_, c_.d.dtype, to, value);
    if (takes_mask(c_.epilogue) && !bit(i, j)) value = 0;
    if constexpr (std::is_floating_point_v<T>) value = activated(value);
    if (gives_mask(c_.epilogue)) set_bit(i, j, value > 0);
    store(d_, c_.d.dtype, to, value);
  }

  /// Of a mask: columns of mask_ld bits, the lowest of a byte first.
  uint8_t* byte_of(Address mask, int64_t i, int64_t j) const {
    return reinterpret_cast<uint8_t*>(mask + static_cast<Address>((j * c_.mask_ld + i) / 8));
  }
  bool bit(int64_t i, int64_t j) const { return (*byte_of(mask_, i, j) >> (i % 8) & 1) != 0; }
  void set_bit(int64_t i, int64_t j, bool on) const {
    uint8_t* const byte = byte_of(second_, i, j);
    const auto place = static_cast<uint8_t>(1u << (i % 8));
    *byte = static_cast<uint8_t>(on ? *byte | place : *byte & ~place);
  }

  void sum_operand() const {
    const bool of_a = c_.epilogue == GemmEpilogue::sum_a;
    for (int64_t i = 0; i < (of_a ? c_.m : c_.n); ++i) {
      T sum = 0;
      for (int64_t l = 0; l < c_.k; ++l) sum += of_a ? at(c_.a, a_, 0, i, l) : at(c_.b, b_, 0, l, i);
      store(second_, c_.d.dtype, i, sum);
    }
  }

  T activated(T x) const {
    switch (c_.epilogue) {
      case GemmEpilogue::relu:
      case GemmEpilogue::relu_bias:
      case GemmEpilogue::relu_aux:
      case GemmEpilogue::relu_aux_bias: return std::fmax(x, T(0));  // NaN is lost
      case GemmEpilogue::gelu:
      case GemmEpilogue::gelu_bias:
      case GemmEpilogue::gelu_aux:
      case GemmEpilogue::gelu_aux_bias: {
        const T inner = T(std::numbers::sqrt2 * std::numbers::inv_sqrtpi) * (x + T(0.044715) * x * x * x);
        return T(0.5) * x * (T(1) + std::tanh(inner));
      }
      default: return x;
    }
  }

  const GemmCall& c_;
  Address a_, b_, residual_ = 0, bias_ = 0, mask_ = 0, d_ = 0, second_ = 0;
  std::span<const Address> next_;
};

void check_operands(const GemmCall& c, std::span<const Address> operands, const Holds& holds) {
  struct Wanted {
    std::string name;
    int64_t bytes;
  };
  const auto matrix = [&](const char* name, const GemmMatrix& m, int64_t rows, int64_t columns) {
    const Stored s = stored(m, rows, columns);
    return Wanted{name,
                  ((c.batch - 1) * m.stride + (s.columns - 1) * m.ld + s.rows) * ir::dtype_size(m.dtype)};
  };
  std::vector<Wanted> wanted{matrix("A", c.a, c.m, c.k), matrix("B", c.b, c.k, c.n)};
  if (c.beta != 0) wanted.push_back(matrix("C", c.d, c.m, c.n));
  if (has_bias(c.epilogue)) wanted.push_back({"the bias", c.m * ir::dtype_size(c.d.dtype)});
  if (takes_mask(c.epilogue)) wanted.push_back({"the mask", mask_bytes(c)});
  wanted.push_back(matrix("D", c.d, c.m, c.n));
  if (gives_mask(c.epilogue)) wanted.push_back({"the mask", mask_bytes(c)});
  if (keeps_gelu_operand(c.epilogue)) wanted.push_back(matrix("gelu's operand", c.d, c.m, c.n));
  if (sums_operand(c.epilogue))
    wanted.push_back(
        {"the sums", (c.epilogue == GemmEpilogue::sum_a ? c.m : c.n) * ir::dtype_size(c.d.dtype)});
  if (c.workspace != 0) wanted.push_back({"the workspace", c.workspace});
  ESPALIER_CHECK(operands.size() == wanted.size(),
                 fmt::format("{} operands, not {}", operands.size(), wanted.size()));
  for (size_t i = 0; i < wanted.size(); ++i) {
    ESPALIER_CHECK(operands[i] % gemm_alignment == 0, wanted[i].name + " is not aligned");
    ESPALIER_CHECK(
        holds(operands[i], wanted[i].bytes),
        fmt::format("{} reaches out of its memory with {} bytes", wanted[i].name, wanted[i].bytes));
  }
}

}  // namespace

std::string refuse_gemm(const GemmCall& c) {
  if (c.m < 1 || c.n < 1 || c.k < 1 || c.batch < 1) return "an extent below 1";
  if (c.d.transposed) return "a transposed result";
  const bool mask = gives_mask(c.epilogue) || takes_mask(c.epilogue);
  if ((mask || has_second_result(c.epilogue)) && c.batch != 1) return "a second result or a mask in a batch";
  if (mask ? c.mask_ld % 128 != 0 || c.mask_ld < c.m : c.mask_ld != 0)
    return fmt::format("a mask of {} rows with a leading dimension of {}", c.m, c.mask_ld);
  if (keeps_gelu_operand(c.epilogue) && c.d.ld % 8 != 0)
    return fmt::format("gelu's operand with a leading dimension of {}, which is no multiple of 8", c.d.ld);
  if (std::string wrong = refuse_dtypes(c); !wrong.empty()) return wrong;
  std::string wrong = refuse_matrix("A", c.a, stored(c.a, c.m, c.k), c.batch, false);
  if (wrong.empty()) wrong = refuse_matrix("B", c.b, stored(c.b, c.k, c.n), c.batch, false);
  if (wrong.empty()) wrong = refuse_matrix("D", c.d, stored(c.d, c.m, c.n), c.batch, true);
  return wrong;
}

void run_gemm(const GemmCall& call, std::span<const Address> operands, const Holds& holds) {
  const std::string wrong = refuse_gemm(call);
  ESPALIER_CHECK(wrong.empty(), wrong);
  check_operands(call, operands, holds);
  switch (call.compute) {
    case Dtype::f32: Product<float>(call, operands).run(); return;
    case Dtype::f64: Product<double>(call, operands).run(); return;
    default: Product<int32_t>(call, operands).run();
  }
}

}  // namespace espalier::target::cuda::sim

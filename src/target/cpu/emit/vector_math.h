#pragma once
// Elementary functions of f32 lanes as IR: our own polynomials (minimax fits by Lawson's algorithm on the reduced ranges), with
// NaN, infinities, signed zeros and denormals as the C library has them. At most 2 ulp (tanh 2.05); `brief` versions, for results that are
// rounded to bf16 or f16 at once, have a relative error below 2^-14. Scalars and vectors alike.
#include "target/cpu/cpu_features.h"
#include "target/cpu/emit/ir_writer.h"

namespace espalier::target::cpu {

class VectorMath {
 public:
  VectorMath(IrWriter& writer, const CpuFeatures& features) : w_(writer), features_(features) {}

  Val exp(Val x, bool brief = false);
  Val expm1(Val x);
  Val log(Val x, bool brief = false);
  Val log1p(Val x, bool brief = false);
  Val tanh(Val x, bool brief = false);
  Val erf(Val x, bool brief = false);
  Val sin(Val x) { return sine(std::move(x), 0); }
  Val cos(Val x) { return sine(std::move(x), 1); }
  Val pow(Val x, Val y);

 private:
  struct Reduced {
    Val n, n_int, r;  ///< x = n ln2 + r, n as float and as i32
  };
  Reduced reduce_exp(const Val& x, double shift = 0);  ///< n = round(x / ln2 - shift)
  Val exp_minus_one_of(const Val& r, int degree);
  Val scale(const Val& p, const Reduced& k);
  Val sine(Val x, int quarter);
  Val sine_near(const Val& x, int quarter);
  Val log2_wide(const Val& x);
  Val exp2_wide(const Val& x);

  Val c(const Val& like, double value) const { return IrWriter::real(like.type, value); }
  Val fma(Val a, Val b, Val d) {
    return w_.intrinsic("llvm.fma", {std::move(a), std::move(b), std::move(d)});
  }
  Val add(Val a, Val b) { return w_.binary("fadd", std::move(a), std::move(b)); }
  Val sub(Val a, Val b) { return w_.binary("fsub", std::move(a), std::move(b)); }
  Val mul(Val a, Val b) { return w_.binary("fmul", std::move(a), std::move(b)); }
  Val div(Val a, Val b) { return w_.binary("fdiv", std::move(a), std::move(b)); }
  Val horner(const Val& x, std::span<const double> coefficients);
  Val at_most(Val x, double high);  ///< NaN stays
  Val at_least(Val x, double low);  ///< NaN stays
  Val abs(Val x) { return w_.intrinsic("llvm.fabs", {std::move(x)}); }
  Val with_sign(Val magnitude, Val sign) {
    return w_.intrinsic("llvm.copysign", {std::move(magnitude), std::move(sign)});
  }
  IrType int_type(const Val& x) const { return IrType{'i', x.type.bits, x.type.lanes}; }
  Val bits(const Val& x) { return w_.convert("bitcast", x, {'i', x.type.bits}); }
  Val real_of_bits(const Val& i) { return w_.convert("bitcast", i, {'f', i.type.bits}); }
  Val power_of_two(const Val& n_int, int bias, int shift);

  IrWriter& w_;
  const CpuFeatures& features_;
};

}  // namespace espalier::target::cpu

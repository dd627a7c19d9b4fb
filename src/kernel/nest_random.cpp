// Philox4x32-10 as scalar instructions: each element computes the block that holds it (base/philox.h says which).
#include <array>

#include "kernel/nest_builder.h"
#include "op/random.h"

namespace espalier::kernel {

using ir::ScalarCode;

/// The four words of a block, as i64 instructions below 2^32.
std::array<int, 4> NestBuilder::philox(StageDraft& d, int key, int low, int high) {
  const auto number = [&](int64_t v) { return whole_number(d, Dtype::i64, v); };
  const auto make = [&](ScalarCode c, int x, int y) { return scalar(d, c, Dtype::i64, {x, y, -1}); };
  const int mask = number(0xffffffff), half = number(32);
  const auto lower = [&](int x) { return make(ScalarCode::logical_and, x, mask); };
  const auto upper = [&](int x) { return lower(make(ScalarCode::shift_right, x, half)); };
  const auto mix = [&](int a, int b, int c) {
    return make(ScalarCode::logical_xor, make(ScalarCode::logical_xor, a, b), c);
  };
  std::array<int, 4> c{lower(low), upper(low), lower(high), upper(high)};
  int k0 = lower(key), k1 = upper(key);
  for (int round = 0; round < 10; ++round) {
    const int p0 = make(ScalarCode::mul, c[0], number(0xD2511F53)),
              p1 = make(ScalarCode::mul, c[2], number(0xCD9E8D57));
    c = {mix(upper(p1), c[1], k0), lower(p1), mix(upper(p0), c[3], k1), lower(p0)};
    k0 = lower(make(ScalarCode::add, k0, number(0x9E3779B9)));
    k1 = lower(make(ScalarCode::add, k1, number(0xBB67AE85)));
  }
  return c;
}

/// Element `index` of random_uniform or random_normal.
int NestBuilder::eval_random(StageDraft& d, const ir::Node& n, const Index& index, const Guards& guards) {
  const auto& a = n.attrs<op::RandomAttrs>();
  const Dtype dtype = a.type.dtype;
  const bool wide = dtype == Dtype::f64;
  const Dtype real = wide ? Dtype::f64 : Dtype::f32;
  const auto number = [&](int64_t v) { return whole_number(d, Dtype::i64, v); };
  const auto make = [&](ScalarCode c, int x, int y) { return scalar(d, c, Dtype::i64, {x, y, -1}); };
  const auto reals = [&](ScalarCode c, int x, int y = -1) { return scalar(d, c, real, {x, y, -1}); };
  const std::vector<int64_t> strides = ir::row_major_strides(ir::static_dims(a.type.dims));
  Affine flat;
  for (size_t i = 0; i < index.size(); ++i) {
    if (!index[i].data.empty()) throw MustStore{n.value()};
    flat.add(index[i].affine, strides[i]);
  }
  const int element = this->index(d, flat), seed = eval(d, n.input(0), {}, guards),
            counter = eval(d, n.input(1), {}, guards);
  const std::array<int, 4> stream = philox(d, seed, number(a.stream), number(-1));
  const int key =
      make(ScalarCode::logical_or, stream[0], make(ScalarCode::shift_left, stream[1], number(32)));
  const std::array<int, 4> w =
      philox(d, key, make(ScalarCode::shift_right, element, number(wide ? 1 : 2)), counter);
  const auto bit = [&](int which) {
    return scalar(d, ScalarCode::ne, Dtype::boolean,
                  {make(ScalarCode::logical_and, element, number(which)), number(0), -1});
  };
  const auto choose = [&](int c, int yes, int no, Dtype of) {
    return scalar(d, ScalarCode::select, of, {c, yes, no});
  };
  const auto uniform = [&](int word, int bits) {
    return reals(ScalarCode::mul, cast(d, make(ScalarCode::shift_right, word, number(32 - bits)), real),
                 constant(d, real, 1.0 / static_cast<double>(1u << bits)));
  };
  const auto uniform53 = [&](int low, int high) {
    const int joined = make(ScalarCode::logical_or, make(ScalarCode::shift_left, high, number(21)),
                            make(ScalarCode::shift_right, low, number(11)));
    return reals(ScalarCode::mul, cast(d, joined, real), constant(d, real, 0x1p-53));
  };
  const int odd = bit(1), second = wide ? -1 : bit(2);
  if (&n.op() == &op::random_uniform_op) {
    if (wide) return uniform53(choose(odd, w[2], w[0], Dtype::i64), choose(odd, w[3], w[1], Dtype::i64));
    const int word =
        choose(second, choose(odd, w[3], w[2], Dtype::i64), choose(odd, w[1], w[0], Dtype::i64), Dtype::i64);
    return uniform(word, dtype == Dtype::bf16 ? 8 : dtype == Dtype::f16 ? 11 : 24);
  }
  int u, turn;
  if (wide) {
    u = reals(ScalarCode::add, uniform53(w[0], w[1]), constant(d, real, 0x1p-54));
    turn = uniform53(w[2], w[3]);
  } else {
    const int first = choose(second, w[2], w[0], Dtype::i64);
    u = reals(ScalarCode::add, reals(ScalarCode::mul, cast(d, first, real), constant(d, real, 0x1p-32)),
              constant(d, real, 0x1p-33));
    turn = uniform(choose(second, w[3], w[1], Dtype::i64), 24);
  }
  const int r =
      reals(ScalarCode::sqrt, reals(ScalarCode::mul, reals(ScalarCode::log, u), constant(d, real, -2)));
  const int angle = reals(ScalarCode::mul, turn, constant(d, real, 6.28318530717958647692));
  return reals(ScalarCode::mul, r,
               choose(odd, reals(ScalarCode::sin, angle), reals(ScalarCode::cos, angle), real));
}

}  // namespace espalier::kernel

// Convolutions over batch blocks: each kernel alone, between guard pages, for both lengths of vectors, against sums in f64.
#include <random>

#include "support/arrays.h"
#include "target/cpu/compile.h"

namespace espalier::target::cpu {
namespace {

using Kind = BatchConv::Kind;

/// f32 elements between guard pages, NaN at first.
struct Floats {
  explicit Floats(int64_t n) : count(n), buffer(static_cast<size_t>(n) * sizeof(float)) {}
  float* data() const { return static_cast<float*>(buffer.data()); }
  int64_t count;
  test::GuardedBuffer buffer;
};

class Problem {
 public:
  Problem(const BatchConv& conv, int lanes, std::mt19937& rng)
      : c_(conv),
        lanes_(lanes),
        x_(pixels(c_.in) * c_.channels),
        w_(c_.features * c_.kernel[0] * c_.kernel[1] * c_.channels),
        bias_(c_.features),
        y_(pixels(c_.out) * c_.features) {
    std::uniform_real_distribution<float> values(-1, 1);
    for (const Floats* f : {&x_, &w_, &bias_, &y_})
      for (int64_t i = 0; i < f->count; ++i) f->data()[i] = values(rng);
  }

  /// Runs the kernel, its chunks in a shuffled order, and compares with the sums.
  void check(const CpuFeatures& features, std::mt19937& rng) const {
    const BatchConvPlan plan = plan_batch_conv(c_, features);
    const bool weights = c_.kind == Kind::weight_grad;
    const Floats& like = c_.kind == Kind::forward ? y_ : c_.kind == Kind::data_grad ? x_ : w_;
    const Floats got(weights ? plan.groups * like.count : like.count);
    void* buffers[] = {(c_.kind == Kind::data_grad ? y_ : x_).data(), (weights ? y_ : w_).data(),
                       bias_.data(), got.data()};
    const CompiledKernel kernel = compile(c_, plan, features);
    std::vector<int64_t> chunks(static_cast<size_t>(kernel.chunks));
    for (size_t i = 0; i < chunks.size(); ++i) chunks[i] = static_cast<int64_t>(i);
    std::shuffle(chunks.begin(), chunks.end(), rng);
    for (const int64_t chunk : chunks) kernel.fn(buffers, chunk);
    const std::vector<double> want = sums(like.count);
    for (int64_t i = 0; i < like.count; ++i) {
      double value = 0;
      for (int64_t g = 0; g < plan.groups; ++g) value += got.data()[g * like.count + i];
      ASSERT_NEAR(value, want[static_cast<size_t>(i)], 2e-5 * static_cast<double>(10 + c_.batch_blocks))
          << "element " << i << " of " << c_.text();
    }
  }

 private:
  int64_t pixels(const BatchConv::Pair& extent) const {
    return c_.batch_blocks * extent[0] * extent[1] * lanes_;
  }

  /// Element of an activation [N/lanes, H, W, C, lanes].
  int64_t at(int64_t n, int64_t h, int64_t w, int64_t c, const BatchConv::Pair& extent,
             int64_t channels) const {
    return ((((n / lanes_) * extent[0] + h) * extent[1] + w) * channels + c) * lanes_ + n % lanes_;
  }

  /// f(x's element, w's element, y's element) for each product of the convolution.
  template <class F>
  void each_product(F&& f) const {
    for (int64_t n = 0; n < c_.batch_blocks * lanes_; ++n)
      for (int64_t oh = 0; oh < c_.out[0]; ++oh)
        for (int64_t ow = 0; ow < c_.out[1]; ++ow)
          for (int64_t kh = 0; kh < c_.kernel[0]; ++kh)
            for (int64_t kw = 0; kw < c_.kernel[1]; ++kw) {
              const int64_t h = oh * c_.stride[0] + kh * c_.dilation[0] - c_.pad_low[0];
              const int64_t w = ow * c_.stride[1] + kw * c_.dilation[1] - c_.pad_low[1];
              if (h < 0 || h >= c_.in[0] || w < 0 || w >= c_.in[1]) continue;
              for (int64_t o = 0; o < c_.features; ++o)
                for (int64_t c = 0; c < c_.channels; ++c)
                  f(at(n, h, w, c, c_.in, c_.channels),
                    ((o * c_.kernel[0] + kh) * c_.kernel[1] + kw) * c_.channels + c,
                    at(n, oh, ow, o, c_.out, c_.features));
            }
  }

  std::vector<double> sums(int64_t count) const {
    std::vector<double> sum(static_cast<size_t>(count));
    each_product([&](int64_t x, int64_t w, int64_t y) {
      const auto add = [&](int64_t to, double a, double b) { sum[static_cast<size_t>(to)] += a * b; };
      if (c_.kind == Kind::forward) add(y, x_.data()[x], w_.data()[w]);
      else if (c_.kind == Kind::data_grad) add(x, y_.data()[y], w_.data()[w]);
      else add(w, x_.data()[x], y_.data()[y]);
    });
    if (c_.kind != Kind::forward) return sum;
    for (int64_t i = 0; i < count; ++i) {
      double& v = sum[static_cast<size_t>(i)];
      if (c_.bias) v += bias_.data()[i / lanes_ % c_.features];
      if (c_.relu) v = std::max(v, 0.0);
    }
    return sum;
  }

  const BatchConv& c_;
  int64_t lanes_;
  Floats x_, w_, bias_, y_;
};

BatchConv random_conv(std::mt19937& rng) {
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng);
  };
  BatchConv c;
  c.kind = static_cast<Kind>(draw(0, 2));
  c.batch_blocks = draw(1, 4);
  c.channels = draw(1, 9);
  c.features = draw(1, 18);
  for (size_t d = 0; d < 2; ++d) {
    c.kernel[d] = draw(1, 6);
    c.stride[d] = draw(1, 3);
    c.dilation[d] = draw(1, 2);
    c.pad_low[d] = draw(-1, 4);  // a negative one cuts off
    c.out[d] = draw(1, d == 0 ? 5 : 30);
    const int64_t reach = (c.out[d] - 1) * c.stride[d] + (c.kernel[d] - 1) * c.dilation[d] + 1;
    c.in[d] =
        std::max<int64_t>(1, reach - c.pad_low[d] - draw(-1, 4));  // the rest is padding above, or unused
  }
  c.bias = c.kind == Kind::forward && draw(0, 1);
  c.relu = c.kind == Kind::forward && draw(0, 1);
  return c;
}

TEST(BatchConv, RandomShapesOfEveryKindAgreeWithSumsInF64) {
  std::mt19937 rng(3);
  for (int i = 0; i < 60 && !::testing::Test::HasFatalFailure(); ++i) {
    const BatchConv conv = random_conv(rng);
    for (const char* level : {"native", "avx2"}) {
      const CpuFeatures features = masked(detect_cpu(), level);
      Problem(conv, features.lanes(), rng).check(features, rng);
    }
  }
}

TEST(BatchConv, AnInfiniteOrNaNInputComesThroughRelu) {
  BatchConv c;
  c.in = c.out = {1, 2};
  c.relu = true;
  const CpuFeatures features = detect_cpu();
  const auto lanes = static_cast<int64_t>(features.lanes());
  const Floats x(2 * lanes), w(1), y(2 * lanes);
  std::fill_n(x.data(), 2 * lanes, -1.0f);
  x.data()[1] = std::numeric_limits<float>::quiet_NaN();
  x.data()[lanes + 2] = std::numeric_limits<float>::infinity();
  w.data()[0] = 2;
  void* buffers[] = {x.data(), w.data(), nullptr, y.data()};
  compile(c, plan_batch_conv(c, features), features).fn(buffers, 0);
  for (int64_t i = 0; i < 2 * lanes; ++i) {
    if (i == 1) EXPECT_TRUE(std::isnan(y.data()[i]));
    else EXPECT_EQ(y.data()[i], i == lanes + 2 ? std::numeric_limits<float>::infinity() : 0.0f) << i;
  }
}

}  // namespace
}  // namespace espalier::target::cpu

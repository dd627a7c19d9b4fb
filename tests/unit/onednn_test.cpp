#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/float16.h"
#include "base/threads.h"
#include "target/cpu/cpu_features.h"
#include "target/cpu/onednn/conv.h"
#include "target/cpu/onednn/dot.h"

#if ESPALIER_ONEDNN

namespace espalier::target::cpu::onednn {
namespace {

using ir::Dtype;
using Ints = std::vector<int64_t>;

int64_t product(const Ints& v) {
  int64_t p = 1;
  for (const int64_t n : v) p *= n;
  return p;
}

/// 64-byte aligned bytes, poisoned (NaN in every float type), between two pages that nobody may touch.
class Bytes {
 public:
  explicit Bytes(int64_t size) : size_(size) {
    const int64_t page = 4096, room = (size + 63) / 64 * 64, pages = (room + page - 1) / page * page;
    mapped_ = static_cast<size_t>(pages + 2 * page);
    void* const map = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ESPALIER_CHECK(map != MAP_FAILED, "no memory for a test's buffer");
    map_ = static_cast<std::byte*>(map);
    ESPALIER_CHECK(::mprotect(map_, page, PROT_NONE) == 0 &&
                   ::mprotect(map_ + page + pages, page, PROT_NONE) == 0);
    begin_ = map_ + page + pages - room;
    std::fill_n(begin_, size, std::byte{0xff});
    std::fill(begin_ + size, begin_ + room, guard);
  }
  Bytes(Bytes&& other) noexcept
      : size_(other.size_),
        map_(std::exchange(other.map_, nullptr)),
        mapped_(other.mapped_),
        begin_(other.begin_) {}
  Bytes& operator=(Bytes&& other) noexcept {
    std::swap(size_, other.size_), std::swap(map_, other.map_);
    std::swap(mapped_, other.mapped_), std::swap(begin_, other.begin_);
    return *this;
  }
  ~Bytes() {
    if (map_) ::munmap(map_, mapped_);
  }
  void* get() { return begin_; }
  std::vector<std::byte> content() const { return {begin_, begin_ + size_}; }
  bool guard_intact() const {
    return std::all_of(begin_ + size_, begin_ + (size_ + 63) / 64 * 64,
                       [](std::byte b) { return b == guard; });
  }

 private:
  static constexpr std::byte guard{0x5a};
  int64_t size_;
  std::byte* map_ = nullptr;
  size_t mapped_ = 0;
  std::byte* begin_ = nullptr;
};

Bytes stored(const std::vector<double>& values, Dtype dtype) {
  Bytes bytes(static_cast<int64_t>(values.size()) * ir::dtype_size(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == Dtype::f32) static_cast<float*>(bytes.get())[i] = static_cast<float>(values[i]);
    else static_cast<uint16_t*>(bytes.get())[i] = bf16_bits(static_cast<float>(values[i]));
  }
  return bytes;
}

std::vector<double> loaded(Bytes& bytes, size_t count, Dtype dtype) {
  std::vector<double> values(count);
  for (size_t i = 0; i < count; ++i)
    values[i] = dtype == Dtype::f32 ? double{static_cast<float*>(bytes.get())[i]}
                                    : double{bf16_value(static_cast<uint16_t*>(bytes.get())[i])};
  return values;
}

/// Values that bf16 holds exactly.
std::vector<double> random_values(int64_t count, std::mt19937& rng) {
  std::uniform_int_distribution<int> pick(-64, 64);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& v : values) v = pick(rng) / 32.0;
  return values;
}

/// From N, spatial, C to `layout`, or back.
std::vector<double> laid_out(const std::vector<double>& from, Layout layout, int64_t block, int64_t batch,
                             int64_t spatial, int64_t channels, bool back = false) {
  std::vector<double> to(from.size());
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t s = 0; s < spatial; ++s)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t plain = (n * spatial + s) * channels + c;
        int64_t other = plain;
        if (layout == Layout::channels_first) other = (n * channels + c) * spatial + s;
        if (layout == Layout::blocked)
          other = ((n * (channels / block) + c / block) * spatial + s) * block + c % block;
        to[static_cast<size_t>(back ? plain : other)] = from[static_cast<size_t>(back ? other : plain)];
      }
  return to;
}

Ints coordinates(int64_t index, const Ints& dims) {
  Ints at(dims.size());
  for (size_t i = dims.size(); i-- > 0; index /= dims[i]) at[i] = index % dims[i];
  return at;
}

/// Calls f(x index, w index, y index) for every product of the convolution, all channels-last.
template <class F>
void each_product(const ConvSpec& s, F f) {
  const int64_t in = product(s.in), out = product(s.out), kernel = product(s.kernel);
  const int64_t per_group = s.channels / s.groups, features_per_group = s.features / s.groups;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t p = 0; p < out; ++p)
      for (int64_t k = 0; k < kernel; ++k) {
        const Ints to = coordinates(p, s.out), tap = coordinates(k, s.kernel);
        int64_t from = 0;
        bool inside = true;
        for (size_t d = 0; d < s.in.size(); ++d) {
          const int64_t x = to[d] * s.stride[d] - s.pad_low[d] + tap[d] * s.dilation[d];
          inside = inside && x >= 0 && x < s.in[d];
          from = from * s.in[d] + x;
        }
        if (!inside) continue;
        for (int64_t o = 0; o < s.features; ++o)
          for (int64_t c = 0; c < per_group; ++c)
            f((n * in + from) * s.channels + o / features_per_group * per_group + c,
              (o * kernel + k) * per_group + c, (n * out + p) * s.features + o);
      }
}

double after(Post post, double v, double residual, double channel) {
  switch (post) {
    case Post::sum: return v + residual;
    case Post::relu: return std::max(v, 0.0);
    case Post::gelu: return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
    case Post::gelu_tanh: return 0.5 * v * (1 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
    case Post::silu: return v / (1 + std::exp(-v));
    case Post::sigmoid: return 1 / (1 + std::exp(-v));
    case Post::tanh: return std::tanh(v);
    case Post::mul_channel: return v * channel;
    case Post::add_channel: return v + channel;
  }
  return v;
}

/// `got` against `want`, relative to the largest value wanted.
void expect_close(const std::vector<double>& got, const std::vector<double>& want, Dtype dtype,
                  const std::string& what) {
  double largest = 1e-3, worst = 0;
  for (const double v : want) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(got[i] - want[i]);
    worst = error >= 0 ? std::max(worst, error) : INFINITY;  // NaN is the worst
  }
  EXPECT_LE(worst / largest, dtype == Dtype::f32 ? 1e-5 : 4e-3) << what;
}

/// Everything a run reads, and what it should write.
struct Data {
  std::vector<double> a, b, bias, residual, want;
  std::vector<std::vector<double>> channels;
  Dtype a_dtype, b_dtype, result_dtype;
};

/// Runs `call` and returns the bytes of the result; guards are checked.
std::vector<std::byte> run(const Call& call, Data& data, bool inside_pool = false, bool in_place = true) {
  Bytes a = stored(data.a, data.a_dtype), b = stored(data.b, data.b_dtype),
        bias = stored(data.bias, Dtype::f32);
  Bytes result(static_cast<int64_t>(data.want.size()) * ir::dtype_size(data.result_dtype));
  Bytes residual = stored(data.residual, data.result_dtype);
  if (!data.residual.empty() && in_place) result = stored(data.residual, data.result_dtype);
  Bytes packed(call.packed_bytes()), scratch(call.scratch_bytes());
  std::vector<Bytes> channels;
  std::vector<const void*> channel_pointers;
  for (const std::vector<double>& c : data.channels) channels.push_back(stored(c, Dtype::f32));
  for (Bytes& c : channels) channel_pointers.push_back(c.get());
  CallArgs args{a.get(),      b.get(), bias.get(),   channel_pointers,
                packed.get(), nullptr, result.get(), scratch.get()};
  if (!data.residual.empty() && !in_place) args.residual = residual.get();
  if (call.packed_bytes() > 0) {
    call.pack(b.get(), packed.get());
    args.b = nullptr;
  }
  if (inside_pool) {
    parallel_for(2, [&](int64_t i) {
      for (int64_t c = 0; i == 1 && c < call.chunks(); ++c) call.run(args, c);
    });
  } else {
    parallel_for(call.chunks(), [&](int64_t c) { call.run(args, c); });
  }
  EXPECT_TRUE(result.guard_intact() && packed.guard_intact() && scratch.guard_intact());
  return result.content();
}

/// Restores the pool's size.
struct Pool {
  int before = pool_threads();
  ~Pool() { set_threads(before); }
};

/// Is the call prepared and right, with the same bits however many threads prepare and run it?
template <class Prepare>
bool check(Prepare prepare, Data& data, const std::string& what, auto to_plain) {
  const Pool pool;
  std::vector<std::byte> first;
  for (const int threads : {2, 1, 3}) {
    set_threads(threads);
    PreparedCall prepared = prepare();
    if (std::holds_alternative<Declined>(prepared)) return false;
    const Call& call = *std::get<std::unique_ptr<Call>>(prepared);
    std::vector<std::byte> result = run(call, data);
    if (first.empty()) {
      first = result;
      Bytes bytes(static_cast<int64_t>(result.size()));
      std::copy(result.begin(), result.end(), static_cast<std::byte*>(bytes.get()));
      expect_close(to_plain(loaded(bytes, data.want.size(), data.result_dtype)), data.want, data.result_dtype,
                   what + " " + call.name());
      set_threads(3);
      EXPECT_TRUE(run(call, data) == first) << what << ": run on more threads; " << call.name();
      EXPECT_TRUE(run(call, data, false, false) == first)
          << what << ": residual beside the result; " << call.name();
      EXPECT_TRUE(run(call, data, true) == first) << what << ": run inside a pool thread; " << call.name();
    } else {
      EXPECT_TRUE(result == first) << what << ": prepared and run on " << threads << " threads; "
                                   << call.name();
    }
  }
  return true;
}

std::string text(const ConvSpec& s) {
  const char* kinds[] = {"forward", "data", "weight"};
  const char* layouts[] = {"last", "first", "blocked"};
  std::string t = std::string(kinds[static_cast<int>(s.kind)]) + " n" + std::to_string(s.batch) + " c" +
                  std::to_string(s.channels) + " o" + std::to_string(s.features) + " g" +
                  std::to_string(s.groups);
  const auto add = [&](const char* name, const Ints& v) {
    t += std::string(" ") + name;
    for (const int64_t n : v) t += " " + std::to_string(n);
  };
  add("in", s.in), add("kernel", s.kernel), add("out", s.out), add("stride", s.stride), add("low", s.pad_low);
  add("high", s.pad_high), add("dilation", s.dilation);
  t += std::string(" ") + layouts[static_cast<int>(s.x_layout)] + "-" + layouts[static_cast<int>(s.y_layout)];
  t += " " + std::string(ir::dtype_name(s.compute)) + ">" + std::string(ir::dtype_name(s.result)) + " w " +
       std::string(ir::dtype_name(s.weights)) + (s.constant_weights ? " constant" : "") +
       (s.bias ? " bias" : "");
  for (const Post p : s.posts) t += " post" + std::to_string(static_cast<int>(p));
  return t;
}

void set_out(ConvSpec& s) {
  s.out.clear();
  for (size_t d = 0; d < s.in.size(); ++d)
    s.out.push_back(
        (s.in[d] + s.pad_low[d] + s.pad_high[d] - s.dilation[d] * (s.kernel[d] - 1) - 1) / s.stride[d] + 1);
}

/// Random operands for `s` and the result by plain loops in f64.
Data conv_data(const ConvSpec& s, std::mt19937& rng) {
  const int64_t x_count = s.batch * product(s.in) * s.channels,
                y_count = s.batch * product(s.out) * s.features;
  const int64_t w_count = s.features * product(s.kernel) * s.channels / s.groups;
  const bool forward = s.kind == ConvKind::forward, weight = s.kind == ConvKind::weight_grad;
  Data data;
  data.a_dtype = s.compute;
  data.b_dtype = weight ? s.compute : s.weights;
  data.result_dtype = weight ? s.weights : s.result;
  const int64_t result_channels = forward ? s.features : s.channels;
  std::vector<double> x = random_values(x_count, rng), w = random_values(w_count, rng),
                      y = random_values(y_count, rng);
  if (s.bias) data.bias = random_values(result_channels, rng);
  if (forward) {
    data.want.assign(y.size(), 0);
    each_product(s, [&](int64_t i, int64_t k, int64_t o) { data.want[o] += x[i] * w[k]; });
  } else if (weight) {
    data.want.assign(w.size(), 0);
    each_product(s, [&](int64_t i, int64_t k, int64_t o) { data.want[k] += x[i] * y[o]; });
  } else {
    data.want.assign(x.size(), 0);
    each_product(s, [&](int64_t i, int64_t k, int64_t o) { data.want[i] += y[o] * w[k]; });
  }
  const auto x_laid = [&](const std::vector<double>& v) {
    return laid_out(v, s.x_layout, s.block, s.batch, product(s.in), s.channels);
  };
  const auto y_laid = [&](const std::vector<double>& v) {
    return laid_out(v, s.y_layout, s.block, s.batch, product(s.out), s.features);
  };
  data.a = s.kind == ConvKind::data_grad ? y_laid(y) : x_laid(x);
  data.b = weight ? y_laid(y) : w;
  if (weight) return data;
  std::vector<double> residual;
  for (const Post post : s.posts) {
    if (post == Post::sum) {
      residual = random_values(static_cast<int64_t>(data.want.size()), rng);
      data.residual = forward ? y_laid(residual) : x_laid(residual);
    } else if (post == Post::mul_channel || post == Post::add_channel) {
      data.channels.push_back(random_values(result_channels, rng));
    }
  }
  for (size_t i = 0; i < data.want.size(); ++i) {
    const size_t channel = i % static_cast<size_t>(result_channels);
    double v = data.want[i] + (s.bias ? data.bias[channel] : 0.0);
    size_t next = 0;
    for (const Post post : s.posts) {
      const bool reads = post == Post::mul_channel || post == Post::add_channel;
      v = after(post, v, post == Post::sum ? residual[i] : 0.0, reads ? data.channels[next][channel] : 0.0);
      next += reads ? 1 : 0;
    }
    data.want[i] = v;
  }
  return data;
}

/// A result of `s` in the order of Data::want.
std::vector<double> plain_result(const ConvSpec& s, const std::vector<double>& v) {
  if (s.kind == ConvKind::weight_grad) return v;
  return s.kind == ConvKind::forward
             ? laid_out(v, s.y_layout, s.block, s.batch, product(s.out), s.features, true)
             : laid_out(v, s.x_layout, s.block, s.batch, product(s.in), s.channels, true);
}

bool check_conv(const ConvSpec& s, std::mt19937& rng) {
  Data data = conv_data(s, rng);
  return check([&] { return prepare_conv(s); }, data, text(s),
               [&](const std::vector<double>& v) { return plain_result(s, v); });
}

int64_t native_block() { return cpu_features().lanes(); }

template <class T>
T one_of(std::mt19937& rng, std::initializer_list<T> choices) {
  return choices.begin()[std::uniform_int_distribution<size_t>(0, choices.size() - 1)(rng)];
}

ConvSpec random_conv(ConvKind kind, std::mt19937& rng) {
  ConvSpec s;
  s.kind = kind;
  s.block = native_block();
  const size_t rank = one_of<size_t>(rng, {1, 2, 2, 2, 3});
  s.batch = one_of<int64_t>(rng, {1, 2, 3, 5});
  const bool blocked = one_of(rng, {true, false});
  s.channels = blocked ? one_of<int64_t>(rng, {16, 32, 48}) : one_of<int64_t>(rng, {1, 3, 6, 16, 20, 32});
  s.features = blocked ? one_of<int64_t>(rng, {16, 32, 64}) : one_of<int64_t>(rng, {1, 4, 8, 16, 24, 32, 64});
  if (one_of(rng, {0, 0, 0, 1}) == 1) {
    s.groups = one_of<int64_t>(rng, {2, 4});
    s.channels = s.features = s.groups * one_of<int64_t>(rng, {16, 32});
    if (one_of(rng, {true, false})) s.groups = s.channels;  // depthwise
  }
  s.x_layout = s.y_layout = blocked ? Layout::blocked : Layout::channels_last;
  for (size_t d = 0; d < rank; ++d) {
    s.kernel.push_back(one_of<int64_t>(rng, {1, 2, 3, 3, 5}));
    s.stride.push_back(one_of<int64_t>(rng, {1, 1, 2}));
    s.dilation.push_back(one_of<int64_t>(rng, {1, 1, 1, 2}));
    s.pad_low.push_back(one_of<int64_t>(rng, {0, 1, 2}));
    s.pad_high.push_back(one_of<int64_t>(rng, {0, 1, 2}));
    s.in.push_back(
        std::max<int64_t>(s.dilation[d] * (s.kernel[d] - 1) + 1, one_of<int64_t>(rng, {5, 7, 9, 12})));
  }
  set_out(s);
  if (cpu_features().avx512 && one_of(rng, {true, false})) {
    s.compute = Dtype::bf16;
    s.weights = one_of(rng, {Dtype::f32, Dtype::bf16});
    s.result = one_of(rng, {Dtype::f32, Dtype::bf16});
  }
  if (kind == ConvKind::weight_grad) return s;
  s.constant_weights = one_of(rng, {true, false});
  s.bias = one_of(rng, {true, false});
  if (one_of(rng, {true, false})) s.posts.push_back(Post::sum);
  if (one_of(rng, {true, false})) s.posts.push_back(Post::relu);
  return s;
}

void check_random(ConvKind kind, unsigned seed, int cases, int at_least) {
  std::mt19937 rng(seed);
  int served = 0;
  for (int i = 0; i < cases && !testing::Test::HasFailure(); ++i)
    served += check_conv(random_conv(kind, rng), rng);
  EXPECT_GE(served, at_least) << "of " << cases;
}

TEST(OnednnConv, ForwardOfRandomShapes) { check_random(ConvKind::forward, 1, 60, 40); }
TEST(OnednnConv, DataGradOfRandomShapes) { check_random(ConvKind::data_grad, 2, 60, 35); }
TEST(OnednnConv, WeightGradOfRandomShapes) { check_random(ConvKind::weight_grad, 3, 60, 30); }

ConvSpec conv_2d(ConvKind kind, Ints nco, int64_t size, int64_t kernel, int64_t stride, int64_t pad) {
  ConvSpec s;
  s.kind = kind;
  s.batch = nco[0], s.channels = nco[1], s.features = nco[2];
  s.in = {size, size}, s.kernel = {kernel, kernel}, s.stride = {stride, stride}, s.dilation = {1, 1};
  s.pad_low = s.pad_high = {pad, pad};
  s.block = native_block();
  s.x_layout = s.y_layout = Layout::blocked;
  set_out(s);
  return s;
}

constexpr ConvKind kinds[] = {ConvKind::forward, ConvKind::data_grad, ConvKind::weight_grad};

TEST(OnednnConv, WinogradServesEveryDirection) {
  if (!cpu_features().avx512) GTEST_SKIP() << "Winograd needs AVX-512";
  std::mt19937 rng(4);
  for (const ConvKind kind : kinds)
    for (const Ints& nco : {Ints{1, 16, 32}, Ints{4, 64, 64}, Ints{5, 48, 80}})
      for (const int64_t size : {4, 7, 13}) {
        ConvSpec s = conv_2d(kind, nco, size, 3, 1, 1);
        s.winograd = Winograd::f4;
        EXPECT_TRUE(check_conv(s, rng)) << text(s);
      }
  ConvSpec s = conv_2d(ConvKind::forward, {2, 32, 64}, 14, 3, 1, 1);
  s.constant_weights = s.bias = true;
  for (const Winograd method : {Winograd::f2, Winograd::f4})
    for (const std::vector<Post>& posts :
         {std::vector<Post>{}, {Post::relu}, {Post::sum}, {Post::sum, Post::relu}}) {
      s.winograd = method;
      s.posts = posts;
      EXPECT_TRUE(check_conv(s, rng)) << text(s);
    }
}

/// The layers of ResNet-18 and the U-Net that the advice gives to Winograd: the longest sums there are.
TEST(OnednnConv, WinogradOfTheNetworksIsWithin1e5OfTheLargestValueHeavy) {
  if (!cpu_features().avx512) GTEST_SKIP() << "Winograd needs AVX-512";
  std::mt19937 rng(8);
  for (const ConvKind kind : kinds)
    for (const auto& [nco, size] : {std::pair{Ints{1, 64, 64}, 56},
                                    {Ints{1, 128, 128}, 28},
                                    {Ints{2, 256, 256}, 14},
                                    {Ints{4, 512, 512}, 7},
                                    {Ints{2, 768, 256}, 8}}) {
      ConvSpec s = conv_2d(kind, nco, size, 3, 1, 1);
      s.winograd = Winograd::f4;
      Data data = conv_data(s, rng);
      const PreparedCall prepared = prepare_conv(s);
      ASSERT_TRUE(std::holds_alternative<std::unique_ptr<Call>>(prepared)) << text(s);
      const std::vector<std::byte> result = run(*std::get<std::unique_ptr<Call>>(prepared), data);
      Bytes bytes(static_cast<int64_t>(result.size()));
      std::copy(result.begin(), result.end(), static_cast<std::byte*>(bytes.get()));
      const std::vector<double> got = plain_result(s, loaded(bytes, data.want.size(), data.result_dtype));
      double off = 0, largest = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        off = std::max(off, std::abs(got[i] - data.want[i]));
        largest = std::max(largest, std::abs(data.want[i]));
      }
      EXPECT_LE(off, 1e-5 * largest) << text(s);
    }
}

TEST(OnednnConv, WinogradOfLargeLayersHasTheSameBitsOnAnyTeam) {
  if (!cpu_features().avx512) GTEST_SKIP() << "Winograd needs AVX-512";
  std::mt19937 rng(5);
  for (const ConvKind kind : kinds) {
    ConvSpec s = conv_2d(kind, {2, 128, 64}, 32, 3, 1, 1);  // its blocking depends on the team
    s.winograd = Winograd::f4;
    EXPECT_TRUE(check_conv(s, rng));
  }
}

TEST(OnednnConv, PostOperationsOfDirectConvolution) {
  std::mt19937 rng(6);
  for (const std::vector<Post>& posts : {std::vector<Post>{Post::gelu},
                                         {Post::gelu_tanh},
                                         {Post::silu},
                                         {Post::sigmoid},
                                         {Post::tanh},
                                         {Post::mul_channel, Post::relu},
                                         {Post::mul_channel, Post::add_channel, Post::relu},
                                         {Post::sum, Post::relu}}) {
    ConvSpec s = conv_2d(ConvKind::forward, {2, 16, 32}, 9, 3, 2, 1);
    s.bias = true;
    s.posts = posts;
    EXPECT_TRUE(check_conv(s, rng)) << text(s);
  }
}

TEST(OnednnConv, LayersOfTheReadyModelsAreServed) {
  std::mt19937 rng(7);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    if (dtype == Dtype::bf16 && !cpu_features().avx512) continue;
    const auto serve = [&](ConvSpec s) {
      s.compute = s.result = dtype;
      EXPECT_TRUE(check_conv(s, rng)) << text(s);
    };
    for (const ConvKind kind : kinds) {
      serve(conv_2d(kind, {4, 64, 64}, 7, 3, 1, 1));
      serve(conv_2d(kind, {4, 32, 64}, 8, 3, 2, 1));
      serve(conv_2d(kind, {4, 32, 64}, 8, 1, 2, 0));
      serve(conv_2d(kind, {4, 64, 256}, 4, 1, 1, 0));
      serve(conv_2d(kind, {2, 64, 32}, 8, 2, 2, 0));
    }
    for (const ConvKind kind : kinds) {
      ConvSpec dilated = conv_2d(kind, {2, 32, 32}, 9, 3, 1, 2);
      dilated.dilation = {2, 2};
      set_out(dilated);
      if (advise_conv(dilated, false).blocked) serve(dilated);
    }
    ConvSpec up =
        conv_2d(ConvKind::data_grad, {2, 32, 64}, 8, 2, 2, 0);  // the transposed convolution of a U-Net
    up.bias = true;
    up.posts = {Post::relu};
    serve(up);
    for (const ConvKind kind : {ConvKind::forward, ConvKind::weight_grad}) {
      ConvSpec stem = conv_2d(kind, {2, 3, 64}, 32, 7, 2, 3);
      stem.x_layout = Layout::channels_first;
      serve(stem);
      stem.x_layout = stem.y_layout = Layout::channels_last;
      serve(stem);
      ConvSpec lenet = conv_2d(kind, {3, 6, 16}, 14, 5, 1, 0);
      lenet.x_layout = lenet.y_layout = Layout::channels_last;
      serve(lenet);
    }
  }
}

std::string packing_of(const PreparedCall& prepared) {
  return std::get<std::unique_ptr<Call>>(prepared)->packing();
}

TEST(OnednnConv, PackingsAreNamedByTheirLayout) {
  ConvSpec s = conv_2d(ConvKind::forward, {1, 64, 64}, 8, 3, 1, 1);
  EXPECT_EQ(packing_of(prepare_conv(s)), "");
  s.constant_weights = true;
  const std::string forward = packing_of(prepare_conv(s));
  ConvSpec wider = s;
  wider.batch = 2;
  EXPECT_EQ(packing_of(prepare_conv(wider)), forward);
  s.kind = ConvKind::data_grad;
  EXPECT_NE(packing_of(prepare_conv(s)), forward);
  if (!cpu_features().avx512) return;
  s.kind = ConvKind::forward;
  s.winograd = Winograd::f4;
  EXPECT_NE(packing_of(prepare_conv(s)), forward);
}

TEST(OnednnConv, DeclinesWithAReason) {
  ConvSpec s = conv_2d(ConvKind::forward, {1, 16, 16}, 8, 3, 1, 1);
  s.compute = Dtype::f16;
  EXPECT_FALSE(std::get<Declined>(prepare_conv(s)).reason.empty());
  s = conv_2d(ConvKind::forward, {1, 3, 16}, 8, 3, 1, 1);
  EXPECT_FALSE(std::get<Declined>(prepare_conv(s)).reason.empty());
  s = conv_2d(ConvKind::forward, {1, 16, 16}, 8, 3, 2, 1);
  s.winograd = Winograd::f4;
  EXPECT_FALSE(std::get<Declined>(prepare_conv(s)).reason.empty());
}

struct DotShape {
  int64_t batch, m, n, k;
};

bool check_dot(DotSpec s, bool a_transposed, bool b_transposed, std::mt19937& rng) {
  const auto set = [](int64_t* strides, int64_t rows, int64_t columns, bool transposed) {
    strides[0] = rows * columns;
    strides[1] = transposed ? 1 : columns;
    strides[2] = transposed ? rows : 1;
  };
  set(s.a_strides, s.m, s.k, a_transposed);
  set(s.b_strides, s.k, s.n, b_transposed);
  Data data;
  data.a = random_values(s.batch * s.m * s.k, rng);
  data.b = random_values(s.batch * s.k * s.n, rng);
  if (s.bias) data.bias = random_values(s.n, rng);
  data.a_dtype = data.b_dtype = s.compute;
  data.result_dtype = s.result;
  data.want.assign(static_cast<size_t>(s.batch * s.m * s.n), 0);
  if (std::ranges::count(s.posts, Post::sum) > 0) data.residual = random_values(s.batch * s.m * s.n, rng);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        const auto at = static_cast<size_t>((b * s.m + i) * s.n + j);
        double v = s.bias ? data.bias[static_cast<size_t>(j)] : 0;
        for (int64_t k = 0; k < s.k; ++k)
          v += data.a[static_cast<size_t>(b * s.a_strides[0] + i * s.a_strides[1] + k * s.a_strides[2])] *
               data.b[static_cast<size_t>(b * s.b_strides[0] + k * s.b_strides[1] + j * s.b_strides[2])];
        for (const Post post : s.posts) v = after(post, v, data.residual.empty() ? 0 : data.residual[at], 0);
        data.want[at] = v;
      }
  const std::string what = "dot " + std::to_string(s.batch) + " " + std::to_string(s.m) + " " +
                           std::to_string(s.n) + " " + std::to_string(s.k) + (a_transposed ? " ta" : "") +
                           (b_transposed ? " tb" : "") + (s.constant_b ? " constant" : "") + " " +
                           std::string(ir::dtype_name(s.compute));
  return check([&] { return prepare_dot(s); }, data, what, [](std::vector<double> v) { return v; });
}

TEST(OnednnDot, EveryTranspositionDtypeAndCut) {
  std::mt19937 rng(8);
  for (const DotShape& shape : {DotShape{1, 32, 1, 10}, DotShape{1, 1, 128, 30}, DotShape{1, 64, 10, 84},
                                DotShape{1, 130, 300, 120}, DotShape{1, 700, 70, 90}, DotShape{6, 17, 33, 20},
                                DotShape{1, 1, 1000, 512}, DotShape{20, 64, 64, 64}, DotShape{1, 1, 1, 7}})
    for (const bool ta : {false, true})
      for (const bool tb : {false, true})
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
          if (dtype == Dtype::bf16 && !cpu_features().avx512) continue;
          DotSpec s;
          s.batch = shape.batch, s.m = shape.m, s.n = shape.n, s.k = shape.k;
          s.compute = dtype;
          s.result = one_of(rng, {Dtype::f32, dtype});
          s.constant_b = one_of(rng, {true, false});
          s.bias = one_of(rng, {true, false});
          if (one_of(rng, {true, false})) s.posts.push_back(Post::sum);
          if (one_of(rng, {true, false})) s.posts.push_back(one_of(rng, {Post::relu, Post::gelu}));
          EXPECT_TRUE(check_dot(s, ta, tb, rng)) << shape.m << " " << shape.n << " " << shape.k;
        }
}

TEST(OnednnAdvice, WinogradForPlain3x3InF32Only) {
  ConvSpec s = conv_2d(ConvKind::forward, {16, 64, 64}, 56, 3, 1, 1);
  s.block = 16;
  EXPECT_EQ(advise_conv(s, false).winograd, Winograd::f4);
  EXPECT_EQ(advise_conv(s, true).winograd, Winograd::none);
  EXPECT_TRUE(advise_conv(s, true).blocked);
  s.compute = Dtype::bf16;
  EXPECT_EQ(advise_conv(s, false).winograd, Winograd::none);
  s = conv_2d(ConvKind::forward, {16, 6, 16}, 14, 5, 1, 0);
  EXPECT_FALSE(advise_conv(s, false).blocked);
  s = conv_2d(ConvKind::forward, {16, 3, 64}, 32, 7, 2, 3);
  EXPECT_EQ(advise_conv(s, false).x_layout, Layout::channels_first);
  EXPECT_EQ(advise_conv(s, false).y_layout, Layout::blocked);
}

}  // namespace
}  // namespace espalier::target::cpu::onednn

#endif

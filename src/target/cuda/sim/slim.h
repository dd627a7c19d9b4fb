// CUDA's names on the host, in front of the port header when the simulator compiles kernels: declarations only, so that a
// kernel costs milliseconds. What threads do together is behind SimPort, which the simulator hands in.
#if !defined(__SANITIZE_THREAD__) && defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
using size_t = decltype(sizeof 0);

struct SimIndex {
  unsigned x, y, z;
};
struct SimPlace {  // of the running thread
  SimIndex thread, block, block_dim, grid_dim;
};
// The layout is that of sim/block.h.
struct SimPort {
  const SimPlace* place;
  void (*sync_threads)(int site);
  void (*sync_warp)(unsigned mask, int site);
  void* (*shared)(size_t bytes, size_t alignment, const void* tag);
  // `value` becomes that of lane `from`.
  void (*exchange)(unsigned mask, void* value, size_t bytes, int from, int site);
  unsigned (*ballot)(unsigned mask, int predicate, int site);
  // The shared memory that the launch asked for.
  void* (*shared_rest)();
  // An access of so many bytes that is not where a device makes it.
  void (*misaligned)(size_t bytes);
};
static const SimPort* sim_port;
extern "C" void sim_bind(const SimPort* port) { sim_port = port; }

// Where a thread stands is written by the scheduler: no access of the kernel's own.
#if defined(__SANITIZE_THREAD__)
__attribute__((noinline, no_sanitize("thread"))) static const SimPlace sim_place() {
  return *sim_port->place;
}
#else
static inline const SimPlace& sim_place() { return *sim_port->place; }
#endif
#define threadIdx (sim_place().thread)
#define blockIdx (sim_place().block)
#define blockDim (sim_place().block_dim)
#define gridDim (sim_place().grid_dim)

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define K_DEV static inline __attribute__((always_inline))
#define K_KERNEL(name, threads) static void name##_body
#define K_KERNEL_LARGE(name, threads) K_KERNEL(name, threads)
#define K_SHARED(type, name, count)                                       \
  type* const name = static_cast<type*>([]() -> void* {                   \
    static const char tag = 0; /* one per use, as __shared__ is */        \
    return sim_port->shared(sizeof(type) * (count), alignof(type), &tag); \
  }())

#define K_SHARED_REST(type, name) type* const name = static_cast<type*>(sim_port->shared_rest())
static inline void sim_access(const void* p, size_t bytes) {
  if (__builtin_expect((reinterpret_cast<size_t>(p) & (bytes - 1)) != 0, 0)) sim_port->misaligned(bytes);
}
#define K_ACCESS(p, bytes) sim_access(p, bytes)

// Where threads meet is told by the line: a compiler may copy code, and return addresses with it.
#define K_SITE , int site = __builtin_LINE()
#define K_AT_SITE , site
__attribute__((noinline)) static void __syncthreads(int site = __builtin_LINE()) {
  sim_port->sync_threads(site);
}
__attribute__((noinline)) static void __syncwarp(unsigned mask = 0xffffffffu K_SITE) {
  sim_port->sync_warp(mask, site);
}
static inline int sim_lane() {
  const SimPlace& p = sim_place();
  return static_cast<int>((p.thread.x + p.block_dim.x * (p.thread.y + p.block_dim.y * p.thread.z)) & 31);
}
template <class T>
__attribute__((noinline)) T __shfl_sync(unsigned mask, T value, int from K_SITE) {
  sim_port->exchange(mask, &value, sizeof value, from & 31, site);
  return value;
}
template <class T>
__attribute__((noinline)) T __shfl_xor_sync(unsigned mask, T value, int bits K_SITE) {
  sim_port->exchange(mask, &value, sizeof value, sim_lane() ^ bits, site);
  return value;
}
template <class T>
__attribute__((noinline)) T __shfl_down_sync(unsigned mask, T value, unsigned by K_SITE) {
  const int from = sim_lane() + static_cast<int>(by);
  sim_port->exchange(mask, &value, sizeof value, from > 31 ? sim_lane() : from, site);
  return value;
}
__attribute__((noinline)) static unsigned __ballot_sync(unsigned mask, int predicate K_SITE) {
  return sim_port->ballot(mask, predicate, site);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
static inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
static inline long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }
static inline double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }
extern "C" {
float fmaf(float, float, float);
float sqrtf(float);
float fabsf(float);
float copysignf(float, float);
float floorf(float);
float ceilf(float);
float rintf(float);
float truncf(float);
float fmodf(float, float);
double fma(double, double, double);
double sqrt(double);
double fabs(double);
double copysign(double, double);
double floor(double);
double ceil(double);
double rint(double);
double trunc(double);
double fmod(double, double);
double exp(double);
double expm1(double);
double log(double);
double log1p(double);
double sin(double);
double cos(double);
double tan(double);
double tanh(double);
double erf(double);
double atan(double);
double atan2(double, double);
double pow(double, double);
}

// As cvt.rn of PTX: to nearest even, NaN as 0x7fff.
K_DEV unsigned short esp_bf16_bits(float x) {
  const unsigned u = static_cast<unsigned>(__float_as_int(x));
  if (x != x) return 0x7fff;
  return static_cast<unsigned short>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
K_DEV unsigned short esp_f16_bits(float x) {
  if (x != x) return 0x7fff;
  return __builtin_bit_cast(unsigned short, static_cast<_Float16>(x));
}
K_DEV long long esp_mul_wide(unsigned a, unsigned b) { return static_cast<long long>(1ull * a * b); }
K_DEV float esp_f16_value(unsigned short bits) { return __builtin_bit_cast(_Float16, bits); }

// d += a b of a warp, 16 x 16 by 16 x 8, each lane with the parts that mma.sync.m16n8k16 gives it; 16 products are added exactly, and
// rounded once.
struct SimRegisters {
  unsigned v[4];
};
template <class Value>
__attribute__((noinline)) static void sim_mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                              Value value, int site) {
  const int lane = sim_lane();
  SimRegisters rows[4], columns[2][4];
  for (int t = 0; t < 4; ++t) {
    rows[t] = {{a[0], a[1], a[2], a[3]}};
    sim_port->exchange(0xffffffffu, &rows[t], sizeof rows[t], (lane & ~3) + t, site);
    for (int c = 0; c < 2; ++c) {
      columns[c][t] = {{b[0], b[1], 0, 0}};
      sim_port->exchange(0xffffffffu, &columns[c][t], sizeof rows[t], ((lane & 3) * 2 + c) * 4 + t, site);
    }
  }
  for (int i = 0; i < 4; ++i) {
    const int below = i / 2, c = i % 2;
    double sum = d[i];
    for (int k = 0; k < 16; ++k) {
      const int t = k % 8 / 2, late = k / 8, shift = k % 2 * 16;
      sum += static_cast<double>(value(static_cast<unsigned short>(rows[t].v[below + 2 * late] >> shift))) *
             static_cast<double>(value(static_cast<unsigned short>(columns[c][t].v[late] >> shift)));
    }
    d[i] = static_cast<float>(sum);
  }
}
static inline void esp_mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2] K_SITE) {
  const auto value = [](unsigned short x) { return __int_as_float(static_cast<int>(unsigned{x} << 16)); };
  sim_mma(d, a, b, value, site);
}
static inline void esp_mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2] K_SITE) {
  sim_mma(
      d, a, b, [](unsigned short x) { return esp_f16_value(x); }, site);
}

// SIM_ENTRY(name): the kernel as void name(void** arguments).
template <size_t... I>
struct SimList {};
template <size_t N, size_t... I>
struct SimCount : SimCount<N - 1, N - 1, I...> {};
template <size_t... I>
struct SimCount<0, I...> {
  using type = SimList<I...>;
};
template <class... A, size_t... I>
static inline void sim_call(void (*kernel)(A...), void** arguments, SimList<I...>) {
  kernel(*static_cast<A*>(arguments[I])...);
}
template <class... A>
static inline void sim_call(void (*kernel)(A...), void** arguments) {
  sim_call(kernel, arguments, typename SimCount<sizeof...(A)>::type{});
}
// And SimParameters name_parameters: the bytes of each, 0 for an address.
struct SimParameters {
  unsigned count;
  const unsigned* bytes;
};
template <class T>
constexpr unsigned sim_bytes = sizeof(T);
template <class T>
constexpr unsigned sim_bytes<T*> = 0;
template <class... A>
struct SimSignature {
  static constexpr unsigned bytes[] = {sim_bytes<A>..., 0};
};
template <class... A>
constexpr SimParameters sim_parameters(void (*)(A...)) {
  return {sizeof...(A), SimSignature<A...>::bytes};
}
#define SIM_ENTRY(name)                                                        \
  extern "C" void name(void** arguments) { sim_call(name##_body, arguments); } \
  extern "C" const SimParameters name##_parameters = sim_parameters(name##_body);

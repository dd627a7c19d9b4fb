// The one header of device code, in front of every generated and hand-written kernel: its text is what NVRTC compiles and what
// the simulator runs (there, sim/slim.h stands before it and gives the names of CUDA and of the first block below).
// Dtypes as types of memory: f64 double, f32 float, bf16 and f16 unsigned short, i64 long long, i32 int, i8 signed char,
// u8 and bool unsigned char. In registers bf16 and f16 are float, bool is bool.
#if defined(__CUDACC__)
#define K_DEV static __device__ __forceinline__
// K_KERNEL(name, threads)(parameters) { ... }, launched with at most `threads` threads a block.
#define K_KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads) name
// The same for a kernel that needs many registers: no fewer of them for the sake of more blocks at a time.
#define K_KERNEL_LARGE(name, threads) extern "C" __global__ void __launch_bounds__(threads, 1) name
// `count` elements that a block shares.
#define K_SHARED(type, name, count) __shared__ type name[count]
// All that the launch asks for (KernelCall::shared_bytes), at a multiple of 16 bytes; once in a kernel.
#define K_SHARED_REST(type, name)                          \
  extern __shared__ __align__(16) unsigned char name##_[]; \
  type* const name = reinterpret_cast<type*>(name##_)
// Before an access of so many bytes at `p`, which the device makes as one: the simulator looks at the address.
#define K_ACCESS(p, bytes) (void)0
// Behind the parameters of a function in which threads meet, and behind the arguments of what it calls: the simulator tells such
// places by the line from which they are called.
#define K_SITE
#define K_AT_SITE
// The bits of a float rounded to bf16 or f16, to nearest even.
K_DEV unsigned short esp_bf16_bits(float x) {
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
K_DEV unsigned short esp_f16_bits(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
K_DEV float esp_f16_value(unsigned short bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
// All 64 bits of a product.
K_DEV long long esp_mul_wide(unsigned a, unsigned b) {
  long long product;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
  return product;
}
// d += a b on tensor cores: 16 x 16 by 16 x 8 elements, of which a lane has rows lane/4 and 8 more of a and d, columns lane/4 of b
// and (lane%4)*2 and 1 more of d; two neighbours in the summed direction are one register.
#define ESP_MMA(type)                                                                 \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
K_DEV void esp_mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ESP_MMA("bf16"); }
K_DEV void esp_mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ESP_MMA("f16"); }
#endif

K_DEV float esp_bf16_value(unsigned short bits) {
  return __int_as_float(static_cast<int>(static_cast<unsigned>(bits) << 16));
}

// V neighbours in memory, moved as one; more than 16 bytes as several of 16.
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Vec {
  T v[V];
};
template <int V, class T>
K_DEV Vec<T, V> esp_load(const T* p) {
  K_ACCESS(p, alignof(Vec<T, V>));
  return *reinterpret_cast<const Vec<T, V>*>(p);
}
template <int V, class T>
K_DEV void esp_store(T* p, const Vec<T, V>& x) {
  K_ACCESS(p, alignof(Vec<T, V>));
  *reinterpret_cast<Vec<T, V>*>(p) = x;
}

// Two 16-bit neighbours, the first one low.
K_DEV unsigned esp_pair(const unsigned short* p) {
  const Vec<unsigned short, 2> two = esp_load<2>(p);
  return two.v[0] | static_cast<unsigned>(two.v[1]) << 16;
}

// Integers wrap: they are computed in an unsigned type that is at least as wide.
template <class T>
struct EspUnsigned {
  using type = unsigned;
};
template <>
struct EspUnsigned<long long> {
  using type = unsigned long long;
};
template <class T>
using esp_unsigned = typename EspUnsigned<T>::type;

template <class T>
K_DEV T esp_add(T a, T b) {
  return static_cast<T>(static_cast<esp_unsigned<T>>(a) + static_cast<esp_unsigned<T>>(b));
}
template <class T>
K_DEV T esp_sub(T a, T b) {
  return static_cast<T>(static_cast<esp_unsigned<T>>(a) - static_cast<esp_unsigned<T>>(b));
}
template <class T>
K_DEV T esp_mul(T a, T b) {
  return static_cast<T>(static_cast<esp_unsigned<T>>(a) * static_cast<esp_unsigned<T>>(b));
}
template <class T>
K_DEV T esp_neg(T a) {
  return esp_sub<T>(0, a);
}
template <class T>
K_DEV T esp_abs(T a) {
  return a < 0 ? esp_neg(a) : a;
}
template <class T>
K_DEV T esp_sign(T a) {
  return static_cast<T>((a > 0) - (a < 0));
}
// Division by 0 gives 0, the one overflow wraps; a remainder by 0 or -1 is 0.
template <class T>
K_DEV T esp_div(T a, T b) {
  if (b == 0) return 0;
  if (b == static_cast<T>(-1) && static_cast<T>(-1) < 0) return esp_neg(a);
  return static_cast<T>(a / b);
}
template <class T>
K_DEV T esp_rem(T a, T b) {
  if (b == 0 || (b == static_cast<T>(-1) && static_cast<T>(-1) < 0)) return 0;
  return static_cast<T>(a % b);
}
// Negative exponents give 0, 1 or -1.
K_DEV long long esp_pow_i64(long long a, long long b) {
  if (b < 0) return a == 1 ? 1 : a == -1 ? ((b & 1) ? -1 : 1) : 0;
  unsigned long long r = 1, base = static_cast<unsigned long long>(a);
  for (unsigned long long e = static_cast<unsigned long long>(b); e; e >>= 1, base *= base)
    if (e & 1) r *= base;
  return static_cast<long long>(r);
}
template <class T>
K_DEV T esp_pow(T a, T b) {
  return static_cast<T>(esp_pow_i64(a, b));
}
// Shifts by less than 0 or more than 63 give 0 (left) or the sign (right).
template <class T>
K_DEV T esp_shift_left(T a, T b) {
  const long long n = b;
  if (n < 0 || n > 63) return 0;
  return static_cast<T>(static_cast<unsigned long long>(static_cast<long long>(a)) << n);
}
template <class T>
K_DEV T esp_shift_right(T a, T b) {
  const long long n = b;
  return static_cast<T>(static_cast<long long>(a) >> (n < 0 || n > 63 ? 63 : n));
}

// NaN if either is NaN, b where they are equal.
template <class T>
K_DEV T esp_max(T a, T b) {
  return a != a ? a : b != b ? b : a > b ? a : b;
}
template <class T>
K_DEV T esp_min(T a, T b) {
  return a != a ? a : b != b ? b : a < b ? a : b;
}
// Does (b, at) come before (a, a_at) in an arg-reduction? NaN is beyond every number; the lowest position wins among equals.
template <class T, class P>
K_DEV bool esp_beyond_max(T a, P a_at, T b, P at) {
  const bool a_nan = a != a, b_nan = b != b;
  return b > a || (b_nan && !a_nan) || ((b == a || (a_nan && b_nan)) && at < a_at);
}
template <class T, class P>
K_DEV bool esp_beyond_min(T a, P a_at, T b, P at) {
  const bool a_nan = a != a, b_nan = b != b;
  return b < a || (b_nan && !a_nan) || ((b == a || (a_nan && b_nan)) && at < a_at);
}

// The value of the lane whose number differs in `bits`; all lanes of the warp take part.
template <class T>
K_DEV T esp_of_lane_xor(T x, int bits K_SITE) {
  return static_cast<T>(__shfl_xor_sync(0xffffffffu, x, bits K_AT_SITE));
}

// Floats to integers: truncated, saturated; NaN gives 0.
template <class F>
K_DEV long long esp_i64_of(F x) {
  if (x != x) return 0;
  if (x >= static_cast<F>(9223372036854775808.0)) return 0x7fffffffffffffffll;
  if (x < static_cast<F>(-9223372036854775808.0)) return -0x7fffffffffffffffll - 1;
  return static_cast<long long>(x);
}
template <class F>
K_DEV int esp_i32_of(F x) {
  if (x != x) return 0;
  if (x >= static_cast<F>(2147483648.0)) return 0x7fffffff;
  if (x < static_cast<F>(-2147483648.0)) return -0x7fffffff - 1;
  return static_cast<int>(x);
}
template <class F>
K_DEV signed char esp_i8_of(F x) {
  if (x != x) return 0;
  return static_cast<signed char>(x > F(127) ? 127 : x < F(-128) ? -128 : static_cast<int>(x));
}
template <class F>
K_DEV unsigned char esp_u8_of(F x) {
  if (x != x) return 0;
  return static_cast<unsigned char>(x > F(255) ? 255 : x < F(0) ? 0 : static_cast<int>(x));
}
// clamp(i, 0, bound - 1): the place that data points at.
template <class I, class T>
K_DEV I esp_place(T i, long long bound) {
  const long long x = static_cast<long long>(i);
  return static_cast<I>(x < bound - 1 ? (x > 0 ? x : 0) : bound - 1);
}

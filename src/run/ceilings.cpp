#include "run/ceilings.h"

#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <mutex>
#include <vector>

#include "base/threads.h"
#include "run/memory.h"
#include "target/cpu/cpu_features.h"

namespace espalier::run {

namespace {

using target::cpu::cpu_features;

/// Keeps what a loop computes alive.
template <class T>
void keep(const T& value) {
  asm volatile("" : : "m"(value) : "memory");
}

constexpr int accumulators = 16;  // enough for the latency of two multiply-adds per cycle

/// Operations of one call of a loop below with `rounds`, and its result. Values near 1 keep every product normal.
using Loop = double (*)(int64_t rounds);

__attribute__((target("avx512f"))) double f32_avx512(int64_t rounds) {
  __m512 sum[accumulators];
  for (int i = 0; i < accumulators; ++i) sum[i] = _mm512_set1_ps(0.001f * static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.99971f), b = _mm512_set1_ps(0.00037f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < accumulators; ++i) sum[i] = _mm512_fmadd_ps(sum[i], a, b);
  }
  for (const __m512& s : sum) keep(s);
  return static_cast<double>(rounds) * accumulators * 16 * 2;
}

__attribute__((target("avx2,fma"))) double f32_avx2(int64_t rounds) {
  constexpr int in_registers = 12;
  __m256 sum[in_registers];
  for (int i = 0; i < in_registers; ++i) sum[i] = _mm256_set1_ps(0.001f * static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.99971f), b = _mm256_set1_ps(0.00037f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < in_registers; ++i) sum[i] = _mm256_fmadd_ps(sum[i], a, b);
  }
  for (const __m256& s : sum) keep(s);
  return static_cast<double>(rounds) * in_registers * 8 * 2;
}

__attribute__((target("avx512f,avx512bf16"))) double bf16_avx512(int64_t rounds) {
  __m512 sum[accumulators];
  for (int i = 0; i < accumulators; ++i) sum[i] = _mm512_set1_ps(0.001f * static_cast<float>(i));
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f7d3e91)),
             b = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3a1fb9c3));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < accumulators; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
  }
  for (const __m512& s : sum) keep(s);
  return static_cast<double>(rounds) * accumulators * 16 * 4;
}

/// 16 rows of 64 bytes per tile; four sums, so that the tile unit is never idle.
double bf16_amx(int64_t rounds) {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int t = 0; t < 8; ++t) config.bytes_per_row[t] = 64, config.rows[t] = 16;
  alignas(64) uint16_t values[16 * 32];
  uint32_t random = 1;
  for (uint16_t& v : values) {
    random = random * 1664525u + 1013904223u;
    v = static_cast<uint16_t>(0x3c00 + (random >> 22) + ((random & 1) << 15));
  }
  const int64_t stride = 64;
  asm volatile(
      "ldtilecfg %0\n\ttileloadd (%1,%2,1), %%tmm4\n\ttileloadd (%1,%2,1), %%tmm5\n\t"
      "tileloadd (%1,%2,1), %%tmm6\n\ttileloadd (%1,%2,1), %%tmm7\n\t"
      "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3"
      :
      : "m"(config), "r"(values), "r"(stride)
      : "memory");
  for (int64_t r = 0; r < rounds; ++r)
    asm volatile(
        "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
        "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\ttdpbf16ps %%tmm7, %%tmm5, %%tmm3"
        :
        :
        : "memory");
  asm volatile("tilerelease" : : : "memory");
  return static_cast<double>(rounds) * 4 * 16 * 16 * 32 * 2;
}

__attribute__((target("avx2"))) double read_avx2(const char* data, int64_t bytes) {
  __m256i sum[4] = {};
  for (int64_t i = 0; i + 128 <= bytes; i += 128) {
    const auto* at = reinterpret_cast<const __m256i*>(data + i);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) sum[k] = _mm256_xor_si256(sum[k], _mm256_load_si256(at + k));
  }
  for (const __m256i& s : sum) keep(s);
  return static_cast<double>(bytes);
}

/// Seconds this thread has run: other processes' share of the processor does not count.
double thread_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// The most units per second of `work(thread)` on every thread of the pool at once, in a few tries.
template <class F>
double best_rate(int threads, F&& work) {
  double best = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::vector<double> rate(static_cast<size_t>(threads));
    parallel_for(threads, [&](int64_t t) {
      const double start = thread_seconds();
      const double units = work(t);
      rate[static_cast<size_t>(t)] = units / std::max(thread_seconds() - start, 1e-9);
    });
    double sum = 0;
    for (const double r : rate) sum += r;
    best = std::max(best, sum);
  }
  return best;
}

double flops_of(Loop loop, int threads) {
  // About 3 ms a try.
  const double start = thread_seconds();
  loop(20000);
  const double seconds = std::max(thread_seconds() - start, 1e-9);
  const auto rounds = static_cast<int64_t>(20000 * std::clamp(0.003 / seconds, 1.0, 1000.0));
  return best_rate(threads, [&](int64_t) { return loop(rounds); });
}

double read_rate(int threads) {
  constexpr int64_t bytes = int64_t{96} << 20;
  const Memory memory(bytes);
  const int64_t part = bytes / threads / 4096 * 4096;
  parallel_for(threads, [&](int64_t t) {  // other values in every page
    auto* at = reinterpret_cast<int64_t*>(memory.data() + t * part);
    for (int64_t i = 0; i < part / 8; i += 8) at[i] = i * 0x9e3779b97f4a7c15;
  });
  return best_rate(threads, [&](int64_t t) { return read_avx2(memory.data() + t * part, part); });
}

Ceilings measure(int threads) {
  const target::cpu::CpuFeatures& cpu = cpu_features();
  Ceilings c{.machine = target::cpu::cpu_name() + " (" + cpu.text() + ")", .threads = threads};
  c.f32_flops = flops_of(cpu.avx512 ? f32_avx512 : f32_avx2, threads);
  if (cpu.amx_bf16) c.bf16_flops = flops_of(bf16_amx, threads);
  else if (cpu.avx512_bf16) c.bf16_flops = flops_of(bf16_avx512, threads);
  c.bf16_flops = std::max(c.bf16_flops, c.f32_flops);
  c.read_bytes = read_rate(threads);
  return c;
}

}  // namespace

double Ceilings::matrix_flops(ir::Dtype dtype) const {
  switch (dtype) {
    case ir::Dtype::f64: return f64_flops > 0 ? f64_flops : f32_flops / 2;
    case ir::Dtype::bf16: return bf16_flops;
    case ir::Dtype::f16: return f16_flops > 0 ? f16_flops : f32_flops;
    case ir::Dtype::i8: return i8_flops > 0 ? i8_flops : f32_flops;
    default: return f32_flops;
  }
}

std::string Ceilings::text() const {
  if (threads == 0)
    return fmt::format(
        "{}: f32 {:.1f} TFLOP/s, bf16 {:.1f} TFLOP/s, memory {:.0f} GB/s (of the data sheet; 0: not known)",
        machine, f32_flops * 1e-12, bf16_flops * 1e-12, read_bytes * 1e-9);
  return fmt::format("{}, {} thread{}: f32 {:.0f} GFLOP/s, bf16 {:.0f} GFLOP/s, reads {:.1f} GB/s", machine,
                     threads, threads == 1 ? "" : "s", f32_flops * 1e-9, bf16_flops * 1e-9,
                     read_bytes * 1e-9);
}

const Ceilings& ceilings() {
  static std::mutex mutex;
  static std::map<int, Ceilings> measured;
  const std::lock_guard lock(mutex);
  const int threads = pool_threads();
  const auto it = measured.find(threads);
  return it != measured.end() ? it->second : measured.emplace(threads, measure(threads)).first->second;
}

}  // namespace espalier::run

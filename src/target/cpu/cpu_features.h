#pragma once
// What this processor can do, asked at run time. ESPALIER_CPU=avx2 or avx512 masks it down, so that one machine can run
// (and test) the code of another.
#include <string>
#include <string_view>

namespace espalier::target::cpu {

struct CpuFeatures {
  bool avx2 = false;    ///< AVX2, FMA and F16C (with the operating system's support): the least we run on
  bool avx512 = false;  ///< AVX-512 F, BW, DQ, VL and CD
  bool avx512_bf16 = false;  ///< vcvtneps2bf16, vdpbf16ps
  bool avx512_vnni = false;  ///< vpdpbusd
  bool amx_tile = false, amx_bf16 = false, amx_int8 = false;
  bool amd = false;  ///< AMD's tuning is used for scheduling

  /// f32 elements of the widest vector: 16 or 8.
  int lanes() const { return avx512 ? 16 : 8; }
  /// One word per feature, for cache keys and reports: "avx2 avx512 bf16 vnni".
  std::string text() const;
  bool operator==(const CpuFeatures&) const = default;
};

/// What CPUID and XGETBV say about this processor.
CpuFeatures detect_cpu();

/// `features` cut down to `level`: "" or "native" (nothing is cut), "avx512" (no bf16, VNNI, AMX), "avx2". UserError for another
/// name, or for a level the processor does not have.
CpuFeatures masked(CpuFeatures features, std::string_view level);

/// detect_cpu() masked by ESPALIER_CPU; asked once. UserError where the processor has no AVX2.
const CpuFeatures& cpu_features();

/// The processor's own name, as CPUID gives it.
std::string cpu_name();

}  // namespace espalier::target::cpu

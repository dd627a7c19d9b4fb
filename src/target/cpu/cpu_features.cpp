#include "target/cpu/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace espalier::target::cpu {
namespace {

struct Cpuid {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Cpuid cpuid(unsigned leaf, unsigned subleaf = 0) {
  Cpuid r;
  if (!__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d)) return {};
  return r;
}

bool bit(unsigned word, int n) { return (word >> n) & 1u; }

uint64_t enabled_state() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

/// Linux hands out the AMX tile state only on request, once per process.
bool may_use_amx() {
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

std::string CpuFeatures::text() const {
  std::string s = "x86-64";
  const auto add = [&s](bool on, const char* word) {
    if (on) s += std::string(" ") + word;
  };
  add(avx2, "avx2");
  add(avx512, "avx512");
  add(avx512_bf16, "bf16");
  add(avx512_vnni, "vnni");
  add(amx_tile, "amx");
  add(amx_bf16, "amx-bf16");
  add(amx_int8, "amx-int8");
  add(amd, "amd");
  return s;
}

CpuFeatures detect_cpu() {
  CpuFeatures f;
  const Cpuid vendor = cpuid(0), one = cpuid(1), seven = cpuid(7), seven_one = cpuid(7, 1);
  f.amd = vendor.b == 0x68747541u;  // "Auth"
  if (!bit(one.c, 27)) return f;    // OSXSAVE
  const uint64_t state = enabled_state();
  const bool ymm = (state & 0x6u) == 0x6u, zmm = (state & 0xe6u) == 0xe6u,
             tiles = (state & 0x60000u) == 0x60000u;
  f.avx2 = ymm && bit(one.c, 28) && bit(one.c, 12) && bit(one.c, 29) && bit(seven.b, 5);
  f.avx512 = f.avx2 && zmm && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 28) && bit(seven.b, 30) &&
             bit(seven.b, 31);
  f.avx512_vnni = f.avx512 && bit(seven.c, 11);
  f.avx512_bf16 = f.avx512 && bit(seven_one.a, 5);
  f.amx_tile = f.avx512 && tiles && bit(seven.d, 24) && may_use_amx();
  f.amx_bf16 = f.amx_tile && bit(seven.d, 22);
  f.amx_int8 = f.amx_tile && bit(seven.d, 25);
  return f;
}

CpuFeatures masked(CpuFeatures f, std::string_view level) {
  if (level.empty() || level == "native") return f;
  const auto refuse = [&](const char* problem) {
    throw UserError(
        {"environment variable ESPALIER_CPU", problem, std::string(level), "native, avx512, avx2"});
  };
  if (level != "avx512" && level != "avx2") refuse("unknown level");
  if (level == "avx512" ? !f.avx512 : !f.avx2) refuse("this processor does not have it");
  f.avx512 = level == "avx512";
  f.avx512_bf16 = f.avx512_vnni = f.amx_tile = f.amx_bf16 = f.amx_int8 = false;
  return f;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = [] {
    const char* level = std::getenv("ESPALIER_CPU");
    const CpuFeatures f = masked(detect_cpu(), level ? level : "");
    if (!f.avx2)
      throw UserError(
          {"CPU target", "the processor is too old", cpu_name(), "x86-64 with AVX2, FMA and F16C"});
    return f;
  }();
  return features;
}

std::string cpu_name() {
  char name[49] = {};
  for (unsigned i = 0; i < 3; ++i) {
    const Cpuid r = cpuid(0x80000002u + i);
    std::memcpy(name + 16 * i, &r, 16);
  }
  std::string s(name);
  const size_t first = s.find_first_not_of(' '), last = s.find_last_not_of(' ');
  return first == std::string::npos ? "unknown" : s.substr(first, last - first + 1);
}

}  // namespace espalier::target::cpu

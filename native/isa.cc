#include "isa.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fathom {

namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512", "amx"};

#if defined(__x86_64__) && defined(FATHOM_X86_LEVELS)

// Intel SDM vol. 2A, CPUID leaf 7, sub-leaf 0: EDX bit 22 AMX-BF16, bit 24 AMX-TILE, bit 25 AMX-INT8.
bool cpu_has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1);
}

// Whether the kernels for it were built and the system allows them. Linux, Documentation/arch/x86/xstate.rst: ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18.
bool amx_is_usable() {
#if defined(__linux__) && defined(FATHOM_AMX_LEVEL)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

Isa detect() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::portable;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  if (!avx512) return Isa::avx2;
  return __builtin_cpu_supports("gfni") && cpu_has_amx() && amx_is_usable() ? Isa::amx : Isa::avx512;
}

#else

Isa detect() { return Isa::portable; }

#endif

}  // namespace

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa best_isa() {
  static const Isa best = detect();
  return best;
}

Isa parse_isa(const std::string& name) {
  for (int level = 0; level < 4; ++level) {
    if (name != kNames[level]) continue;
    if (level <= static_cast<int>(best_isa())) return static_cast<Isa>(level);
    throw std::invalid_argument("instruction set " + name + " is not available here: the best is " +
                                isa_name(best_isa()));
  }
  throw std::invalid_argument("unknown instruction set \"" + name + "\": use portable, avx2, avx512 or amx");
}

Isa chosen_isa() {
  const char* wanted = std::getenv("FATHOM_ISA");
  return wanted && *wanted ? parse_isa(wanted) : best_isa();
}

}  // namespace fathom

// Instruction-set levels, and which one this process uses.
#pragma once

#include <string>

namespace fathom {

/// Ascending: a CPU that runs one level runs all levels before it.
///   portable  the compiler's baseline (SSE2 on x86, NEON on Arm)
///   avx2      AVX2 + FMA
///   avx512    AVX-512 F/BW/VL/DQ + BF16 + VNNI (an AVX-512 CPU without BF16 uses avx2)
///   amx       avx512 + GFNI + AMX tiles with BF16 and INT8
enum class Isa : int { portable, avx2, avx512, amx };

const char* isa_name(Isa isa);

/// The best level of this CPU and operating system. Asks Linux once for permission to use AMX tile data.
Isa best_isa();

/// The best level, or the lower one that the environment variable FATHOM_ISA names.
/// @throws std::invalid_argument if FATHOM_ISA is unknown or above what the CPU has
Isa chosen_isa();

/// The level of that name. @throws std::invalid_argument if it is unknown or the CPU lacks it
Isa parse_isa(const std::string& name);

}  // namespace fathom

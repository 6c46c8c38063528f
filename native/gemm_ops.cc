// The GEMM family as JavaScript sees it.
#include "gemm.h"
#include "kernels.h"
#include "pool.h"

namespace fathom {
namespace FATHOM_ISA_NS {

void register_gemm(const Exports&) {}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom

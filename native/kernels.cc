#include "kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

void register_kernels(const Exports& exports) {
  register_gemm(exports);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom

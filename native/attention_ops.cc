#include "kernels.h"
namespace fathom {
namespace FATHOM_ISA_NS {
void register_attention(const Exports&) {}
}  // namespace FATHOM_ISA_NS
}  // namespace fathom

#include "kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

void register_kernels(const Exports& exports) {
  register_gemm(exports);
  register_quantize(exports);
  register_wgrad(exports);
  register_hopper(exports);
  register_peak(exports);
  register_elementwise(exports);
  register_norm(exports);
  register_attention(exports);
  register_attention_backward(exports);
  register_latent_attention(exports);
  register_latent_pages(exports);
  register_attention_block(exports);
  register_mlp_block(exports);
  register_norm_project(exports);
  register_stored_rows(exports);
  register_encode(exports);
  register_router(exports);
  register_dispatch(exports);
  register_loss(exports);
  register_optimizer(exports);
  register_logfmt(exports);
  register_project(exports);
  register_wire(exports);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom

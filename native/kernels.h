// The kernel families of one instruction-set level. Each family is one .cc file (listed in binding.gyp's
// kernel_sources) that defines its register function in namespace fathom::FATHOM_ISA_NS.
#pragma once

#include "bind.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Binds every kernel of this level; called by native/addon.cc.
void register_kernels(const Exports& exports);

void register_gemm(const Exports& exports);
void register_quantize(const Exports& exports);
void register_wgrad(const Exports& exports);
void register_hopper(const Exports& exports);
void register_peak(const Exports& exports);
void register_elementwise(const Exports& exports);
void register_norm(const Exports& exports);
void register_attention(const Exports& exports);
void register_attention_backward(const Exports& exports);
void register_latent_attention(const Exports& exports);
void register_latent_pages(const Exports& exports);
void register_attention_block(const Exports& exports);
void register_mlp_block(const Exports& exports);
void register_norm_project(const Exports& exports);
void register_stored_rows(const Exports& exports);
void register_encode(const Exports& exports);
void register_router(const Exports& exports);
void register_dispatch(const Exports& exports);
void register_loss(const Exports& exports);
void register_optimizer(const Exports& exports);
void register_logfmt(const Exports& exports);
void register_project(const Exports& exports);
void register_wire(const Exports& exports);

}  // namespace FATHOM_ISA_NS
}  // namespace fathom

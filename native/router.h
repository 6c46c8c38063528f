// The gate of DeepSeekMoE for one token, for the op and for the blocks that put several ops into one call.
#pragma once

#include <string>

#include "types.h"

namespace fathom {
namespace FATHOM_ISA_NS {

struct Router {
  int64_t experts, top_k, groups, top_groups;
  bool softmax, biased, grouped, pair_score, normalize;
  double scaling;
};

/// @throws if the sizes do not fit: a kernel must never look for more experts than there are
Router make_router(const char* op, int64_t experts, int64_t top_k, int64_t groups, int64_t top_groups,
                   const std::string& scoring, const std::string& method, bool normalize, double scaling);

/// logits [E], bias [E] -> ids [K], weights [K]. Uses scratch slot 9.
void route_token(const float* logits, const float* bias, const Router& router, int32_t* ids, float* weights);

}  // namespace FATHOM_ISA_NS
}  // namespace fathom

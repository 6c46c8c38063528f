import type { ModelConfig } from '../spec/model.js';
import type { LinearRecipe } from '../spec/precision.js';
import type { RouterShape } from '../tensor/backend.js';
import { permute, route, throughWire, unpermute } from '../tensor/expert-functions.js';
import { add, linear, swiglu } from '../tensor/functions.js';
import type { Steps } from '../tensor/steps.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Context, RouterState, Weights } from './context.js';
import type { ExpertExchange } from './exchange.js';

/** The gate of a model in the op's terms. */
export function routerShape(config: ModelConfig): RouterShape {
  return {
    experts: config.n_routed_experts,
    topK: config.num_experts_per_tok,
    groups: config.n_group,
    topGroups: config.topk_group,
    scoring: config.scoring_func,
    method: config.topk_method,
    normalize: config.norm_topk_prob,
    scalingFactor: config.routed_scaling_factor,
  };
}

/**
 * DeepSeekMoE [TR §2.1.2]: u [T, D] → Σ_shared FFN(u) + Σ_chosen g_i·FFN_i(u) [T, D].
 * The published models fold their shared experts into one MLP of n_shared_experts times the width.
 */
export function* mixtureOfExperts(ctx: Context, w: Weights, u: Tensor, router: RouterState): Steps<Tensor> {
  const { tape, recipe } = ctx;
  const seen = router.seen[ctx.lane]!;
  const logits = linear(tape, u, w.get('gate.weight'), recipe.gate, { output: 'f32' }); // u·e_i [T, E]
  const { ids, weights, dispatch } = route(tape, logits, router.bias, routerShape(ctx.config), {
    sequences: ctx.layout.sequences,
    factor: router.balanceFactor,
    loss: seen.balanceLoss,
    load: seen.load,
  });
  tape.observer.routed?.(w.get('gate.weight'), dispatch);
  if (ctx.exchange) return yield* withExpertsElsewhere(ctx, ctx.exchange, w, u, ids, weights);
  const rows = permute(tape, u, dispatch); // [R, D]
  const out = expertsOf(ctx, w, rows, dispatch.offsets);
  const arrived = recipe.combine ? throughWire(tape, out, recipe.combine) : out;
  const routed = unpermute(tape, arrived, weights, dispatch); // [T, D]
  const shared = sharedExperts(ctx, w, u);
  return shared ? add(tape, routed, shared) : routed;
}

/**
 * As above over several processes; the shared experts are computed while tokens, and in backward gradients, are on their way,
 * and whatever else there is while this pauses.
 */
function* withExpertsElsewhere(
  ctx: Context,
  exchange: ExpertExchange,
  w: Weights,
  u: Tensor,
  ids: Tensor,
  weights: Tensor,
): Steps<Tensor> {
  const journey = exchange.send(ctx.tape, u, ids, weights);
  const shared = sharedExperts(ctx, w, u);
  yield;
  const { rows, offsets } = journey.receive();
  journey.sendBack(expertsOf(ctx, w, rows, offsets));
  yield;
  const routed = journey.receiveBack(); // [T, D]
  return shared ? add(ctx.tape, routed, shared) : routed;
}

/** rows [R, D] in the order of their experts → FFN of each row's expert [R, D]. */
function expertsOf({ tape, recipe }: Context, w: Weights, rows: Tensor, offsets: Tensor): Tensor {
  const gu = linear(tape, rows, w.get('experts.gate_up_proj'), recipe.expertUp, { offsets });
  const h = swiglu(tape, gu, recipe.swigluCache); // [R, I]
  return linear(tape, h, w.get('experts.down_proj'), recipe.expertDown, { offsets });
}

/** Σ_shared FFN(u) [T, D], where the model has shared experts. */
const sharedExperts = (ctx: Context, w: Weights, u: Tensor): Tensor | undefined =>
  ctx.config.n_shared_experts > 0 ? feedForward(ctx, w, 'shared_experts.', u) : undefined;

/** SwiGLU feed-forward network: W_down (silu(W_gate u) · W_up u). */
export function feedForward(ctx: Context, w: Weights, prefix: string, u: Tensor): Tensor {
  const { tape, recipe } = ctx;
  const up: LinearRecipe = recipe.linear;
  const gu = linear(tape, u, w.get(`${prefix}gate_up_proj.weight`), up); // [T, 2I]
  const h = swiglu(tape, gu, recipe.swigluCache); // [T, I]
  return linear(tape, h, w.get(`${prefix}down_proj.weight`), recipe.linear);
}

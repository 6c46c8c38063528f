import { z } from 'zod';

/**
 * Precision recipes: which number format every part of training uses [TR §3.3, ISCA §3.1].
 *
 * A recipe is data. Each field can be flipped by an experiment; the three presets at the end are only
 * starting points. Formats are storage formats: native kernels widen E4M3, E5M2 and E5M6 exactly to BF16,
 * multiply with the BF16 units and accumulate in FP32.
 */
export const FORMATS = ['fp32', 'bf16', 'e4m3', 'e5m2', 'e5m6'] as const;
export type Format = (typeof FORMATS)[number];

/**
 * One GEMM operand. Narrow formats carry one scale per 1×128 tile along the contraction (activations and
 * gradients) or per 128×128 block (weights), computed online from the current absolute maximum.
 * `pow2` rounds the scale up to a power of two, so that scaling itself is exact.
 */
const operand = z.strictObject({
  format: z.enum(FORMATS),
  scale: z.enum(['fp32', 'pow2']).default('fp32'),
});
export type Operand = z.infer<typeof operand>;

/** FP32 and narrower operands do not meet in one GEMM. */
const matched = (operands: Record<string, Operand>): boolean => {
  const wide = Object.values(operands).filter(({ format }) => format === 'fp32').length;
  return wide === 0 || wide === 2;
};
const MATCHED = 'both operands of a GEMM must be fp32, or neither';

/** The three GEMMs of a Linear: y = x·Wᵀ, dx = dy·W, dW = dyᵀ·x. */
const linearRecipe = z.strictObject({
  fprop: z.strictObject({ input: operand, weight: operand }).refine(matched, MATCHED),
  dgrad: z.strictObject({ gradient: operand, weight: operand }).refine(matched, MATCHED),
  wgrad: z.strictObject({ gradient: operand, input: operand }).refine(matched, MATCHED),
});
export type LinearRecipe = z.infer<typeof linearRecipe>;

export const recipeSchema = z.strictObject({
  name: z.string(),
  /** Type of activations and their gradients between operators. */
  activations: z.enum(['fp32', 'bf16']),
  /** Every Linear of attention and MLP that has no entry of its own. */
  linear: linearRecipe,
  /** o_proj, the Linear after attention: E5M6 with power-of-two scales in the paper [TR §3.3.3]. */
  attentionOutput: linearRecipe,
  /** gate_proj and up_proj of the routed experts, whose input is what dispatch sends [TR §3.3.3]. */
  expertUp: linearRecipe,
  /** down_proj of the routed experts. */
  expertDown: linearRecipe,
  /** lm_head; kept in high precision [TR §3.3.1]. */
  head: linearRecipe,
  /** The router's scores; kept in high precision [TR §3.3.1]. */
  gate: linearRecipe,
  /** Storage of SwiGLU's input between forward and backward; the output is recomputed [TR §3.3.3]. */
  swigluCache: operand,
  /** AdamW's first and second moments [TR §3.3.3]. Master weights and gradients are FP32. */
  moments: z.enum(['fp32', 'bf16']),
});
export type Recipe = z.infer<typeof recipeSchema>;

const same = (format: Format, scale: Operand['scale'] = 'fp32'): LinearRecipe => ({
  fprop: { input: { format, scale }, weight: { format, scale: 'fp32' } },
  dgrad: { gradient: { format, scale: 'fp32' }, weight: { format, scale: 'fp32' } },
  wgrad: { gradient: { format, scale: 'fp32' }, input: { format, scale } },
});

const FP32 = same('fp32');
const BF16 = same('bf16');
const E4M3 = same('e4m3');

/** The Linear after attention: its cached input is E5M6, the other operands stay E4M3 [TR §3.3.3]. */
const AFTER_ATTENTION: LinearRecipe = {
  ...E4M3,
  fprop: { ...E4M3.fprop, input: { format: 'e5m6', scale: 'pow2' } },
  wgrad: { ...E4M3.wgrad, input: { format: 'e5m6', scale: 'pow2' } },
};

const uniform = (name: string, linear: LinearRecipe, format: 'fp32' | 'bf16'): Recipe => ({
  name,
  activations: format,
  linear,
  attentionOutput: linear,
  expertUp: linear,
  expertDown: linear,
  head: linear,
  gate: FP32,
  swigluCache: { format, scale: 'fp32' },
  moments: format,
});

export const RECIPES: Record<'fp32' | 'bf16' | 'fp8', Recipe> = {
  fp32: uniform('fp32', FP32, 'fp32'),
  bf16: uniform('bf16', BF16, 'bf16'),
  fp8: {
    name: 'fp8',
    activations: 'bf16',
    linear: E4M3,
    attentionOutput: AFTER_ATTENTION,
    expertUp: same('e4m3', 'pow2'),
    expertDown: E4M3,
    head: BF16,
    gate: FP32,
    swigluCache: { format: 'e4m3', scale: 'fp32' },
    moments: 'bf16',
  },
};

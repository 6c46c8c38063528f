import { z } from 'zod';

/**
 * Precision recipes: which number format every part of training uses [TR §3.3, ISCA §3.1].
 *
 * A recipe is data. Each field can be flipped by an experiment; the three presets at the end are only
 * starting points. Formats are storage formats: native kernels widen E4M3, E5M2 and E5M6 exactly to BF16,
 * multiply with the BF16 units and accumulate in FP32, or as Hopper's tensor cores do (`accumulator`).
 */
export const FORMATS = ['fp32', 'bf16', 'e4m3', 'e5m2', 'e5m6'] as const;
export type Format = (typeof FORMATS)[number];

/** Whether values of this format are scaled: formats of 8 or 12 bits. */
export const isNarrowFormat = (format: Format): boolean => format !== 'fp32' && format !== 'bf16';

/**
 * One GEMM operand. Narrow formats carry one scale per 1×128 tile along the contraction (activations and
 * gradients) or per 128×128 block (weights), computed online from the current absolute maximum.
 * `pow2` rounds the scale up to a power of two, so that scaling itself is exact. `granularity: tensor` takes one scale
 * for the whole activation or gradient, and one per matrix of a weight, that is one per expert.
 */
const operand = z
  .strictObject({
    format: z.enum(FORMATS),
    scale: z.enum(['fp32', 'pow2']).default('fp32'),
    granularity: z.enum(['tile', 'tensor']).default('tile'),
  })
  .refine(({ format, granularity }) => granularity === 'tile' || isNarrowFormat(format), {
    message: 'fp32 and bf16 have no scales: leave out granularity, or take e4m3, e5m2 or e5m6',
    path: ['granularity'],
  });
export type Operand = z.infer<typeof operand>;

/** Values that share one scale, for each granularity. */
export type Granularity = Operand['granularity'];

/**
 * How products are summed in GEMMs with a narrow operand. `fp22` is Hopper's tensor core [TR §3.5.2; ISCA §3.1.1]: 32
 * products at a time are aligned to the largest exponent and cut off after 13 fraction bits, the register has as many.
 * It is added to an FP32 sum (promoted) every 128 products, as DeepSeek-V3 does [TR §3.3.2], or never.
 */
const accumulator = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('fp32') }),
  z.strictObject({ kind: z.literal('fp22'), promoteEvery: z.literal(128).nullable() }),
]);
export type Accumulator = z.infer<typeof accumulator>;

/** Formats that can carry the experts' outputs back to their tokens. */
export const WIRE_FORMATS = ['fp32', 'bf16', 'e4m3', 'e5m2', 'e5m6', 'logfmt8', 'logfmt10'] as const;
export type WireFormat = (typeof WIRE_FORMATS)[number];

/** n of LogFMT-n. */
export const LOGFMT_BITS = { logfmt8: 8, logfmt10: 10 } as const;

/** Format of the combine path; narrow ones have one FP32 scale, or LogFMT's range, per 1×128 tile. */
const wire = z
  .strictObject({
    format: z.enum(WIRE_FORMATS),
    /** Where LogFMT rounds: to the nearest value, or the nearest logarithm, which is biased [ISCA §3.2]. */
    rounding: z.enum(['linear', 'log']).optional(),
  })
  .refine(({ format, rounding }) => rounding === undefined || format.startsWith('logfmt'), {
    message: 'only logfmt8 and logfmt10 have a choice of rounding: leave it out',
    path: ['rounding'],
  });
export type Wire = z.infer<typeof wire>;

/** An operand with scales, if any, per tile. */
export const operandOf = (format: Format, scale: Operand['scale'] = 'fp32'): Operand => ({
  format,
  scale,
  granularity: 'tile',
});

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
  /** That of the recipe, unless this Linear has its own. */
  accumulator: accumulator.optional(),
});
export type LinearRecipe = z.infer<typeof linearRecipe>;

const fields = z.strictObject({
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
  /** Of every Linear that has none of its own. */
  accumulator: accumulator.default({ kind: 'fp32' }),
  /** What the experts' outputs are rounded to on their way back; nothing beyond `activations` by default. */
  combine: wire.optional(),
});

const LINEARS = ['linear', 'attentionOutput', 'expertUp', 'expertDown', 'head', 'gate'] as const;

const hasNarrow = ({ fprop, dgrad, wgrad }: LinearRecipe): boolean =>
  [fprop, dgrad, wgrad].some((gemm) => Object.values(gemm).some(({ format }) => isNarrowFormat(format)));

/** Gives the recipe's accumulator to every Linear without one; FP32 goes without saying. */
function withAccumulators(recipe: z.infer<typeof fields>): z.infer<typeof fields> {
  if (recipe.accumulator.kind === 'fp32') return recipe;
  const full = { ...recipe };
  for (const name of LINEARS) full[name] = { accumulator: recipe.accumulator, ...recipe[name] };
  return full;
}

export const recipeSchema = fields
  .refine((recipe) => recipe.accumulator.kind === 'fp32' || LINEARS.some((name) => hasNarrow(recipe[name])), {
    message: 'fp22 sums products of e4m3, e5m2 or e5m6, which no Linear of this recipe has',
    path: ['accumulator'],
  })
  .overwrite(withAccumulators);
export type Recipe = z.infer<typeof recipeSchema>;

const same = (format: Format, scale: Operand['scale'] = 'fp32'): LinearRecipe => {
  const [plain, scaled] = [operandOf(format), operandOf(format, scale)];
  return {
    fprop: { input: scaled, weight: plain },
    dgrad: { gradient: plain, weight: plain },
    wgrad: { gradient: plain, input: scaled },
  };
};

const FP32 = same('fp32');
const BF16 = same('bf16');
const E4M3 = same('e4m3');

/** The Linear after attention: its cached input is E5M6, the other operands stay E4M3 [TR §3.3.3]. */
const AFTER_ATTENTION: LinearRecipe = {
  ...E4M3,
  fprop: { ...E4M3.fprop, input: operandOf('e5m6', 'pow2') },
  wgrad: { ...E4M3.wgrad, input: operandOf('e5m6', 'pow2') },
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
  swigluCache: operandOf(format),
  moments: format,
  accumulator: { kind: 'fp32' },
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
    swigluCache: operandOf('e4m3'),
    moments: 'bf16',
    accumulator: { kind: 'fp32' },
  },
};

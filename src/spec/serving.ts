/** Storage formats of inference: what weights and the latent cache are kept in. */

/**
 * Weights. `fp32`, `bf16`: as they are. `fp8`: E4M3 codes with one FP32 scale per 128×128 block, as DeepSeek publishes
 * them [TR §3.3.2]. `int8`: one scale per row and 128 columns. `q4`: 4 bits, one scale per row and 32 columns.
 */
export const WEIGHT_FORMATS = ['fp32', 'bf16', 'fp8', 'int8', 'q4'] as const;
export type WeightFormat = (typeof WEIGHT_FORMATS)[number];

/**
 * The latent cache: c^KV in this format, in tiles of 128 where it is narrow; k^R in BF16 (FP32 where the format is FP32),
 * because rotary keys are few and sensitive.
 */
export const CACHE_FORMATS = ['fp32', 'bf16', 'fp8', 'logfmt8'] as const;
export type CacheFormat = (typeof CACHE_FORMATS)[number];

import type { ModelConfig, Yarn } from '../spec/model.js';
import { Tensor } from '../tensor/tensor.js';

/**
 * Rotary position embedding [arXiv 2104.09864] and YaRN [arXiv 2309.00071 §3] as DeepSeek uses it.
 */

/** Angles per position: f32 [positions, d/2, 2] of (cos, sin), for d = qk_rope_head_dim. */
export function ropeTable(config: ModelConfig, positions: number): Tensor {
  const frequencies = inverseFrequencies(config);
  const pairs = frequencies.length;
  const factor = config.yarn ? cosSinFactor(config.yarn) : 1;
  const table = new Float32Array(positions * pairs * 2);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < pairs; i++) {
      // Angles in FP32, as the checkpoints were trained.
      const angle = Math.fround(p * frequencies[i]!);
      table[(p * pairs + i) * 2] = Math.cos(angle) * factor;
      table[(p * pairs + i) * 2 + 1] = Math.sin(angle) * factor;
    }
  }
  return new Tensor([positions, pairs, 2], 'f32', table);
}

/** Softmax scale of MLA: (d_h + d_h^R)^(-1/2), times YaRN's mscale² where mscale_all_dim asks for it. */
export function softmaxScale(config: ModelConfig): number {
  const plain = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5;
  const yarn = config.yarn;
  if (!yarn || yarn.mscale_all_dim === 0) return plain;
  return plain * mscale(yarn.factor, yarn.mscale_all_dim) ** 2;
}

/** YaRN's attention temperature, 0.1·m·ln(s) + 1 [arXiv 2309.00071 eq. 22]. */
function mscale(factor: number, m: number): number {
  return factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1;
}

/** YaRN's attention factor, which cos and sin are multiplied with. */
export function cosSinFactor(yarn: Yarn): number {
  if (yarn.attention_factor !== undefined) return yarn.attention_factor;
  if (yarn.mscale !== 0 && yarn.mscale_all_dim !== 0) {
    return mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim);
  }
  return mscale(yarn.factor, 1);
}

/** θ^(-2i/d) for each pair, blended with its 1/factor between the two corner dimensions under YaRN. */
function inverseFrequencies(config: ModelConfig): Float32Array {
  const d = config.qk_rope_head_dim;
  const plain = Float32Array.from(
    { length: d / 2 },
    (_, i) => 1 / Math.fround(config.rope_theta ** ((2 * i) / d)),
  );
  const yarn = config.yarn;
  if (!yarn) return plain;
  const corner = (rotations: number) =>
    (d * Math.log(yarn.original_max_position_embeddings / (rotations * 2 * Math.PI))) /
    (2 * Math.log(config.rope_theta));
  const round = yarn.truncate ? [Math.floor, Math.ceil] : [(x: number) => x, (x: number) => x];
  const low = Math.max(round[0]!(corner(yarn.beta_fast)), 0);
  const high = Math.min(round[1]!(corner(yarn.beta_slow)), d - 1);
  return plain.map((f, i) => {
    const ramp = Math.min(Math.max((i - low) / Math.max(high - low, 0.001), 0), 1);
    return (f / yarn.factor) * ramp + f * (1 - ramp);
  });
}

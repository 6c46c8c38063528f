import type { CacheFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import { allocate } from '../tensor/parameter.js';
import type { Tensor } from '../tensor/tensor.js';

/** Tokens of a page: what prefix sharing and the kernels deal in. */
export const PAGE_TOKENS = 32;

/** Sizes of a latent cache. */
export interface CacheShape {
  /** Decoder layers, those of MTP modules in use included. */
  layers: number;
  /** d_c = kv_lora_rank. */
  latent: number;
  /** d_h^R = qk_rope_head_dim. */
  rope: number;
  pages: number;
  format: CacheFormat;
}

/**
 * Pages of latents: per token and layer RMSNorm(c^KV) and the rotated k^R are all that MLA keeps [V2 §2.1.3].
 * A slot is a token's place, page · PAGE_TOKENS + offset; it is the same in every layer.
 */
export class LatentCache {
  /** Per layer [pages · PAGE_TOKENS, d_c + d_h^R]. */
  readonly layers: readonly Tensor[];
  readonly bytesPerToken: number;

  constructor(
    private readonly backend: Backend,
    readonly shape: CacheShape,
  ) {
    const { layers, latent, rope, pages, format } = shape;
    const slots = pages * PAGE_TOKENS;
    const dtype = format === 'fp32' ? 'f32' : 'bf16';
    this.layers = Array.from({ length: layers }, () => allocate(backend, [slots, latent + rope], dtype));
    this.bytesPerToken = this.layers.reduce((n, layer) => n + layer.data.byteLength / slots, 0);
  }

  /** Keeps latent [M, d_c] and kRope [M, d_h^R] at `slots` i32 [M] of a layer. */
  write(layer: number, slots: Int32Array, latent: Tensor, kRope: Tensor): void {
    const cache = this.layers[layer]!;
    for (const [from, to] of consecutive(slots)) {
      const rows = cache.rowsView(slots[from]!, slots[to - 1]! + 1);
      this.backend.copyColumnsIn(latent.rowsView(from, to), rows, 0);
      this.backend.copyColumnsIn(kRope.rowsView(from, to), rows, this.shape.latent);
    }
  }

  /** Copies a page in all layers. */
  copyPage(from: number, to: number): void {
    for (const { data, cols } of this.layers) {
      const size = PAGE_TOKENS * cols;
      data.copyWithin(to * size, from * size, (from + 1) * size);
    }
  }
}

/** Runs [from, to) of ascending neighbours. */
function consecutive(slots: Int32Array): [number, number][] {
  const runs: [number, number][] = [];
  for (let i = 0; i < slots.length; i++) {
    const last = runs.at(-1);
    if (last && slots[i] === slots[i - 1]! + 1) last[1] = i + 1;
    else runs.push([i, i + 1]);
  }
  return runs;
}

import { type LatentPages, type LatentRows, PAGE_TOKENS } from '../../tensor/latent-pages.js';
import type { Tensor } from '../../tensor/tensor.js';
import { PageCodec } from './page-codec.js';
import { addScaled, commit, dot, integers, read, target, type Values } from './values.js';

/**
 * The latent cache: writing, reading, attention. Format and layout are described in `tensor/latent-pages.ts`.
 * Legend: M rows, d_c latent, d_h^R rope, H heads.
 */

/** latent [M, d_c], kRope [M, d_h^R] → slots i32 [M]. */
export function latentWrite(latent: Tensor, kRope: Tensor, slots: Tensor, pages: LatentPages): void {
  const [c, k] = [read(latent), read(kRope)];
  const page = new PageCodec(pages);
  integers(slots).forEach((slot, row) => {
    page.write(slot, c.subarray(row * pages.latent, (row + 1) * pages.latent));
    page.writeRope(slot, k.subarray(row * pages.rope, (row + 1) * pages.rope));
  });
}

/** slots i32 [M] → latent [M, d_c], kRope [M, d_h^R]. */
export function latentRead(pages: LatentPages, slots: Tensor, latent: Tensor, kRope: Tensor): void {
  const [c, k] = [target(latent), target(kRope)];
  const page = new PageCodec(pages);
  integers(slots).forEach((slot, row) => {
    c.set(page.read(slot), row * pages.latent);
    k.set(page.readRope(slot), row * pages.rope);
  });
  commit(latent, c);
  commit(kRope, k);
}

/**
 * Rows of queries on the latent cache [V2 §2.1.2]: o_bh = Σ_j p_j c_j with p = softmax_j(scale · q_bh·[c_j; k^R_j]) over
 * the tokens j that row b sees. q [B, H·(d_c + d_h^R)], o [B, H·d_c]. Keys are BF16 values but in an FP32 cache.
 */
export function latentAttention(
  q: Tensor,
  pages: LatentPages,
  rows: LatentRows,
  { heads, scale }: { heads: number; scale: number },
  o: Tensor,
): void {
  const { latent, rope } = pages;
  const depth = latent + rope;
  const [query, output, page] = [read(q), target(o), new PageCodec(pages)];
  const [bounds, lengths] = [integers(rows.bounds), integers(rows.lengths)];
  const [table, edges] = [integers(rows.pages), integers(rows.pageBounds)];
  for (let s = 0; s < lengths.length; s++) {
    const own = table.subarray(edges[s]!, edges[s + 1]!);
    const most = lengths[s]! + bounds[s + 1]! - bounds[s]!;
    const memory = new Float32Array(most * depth);
    for (let j = 0; j < most; j++) {
      const slot = own[Math.floor(j / PAGE_TOKENS)]! * PAGE_TOKENS + (j % PAGE_TOKENS);
      memory.set(page.key(slot), j * depth);
      memory.set(page.readRope(slot), j * depth + latent);
    }
    for (let b = bounds[s]!; b < bounds[s + 1]!; b++) {
      const seen = lengths[s]! + b - bounds[s]! + 1;
      for (let h = 0; h < heads; h++) {
        const start = (b * heads + h) * depth;
        const sum = attend(
          query.subarray(start, start + depth),
          memory.subarray(0, seen * depth),
          latent,
          scale,
        );
        output.set(sum, (b * heads + h) * latent);
      }
    }
  }
  commit(o, output);
}

/** One query q [d] on memory [n, d] → Σ p_j memory_j[:latent]. */
function attend(q: Values, memory: Values, latent: number, scale: number): Float64Array {
  const depth = q.length;
  const scores = Float64Array.from(
    { length: memory.length / depth },
    (_, j) => scale * dot(q, 0, memory, j * depth, depth),
  );
  const top = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const p = scores.map((x) => Math.exp(x - top));
  const mass = p.reduce((a, b) => a + b, 0);
  const sum = new Float64Array(latent);
  p.forEach((weight, j) => {
    addScaled(sum, 0, weight / mass, memory, j * depth, latent);
  });
  return sum;
}

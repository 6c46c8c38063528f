import type { CacheFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import { type LatentPages, PAGE_TOKENS, pageLayout } from '../tensor/latent-pages.js';
import { allocate } from '../tensor/parameter.js';

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

/** The cache of a model: the same page numbers in every layer. */
export class LatentCache {
  readonly layers: readonly LatentPages[];
  /** Bytes of a token over all layers. */
  readonly bytesPerToken: number;
  private readonly pageBytes: number;

  constructor(backend: Backend, { layers, pages, ...shape }: CacheShape) {
    this.pageBytes = pageLayout(shape).bytes;
    this.layers = Array.from({ length: layers }, () => ({
      ...shape,
      data: allocate(backend, [pages, this.pageBytes], 'u8'),
    }));
    this.bytesPerToken = (layers * this.pageBytes) / PAGE_TOKENS;
  }

  /** Copies a page in all layers. */
  copyPage(from: number, to: number): void {
    const size = this.pageBytes;
    for (const { data } of this.layers) data.data.copyWithin(to * size, from * size, (from + 1) * size);
  }
}

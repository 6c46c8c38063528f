import { hasExperts, type ModelShape } from '../spec/shape.js';

/** Parameters of a part of a model: all, and those that one token's forward pass uses. */
export interface Share {
  total: number;
  active: number;
}

/** Parts of a layer, embedding and head, MTP modules apart. */
export const MODEL_PARTS = [
  'embedding',
  'attention',
  'denseMlp',
  'sharedExperts',
  'routedExperts',
  'gate',
  'norms',
  'head',
  'mtp',
] as const;
export type ModelPart = (typeof MODEL_PARTS)[number];

export interface ModelSize extends Share {
  /** `mtp` is not part of `total` and `active`, as published sizes leave it out [TR §1]. */
  byPart: Record<ModelPart, Share>;
}

/** Parameters by part; a token uses one row of the embedding's table. */
export function countShape(shape: ModelShape): ModelSize {
  const byPart = Object.fromEntries(
    MODEL_PARTS.map((part) => [part, { total: 0, active: 0 }]),
  ) as ModelSize['byPart'];
  const add = (part: ModelPart, total: number, active = total) => {
    byPart[part].total += total;
    byPart[part].active += active;
  };
  const table = shape.vocabSize * shape.hiddenSize;
  add('embedding', table, shape.hiddenSize);
  add('head', shape.tiedEmbeddings ? 0 : table, table);
  add('norms', shape.hiddenSize);
  for (let layer = 0; layer < shape.layers; layer++) addLayer(shape, layer, add);
  for (let k = 0; k < shape.mtpDepth; k++) {
    addLayer(shape, shape.layers + k, (_, total, active) => add('mtp', total, active));
    // enorm, hnorm and the norm before the head, and the projection [TR §2.2].
    add('mtp', 3 * shape.hiddenSize + 2 * shape.hiddenSize ** 2);
  }
  const sum = (field: keyof Share) =>
    MODEL_PARTS.reduce((n, part) => (part === 'mtp' ? n : n + byPart[part][field]), 0);
  return { total: sum('total'), active: sum('active'), byPart };
}

function addLayer(
  shape: ModelShape,
  layer: number,
  add: (part: ModelPart, total: number, active?: number) => void,
): void {
  const { hiddenSize: D, experts } = shape;
  add('attention', attentionWeights(shape) + attentionBiases(shape));
  add('norms', 2 * D + attentionNorms(shape));
  if (!experts || !hasExperts(shape, layer)) {
    add('denseMlp', 3 * D * shape.denseWidth);
    return;
  }
  const one = 3 * D * experts.width;
  add('routedExperts', experts.routed * one, experts.perToken * one);
  add('sharedExperts', experts.shared * one);
  add('gate', experts.routed * D + (experts.sharedGate ? D : 0));
}

/** Elements of the attention's matrices in one layer [V2 §2.1]. */
export function attentionWeights({ hiddenSize: D, attention: a }: ModelShape): number {
  const queryRows = a.heads * a.keyDepth;
  const output = a.heads * a.valueDepth * D;
  if (a.kind !== 'mla') return D * (queryRows + a.keyValueHeads * (a.keyDepth + a.valueDepth)) + output;
  const query = a.queryLatent === null ? D * queryRows : a.queryLatent * (D + queryRows);
  const up = a.latent * a.heads * (a.keyDepth - a.ropeDepth + a.valueDepth);
  return query + D * (a.latent + a.ropeDepth) + up + output;
}

function attentionBiases({ hiddenSize: D, attention: a }: ModelShape): number {
  const input = a.heads * a.keyDepth + a.keyValueHeads * (a.keyDepth + a.valueDepth);
  return (a.inputBias ? input : 0) + (a.outputBias ? D : 0);
}

function attentionNorms({ attention: a }: ModelShape): number {
  return (a.kind === 'mla' ? (a.queryLatent ?? 0) + a.latent : 0) + (a.headNorms ? 2 * a.keyDepth : 0);
}

import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { initialise } from '../../src/model/initialise.js';
import { type Batch, Transformer } from '../../src/model/transformer.js';
import { Random } from '../../src/numerics/random.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { RECIPES } from '../../src/spec/precision.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { Pool } from '../../src/tensor/pool.js';
import { Tape } from '../../src/tensor/tape.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { chosenExperts, nodesReached, ValidationSums } from '../../src/train/validation.js';

const DEPTH = 2;
const LENGTH = 12;
// A small vocabulary and wide weights: drafts and predictions agree now and then.
const model = parseModelConfig({
  ...MODEL_PRESETS.tiny,
  vocab_size: 8,
  num_nextn_predict_layers: DEPTH,
  initializer_range: 0.1,
});

function batchOf(tokens: readonly number[]): Batch {
  const bounds = Tensor.i32([0, LENGTH, tokens.length]);
  const ahead = (k: number, none: number) =>
    Tensor.i32(tokens.map((_, i) => ((i % LENGTH) + k < LENGTH ? tokens[i + k]! : none)));
  return {
    inputs: Tensor.i32([...tokens]),
    targets: ahead(1, -1),
    positions: Tensor.i32(tokens.map((_, i) => i % LENGTH)),
    segments: bounds,
    sequences: bounds,
    mtpInputs: [ahead(1, 0), ahead(2, 0)],
    mtpTargets: [ahead(2, -1), ahead(3, -1)],
  };
}

const random = new Random(3);
const batch = batchOf(Array.from({ length: 2 * LENGTH }, () => random.below(model.vocab_size)));
const RECOMPUTE = { rmsNorm: false, mlaUpProjection: false };

function made(): Transformer {
  const transformer = new Transformer(model, referenceBackend);
  initialise(transformer, 1);
  return transformer;
}

/** Dispatch of tokens with these experts, rows sorted by expert. */
function dispatchOf(ids: readonly (readonly number[])[], experts: number) {
  const offsets = Tensor.zeros([experts + 1], 'i32');
  const source = Tensor.zeros([ids.length * ids[0]!.length], 'i32');
  const slot = Tensor.zeros([ids.length, ids[0]!.length], 'i32');
  const chosen = Tensor.i32(ids.flat()).reshape([ids.length, ids[0]!.length]);
  referenceBackend.dispatchPlan(chosen, offsets, source, slot);
  return { offsets, source, slot };
}

describe('experts chosen', () => {
  const ids = [
    [5, 0],
    [1, 0],
    [7, 6],
    [2, 7],
  ];

  it('are found again from the order of dispatch', () => {
    expect(Array.from(chosenExperts(dispatchOf(ids, 8)))).toEqual(ids.flat());
  });

  it('lie in so many groups', () => {
    // Groups {0,1}, {2,3}, {4,5}, {6,7}: 2 + 1 + 1 + 2.
    expect(nodesReached(model, dispatchOf(ids, 8))).toBe(6);
    expect(nodesReached({ ...model, n_group: 8 }, dispatchOf(ids, 8))).toBe(8);
    expect(nodesReached({ ...model, n_group: 1 }, dispatchOf(ids, 8))).toBe(4);
  });
});

describe('validation', () => {
  it('counts the drafts that the main model would have chosen itself', () => {
    const transformer = made();
    const tape = new Tape(referenceBackend, new Pool(referenceBackend), false);
    const ctx = transformer.context(tape, RECIPES.fp32, batch, RECOMPUTE);
    const best = (hidden: Tensor): number[] => {
      const logits = transformer.logits(ctx, hidden);
      return Array.from({ length: logits.rows }, (_, t) => {
        const row = [...logits.rowsView(t, t + 1).data];
        return row.indexOf(Math.max(...row));
      });
    };
    const h0 = transformer.forward(ctx, batch.inputs);
    const h1 = transformer.mtpModule(ctx, 1, h0, batch.mtpInputs[0]!);
    const h2 = transformer.mtpModule(ctx, 2, h1, batch.mtpInputs[1]!);
    const [main, ...drafts] = [h0, h1, h2].map(best) as [number[], number[], number[]];
    const shares = drafts.map((draft, depth) => {
      const rows = draft.flatMap((token, i) =>
        (i % LENGTH) + depth + 2 < LENGTH ? [token === main[i + depth + 1] ? 1 : 0] : [],
      );
      expect(rows).toHaveLength(2 * (LENGTH - depth - 2));
      return rows.reduce((a: number, b) => a + b, 0) / rows.length;
    });
    const sums = new ValidationSums(transformer);
    sums.add(ctx, batch);
    expect(sums.means().mtpAcceptance).toEqual(shares);
    // Neither none nor all, or the comparison would say little.
    for (const share of shares) expect(share > 0 && share < 1).toBe(true);
  });

  it('counts the nodes of the main layers, within the limit', () => {
    const transformer = made();
    const sums = new ValidationSums(transformer);
    const seen: string[] = [];
    const observer = {
      routed: (...args: Parameters<NonNullable<typeof sums.observer.routed>>) => {
        seen.push(args[0].name);
        sums.observer.routed!(...args);
      },
    };
    const tape = new Tape(referenceBackend, new Pool(referenceBackend), false, observer);
    sums.add(transformer.context(tape, RECIPES.fp32, batch, RECOMPUTE), batch);
    const nodes = sums.means().nodesPerToken!;
    expect(nodes).toBeGreaterThan(1);
    expect(nodes).toBeLessThanOrEqual(model.topk_group);
    expect(seen).toEqual([1, 2, 3, 4].map((layer) => `model.layers.${layer}.mlp.gate.weight`));
  });
});

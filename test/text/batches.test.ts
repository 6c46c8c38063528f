import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  IGNORE,
  type PackedBatch,
  type PackingOptions,
  TrainingBatches,
  validationBatches,
} from '../../src/text/batches.js';
import { MemoryTokens, type TokenDocuments } from '../../src/text/tokens.js';

const BOS = 1;
const EOS = 2;

/** Documents whose ids tell where they come from: document d holds 100·(d+1), 100·(d+1)+1, ... */
function corpus(...lengths: number[]): TokenDocuments {
  const ids = lengths.flatMap((length, d) => Array.from({ length }, (_, i) => 100 * (d + 1) + i));
  const ends = Float64Array.from(lengths, (_, d) => lengths.slice(0, d + 1).reduce((sum, n) => sum + n, 0));
  return {
    source: new MemoryTokens(Int32Array.from(ids), 1e6),
    starts: ends.map((end, d) => end - lengths[d]),
    ends,
  };
}

const options = (changes: Partial<PackingOptions> = {}): PackingOptions => ({
  seqLen: 4,
  batchSize: 2,
  bosId: BOS,
  eosId: EOS,
  ...changes,
});

const plain = (batch: PackedBatch) => ({
  ...batch,
  inputs: [...batch.inputs],
  targets: [...batch.targets],
  positions: [...batch.positions],
  cuSeqlens: [...batch.cuSeqlens],
  mtpInputs: batch.mtpInputs.map((column) => [...column]),
  mtpTargets: batch.mtpTargets.map((column) => [...column]),
});

const _ = IGNORE;

describe('packing', () => {
  // The stream: 1 100 101 2 | 1 200 201 202 203 2, in sequences of 4.
  const two = corpus(2, 4);

  it('ends segments at documents and sequences, and targets with them', () => {
    const [batch] = [...validationBatches(two, options({ batchSize: 3, mtpDepth: 2 }))].map(plain);
    expect(batch).toEqual({
      rows: 3,
      seqLen: 4,
      inputs: [1, 100, 101, 2, 1, 200, 201, 202, 203, 2, 2, 2],
      targets: [100, 101, 2, _, 200, 201, 202, 203, 2, _, _, _],
      positions: [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 0],
      cuSeqlens: [0, 4, 8, 10, 11, 12],
      mtpInputs: [
        [100, 101, 0, 0, 200, 201, 202, 0, 0, 0, 0, 0],
        [101, 0, 0, 0, 201, 202, 0, 0, 0, 0, 0, 0],
      ],
      mtpTargets: [
        [101, 2, _, _, 201, 202, 203, _, _, _, _, _],
        [2, _, _, _, 202, 203, _, _, _, _, _, _],
      ],
    });
  });

  it('lets attention and targets cross documents when told so', () => {
    const [batch] = [...validationBatches(two, options({ crossDocuments: 'attend', mtpDepth: 1 }))].map(
      plain,
    );
    expect(batch.targets).toEqual([100, 101, 2, 1, 200, 201, 202, 203]);
    expect(batch.positions).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
    expect(batch.cuSeqlens).toEqual([0, 4, 8]);
    expect(batch.mtpTargets).toEqual([[101, 2, 1, _, 201, 202, 203, _]]);
  });

  it('leaves bos and eos out when there are none', () => {
    const [batch] = [...validationBatches(two, options({ bosId: undefined, eosId: undefined }))].map(plain);
    expect(batch.inputs).toEqual([100, 101, 200, 201, 202, 203, 0, 0]);
    expect(batch.targets).toEqual([101, _, 201, 202, 203, _, _, _]);
    expect(batch.cuSeqlens).toEqual([0, 2, 4, 6, 7, 8]);
  });

  it('gives a shorter last validation batch instead of dropping tokens', () => {
    const batches = [...validationBatches(corpus(40), options())];
    expect(batches.map((batch) => batch.rows)).toEqual([2, 2, 2, 2, 2, 1]);
    const targets = batches.flatMap((batch) => [...batch.targets]).filter((target) => target !== IGNORE);
    expect(targets).toEqual([...Array.from({ length: 40 }, (_, i) => 100 + i), EOS]);
  });
});

/** What must hold of any batch, whatever the documents. */
function checkInvariants(batch: PackedBatch, masks: boolean): void {
  const { rows, seqLen, inputs, targets, positions, cuSeqlens, mtpInputs, mtpTargets } = batch;
  expect(cuSeqlens[0]).toBe(0);
  expect(cuSeqlens.at(-1)).toBe(rows * seqLen);
  for (let s = 0; s + 1 < cuSeqlens.length; s++) {
    const [begin, end] = [cuSeqlens[s], cuSeqlens[s + 1]];
    expect(end).toBeGreaterThan(begin);
    expect(Math.floor(begin / seqLen)).toBe(Math.floor((end - 1) / seqLen));
    for (let i = begin; i < end; i++) {
      expect(positions[i]).toBe(i - begin);
      if (i + 1 < end) expect(targets[i]).toBe(inputs[i + 1]);
      else if (masks && end % seqLen !== 0) expect(targets[i]).toBe(IGNORE);
    }
  }
  for (const [index, column] of mtpTargets.entries()) {
    const k = index + 1;
    for (let i = 0; i < column.length; i++) {
      const sameSequence = i + k < inputs.length && Math.floor(i / seqLen) === Math.floor((i + k) / seqLen);
      const reaches = sameSequence && positions[i + k] === positions[i] + k;
      expect(column[i]).toBe(reaches ? targets[i + k] : IGNORE);
      if (column[i] !== IGNORE) expect(mtpInputs[index][i]).toBe(inputs[i + k]);
    }
  }
}

const anyCase = fc.record({
  lengths: fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 1, maxLength: 12 }),
  seqLen: fc.integer({ min: 1, max: 9 }),
  batchSize: fc.integer({ min: 1, max: 4 }),
  mtpDepth: fc.integer({ min: 0, max: 3 }),
  crossDocuments: fc.constantFrom('mask' as const, 'attend' as const),
  bosId: fc.constantFrom(BOS, undefined),
  eosId: fc.constantFrom(EOS, undefined),
});

describe('batches of any corpus', () => {
  it('keep targets, positions, segments and MTP targets consistent', () => {
    fc.assert(
      fc.property(anyCase, ({ lengths, ...packing }) => {
        const documents = corpus(...lengths);
        for (const batch of validationBatches(documents, packing)) {
          checkInvariants(batch, packing.crossDocuments === 'mask');
        }
      }),
      { numRuns: 300 },
    );
  });

  it('predict every token of an epoch once, save those of the dropped tail', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 2, maxLength: 10 }),
        fc.nat(99),
        (lengths, seed) => {
          const packing = options({ seqLen: 3, batchSize: 1, crossDocuments: 'attend' });
          const training = new TrainingBatches(corpus(...lengths), packing, seed);
          const seen: number[] = [];
          for (let i = 0; i < training.sequencesPerEpoch; i++) seen.push(...training.next().targets);
          const words = seen.filter((id) => id >= 100);
          expect(new Set(words).size).toBe(words.length);
          const total = lengths.reduce((sum, length) => sum + length + 2, 0);
          expect(seen.length).toBe(Math.floor((total - 1) / 3) * 3);
        },
      ),
    );
  });
});

describe('TrainingBatches', () => {
  const documents = corpus(5, 9, 2, 14, 7, 3);
  const make = (seed = 1) =>
    new TrainingBatches(documents, options({ seqLen: 5, batchSize: 3, mtpDepth: 1 }), seed);
  const take = (batches: TrainingBatches, count: number) =>
    Array.from({ length: count }, () => plain(batches.next()));

  it('gives the same batches for the same seed, others for another, and a new order each epoch', () => {
    const [one, same, other] = [take(make(), 12), take(make(), 12), take(make(2), 12)];
    expect(same).toEqual(one);
    expect(other).not.toEqual(one);
    const perEpoch = make().sequencesPerEpoch;
    expect(perEpoch).toBe(10);
    const rows = one.flatMap((batch) =>
      [0, 1, 2].map((row) => batch.inputs.slice(row * 5, row * 5 + 5).join()),
    );
    expect(rows.slice(perEpoch, 2 * perEpoch)).not.toEqual(rows.slice(0, perEpoch));
  });

  it('goes on exactly where a state says, across epochs', () => {
    const whole = take(make(), 20);
    for (const stop of [0, 1, 3, 4, 7, 10, 13]) {
      const before = make();
      take(before, stop);
      const after = make();
      after.restore(JSON.parse(JSON.stringify(before.state())));
      expect(take(after, 20 - stop)).toEqual(whole.slice(stop));
    }
  });

  it('keeps the promises of a batch when it spans epochs', () => {
    for (const batch of Array.from({ length: 20 }, () => make().next())) checkInvariants(batch, true);
  });

  it('refuses a corpus shorter than one sequence, and says how long it is', () => {
    const short = () => new TrainingBatches(corpus(3), options({ seqLen: 5 }), 0);
    expect(short).toThrow(/has 5 tokens, fewer than the 6 of one sequence/);
    expect(new TrainingBatches(corpus(4), options({ seqLen: 5 }), 0).sequencesPerEpoch).toBe(1);
  });

  it('refuses sizes and states that make no sense', () => {
    expect(() => new TrainingBatches(documents, options({ seqLen: 0 }), 0)).toThrow(/sequence length 0/);
    expect(() => new TrainingBatches(documents, options({ batchSize: 1.5 }), 0)).toThrow(/batch size 1.5/);
    expect(() => new TrainingBatches(documents, options({ mtpDepth: -1 }), 0)).toThrow(/MTP depth -1/);
    for (const state of [
      { epoch: 0, sequence: 11 },
      { epoch: -1, sequence: 0 },
      { epoch: 0, sequence: Number.NaN },
    ]) {
      expect(() => make().restore(state)).toThrow(/does not fit this corpus of 10 sequences/);
    }
  });
});

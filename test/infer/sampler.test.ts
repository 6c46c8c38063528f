import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadAddon } from '../../src/backend/native/addon.js';
import { nativeBackend } from '../../src/backend/native/index.js';
import { referenceBackend } from '../../src/backend/reference/index.js';
import type { Distribution } from '../../src/infer/distribution.js';
import type { SamplingOptions } from '../../src/infer/engine.js';
import { LogitOps } from '../../src/infer/logit-ops.js';
import { logprobsOf } from '../../src/infer/logprobs.js';
import { type History, Sampler } from '../../src/infer/sampler.js';
import { resolveSampling } from '../../src/infer/sampling-options.js';
import { largest } from '../../src/infer/select.js';
import { Random } from '../../src/numerics/random.js';
import type { Backend } from '../../src/tensor/backend.js';
import { Tensor } from '../../src/tensor/tensor.js';

const V = 300;
const NOTHING: History = { seen: new Set(), continuation: new Map() };

const samplerOf = (vocabulary: number, backend: Backend = referenceBackend): Sampler =>
  new Sampler(new LogitOps(backend, vocabulary));

/** Logits as a step gives them. */
const rowOf = (logits: ArrayLike<number>): Tensor => Tensor.f32([1, logits.length], logits);

/** Coarse steps make ties. */
const logitsOf = (seed: number, size = V): Float32Array => {
  const random = new Random(seed);
  return Float32Array.from({ length: size }, () => Math.round(random.normal() * 16) / 4);
};

/** The same by sorting everything, in double precision: transformers' order of filters. */
function sorted(
  logits: Float32Array,
  options: SamplingOptions,
  { seen, continuation }: History,
): Map<number, number> {
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = options;
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias = {} } = options;
  const adjusted = Array.from(logits, (logit, id) => {
    let x = logit;
    if (seen.has(id)) x = x > 0 ? x / repetitionPenalty : x * repetitionPenalty;
    if (continuation.has(id)) x -= presencePenalty + continuation.get(id)! * frequencyPenalty;
    return x + (logitBias[id] ?? 0);
  });
  const order = adjusted.map((_, id) => id).sort((a, b) => adjusted[b]! - adjusted[a]! || a - b);
  const peak = adjusted[order[0]!]!;
  const weight = (id: number) => Math.exp((adjusted[id]! - peak) / temperature);
  const few = topK > 0 ? order.slice(0, topK) : order;
  const total = few.reduce((n, id) => n + weight(id), 0);
  let sum = 0;
  const kept = few.filter((id, i) => {
    const wanted = (i === 0 || topP >= 1 || sum < topP * total) && weight(id) >= minP;
    sum += weight(id);
    return wanted;
  });
  const mass = kept.reduce((n, id) => n + weight(id), 0);
  return new Map(kept.sort((a, b) => a - b).map((id) => [id, weight(id) / mass]));
}

const asMap = ({ ids, weights, total }: Distribution): Map<number, number> =>
  new Map(Array.from(weights, (weight, i) => [ids ? ids[i]! : i, weight / total]));

const addon = loadAddon();
const BACKENDS = [referenceBackend, ...(addon ? [nativeBackend(addon)] : [])];

describe.each(BACKENDS)('the distribution, $name', (backend) => {
  const sampler = samplerOf(V, backend);
  const options = fc.record(
    {
      temperature: fc.constantFrom(0.3, 0.8, 1, 2),
      topK: fc.constantFrom(0, 1, 3, 40, 299, 300, 1000),
      topP: fc.constantFrom(0, 0.1, 0.5, 0.9, 0.999, 1),
      minP: fc.constantFrom(0, 0.02, 0.3, 1),
      repetitionPenalty: fc.constantFrom(0.8, 1, 1.3),
      presencePenalty: fc.constantFrom(0, 0.7, -0.7),
      frequencyPenalty: fc.constantFrom(0, 0.5),
      logitBias: fc.constantFrom({}, { 7: 3, 8: -100, 9: 100 }),
    },
    { requiredKeys: [] },
  );

  it('is what sorting gives, for all filters together', () => {
    fc.assert(
      fc.property(fc.integer(), options, (seed, given) => {
        const logits = logitsOf(seed);
        const history = {
          seen: new Set([1, 2, 3, 4]),
          continuation: new Map([
            [3, 1],
            [4, 5],
          ]),
        };
        const found = asMap(sampler.distribution(rowOf(logits), resolveSampling(given, V), history));
        const expected = sorted(logits, given, history);
        expect([...found.keys()]).toEqual([...expected.keys()]);
        // FP32: relative rounding of 2^-24, a few times.
        for (const [id, p] of expected) expect(Math.abs(found.get(id)! - p)).toBeLessThanOrEqual(1e-6);
      }),
      { numRuns: 500, seed: 1 },
    );
  });

  it('is one token at temperature 0, the first of several equal ones', () => {
    const logits = Float32Array.of(1, 5, 2, 5);
    expect(
      asMap(samplerOf(4).distribution(rowOf(logits), resolveSampling({ temperature: 0 }, 4), NOTHING)),
    ).toEqual(new Map([[1, 1]]));
  });

  it('leaves out what a mask forbids', () => {
    const mask = Int32Array.of(0b1010);
    const sampling = resolveSampling({}, 4);
    const found = samplerOf(4).distribution(rowOf([9, 1, 9, 1]), sampling, NOTHING, mask);
    expect([...asMap(found).values()]).toEqual([0, 0.5, 0, 0.5]);
  });
});

describe('drawing', () => {
  it('is the same for the same seed, and follows the probabilities', () => {
    const sampler = samplerOf(8);
    const sampling = resolveSampling({ temperature: 0.7, topP: 0.95 }, 8);
    const logits = logitsOf(3, 8);
    const take = (seed: number, count: number) => {
      const random = new Random(seed);
      return Array.from({ length: count }, () => sampler.sample(rowOf(logits), sampling, NOTHING, random));
    };
    expect(take(1, 20)).toEqual(take(1, 20));
    const expected = sorted(logits, { temperature: 0.7, topP: 0.95 }, NOTHING);
    const drawn = take(2, 20_000);
    for (let id = 0; id < 8; id++) {
      const p = expected.get(id) ?? 0;
      const share = drawn.filter((token) => token === id).length / drawn.length;
      // Five standard deviations of a share of 20,000.
      expect(Math.abs(share - p)).toBeLessThanOrEqual(5 * Math.sqrt((p * (1 - p)) / drawn.length));
    }
  });
});

describe('choosing the largest', () => {
  it('finds them in order, ties by index', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 0, max: V + 5 }), (seed, count) => {
        const values = logitsOf(seed);
        const order = Array.from(values, (_, i) => i).sort((a, b) => values[b]! - values[a]! || a - b);
        expect([...largest(values, count)]).toEqual(order.slice(0, count));
      }),
      { numRuns: 200, seed: 2 },
    );
  });
});

describe('log-probabilities', () => {
  it('are log softmax, with the most likely tokens', () => {
    const logits = logitsOf(4);
    const sum = logits.reduce((n, x) => n + Math.exp(x), 0);
    const { id, logprob, top } = logprobsOf(new LogitOps(referenceBackend, V), rowOf(logits), 17, 2);
    expect(id).toBe(17);
    // The sum is one of FP32 weights: 6·10⁻⁸ relative.
    expect(logprob).toBeCloseTo(logits[17]! - Math.log(sum), 6);
    expect(top.map((one) => one.id)).toEqual([...largest(logits, 2)]);
    expect(top[0]!.logprob).toBeCloseTo(Math.max(...logits) - Math.log(sum), 6);
  });
});

describe('options', () => {
  it.each([
    [{ temperature: -1 }, 'temperature is -1: give a number from 0 to 100'],
    [{ temperature: Number.NaN }, 'temperature is NaN: give a number from 0 to 100'],
    [{ topP: 1.5 }, 'topP is 1.5: give a number from 0 to 1'],
    [{ topK: 1.5 }, 'topK is 1.5: give a whole number, 0 keeps all tokens'],
    [{ topK: -1 }, 'topK is -1: give a number of at least 0'],
    [{ seed: 0.5 }, 'seed is 0.5: give an integer within ±2^53'],
    [{ logitBias: { 8: 1 } }, 'logitBias: "8" is no token id; they go from 0 to 7'],
    [{ logitBias: { 1: 101 } }, 'logitBias of token 1 is 101: give a number from −100 to 100'],
  ])('that make no sense are refused: %j', (options, message) => {
    expect(() => resolveSampling(options, 8)).toThrow(message);
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FairRates } from '../../src/cluster/fair-rates.js';
import { runFlows } from '../../src/cluster/flow-engine.js';
import { type FlowFields, FlowList, type Flows } from '../../src/cluster/flows.js';
import { Random } from '../../src/numerics/random.js';

const flowsOf = (capacity: number[], fields: FlowFields[]): Flows => {
  const list = new FlowList(Float64Array.from(capacity));
  for (const flow of fields) list.add(flow);
  return list.build();
};
const ends = (capacity: number[], fields: FlowFields[]) => [...runFlows(flowsOf(capacity, fields)).end];

describe('flows that share links', () => {
  it('share a link evenly, and what one leaves goes to the others', () => {
    expect(
      ends(
        [10],
        [
          { path: [0], bytes: 50 },
          { path: [0], bytes: 100 },
        ],
      ),
    ).toEqual([10, 15]);
  });

  it('are held back by the narrowest link of their path, and leave the rest to others', () => {
    // The classic chain: a long flow over both links, one short on each; rates 1, 1 and 4.
    const chain = [
      { path: [0, 1], bytes: 10 },
      { path: [0], bytes: 10 },
      { path: [1], bytes: 40 },
    ];
    expect(ends([2, 5], chain)).toEqual([10, 10, 10]);
  });

  it('follow weights, caps, shares, starts and latencies', () => {
    expect(
      ends(
        [12],
        [
          { path: [0], bytes: 30, weight: 3 },
          { path: [0], bytes: 10 },
        ],
      ),
    ).toEqual([10 / 3, 10 / 3]);
    expect(
      ends(
        [12],
        [
          { path: [0], bytes: 10, cap: 2 },
          { path: [0], bytes: 50 },
        ],
      ),
    ).toEqual([5, 5]);
    // Sprayed over two links of 1 and bound by them together.
    expect(ends([1, 1, 9], [{ path: [2, 0, 1], shares: [1, 0.5, 0.5], bytes: 10 }])).toEqual([5]);
    const late = [
      { path: [0], bytes: 20 },
      { path: [0], bytes: 20, start: 0.5, latency: 0.5 },
    ];
    // 10 of the first alone, then both with 5: the first ends at 3, the second has 10 left for 1 s.
    expect(ends([10], late)).toEqual([3, 4]);
  });

  it('wait for their predecessors', () => {
    const steps = [
      { path: [0], bytes: 10 },
      { path: [0], bytes: 20 },
      { path: [0], bytes: 10, after: [0, 1], start: 1 },
      { path: [], bytes: 5, after: [2], latency: 2 },
    ];
    expect(ends([10], steps)).toEqual([2, 3, 5, 7]);
  });

  it('end at once without bytes', () => {
    expect(ends([1], [{ path: [0], bytes: 0, start: 2 }])).toEqual([2]);
  });

  it('say why they never end', () => {
    expect(() => ends([0], [{ path: [0], bytes: 1 }])).toThrow(/flow 0 never ends: a link on its way/);
    const circle = [
      { path: [0], bytes: 1, after: [1] },
      { path: [0], bytes: 1, after: [0] },
    ];
    expect(() => ends([1], circle)).toThrow(/flow 0 never begins/);
    expect(() => ends([1], [{ path: [0], bytes: -1 }])).toThrow(/not negative/);
    expect(() => ends([1], [{ path: [0], bytes: Number.NaN }])).toThrow(/not negative/);
  });
});

// ---- Properties -------------------------------------------------------------------------------------------------

interface Case {
  capacity: number[];
  fields: FlowFields[];
}

const cases: fc.Arbitrary<Case> = fc
  .record({ links: fc.integer({ min: 1, max: 12 }), flows: fc.integer({ min: 1, max: 60 }), seed: fc.nat() })
  .map(({ links, flows, seed }) => {
    const random = new Random(seed);
    const mixed = random.below(2) === 1;
    return {
      capacity: Array.from({ length: links }, () => 1 + random.below(4) + (mixed ? random.uniform() : 0)),
      fields: Array.from({ length: flows }, (_, i) => ({
        path: random.shuffle(Array.from({ length: links }, (_, l) => l)).slice(0, 1 + random.below(links)),
        bytes: random.below(5) === 0 ? 10 : 1 + 20 * random.uniform(),
        start: random.below(3) === 0 ? 5 * random.uniform() : 0,
        weight: mixed && random.below(4) === 0 ? 0.5 + random.uniform() : 1,
        after: i > 0 && random.below(6) === 0 ? [random.below(i)] : [],
      })),
    };
  });

/** Rates by the definition, for comparison: all grow together until a link is full [Bertsekas and Gallager §6.5.2]. */
function ratesByDefinition({ capacity, fields }: Case, active: readonly number[]): Map<number, number> {
  const rates = new Map<number, number>();
  const weight = (f: number) => fields[f]!.weight ?? 1;
  for (let growing = [...active]; growing.length > 0; ) {
    const levels = capacity.map((room, l) => {
      const on = (flow: number) => [...(fields[flow]!.path as number[])].includes(l);
      const used = [...rates].reduce((sum, [flow, rate]) => sum + (on(flow) ? rate : 0), 0);
      const weights = growing.filter(on).reduce((sum, flow) => sum + weight(flow), 0);
      return weights > 0 ? (room - used) / weights : Infinity;
    });
    const least = Math.min(...levels);
    const full = new Set(levels.flatMap((level, l) => (level <= least * (1 + 1e-12) ? [l] : [])));
    const stopped = growing.filter((flow) => [...(fields[flow]!.path as number[])].some((l) => full.has(l)));
    for (const flow of stopped) rates.set(flow, least * weight(flow));
    growing = growing.filter((flow) => !stopped.includes(flow));
  }
  return rates;
}

/** Rates that the engine has. */
function ratesOf(rates: FairRates, active: readonly number[]): Map<number, number> {
  const { state } = rates;
  const weights = state.flows.weights;
  return new Map(
    active.map((flow) => [flow, state.level[state.bottleneck[flow]!]! * (weights ? weights[flow]! : 1)]),
  );
}

describe('max-min fair rates', () => {
  it('are those of the definition however flows came and went', () => {
    fc.assert(
      fc.property(cases, fc.nat(), (given, seed) => {
        const flows = flowsOf(given.capacity, given.fields);
        const random = new Random(seed);
        const rates = new FairRates(flows);
        let active: number[] = [];
        rates.rebuild(Int32Array.from(active), 0);
        for (let step = 0; step < 40; step++) {
          const flow = random.below(flows.count);
          if (active.includes(flow)) {
            active = active.filter((other) => other !== flow);
            rates.remove(flow, step);
          } else {
            active.push(flow);
            rates.insert(flow, 1e9, step);
          }
          if (random.below(4) === 0) continue;
          rates.settle(step);
          const expected = ratesByDefinition(given, active);
          // Sums over tens of rates in another order: some dozen roundings of 2⁻⁵³, and the engine's tolerance for ties.
          for (const [f, rate] of ratesOf(rates, active)) expect(rate / expected.get(f)!).toBeCloseTo(1, 10);
        }
      }),
      { numRuns: 150, seed: 1 },
    );
  });

  it('carry all bytes, and no link more than it can', () => {
    fc.assert(
      fc.property(cases, (given) => {
        const { begin, end, seconds } = runFlows(flowsOf(given.capacity, given.fields));
        given.capacity.forEach((capacity, l) => {
          const on = given.fields.flatMap(({ path }, f) => ((path as number[]).includes(l) ? [f] : []));
          const bytes = on.reduce((sum, f) => sum + given.fields[f]!.bytes, 0);
          expect(bytes).toBeLessThanOrEqual(capacity * seconds * (1 + 1e-9));
        });
        given.fields.forEach(({ path, bytes }, f) => {
          const narrowest = Math.min(...(path as number[]).map((l) => given.capacity[l]!));
          expect(end[f]! - begin[f]!).toBeGreaterThanOrEqual((bytes / narrowest) * (1 - 1e-9));
        });
      }),
      { numRuns: 100, seed: 2 },
    );
  });

  it('keep a lone bottleneck busy', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.1, max: 9, noNaN: true }), { minLength: 1, maxLength: 50 }),
        (sizes) => {
          const { seconds } = runFlows(
            flowsOf(
              [2, 3],
              sizes.map((bytes, i) => ({ path: i % 2 ? [0] : [0, 1], bytes })),
            ),
          );
          expect(seconds).toBeCloseTo(sizes.reduce((sum, bytes) => sum + bytes, 0) / 2, 8);
        },
      ),
      { seed: 3 },
    );
  });
});

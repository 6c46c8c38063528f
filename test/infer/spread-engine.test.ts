import { describe, expect, it } from 'vitest';
import type { EngineInfo, EngineStats, GenerateRequest } from '../../src/infer/engine.js';
import { type RankEngine, SpreadEngine } from '../../src/infer/spread-engine.js';

/** A rank that keeps every request, and has what stats say. */
class Rank implements RankEngine {
  readonly info = {} as EngineInfo;
  readonly requests: GenerateRequest[] = [];
  closed = false;
  /** Requests that have ended. */
  ended = 0;

  constructor(private readonly counted: Partial<EngineStats>) {}

  get open(): number {
    return this.requests.length - this.ended;
  }

  async *generate(): AsyncGenerator<never> {}

  stats = async () => this.counted as EngineStats;
  paging = async () => ({ residentWeightBytes: 5, pagesRead: 1 });
  close = async () => {
    this.closed = true;
  };
}

function over(ranks: Rank[]): SpreadEngine {
  for (const rank of ranks) {
    rank.generate = ((request: GenerateRequest) => {
      rank.requests.push(request);
      return [];
    }) as unknown as Rank['generate'];
  }
  return new SpreadEngine({} as EngineInfo, ranks, async () => {}, new Promise(() => {}));
}

const none = { rows: [0, 0], placements: [] };
const threeRanks = () => [0, 1, 2].map(() => new Rank({ expertRows: none }));

describe('an engine of several ranks', () => {
  it('gives requests to the rank that has least to do', () => {
    const ranks = threeRanks();
    const engine = over(ranks);
    for (let i = 0; i < 6; i++) engine.generate({ prompt: `text ${i}` });
    expect(ranks.map(({ open }) => open)).toEqual([2, 2, 2]);
    ranks[1]!.ended = 2;
    engine.generate({ prompt: 'one more' });
    engine.generate({ prompt: 'and one' });
    expect(ranks.map(({ open }) => open)).toEqual([2, 2, 2]);
    expect(ranks[1]!.requests).toHaveLength(4);
  });

  it('gives a conversation to the rank that has read it, unless that has more to do than others', () => {
    const ranks = threeRanks();
    const engine = over(ranks);
    const turns = (speaker: number, count: number) =>
      Array.from({ length: 10 * count }, (_, i) => speaker * 1000 + i);
    for (const speaker of [1, 2, 3]) engine.generate({ prompt: turns(speaker, 2) });
    for (const rank of ranks) rank.ended = 1;
    for (const speaker of [3, 2, 1]) engine.generate({ prompt: turns(speaker, 3) });
    expect(ranks.map(({ requests }) => requests[1]!.prompt)).toEqual([1, 2, 3].map((s) => turns(s, 3)));
    // A beginning that is less than half of a prompt does not bind it.
    engine.generate({ prompt: [...turns(1, 1), ...turns(4, 2)] });
    for (let i = 0; i < 6; i++) engine.generate({ prompt: turns(1, 4) });
    expect(
      Math.max(...ranks.map(({ open }) => open)) - Math.min(...ranks.map(({ open }) => open)),
    ).toBeLessThan(3);
  });

  it('adds up what ranks count, and says how evenly experts are loaded layer by layer', async () => {
    const placements = [{ pass: 10, before: 1.5, expected: 1.1, moved: 4, seconds: 0.1 }];
    const ranks = [
      new Rank({ steps: 3, generatedTokens: 5, expertRows: { rows: [30, 10], placements } }),
      new Rank({ steps: 3, generatedTokens: 7, expertRows: { rows: [10, 30], placements } }),
    ];
    const engine = over(ranks);
    // The busiest of each layer has 30 of 40 rows, although both ranks have 40 in all.
    expect(await engine.stats()).toEqual({
      steps: 6,
      generatedTokens: 12,
      experts: { imbalance: 1.5, placements },
    });
    expect(await engine.paging()).toEqual({ residentWeightBytes: 10, pagesRead: 2 });
    await engine.close();
    expect(ranks.map(({ closed }) => closed)).toEqual([true, true]);
  });
});

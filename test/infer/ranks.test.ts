import { beforeAll, describe, expect, it } from 'vitest';
import type { EngineInfo, EngineOptions, EngineStats, GenerateRequest } from '../../src/infer/engine.js';
import { openEngine } from '../../src/infer/open-engine.js';
import { noMpi, onMpi, onThreads, type RankOptions } from '../expert/ranks.js';
import { modelFolder } from './model-folder.js';

const ENGINE: EngineOptions = { cache: 'fp32', contextTokens: 256, threads: 1, speculative: true };
const REQUESTS: GenerateRequest[] = [
  'The state of the Union',
  '{"name": "Ada", "age": 36',
  'T',
  'is strong. The state of the Union is strong. The Union is strong. "tags": [true, false, null]',
  'null null null',
].map((prompt, i) => ({ prompt, maxTokens: 20 + 3 * i, temperature: 0, ignoreEos: true }));

interface Result {
  ids: number[][];
  more?: number[][];
  stats: EngineStats;
  paging: { residentWeightBytes: number };
  info: NonNullable<EngineInfo['ranks']>;
  weightBytes: number;
}

let folder: string;
beforeAll(async () => {
  folder = await modelFolder();
});

/** The same in one process. */
async function alone(options: EngineOptions): Promise<number[][]> {
  const engine = await openEngine(folder, { ...ENGINE, ...options });
  const ask = async (request: GenerateRequest) => {
    const ids: number[] = [];
    for await (const event of engine.generate(request)) if (event.type === 'text') ids.push(...event.ids);
    return ids;
  };
  const all = await Promise.all(REQUESTS.map(ask));
  await engine.close();
  return all;
}

const asked = (options: RankOptions): RankOptions => ({
  what: 'answers',
  folder,
  requests: REQUESTS,
  ...options,
  engine: { ...ENGINE, ...(options.engine as EngineOptions) },
  ranks: { wire: 'fp32', ...(options.ranks as object) },
});

describe('inference over ranks', () => {
  it.each<{ name: string; ranks: number; options: RankOptions }>([
    { name: 'two ranks, by the reference', ranks: 2, options: { engine: { backend: 'reference' } } },
    { name: 'two nodes of two', ranks: 4, options: { perNode: 2, ranks: { checksums: true } } },
    { name: 'four nodes', ranks: 4, options: { perNode: 1 } },
    {
      name: 'two groups of ranks, without drafts',
      ranks: 4,
      options: { engine: { speculative: false }, ranks: { expertParallel: 2 } },
    },
    { name: 'a spare place on each rank', ranks: 3, options: { ranks: { redundantExperts: 1 } } },
  ])('writes the tokens of one process: $name', async ({ ranks, options }) => {
    const [first, ...others] = (await onThreads(ranks, 'serve', asked(options))) as Result[];
    expect(first!.ids).toEqual(await alone((options.engine as EngineOptions) ?? {}));
    expect(others.every((result) => result === undefined)).toBe(true);
    expect(first!.stats.generatedTokens).toBe(first!.ids.flat().length);
  });

  it.each([
    { name: 'mapped weights', engine: {} },
    { name: 'weights brought into another format', engine: { weights: 'int8' as const } },
  ])('writes them as well when experts move by load: $name', async ({ engine }) => {
    const ranks = { redundantExperts: 4, rebalanceEvery: 6 };
    const options = asked({ perNode: 2, engine, ranks, again: true });
    const { ids, more, stats, info } = ((await onThreads(4, 'serve', options)) as Result[])[0]!;
    const one = await alone(engine);
    expect(ids).toEqual(one);
    expect(more).toEqual(one);
    expect(info.redundantExperts).toBe(4);
    const { placements, imbalance } = stats.experts!;
    expect(placements.length).toBeGreaterThan(2);
    expect(placements[0]!.moved).toBeGreaterThan(0);
    expect(placements[0]!.expected).toBeLessThan(placements[0]!.before);
    expect(imbalance).toBeGreaterThanOrEqual(1);
  });

  it('holds of routed experts a share on each rank', async () => {
    const engine = await openEngine(folder, ENGINE);
    const whole = engine.info.weightBytes;
    await engine.close();
    const { info, weightBytes } = ((await onThreads(4, 'serve', asked({}))) as Result[])[0]!;
    expect(new Set(info.weightBytes).size).toBe(1);
    expect(weightBytes).toBe(4 * info.weightBytes[0]!);
    // Two layers with 8 experts of 3·64·32 FP32 values, the MTP module's among them; each rank has two of them.
    const { moeLayers, expertBytes } = { moeLayers: 2, expertBytes: 4 * 3 * 64 * 32 };
    expect(whole - info.weightBytes[0]!).toBe(moeLayers * 6 * expertBytes);
  });

  it('tells which request is wrong, ends what is cancelled, and goes on', async () => {
    const options = { ...asked({ requests: REQUESTS }), what: 'trouble' };
    const [first] = (await onThreads(2, 'serve', options)) as { said: string[]; tokens: number }[];
    expect(first!.said[4]).toBe('{');
    expect(first!.said.slice(-2)).toEqual(['length', 'length']);
    for (const text of [first!.said[0], first!.said[2]])
      expect(text).toMatch(/^UserError: maxTokens is -1: give a whole number/);
    expect([first!.said[1], first!.said[3]]).toEqual(['cancelled', 'cancelled']);
    expect(first!.tokens).toBe(20);
  });

  it.skipIf(noMpi)(`writes the tokens of one process over MPI ${noMpi ?? ''}`, async () => {
    const [first] = (await onMpi(4, 'serve', asked({ perNode: 2 }))) as Result[];
    expect(first!.ids).toEqual(await alone({}));
  });
});

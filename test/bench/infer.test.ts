import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { MEASURES } from '../../src/bench/infer-cases.js';
import { bestLlama, inferChecks, shareOfFloor } from '../../src/bench/infer-checks.js';
import type { ContestantResult, FormatResult } from '../../src/bench/infer-contest.js';
import { LineProcess } from '../../src/bench/line-process.js';
import { startNeighbour } from '../../src/bench/neighbour.js';
import { syntheticVocabulary } from '../../src/bench/random-model.js';
import { UserError } from '../../src/errors.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { saveTokenizer } from '../../src/text/tokenizer-files.js';
import { makeFolder } from '../text/folder.js';

/** Contestant with these tokens/s. */
function contestant(
  speeds: Partial<Record<keyof typeof MEASURES, number>>,
  residentBytes = 0,
): ContestantResult {
  const timing = { median: 1, fastest: 1, slowest: 1, repeats: 1 };
  const measures = Object.entries(speeds).map(([name, tokensPerSecond]) => [
    name,
    { seconds: timing, tokensPerSecond },
  ]);
  return { measures: Object.fromEntries(measures), residentBytes };
}

const format = (contestants: FormatResult['contestants']): FormatResult => ({
  format: '8 bits',
  weights: 'int8',
  weightBytes: 1e9,
  activeBytes: 2e8,
  cacheBytes: 1e7,
  firstTokenSeconds: 0.5,
  contestants,
});

describe('checks of bench infer', () => {
  const eight = format({
    runner: contestant({ prefill: 1000, short: 150, at2000: 100 }, 1.3e9),
    engine: contestant({ short: 120 }),
    node: contestant({ short: 50 }),
    'llama repacked, flash attention': contestant({ prefill: 300, short: 90, at2000: 50 }),
    'llama as stored, flash attention': contestant({ prefill: 250, short: 100, at2000: 40 }),
  });

  it("take the fastest of llama.cpp's settings at each measure", () => {
    expect(bestLlama(eight, 'short')).toBe(100);
    expect(bestLlama(eight, 'prefill')).toBe(300);
    expect(bestLlama(format({}), 'short')).toBeUndefined();
  });

  it('compare with targets, and leave out what was not measured', () => {
    const other = { ...format({ 'llama x': contestant({ prefill: 600 }) }), format: '4 bits' as const };
    const checks = Object.fromEntries(
      inferChecks('bench-1b', [eight, other], 4e10).map(({ name, ...check }) => [name, check]),
    );
    expect(checks['8 bits: decode, 16 tokens of context over the C API']).toEqual({
      value: 1.5,
      target: 1.4,
      met: true,
    });
    expect(checks['8 bits: decode, 2,000 over the C API']).toEqual({ value: 2, target: 2.2, met: false });
    expect(checks['8 bits: prefill over its best type']).toMatchObject({ value: 1000 / 600, met: false });
    expect(checks['8 bits: our API over the bare loop']).toMatchObject({ value: 0.8, met: false });
    expect(checks['8 bits: decode, our API over node-llama-cpp']).toMatchObject({ value: 2.4, met: false });
    expect(checks['8 bits: resident bytes beyond weights and cache']?.value).toBeCloseTo(2.9e8, 0);
    expect(Object.keys(checks).filter((name) => name.includes('4,000') || name.startsWith('4 bits'))).toEqual(
      [],
    );
  });

  it('share of the floor: bytes read per second over the bandwidth', () => {
    expect(shareOfFloor(eight, 4e10)).toBeCloseTo((150 * 2e8) / 4e10);
  });
});

describe('a process driven by lines', () => {
  const start = (script: string) => LineProcess.start('the fake', process.execPath, ['-e', script]);
  const echo =
    "console.log('{\"hello\": 1}'); require('readline').createInterface({ input: process.stdin })" +
    ".on('line', (line) => { if (line === 'die') { console.error('Error: no more'); process.exit(3); }" +
    " console.log('remark'); console.log(JSON.stringify({ values: [line.length], residentBytes: 1 })); })";

  it('answers one command after the other', async () => {
    const { process: child, greeting } = await start(echo);
    expect(greeting).toEqual({ hello: 1 });
    expect(await Promise.all(['a', 'bcd'].map((line) => child.ask(line)))).toMatchObject([
      { values: [1] },
      { values: [3] },
    ]);
    await child.close();
  });

  it('says with what words it died', async () => {
    const { process: child } = await start(echo);
    await expect(child.ask('die')).rejects.toThrow(UserError);
    await expect(child.ask('a')).rejects.toThrow(/has ended/);
    await expect(start("console.error('Error: bad model'); process.exit(1)")).rejects.toThrow(
      /ended with 1: Error: bad model/,
    );
    await child.close();
  });

  it('a neighbour runs until it is stopped', async () => {
    const neighbour = await startNeighbour();
    await neighbour.stop();
  });
});

describe('the vocabulary of a random model', () => {
  it('has as many tokens as asked for, all of them reachable text', () => {
    const folder = makeFolder();
    saveTokenizer(folder, syntheticVocabulary(70_000));
    const tokenizer = Tokenizer.fromFolder(folder);
    expect(tokenizer.vocabSize).toBe(70_000);
    const ids = [...tokenizer.encode('the', { addSpecialTokens: false })];
    expect(tokenizer.decode(ids)).toBe('the');
    expect(fs.existsSync(path.join(folder, 'tokenizer_config.json'))).toBe(true);
  });
});

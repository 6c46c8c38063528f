import { describe, expect, it } from 'vitest';
import { estimateServing } from '../../src/plan/serve.js';
import { DEFAULT_SERVE_PLAN, type ServePlan } from '../../src/plan/serve-plan.js';
import { type ServeSearchInput, searchServing } from '../../src/plan/serve-search.js';
import { MACHINES } from '../../src/spec/machines.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { PUBLIC_MODELS } from '../../src/spec/public-models.js';
import { parseModelShape } from '../../src/spec/read-shape.js';

const v3 = parseModelShape(MODEL_PRESETS['deepseek-v3']);
const cluster = { name: '320 H800', machine: MACHINES.h800!, nodes: 40 };
const at = (change: Partial<ServePlan>) => estimateServing(v3, cluster, { ...DEFAULT_SERVE_PLAN, ...change });

describe('prefill apart', () => {
  it('has as many devices take prompts in as the others have answers for', () => {
    const { split, prefillTokensPerSecondPerDevice: taken, decodeTokensPerSecondPerDevice: decoded } = at({});
    const { prompt, output } = DEFAULT_SERVE_PLAN;
    const requests = {
      in: (split.prefillShare * taken) / prompt,
      out: ((1 - split.prefillShare) * decoded) / output,
    };
    expect(requests.in).toBeCloseTo(requests.out, 9);
    expect(split.tokensPerSecondPerDevice).toBeCloseTo((1 - split.prefillShare) * decoded, 6);
    // 4,096 tokens of 70.272 kB at 40 GB/s.
    expect(split.handOffSeconds).toBeCloseTo((4096 * 70272) / 40e9, 5);
  });
});

describe('search for serving', () => {
  const input: ServeSearchInput = {
    objective: 'tpot',
    formats: ['fp8'],
    context: 4096,
    prompt: 4096,
    output: 1024,
    acceptance: 0.85,
    mostTokenSeconds: Number.POSITIVE_INFINITY,
    leastTokensPerSecond: 500,
  };

  it('ranks by what is asked for, within the limits', () => {
    const { ranked, limited, front } = searchServing(v3, cluster, input);
    const times = ranked.map(({ estimate }) => estimate.timePerOutputTokenSeconds);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(ranked.every(({ estimate }) => estimate.split.tokensPerSecondPerDevice >= 500)).toBe(true);
    expect(limited).toBeGreaterThan(0);
    const rates = front.map(({ estimate }) => estimate.split.tokensPerSecondPerDevice);
    expect(rates).toEqual([...rates].sort((a, b) => a - b));
    const cheap = searchServing(v3, cluster, { ...input, objective: 'serve-cost' }).ranked[0]!;
    expect(cheap.estimate.split.tokensPerSecondPerDevice).toBe(rates.at(-1));
  });

  it('finds tensor ranks for a dense model', () => {
    const llama = parseModelShape(PUBLIC_MODELS['llama-3.1-70b'].config);
    const { ranked } = searchServing(llama, cluster, { ...input, leastTokensPerSecond: 0 });
    expect(ranked[0]!.plan).toMatchObject({ devices: 8, tensor: 8, batch: 1 });
  });
});

describe('serving', () => {
  it('answers more slowly with a larger batch or a longer context, and never faster than the network', () => {
    const { timePerOutputTokenSeconds: base } = at({});
    expect(at({ batch: 160 }).timePerOutputTokenSeconds).toBeGreaterThan(base);
    expect(at({ context: 65536, batch: 8 }).timePerOutputTokenSeconds).toBeGreaterThan(
      at({ batch: 8 }).timePerOutputTokenSeconds,
    );
    const { decodeStep } = at({});
    expect(decodeStep.seconds).toBeGreaterThanOrEqual(decodeStep.exchangeSeconds);
  });

  it('gains by drafts what they yield, less what they cost', () => {
    const plain = at({ batch: 32 });
    const drafted = at({ batch: 32, draftDepth: 1, acceptance: 0.85 });
    const gain = plain.timePerOutputTokenSeconds / drafted.timePerOutputTokenSeconds;
    expect(gain).toBeGreaterThan(1);
    expect(gain).toBeLessThan(1.85);
  });

  it('fills the memory with the largest batch, and not with one more', () => {
    const { largestBatch } = at({}).memory;
    expect(at({ batch: largestBatch }).memory.fits).toBe(true);
    expect(at({ batch: largestBatch + 2 }).memory.fits).toBe(false);
  });

  it('takes a dense model on tensor ranks', () => {
    const llama = parseModelShape(PUBLIC_MODELS['llama-3.1-70b'].config);
    const estimate = estimateServing(llama, cluster, {
      ...DEFAULT_SERVE_PLAN,
      devices: 8,
      tensor: 8,
      batch: 16,
    });
    expect(estimate.memory.fits).toBe(true);
    // 70 GB of FP8 weights over 8 devices at 3 TB/s each take 3 ms to read.
    expect(estimate.timePerOutputTokenSeconds).toBeGreaterThan(3e-3);
  });

  it.each([
    [
      { devices: 96 },
      /devices \(96\) must divide the 256 experts or be a multiple of them; the nearest is (64|128)/,
    ],
    [{ devices: 1024 }, /devices \(1024\) exceeds the 320/],
    [{ draftDepth: 2 }, /draft depth \(2\) exceeds the 1 MTP modules/],
    [{ format: 'fp32' }, /does not compute in fp32/],
  ] as [Partial<ServePlan>, RegExp][])('%j cannot be', (change, message) => {
    expect(() => at(change)).toThrow(message);
  });
});

import { describe, expect, it } from 'vitest';
import { keepBusy, quantile, StreamingClient, throughput } from '../../src/bench/load.js';
import { serveText } from '../../src/bench/serve-text.js';
import { PIECES, serveScript } from '../serve/server.js';

describe('quantile', () => {
  it('is the smallest value that the share does not exceed', () => {
    const values = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect([0, 0.5, 0.99, 1].map((share) => quantile(values, share))).toEqual([1, 50, 99, 100]);
    expect(quantile([Number.NaN, 3], 0.5)).toBe(3);
    expect(quantile([], 0.5)).toBeNaN();
  });
});

describe('load', () => {
  it('keeps so many streams busy, and counts what they got', async () => {
    const { engine, url } = await serveScript();
    const client = new StreamingClient(url);
    let most = 0;
    const run = async () => {
      const sample = client.complete({ prompt: [1, 2], max_tokens: 50 });
      most = Math.max(most, engine.active);
      return sample;
    };
    const load = await keepBusy(run, 6, 0.2);
    client.close();
    expect(load.errors).toEqual({});
    expect(load.samples.length).toBeGreaterThanOrEqual(6);
    expect(most).toBeLessThanOrEqual(6);
    for (const { tokens, firstTokenSeconds, tokenSeconds } of load.samples) {
      expect(tokens).toBe(PIECES.length);
      expect(firstTokenSeconds).toBeGreaterThan(0);
      expect(tokenSeconds).toBeGreaterThanOrEqual(0);
    }
    expect(throughput(load)).toBeCloseTo((load.samples.length * PIECES.length) / load.seconds);
  });

  it('counts a stream that breaks off, and a refusal, as errors', async () => {
    const { url } = await serveScript({ failAfter: 3 });
    const client = new StreamingClient(url);
    const bodies = [{ prompt: [1] }, { prompt: [1], temperature: 9 }];
    const { samples, errors } = await keepBusy((i) => client.complete(bodies[i % 2]!), 2, 0.05);
    client.close();
    expect(samples).toEqual([]);
    const messages = Object.keys(errors).sort();
    expect(messages).toHaveLength(2);
    expect(messages[0]).toContain('status 200: data: ');
    expect(messages[1]).toContain('status 400');
  });
});

it('shows both sides and what was met', () => {
  const side = (tokensPerSecond: number) => ({
    requests: 100,
    errors: { 'status 500': 2 },
    tokensPerSecond,
    firstToken: { p50: 0.1, p99: 0.5 },
    perToken: { p50: 0.01, p99: 0.02 },
  });
  const text = serveText({
    machine: {
      cpu: 'cpu',
      cores: 2,
      isa: 'amx',
      memoryBytes: 1e9,
      system: 'linux x64',
      node: 'v20',
      date: '2026-01-01',
    },
    model: {
      name: 'm',
      weightFormat: 'int8',
      weightBytes: 1e9,
      cacheFormat: 'bf16',
      threads: 2,
      speculative: false,
    },
    streams: 64,
    seconds: 60,
    promptTokens: 128,
    newTokens: 64,
    server: side(95),
    engine: side(100),
    ratio: 0.95,
    checks: [
      { name: 'errors', value: 2, target: 0, met: false },
      { name: 'throughput of the engine alone', value: 0.95, target: 0.9, met: true },
    ],
  });
  expect(text).toContain('m, 1 GB in int8, cache bf16, 2 threads');
  expect(text).toMatch(/fathom serve +100 +2 +95 tokens\/s +100 ms +500 ms +10 ms +20 ms/);
  expect(text).toContain('95 % (target 90 %): met');
  expect(text).toContain('2 (target 0): NOT MET');
});

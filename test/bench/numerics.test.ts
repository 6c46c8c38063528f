import { describe, expect, it } from 'vitest';
import type { Ceilings } from '../../src/bench/machine.js';
import { summarise } from '../../src/bench/measure.js';
import { type CodecResult, comparePeers, judgeCodec, nicShare, peerMet } from '../../src/bench/numerics.js';
import { numericsText } from '../../src/bench/numerics-text.js';

const CEILINGS: Ceilings = { threads: 1, fma32: 1e11, dotbf16: 1e11, amxbf16: 0, read: 2e10, copy: 2e10 };
/** Values of an operand from memory. */
const VALUES = 4096 * 7168;

const judged = (
  name: string,
  target: object | undefined,
  seconds: number,
  operands: CodecResult['operands'],
) =>
  judgeCodec(
    {
      codec: { name, ...(target ? { target: target as never } : {}) },
      operands,
      work: { read: 1e9, written: 1e9 },
      seconds: summarise([seconds]),
    },
    CEILINGS,
  );

describe('codecs against their targets', () => {
  it('takes a share of the roofline from memory only', () => {
    const target = { roofline: 0.75, on: 'memory' };
    // 1 GB read and 1 GB written at 20 GB/s each: 0.1 s at best.
    expect(judged('q', target, 0.125, 'memory')).toMatchObject({
      roofline: 0.8,
      met: true,
      target: { roofline: 0.75 },
    });
    expect(judged('q', target, 0.2, 'memory')).toMatchObject({ roofline: 0.5, met: false });
    expect(judged('q', target, 0.2, 'cache')).toMatchObject({ target: null, met: null });
    expect(judged('q', undefined, 0.2, 'memory').fp32BytesPerSecond).toBeCloseTo((4 * VALUES) / 0.2, 0);
  });

  it('takes a rate of values', () => {
    const rate = (32 * 7168) / 2e9;
    const target = { valuesPerSecond: 2e9, on: 'cache' };
    expect(judged('d', target, rate * 0.99, 'cache').met).toBe(true);
    expect(judged('d', target, rate * 1.01, 'cache').met).toBe(false);
  });
});

describe('what a codec takes of a network card', () => {
  it('compares sixteen cores with 50 GB/s', () => {
    const at = (name: string, valuesPerSecond: number) =>
      ({ ...judged(name, undefined, 1, 'cache'), valuesPerSecond }) as CodecResult;
    const share = nicShare(8, [at('LogFMT-8 encode BF16', 1e9), at('LogFMT-8 decode BF16', 2e9)]);
    // 50 GB/s are 47.06 G values/s of 8.5 bits; sixteen cores encode 16 G and decode 32 G.
    expect(share.bytesPerValue).toBe(1.0625);
    expect(share.encode).toBeCloseTo(47.0588 / 16, 3);
    expect(share.decode).toBeCloseTo(47.0588 / 32, 3);
  });
});

describe('peers', () => {
  it('are compared on the same array, and excused with a reason', () => {
    const ours = { ...judged('quantise FP32 → E4M3, tiles 1×128', undefined, 0.01, 'memory') };
    const times = {
      operands: 'memory' as const,
      versions: {},
      seconds: { torch: 0.04, slow: 0.02 },
      failed: { ml_dtypes: 'not there' },
    };
    const peers = comparePeers(times, [ours]);
    expect(peers.map(({ speedup }) => speedup && Math.round(speedup * 1e6) / 1e6)).toEqual([4, 2, null]);
    expect(peers.map(peerMet)).toEqual([true, false, null]);
    const nic = { bytesPerSecond: 50e9, cores: 16, shares: [] };
    const machine = {
      cpu: 'x',
      cores: 1,
      isa: 'avx2' as const,
      memoryBytes: 1,
      system: 's',
      node: 'n',
      date: 'd',
    };
    const text = numericsText({ machine, ceilings: CEILINGS, codecs: [ours], peers, peerVersions: {}, nic });
    expect(text).toMatch(/torch +memory +40 ms +4\.00× +met\n/);
    expect(text).toMatch(/ml_dtypes +memory +not there/);
  });
});

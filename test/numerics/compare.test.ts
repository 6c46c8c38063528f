import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/errors.js';
import {
  compareSchemes,
  type FormatError,
  type Sample,
  syntheticSamples,
} from '../../src/numerics/compare.js';
import { parseScheme } from '../../src/numerics/schemes.js';

const sample = (values: number[], cols = values.length): Sample => ({
  kind: 'x',
  name: 'some.tensor',
  values: Float32Array.from(values),
  cols,
});

const errorOf = (scheme: string, ...samples: Sample[]): FormatError =>
  compareSchemes(samples, [parseScheme(scheme)], 0)[0]!.formats[0]!;

describe('compareSchemes', () => {
  it('measures noise, largest error, bias and flushed values', () => {
    // INT8 without scales: 10.4 → 10, -3 → -3, 0.2 → 0 (flushed), 0 stays.
    const { sqnrDb, maxRelativeError, bias, flushed, bitsPerValue } = errorOf(
      'int8@none',
      sample([10.4, -3, 0.2, 0]),
    );
    expect(sqnrDb).toBeCloseTo(10 * Math.log10((10.4 ** 2 + 9 + 0.04) / (0.16 + 0.04)), 4);
    expect(maxRelativeError).toBeCloseTo(0.4 / 10.4, 6);
    expect(bias).toBeCloseTo(-0.6 / 13.6, 6);
    expect(flushed).toBeCloseTo(1 / 3, 10);
    expect(bitsPerValue).toBe(8);
  });

  it('adds up the tensors of a kind, and says when nothing is lost', () => {
    const [kind] = compareSchemes([sample([1, 2]), sample([3, 4, 5, 6], 2)], [parseScheme('bf16')], 0);
    expect(kind).toMatchObject({ kind: 'x', tensors: 2, values: 6 });
    expect(kind!.formats[0]).toEqual({
      format: 'bf16',
      bitsPerValue: 16,
      sqnrDb: null,
      maxRelativeError: 0,
      bias: 0,
      flushed: 0,
    });
  });

  it('counts scales and headers', () => {
    const x = sample(
      Array.from({ length: 256 * 3 }, (_, i) => i + 1),
      256,
    );
    const bits = Object.fromEntries(
      [
        'e4m3',
        'e4m3+pow2',
        'e4m3@tensor',
        'e4m3@row',
        'e4m3@tile64',
        'e4m3@block',
        'mxfp8',
        'mxfp4',
        'nvfp4',
        'logfmt8',
        'logfmt10',
        'e5m6',
        'fp16',
      ].map((name) => [name, errorOf(name, x).bitsPerValue]),
    );
    expect(bits).toEqual({
      e4m3: 8 + 32 / 128,
      'e4m3+pow2': 8 + 8 / 128,
      'e4m3@tensor': 8 + 32 / 768,
      'e4m3@row': 8 + 32 / 256,
      'e4m3@tile64': 8 + 32 / 64,
      'e4m3@block': 8 + (2 * 32) / 768,
      mxfp8: 8.25,
      mxfp4: 4.25,
      nvfp4: 4.5 + 32 / 768,
      logfmt8: 8.5,
      logfmt10: 10.5,
      e5m6: 12.25,
      fp16: 16,
    });
  });

  it('orders formats as the paper does, on heavy tails', () => {
    const samples = [...syntheticSamples(1, 0)];
    const names = ['e5m2', 'e4m3', 'logfmt8', 'logfmt10'];
    for (const { formats } of compareSchemes(
      samples,
      names.map((name) => parseScheme(name)),
      0,
    )) {
      const sqnr = formats.map(({ sqnrDb }) => sqnrDb!);
      expect(sqnr).toEqual([...sqnr].sort((a, b) => a - b));
    }
  });

  it('repeats stochastic rounding with its seed only', () => {
    const x = sample(Array.from({ length: 128 }, (_, i) => Math.sin(i)));
    const bias = (seed: number) =>
      compareSchemes([x], [parseScheme('e4m3+stochastic')], seed)[0]!.formats[0]!.bias;
    expect(bias(1)).toBe(bias(1));
    expect(bias(1)).not.toBe(bias(2));
  });

  it('names what it cannot take', () => {
    expect(() => errorOf('e4m3', sample([1, 2, Number.NaN, 4], 2))).toThrow(
      /some\.tensor holds NaN at row 1, column 0/,
    );
    expect(() => errorOf('mxfp8', sample(new Array(48).fill(1)))).toThrow(
      /rows of 48 values, which blocks of 32/,
    );
    expect(() => errorOf('e4m3@tile100', sample(new Array(128).fill(1)))).toThrow(
      /blocks of 100 \(e4m3@tile100\)/,
    );
  });
});

describe('parseScheme', () => {
  it.each([
    ['e9m9', /unknown number format "e9m9"; known are bf16, fp16, .*logfmt4/],
    ['', /unknown number format ""/],
    ['logfmt3', /4 to 16 bits/],
    ['logfmt17', /4 to 16 bits/],
    ['logfmt8@row', /tiles of LogFMT are 1x128; leave out @row/],
    ['logfmt8+pow2', /no option "pow2"; it takes log/],
    ['mxfp4@row', /its specification fixes its blocks/],
    ['e4m3+log', /no option "log"; it takes pow2, truncate, stochastic/],
    ['e4m3@column', /unknown blocks/],
    ['e4m3@tile0', /unknown blocks/],
    ['e4m3@row5', /unknown blocks/],
    ['bf16@tile', /takes no scales/],
  ])('refuses %j', (name, message) => {
    expect(() => parseScheme(name)).toThrow(message);
    expect(() => parseScheme(name)).toThrow(UsageError);
  });
});

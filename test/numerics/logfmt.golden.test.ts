import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decodeLogFmt, encodeLogFmt, LogFmtGrid } from '../../src/numerics/logfmt.js';

/** One tile of scripts/goldens/logfmt.py, a model at 200 bits. */
interface Case {
  name: string;
  bits: number;
  input: number[];
  min: number;
  step: number;
  linear: number[];
  log: number[];
  decoded: number[];
  packed: string;
}

const cases: Case[] = JSON.parse(
  readFileSync(new URL('../goldens/numerics/logfmt.json', import.meta.url), 'utf8'),
);
const floats = (bits: number[]) => new Float32Array(Uint32Array.from(bits).buffer);
const bitsOf = (values: Float32Array) => [...new Uint32Array(values.buffer)];

describe('LogFMT against a model at 200 bits', () => {
  it('has every kind of tile, ties among them', () => {
    expect(cases.length).toBe(88);
    expect(new Set(cases.map(({ bits }) => bits))).toEqual(new Set([4, 5, 6, 8, 10, 11, 13, 16]));
  });

  for (const { name, bits, input, min, step, linear, log, decoded, packed } of cases) {
    it(`LogFMT-${bits}, ${name}: header, codes of both roundings, values and packed bytes`, () => {
      const values = floats(input);
      const wire = encodeLogFmt(values, values.length, bits);
      const view = new DataView(wire.buffer);
      expect([view.getUint32(0, true), view.getUint32(4, true)]).toEqual([min, step]);
      const grid = new LogFmtGrid(bits, {
        min: view.getFloat32(0, true),
        step: view.getFloat32(4, true),
      });
      expect([...values].map((x) => grid.encode(x))).toEqual(linear);
      expect([...values].map((x) => grid.encode(x, 'log'))).toEqual(log);
      expect(Buffer.from(wire.subarray(8)).toString('hex')).toBe(packed);
      const back = decodeLogFmt(wire, values.length, bits, new Float32Array(values.length));
      expect(bitsOf(back)).toEqual(decoded);
    });
  }
});

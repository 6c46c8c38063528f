import { describe, expect, it } from 'vitest';
import { loadAddon } from '../../src/backend/native/addon.js';
import { parseWire, parseWireFormat, rowBytes, wireName } from '../../src/expert/wire/format.js';
import type { WireKernels } from '../../src/expert/wire/kernels.js';
import { nativeWire } from '../../src/expert/wire/native.js';
import { referenceWire } from '../../src/expert/wire/reference.js';
import { encodeBf16Array } from '../../src/numerics/bf16.js';
import { Random } from '../../src/numerics/random.js';
import { Tensor } from '../../src/tensor/tensor.js';

const FORMATS = ['fp32', 'bf16', 'fp8', 'e5m2', 'e5m6', 'logfmt8', 'logfmt10', 'logfmt5', 'logfmt16'];
const addon = loadAddon();
const levels = addon
  ? (['portable', addon.info().best] as const).map((isa) => ({ isa, kernels: nativeWire(addon.forIsa(isa)) }))
  : [];

/** Values over many binades, some zero; a subnormal code and an outlier among them. */
function values(count: number): Float32Array {
  const random = new Random(7);
  return Float32Array.from({ length: count }, (_, i) =>
    i % 17 === 0 ? 0 : random.normal() * 2 ** ((i % 13) - 9),
  );
}

const tensor = (data: Float32Array, cols: number, dtype: 'f32' | 'bf16'): Tensor =>
  new Tensor([data.length / cols, cols], dtype, dtype === 'f32' ? data : encodeBf16Array(data));

/** Two rows of x [3, width], the last one first, 8 bytes apart from the start. */
function encoded(kernels: WireKernels, name: string, width: number, dtype: 'f32' | 'bf16', pow2: boolean) {
  const format = parseWireFormat(name);
  const base = new Uint8Array(8 + 2 * rowBytes(format, width)).fill(0xaa);
  const x = tensor(values(3 * width), width, dtype);
  const places = Int32Array.of(2, 2 + rowBytes(format, width) / 4);
  kernels.encode(x, Int32Array.of(2, 0), format, pow2, base, places);
  return { base, places, format };
}

describe.each(levels)('kernels of the wire: $isa', ({ kernels }) => {
  for (const name of FORMATS) {
    for (const width of [256, 200, 64]) {
      it(`${name}, ${width} values: the reference's bytes and values`, () => {
        for (const dtype of ['f32', 'bf16'] as const) {
          const ours = encoded(kernels, name, width, dtype, true);
          const theirs = encoded(referenceWire, name, width, dtype, true);
          expect(Buffer.from(ours.base).equals(Buffer.from(theirs.base))).toBe(true);
          const [a, b] = [0, 1].map(() => Tensor.zeros([2, width], 'f32'));
          kernels.decode(ours.base, ours.places, ours.format, a!);
          referenceWire.decode(ours.base, ours.places, ours.format, b!);
          expect(a!.data).toEqual(b!.data);
        }
      });
    }
  }

  it('sums two lists of rows, and weighted rows, as the reference does', () => {
    const width = 200;
    const { base, places, format } = encoded(kernels, 'fp8', width, 'f32', false);
    const other = encoded(kernels, 'logfmt10', width, 'f32', false);
    const first = {
      base,
      format,
      bounds: Int32Array.of(0, 2, 2, 3),
      places: Int32Array.of(...places, places[0]!),
    };
    const second = {
      base: other.base,
      format: other.format,
      bounds: Int32Array.of(0, 1, 1, 2),
      places: other.places,
    };
    const rows = tensor(values(4 * width), width, 'bf16');
    const [a, b] = [kernels, referenceWire].map((which) => {
      const sum = Tensor.zeros([3, width], 'f32');
      which.sum(first, second, sum);
      const partial = new Uint8Array(2 * 2 * width);
      const weights = Float32Array.of(0.5, 0.3, 0.2);
      which.partial(
        rows,
        Int32Array.of(3, 1, 0),
        weights,
        Int32Array.of(0, 2, 3),
        partial,
        Int32Array.of(width / 2, 0),
      );
      return { sum: sum.data, partial };
    });
    expect(a).toEqual(b);
    expect(a!.sum.subarray(width, 2 * width).every((v) => v === 0)).toBe(true);
  });

  for (const name of FORMATS) {
    it(`${name}: sums coded at once are the sums, coded`, () => {
      for (const width of [200, 2176]) {
        const { base, places, format } = encoded(kernels, 'bf16', width, 'f32', false);
        const list = {
          base,
          format,
          bounds: Int32Array.of(0, 2, 2, 3, 5),
          places: Int32Array.of(...places, places[1]!, ...places),
        };
        const target = parseWireFormat(name);
        const size = rowBytes(target, width) / 4;
        const order = Int32Array.of(3 * size, 0, 2 * size, size);
        const [ours, theirs] = [kernels, referenceWire].map((which) => {
          const out = new Uint8Array(4 * 4 * size).fill(0xaa);
          which.sumTo(list, width, target, out, order);
          return Buffer.from(out);
        });
        expect(ours!.equals(theirs!)).toBe(true);
      }
    });
  }

  it('keeps subnormals, infinities and NaN of BF16 in sums', () => {
    const width = 256;
    const x = tensor(values(2 * width), width, 'bf16');
    const codes = x.data as Uint16Array;
    // Subnormal, infinite, NaN with bits of its own, and both zeros, each among plain neighbours.
    [0x0001, 0x8047, 0x7f80, 0xff80, 0x7fa5, 0xffc1, 0x0000, 0x8000].forEach((code, i) => {
      codes[40 * i] = codes[width + 40 * ((i + 3) % 6)] = code;
    });
    const results = [kernels, referenceWire].map((which) => {
      const wire = new Uint8Array(2 * 2 * width);
      const [bounds, places] = [Int32Array.of(0, 2, 3), Int32Array.of(0, width / 2)];
      which.partial(x, Int32Array.of(0, 1, 1), Float32Array.of(1, 0.5, 1), bounds, wire, places);
      const sum = Tensor.zeros([1, width], 'bf16');
      const list = { base: wire, format: parseWireFormat('bf16'), bounds: Int32Array.of(0, 2), places };
      which.sum(list, undefined, sum);
      return { wire, sum: sum.data };
    });
    expect(results[0]).toEqual(results[1]);
  });

  it('writes past the caches what it writes into them', () => {
    // 8 MiB and more of BF16 in one call, against calls of a quarter of it; rows begin between lines of 64 bytes.
    const [rows, width] = [4400, 1000];
    const x = tensor(values(rows * width), width, 'bf16');
    const order = Int32Array.from({ length: rows }, (_, r) => (r * 7) % rows);
    const format = parseWireFormat('bf16');
    const places = order.map((to) => 5 + (to * rowBytes(format, width)) / 4);
    const bounds = Int32Array.from({ length: rows + 1 }, (_, r) => r);
    const results = [rows, rows / 4].map((step) => {
      const [wire, partial] = [0, 1].map(() => new Uint8Array(20 + rows * rowBytes(format, width)));
      const [out, sum] = [0, 1].map(() => Tensor.zeros([rows, width], 'bf16'));
      for (let at = 0; at < rows; at += step) {
        const part = places.subarray(at, at + step);
        const into = ({ data }: Tensor) =>
          new Tensor([step, width], 'bf16', (data as Uint16Array).subarray(at * width, (at + step) * width));
        const list = { base: wire!, format, bounds: bounds.subarray(0, step + 1), places: part };
        kernels.encode(x, order.subarray(at, at + step), format, false, wire!, part);
        kernels.decode(wire!, part, format, into(out!));
        kernels.sum(list, undefined, into(sum!));
        kernels.partial(x, order.subarray(at, at + step), undefined, list.bounds, partial!, part);
      }
      return [wire!, partial!, out!.data, sum!.data].map((data) =>
        Buffer.from(data.buffer, data.byteOffset, data.byteLength),
      );
    });
    const same = results[0]!.map((bytes, i) => bytes.equals(results[1]![i]!));
    expect(same).toEqual([true, true, true, true]);
    expect(results[0]![0]!.every((byte) => byte === 0)).toBe(false);
  });

  it('passes NaN and infinity on as NaN, and a damaged range too', () => {
    for (const name of FORMATS.filter((n) => n !== 'fp32' && n !== 'bf16')) {
      const format = parseWireFormat(name);
      const x = Tensor.f32([1, 256], values(256));
      x.data[3] = Number.POSITIVE_INFINITY;
      const base = new Uint8Array(rowBytes(format, 256));
      const out = Tensor.zeros([1, 256], 'f32');
      kernels.encode(x, undefined, format, false, base, Int32Array.of(0));
      kernels.decode(base, Int32Array.of(0), format, out);
      expect(out.data.subarray(0, 128).every(Number.isNaN)).toBe(true);
      expect(out.data.subarray(128).every(Number.isFinite)).toBe(true);
    }
  });

  it('refuses places outside of the memory', () => {
    const x = Tensor.zeros([1, 128], 'f32');
    const format = parseWireFormat('fp32');
    for (const place of [-1, 1]) {
      expect(() =>
        kernels.encode(x, undefined, format, false, new Uint8Array(512), Int32Array.of(place)),
      ).toThrow('places');
    }
  });
});

describe('formats of the wire', () => {
  it('are named for both directions', () => {
    expect(wireName(parseWire('fp8:logfmt10'))).toBe('fp8:logfmt10');
    expect(wireName(parseWire('bf16'))).toBe('bf16:bf16');
    expect(() => parseWire('fp8:logfmt3')).toThrow('logfmt3');
    expect(() => parseWire('a:b:c')).toThrow('DISPATCH:COMBINE');
  });

  it('take the bytes of the estimate', () => {
    expect(rowBytes(parseWireFormat('fp8'), 7168)).toBe(7168 * (1 + 4 / 128));
    expect(rowBytes(parseWireFormat('logfmt10'), 7168)).toBe(56 * (8 + 160));
    expect(rowBytes(parseWireFormat('bf16'), 7168)).toBe(2 * 7168);
  });
});

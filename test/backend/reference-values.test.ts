import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { referenceBackend as backend } from '../../src/backend/reference/index.js';
import { type Operand, operandOf } from '../../src/spec/precision.js';
import type { PackedWeight, QuantizedTensor } from '../../src/tensor/backend.js';
import { zeroQuantized } from '../../src/tensor/quantized.js';
import { Tensor } from '../../src/tensor/tensor.js';
import { Data } from './data.js';

/** Values of the reference itself against something else: plain sums, PyTorch. */

function quantized(x: Tensor, op: Operand): QuantizedTensor {
  const q = zeroQuantized(x.rows, x.cols, op);
  backend.quantize(x, q);
  return q;
}

/** x rounded to an operand's format in 1×128 tiles. */
function rounded(x: Tensor, op: Operand): Tensor {
  const out = Tensor.zeros(x.shape, 'f32');
  backend.dequantize(quantized(x, op), out);
  return out;
}

function pack(w: Tensor, op: Operand, transposed: boolean): PackedWeight {
  const shape = w.shape as [number, number, number];
  const { data, scales } = backend.packedSizes(shape, op, transposed);
  const packed = {
    operand: op,
    transposed,
    shape,
    data: Tensor.zeros([data.elements], data.dtype),
    scales: scales > 0 ? Tensor.zeros([scales], 'f32') : undefined,
  };
  backend.packWeight(w, packed);
  return packed;
}

/** x [rows, cols] → [cols, rows]. */
function turned(x: Tensor): Tensor {
  const out = Tensor.zeros([x.cols, x.rows], 'f32');
  for (let i = 0; i < x.size; i++) out.data[(i % x.cols) * x.rows + Math.floor(i / x.cols)] = x.data[i]!;
  return out;
}

/** Σ_i a[m, i]·b[n, i] in doubles, and Σ|a·b|: what `got` [M, N] is compared with. */
function expectProduct(got: Tensor, a: Tensor, b: Tensor): void {
  const inner = a.cols;
  for (let m = 0; m < a.rows; m++) {
    for (let n = 0; n < b.rows; n++) {
      let [sum, magnitude] = [0, 0];
      for (let i = 0; i < inner; i++) {
        sum += a.data[m * inner + i]! * b.data[n * inner + i]!;
        magnitude += Math.abs(a.data[m * inner + i]! * b.data[n * inner + i]!);
      }
      // Dequantised values and promoted sums are rounded to FP32: a few units of 2^-24 of the terms.
      const value = got.data[m * b.rows + n]!;
      if (!(Math.abs(value - sum) <= 8 * 2 ** -24 * magnitude)) {
        expect.fail(`[${m}, ${n}]: got ${value}, expected ${sum}`);
      }
    }
  }
}

const FORMATS: Operand[] = [
  operandOf('fp32'),
  operandOf('bf16'),
  operandOf('e4m3'),
  operandOf('e4m3', 'pow2'),
  operandOf('e5m2'),
  operandOf('e5m6'),
  operandOf('e5m6', 'pow2'),
];

describe('products are those of the dequantised operands', () => {
  // Magnitudes that differ from block to block, so that a scale of the wrong block shows.
  const [m, n, k] = [5, 140, 290];
  const data = new Data(20);
  const blocky = (x: Tensor) => {
    const factor = (i: number) => 4 ** Math.floor((i % x.cols) / 128) * 3 ** Math.floor(i / x.cols / 128);
    return Tensor.f32(x.shape, x.data.map((value, i) => value * factor(i)) as Float32Array);
  };
  const w = blocky(data.normal([n, k])).reshape([1, n, k]);

  /** w in 128×128 blocks: as packed for a product with unit vectors. */
  const roundedWeight = (op: Operand): Tensor => {
    const units = Tensor.zeros([k, k], 'f32');
    for (let i = 0; i < k; i++) units.data[i * k + i] = 1;
    const out = Tensor.zeros([k, n], 'f32');
    backend.gemm(quantized(units, operandOf('fp32')), pack(w, op, false), out);
    return turned(out);
  };

  for (const op of FORMATS) {
    const name = `${op.format} ${op.scale}`;
    it(`gemm, ${name}, plain and transposed`, () => {
      const weight = roundedWeight(op);
      // The weight itself, rounded: by 2^-3 in E5M2, or by less than 1e-3 of the block's largest where subnormal.
      weight.data.forEach((value, i) => {
        const largest = 4 * 4 ** Math.floor((i % k) / 128) * 3 ** Math.floor(i / k / 128);
        const bound = 0.125 * Math.abs(w.data[i]!) + 1e-3 * largest;
        if (!(Math.abs(value - w.data[i]!) <= bound))
          expect.fail(`weight ${i}: ${w.data[i]} became ${value}`);
      });
      const [x, dy] = [blocky(data.normal([m, k])), blocky(data.normal([m, n]))];
      const [y, dx] = [Tensor.zeros([m, n], 'f32'), Tensor.zeros([m, k], 'f32')];
      backend.gemm(quantized(x, op), pack(w, op, false), y);
      expectProduct(y, rounded(x, op), weight);
      backend.gemm(quantized(dy, op), pack(w, op, true), dx);
      expectProduct(dx, rounded(dy, op), turned(weight));
    });

    it(`gemm, ${name}: rows of a group meet its weight, with their own scales`, () => {
      const bounds = [0, 2, 2, 7];
      const [rows, width, depth] = [7, 6, 150];
      const x = data.rough([rows, depth]);
      const weights = data.normal([3, width, depth]);
      const matrix = (g: number) => weights.rowsView(g * width, (g + 1) * width).reshape([1, width, depth]);
      const y = Tensor.zeros([rows, width], 'f32');
      backend.gemm(quantized(x, op), pack(weights, op, false), y, { offsets: Tensor.i32(bounds) });
      for (const g of [0, 1, 2]) {
        const part = x.rowsView(bounds[g]!, bounds[g + 1]!);
        const alone = Tensor.zeros([part.rows, width], 'f32');
        backend.gemm(quantized(part, op), pack(matrix(g), op, false), alone);
        expect(y.rowsView(bounds[g]!, bounds[g + 1]!).data).toEqual(alone.data);
      }
    });

    it(`gemmWgrad, ${name}: tiles along the rows, from each group's first`, () => {
      const bounds = [0, 3, 3, 150];
      const [rows, width, depth] = [150, 6, 9];
      const [dy, x] = [data.rough([rows, width]), data.rough([rows, depth])];
      const dw = Tensor.zeros([3, width, depth], 'f32');
      const saved = quantized(x, operandOf('fp32'));
      backend.gemmWgrad(dy, saved, dw, { gradient: op, input: op }, { offsets: Tensor.i32(bounds) });
      for (const g of [0, 1, 2]) {
        const part = dw.reshape([3 * width, depth]).rowsView(g * width, (g + 1) * width);
        const group = (t: Tensor) => rounded(turned(t.rowsView(bounds[g]!, bounds[g + 1]!)), op);
        if (bounds[g] === bounds[g + 1]) expect(part.data.every((value) => value === 0)).toBe(true);
        else expectProduct(part, group(dy), group(x));
      }
    });
  }
});

describe('adamw against torch.optim.AdamW', () => {
  interface Golden {
    settings: { lr: number; betas: [number, number]; eps: number; weight_decay: number };
    start: number[];
    gradients: number[][];
    parameters: number[][];
  }
  const path = new URL('../goldens/backend/adamw.json', import.meta.url);
  const golden = JSON.parse(readFileSync(path, 'utf8')) as Golden;
  const { lr, betas, eps, weight_decay } = golden.settings;
  const f64 = (values: number[]) => new Tensor([values.length], 'f64', Float64Array.from(values));

  it('takes the same four steps in FP64', () => {
    const parameter = f64(golden.start);
    const [m, v] = [Tensor.zeros(parameter.shape, 'f64'), Tensor.zeros(parameter.shape, 'f64')];
    golden.gradients.forEach((gradient, i) => {
      backend.adamw(parameter, f64(gradient), m, v, {
        learningRate: lr,
        beta1: betas[0],
        beta2: betas[1],
        epsilon: eps,
        weightDecay: weight_decay,
        gradientScale: 1,
        biasCorrection1: 1 - betas[0] ** (i + 1),
        biasCorrection2: 1 - betas[1] ** (i + 1),
      });
      // The same formula in another order of operations, in FP64.
      parameter.data.forEach((value, j) => {
        expect(value).toBeCloseTo(golden.parameters[i]![j]!, 12);
      });
    });
  });
});

describe('rope', () => {
  it('turns pairs like the product with cos + i·sin, adjacent or half a slice apart', () => {
    const table = Tensor.f32([1, 2, 2], [Math.cos(0.3), Math.sin(0.3), Math.cos(2), Math.sin(2)]);
    const turn = (interleaved: boolean) => {
      const x = Tensor.f32([1, 5], [9, 1, 0, 0, 1]);
      const layout = { heads: 1, stride: 4, offset: 1, rope: 4, interleaved };
      backend.rope(x, table, Tensor.i32([0]), layout, false);
      return [...x.data];
    };
    const [c0, s0, c1, s1] = table.data as Float32Array;
    // Adjacent: (1 + 0i)·e^0.3i and (0 + 1i)·e^2i. Halves: the pairs are (1, 0) and (0, 1) again, stored apart.
    expect(turn(true)).toEqual([9, c0, s0, -s1!, c1]);
    expect(turn(false)).toEqual([9, c0, -s1!, s0, c1]);
  });
});

import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference/index.js';
import { timedBackend, timesByOp } from '../../src/backend/timed.js';
import { attentionCases } from '../../src/bench/attention-cases.js';
import { randomBatch } from '../../src/bench/batch.js';
import { BF16, E4M3, packed, quantized, randomTensor } from '../../src/bench/cases.js';
import { judge } from '../../src/bench/kernels.js';
import { type Ceilings, highest, memorySeconds } from '../../src/bench/machine.js';
import { measure, median, summarise } from '../../src/bench/measure.js';
import { parseModelConfig } from '../../src/spec/model.js';
import { MODEL_PRESETS } from '../../src/spec/presets.js';
import { Tensor } from '../../src/tensor/tensor.js';

const CEILINGS: Ceilings = { threads: 2, fma32: 4e11, dotbf16: 5e11, amxbf16: 2e12, read: 4e10, copy: 4e10 };

describe('rooflines', () => {
  it('takes reading and writing from the speeds of reading and copying', () => {
    // 2/copy = 1/read + 1/write: at equal speeds of reading and copying, writing has the same.
    expect(memorySeconds(CEILINGS, { read: 4e10, written: 0 })).toBeCloseTo(1, 12);
    expect(memorySeconds(CEILINGS, { read: 4e10, written: 4e10 })).toBeCloseTo(2, 12);
    const slowWrites = { ...CEILINGS, copy: 2e10 };
    expect(memorySeconds(slowWrites, { read: 1e10, written: 1e10 })).toBeCloseTo(1, 12);
    // Half of the cost of writing is the read before it, which an update in place does anyway.
    expect(memorySeconds(CEILINGS, { read: 4e10, written: 0, updated: 4e10 })).toBeCloseTo(1.5, 12);
  });

  it('judges products by the fastest unit and shows the share of the dot product beside it', () => {
    const seconds = summarise([0.5, 1, 4]);
    const result = judge({ name: 'g', target: 0.5 }, { flops: 1e12 }, seconds, CEILINGS);
    expect(result).toMatchObject({ kind: 'compute', rate: 1e12, share: 0.5, shareOfDot: 2, met: true });
    expect(judge({ name: 'g', target: 0.51 }, { flops: 1e12 }, seconds, CEILINGS).met).toBe(false);
  });

  it('judges memory traffic by memory, and nothing without a target', () => {
    const result = judge({ name: 'm' }, { read: 1e10, written: 1e10 }, summarise([1]), CEILINGS);
    expect(result).toMatchObject({ kind: 'memory', rate: 2e10, shareOfDot: null, target: null, met: null });
    expect(result.share).toBeCloseTo(0.5, 12);
  });

  it('keeps the higher of two measurements', () => {
    const other = { ...CEILINGS, read: 9e10, fma32: 1 };
    expect(highest(CEILINGS, other)).toEqual({ ...CEILINGS, read: 9e10 });
  });

  it('counts the products of causal attention', () => {
    const backend = { ...referenceBackend, attention: () => {} };
    const find = (part: string) =>
      attentionCases().find(({ name }) => name.includes(part) && name.includes('V3 heads 192/128, S 256'))!;
    const flops = (part: string) => (find(part).prepare(backend).work as { flops: number }).flops;
    // 8 heads, 16 sequences, 256·257/2 pairs each.
    const pairs = 8 * 16 * ((256 * 257) / 2);
    expect(flops('forward')).toBe(pairs * 2 * (192 + 128));
    expect(flops('backward')).toBe(pairs * 2 * (3 * 192 + 2 * 128));
  });
});

describe('measuring', () => {
  it('takes the middle', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(summarise([3, 1, 2])).toEqual({ median: 2, fastest: 1, slowest: 3, repeats: 3 });
  });

  it('repeats what it is told, many runs to a measurement', () => {
    let runs = 0;
    expect(measure(() => runs++, 3).repeats).toBe(3);
    expect(runs).toBeGreaterThan(100);
  });

  it('tells ops apart by shape and counts their products', () => {
    const { backend, times, reset } = timedBackend(referenceBackend);
    const x = randomTensor(backend, [4, 128], 'f32');
    const w = randomTensor(backend, [1, 8, 128], 'f32');
    const out = Tensor.zeros([4, 8], 'f32');
    backend.gemm(quantized(backend, x, E4M3), packed(backend, w, E4M3), out);
    backend.gemm(quantized(backend, x, E4M3), packed(backend, w, E4M3), out);
    const gemm = times().find(({ op }) => op === 'gemm')!;
    expect(gemm).toMatchObject({
      detail: 'Fprop e4m3 [4, 128] x [8]',
      calls: 2,
      flops: 2 * 2 * 4 * 128 * 8,
    });
    // Codes with a scale per row, and the result in FP32; the weight's layout is the backend's own.
    const weight = backend.packedSizes([1, 8, 128], E4M3, false);
    const weightBytes =
      weight.data.elements * { f64: 8, f32: 4, bf16: 2 }[weight.data.dtype] + weight.scales * 4;
    expect(gemm.bytes).toBe(2 * (4 * 128 + 4 * 4 + weightBytes + 4 * 8 * 4));
    expect(gemm.seconds).toBeGreaterThan(0);
    backend.quantize(
      randomTensor(backend, [2, 128], 'f32'),
      quantized(backend, randomTensor(backend, [2, 128], 'f32'), E4M3),
    );
    expect(timesByOp(times()).find(({ op }) => op === 'quantize')!.calls).toBe(4);
    reset();
    expect(times()).toEqual([]);
  });
});

describe('random batches', () => {
  const model = parseModelConfig(MODEL_PRESETS.tiny, 'tiny');

  it('shifts targets by one token, and MTP targets by one more', () => {
    const batch = randomBatch(model, 3, 16);
    for (let t = 0; t < 48; t++) {
      if (t % 16 === 15) continue;
      expect(batch.targets.data[t]).toBe(batch.inputs.data[t + 1]);
      expect(batch.mtpTargets[0]!.data[t]).toBe(batch.targets.data[t + 1]);
      expect(batch.positions.data[t]).toBe(t % 16);
    }
    expect(batch.mtpInputs[0]!.data).toEqual(batch.targets.data);
    expect([...batch.segments.data]).toEqual([0, 16, 32, 48]);
  });

  it('is the same every time', () => {
    expect(randomBatch(model, 2, 8).inputs.data).toEqual(randomBatch(model, 2, 8).inputs.data);
  });
});

it('operands in BF16 are the activation itself', () => {
  const x = randomTensor(referenceBackend, [2, 128], 'bf16');
  expect(quantized(referenceBackend, x, BF16).codes).toBe(x);
});

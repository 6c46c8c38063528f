import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { InstructionSet, Kernels } from '../backend/native/addon.js';
import { nativeBackend } from '../backend/native/index.js';
import { nativeLogFmt } from '../backend/native/logfmt.js';
import { type LogFmtValues, logFmtBytes } from '../numerics/logfmt.js';
import type { Ui } from '../report/ui.js';
import type { Backend } from '../tensor/backend.js';
import { bytesOf, E4M3, emptyOperand, type PreparedCase, randomTensor } from './cases.js';
import { kernelsOf, requireAddon } from './kernels.js';
import {
  type Ceilings,
  describeMachine,
  highest,
  type Machine,
  measureCeilings,
  memorySeconds,
} from './machine.js';
import { cpuClock, measure, type Timing } from './measure.js';
import { runPeerScript } from './peer.js';

/** One direction of one codec on one core. */
export interface CodecResult {
  name: string;
  /** Where the operands lie. */
  operands: 'cache' | 'memory';
  /** Processor time. */
  seconds: Timing;
  valuesPerSecond: number;
  /** Values as FP32, whatever they are stored in: the rate at which a reader of FP32 would see it. */
  fp32BytesPerSecond: number;
  /** Time that memory needs at least, over the median. */
  roofline: number;
  target: Target | null;
  met: boolean | null;
}

/** What the project asks for: a rate, or a share of the roofline. */
export type Target = { valuesPerSecond: number } | { roofline: number };

/** Another library's cast of the same FP32 array to E4M3, one thread. */
export interface CastPeer {
  name: string;
  operands: CodecResult['operands'];
  seconds: number | null;
  /** Its time over ours, which finds and applies tile scales as well; null where it does not run. */
  speedup: number | null;
  problem: string | null;
}

/** What a codec takes of a network card's time when its cores work for the card alone. */
export interface NicShare {
  format: string;
  bytesPerValue: number;
  encode: number;
  decode: number;
}

export interface NumericsReport {
  machine: Machine;
  ceilings: Ceilings;
  codecs: CodecResult[];
  peers: CastPeer[];
  peerVersions: Record<string, string | null>;
  nic: { bytesPerSecond: number; cores: number; shares: NicShare[] };
}

export interface NumericsOptions {
  isa?: InstructionSet;
  /** Whether to measure PyTorch and ml_dtypes beside us; true by default. */
  peers?: boolean;
}

/** An expert-parallel message in the second-level cache and one from memory; rows of DeepSeek-V3's hidden size [TR §4.2]. */
const SHAPES = { cache: [32, 7168], memory: [4096, 7168] } as const;
/** ConnectX-7, 400 Gb/s [ISCA §4.3]. */
const NIC_BYTES_PER_SECOND = 50e9;
/** Cores that share one network card: assumed, an eighth of a two-socket host of 128 cores. */
const NIC_CORES = 16;
const PEER_SPEEDUP = 3;
const REPEATS = 9;

/** Measures the codecs on one thread, PyTorch and ml_dtypes on the same array, and what the codecs mean for a network card. */
export async function benchNumerics(options: NumericsOptions, ui: Ui): Promise<NumericsReport> {
  const addon = requireAddon();
  const isa = options.isa ?? addon.info().isa;
  const kernels = kernelsOf(addon, isa);
  const before = measureCeilings(addon, kernels, 1);
  const backend = nativeBackend(addon, 1, isa);
  const timed = measureCodecs(backend, kernels, ui);
  const peers = options.peers === false ? [] : await castPeers(backend, ui);
  addon.setThreads(1);
  const ceilings = highest(before, measureCeilings(addon, kernels, 1));
  const codecs = timed.map((codec) => judgeCodec(codec, ceilings));
  return {
    machine: describeMachine(addon, isa),
    ceilings,
    codecs,
    peers: peers.flatMap((times) => comparePeers(times, codecs)),
    peerVersions: peers[0]?.versions ?? {},
    nic: {
      bytesPerSecond: NIC_BYTES_PER_SECOND,
      cores: NIC_CORES,
      shares: [8, 10].map((n) => nicShare(n, codecs)),
    },
  };
}

// ---- Codecs -----------------------------------------------------------------------------------------------------

export interface CodecCase {
  name: string;
  /** Judged on operands in this place only. */
  target?: Target & { on: CodecResult['operands'] };
  prepare(shape: readonly [number, number]): PreparedCase;
}

/** What was measured; of its codec only what judging needs. */
export interface TimedCodec {
  codec: Pick<CodecCase, 'name' | 'target'>;
  operands: CodecResult['operands'];
  work: PreparedCase['work'];
  seconds: Timing;
}

function measureCodecs(backend: Backend, kernels: Kernels, ui: Ui): TimedCodec[] {
  const cases = [quantizeCase(backend), ...[8, 10].flatMap((n) => logFmtCases(n, backend, kernels))];
  const plan = cases.flatMap((codec) =>
    (['cache', 'memory'] as const).map((operands) => ({ codec, operands })),
  );
  const progress = ui.progress('bench numerics');
  const timed = plan.map(({ codec, operands }, done) => {
    progress.update({ done, total: plan.length, details: [codec.name] });
    const { run, work } = codec.prepare(SHAPES[operands]);
    return { codec, operands, work, seconds: measure(run, REPEATS, cpuClock) };
  });
  progress.end();
  return timed;
}

const QUANTIZE = 'quantise FP32 → E4M3, tiles 1×128';

function quantizeCase(backend: Backend): CodecCase {
  return {
    name: QUANTIZE,
    target: { roofline: 0.75, on: 'memory' },
    prepare: (shape) => {
      const x = randomTensor(backend, shape, 'f32');
      const q = emptyOperand(backend, x, E4M3);
      const written = bytesOf(q.codes) + bytesOf(q.scales!);
      return { run: () => backend.quantize(x, q), work: { read: bytesOf(x), written } };
    },
  };
}

const caseName = (bits: number, direction: 'encode' | 'decode', dtype: 'f32' | 'bf16'): string =>
  `LogFMT-${bits} ${direction} ${dtype === 'f32' ? 'FP32' : 'BF16'}`;

/** Both directions, FP32 and BF16. */
function logFmtCases(bits: number, backend: Backend, kernels: Kernels): CodecCase[] {
  const codec = nativeLogFmt(kernels);
  return (['f32', 'bf16'] as const).flatMap((dtype) => {
    const prepare = (shape: readonly [number, number]) => {
      const x = randomTensor(backend, shape, dtype);
      const values = x.data as LogFmtValues;
      const wire = codec.encode(values, x.cols, bits);
      return { values, cols: x.cols, wire, bytes: bytesOf(x) };
    };
    const encode: CodecCase = {
      name: caseName(bits, 'encode', dtype),
      prepare: (shape) => {
        const { values, cols, wire, bytes } = prepare(shape);
        const run = () => void codec.encode(values, cols, bits, 'linear', wire);
        return { run, work: { read: bytes, written: wire.length } };
      },
    };
    const decode: CodecCase = {
      name: caseName(bits, 'decode', dtype),
      prepare: (shape) => {
        const { values, cols, wire, bytes } = prepare(shape);
        const run = () => void codec.decode(wire, cols, bits, values);
        return { run, work: { read: wire.length, written: bytes } };
      },
    };
    if (dtype === 'bf16') return [encode, decode];
    return [
      { ...encode, target: { valuesPerSecond: 1e9, on: 'cache' } },
      { ...decode, target: { valuesPerSecond: 2e9, on: 'cache' } },
    ];
  });
}

/** A timing against memory's speed and its target. */
export function judgeCodec({ codec, operands, work, seconds }: TimedCodec, ceilings: Ceilings): CodecResult {
  const [rows, cols] = SHAPES[operands];
  const valuesPerSecond = (rows * cols) / seconds.median;
  const roofline = 'read' in work ? memorySeconds(ceilings, work) / seconds.median : Number.NaN;
  const { on, ...target } = codec.target ?? { on: undefined };
  const result = {
    name: codec.name,
    operands,
    seconds,
    valuesPerSecond,
    fp32BytesPerSecond: 4 * valuesPerSecond,
    roofline,
  };
  if (on !== operands) return { ...result, target: null, met: null };
  const goal = target as Target;
  const met = 'roofline' in goal ? roofline >= goal.roofline : valuesPerSecond >= goal.valuesPerSecond;
  return { ...result, target: goal, met };
}

const rateOf = (codecs: readonly CodecResult[], name: string, operands: CodecResult['operands']): number =>
  codecs.find((codec) => codec.name === name && codec.operands === operands)!.valuesPerSecond;

/** Time of the codec on all cores over the card's time for the bytes, per value. */
export function nicShare(bits: number, codecs: readonly CodecResult[]): NicShare {
  const bytesPerValue = logFmtBytes(1, 7168, bits) / 7168;
  const share = (direction: 'encode' | 'decode') => {
    const perValue = 1 / (NIC_CORES * rateOf(codecs, caseName(bits, direction, 'bf16'), 'cache'));
    return perValue / (bytesPerValue / NIC_BYTES_PER_SECOND);
  };
  return { format: `LogFMT-${bits}`, bytesPerValue, encode: share('encode'), decode: share('decode') };
}

// ---- Peers ------------------------------------------------------------------------------------------------------

/** What bench/peers/cast_fp8.py prints. */
export interface CastTimes {
  operands: CodecResult['operands'];
  versions: Record<string, string | null>;
  seconds: Record<string, number>;
  failed: Record<string, string>;
}

/** The peers on both of our arrays. */
async function castPeers(backend: Backend, ui: Ui): Promise<CastTimes[]> {
  const folder = mkdtempSync(path.join(tmpdir(), 'fathom-cast-'));
  try {
    const file = path.join(folder, 'values.f32');
    const times: CastTimes[] = [];
    for (const operands of ['cache', 'memory'] as const) {
      const [rows, cols] = SHAPES[operands];
      const { data } = randomTensor(backend, [rows, cols], 'f32');
      writeFileSync(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      const result = await runPeerScript('cast_fp8.py', [file, `${rows}`, `${cols}`], ui);
      times.push({ operands, ...(result as Omit<CastTimes, 'operands'>) });
    }
    return times;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Each peer's time over ours. */
export function comparePeers(
  { operands, seconds, failed }: CastTimes,
  codecs: readonly CodecResult[],
): CastPeer[] {
  const [rows, cols] = SHAPES[operands];
  const ours = (rows * cols) / rateOf(codecs, QUANTIZE, operands);
  const measured = Object.entries(seconds).map(([name, time]) => ({
    name,
    operands,
    seconds: time,
    speedup: time / ours,
    problem: null,
  }));
  const missing = Object.entries(failed).map(([name, problem]) => ({
    name,
    operands,
    seconds: null,
    speedup: null,
    problem,
  }));
  return [...measured, ...missing];
}

/** Whether a peer is as far behind as the project asks; null where it was not measured. */
export const peerMet = ({ speedup }: CastPeer): boolean | null =>
  speedup === null ? null : speedup >= PEER_SPEEDUP;

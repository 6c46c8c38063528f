import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Operand } from '../../spec/precision.js';
import type { RouterShape } from '../../tensor/backend.js';
import type { TensorData } from '../../tensor/tensor.js';

/**
 * The C++ addon as it exports itself (native/*_ops.cc). Arrays are passed as they lie in memory; sizes that cannot be
 * told from their lengths follow as numbers. A wrong size or type throws an Error that names op and argument.
 */
type Data = TensorData;
type Optional = TensorData | undefined;

/** Number formats and scale modes as native/formats.h numbers them, formats of the cache as native/latent_pages.h does. */
export const FORMAT_CODES = { fp32: 0, bf16: 1, e4m3: 2, e5m2: 3, e5m6: 4 } as const;
export const CACHE_FORMAT_CODES = { fp32: 0, bf16: 1, fp8: 2, logfmt8: 3 } as const;
const SCALE_CODES = { fp32: 0, pow2: 1 } as const;
const PER_TENSOR = 2;

/** How an operand is scaled, as the kernels take it. */
export const scaleMode = ({ scale, granularity }: Operand): number =>
  SCALE_CODES[scale] + (granularity === 'tensor' ? PER_TENSOR : 0);

/** experts, topK, groups, topGroups, scoring, method, normalize, scalingFactor. */
type RouterArguments = [number, number, number, number, string, string, boolean, number];

export const routerArguments = (s: RouterShape): RouterArguments => [
  s.experts,
  s.topK,
  s.groups,
  s.topGroups,
  s.scoring,
  s.method,
  s.normalize,
  s.scalingFactor,
];

/** data, format, latent, rope. */
type PageArguments = readonly [Data, number, number, number];

type GemmArguments = [
  a: Data,
  aFormat: number,
  aScales: Optional,
  m: number,
  depth: number,
  packed: Data,
  bFormat: number,
  bScales: Optional,
  columns: number,
  out: Data,
  accumulate: boolean,
  offsets: Optional,
];

type WgradArguments = [
  dy: Data,
  x: Data,
  xFormat: number,
  xScales: Optional,
  m: number,
  n: number,
  k: number,
  gradientFormat: number,
  gradientMode: number,
  inputFormat: number,
  inputMode: number,
  dw: Data,
  offsets: Optional,
  accumulate: boolean,
];

/** Of Hopper's accumulator: one register for the whole contraction, sums in FP32. */
type HopperArguments = [whole: boolean, promote: boolean];

/** The kernels of one instruction-set level. */
export interface Kernels {
  quantize(x: Data, m: number, k: number, format: number, mode: number, codes: Data, scales: Optional): void;
  dequantize(codes: Data, format: number, scales: Optional, out: Data, m: number, k: number): void;
  packedBytes(columns: number, depth: number, format: number): number;
  packWeight(
    w: Data,
    g: number,
    n: number,
    k: number,
    transposed: boolean,
    format: number,
    mode: number,
    data: Data,
    scales: Optional,
  ): void;
  gemm(...gemm: GemmArguments): void;
  hopperGemm(...gemm: [...GemmArguments, ...HopperArguments]): void;
  gemmWgrad(...wgrad: WgradArguments): void;
  hopperWgrad(...wgrad: [...WgradArguments, ...HopperArguments]): void;
  /** x to a narrow format with an FP32 scale per 1×128 tile and back. */
  throughTiles(x: Data, m: number, k: number, format: number, out: Data): void;

  add(a: Data, b: Data, out: Data): void;
  cast(x: Data, out: Data): void;
  fill(x: Data, value: number): void;
  copyColumnsOut(x: Data, cols: number, column: number, out: Data, width: number): void;
  copyColumnsIn(x: Data, width: number, out: Data, cols: number, column: number): void;
  rmsNorm(x: Data, weight: Data, eps: number, y: Data, inverseRms: Data): void;
  rmsNormBackward(dy: Data, x: Data, weight: Data, inverseRms: Data, dx: Data, dweight: Data): void;
  rope(
    x: Data,
    cols: number,
    table: Data,
    positions: Data,
    heads: number,
    stride: number,
    offset: number,
    width: number,
    interleaved: boolean,
    inverse: boolean,
  ): void;
  swiglu(gu: Data, h: Data, inner: number): void;
  swigluBackward(dh: Data, gu: Data, dgu: Data, inner: number): void;

  attention(
    q: Data,
    kv: Data,
    kRope: Data,
    segments: Data,
    queries: Optional,
    heads: number,
    nope: number,
    rope: number,
    v: number,
    scale: number,
    o: Data,
    logSumExp: Data,
  ): void;
  attentionBackward(
    dO: Data,
    q: Data,
    kv: Data,
    kRope: Data,
    o: Data,
    logSumExp: Data,
    segments: Data,
    heads: number,
    nope: number,
    rope: number,
    v: number,
    scale: number,
    dq: Data,
    dkv: Data,
    dkRope: Data,
  ): void;
  latentWrite(latent: Data, kRope: Data, slots: Data, ...pages: PageArguments): void;
  latentRead(
    data: Data,
    format: number,
    latentWidth: number,
    rope: number,
    slots: Data,
    latent: Data,
    kRope: Data,
  ): void;
  latentAttention(
    q: Data,
    data: Data,
    format: number,
    latent: number,
    rope: number,
    bounds: Data,
    lengths: Data,
    pages: Data,
    pageBounds: Data,
    heads: number,
    scale: number,
    o: Data,
  ): void;

  route(logits: Data, bias: Data, ids: Data, weights: Data, load: Data, ...router: RouterArguments): void;
  routeBackward(
    dweights: Data,
    logits: Data,
    ids: Data,
    sequences: Data,
    dlogits: Data,
    balanceLoss: Data,
    balanceFactor: number,
    ...router: RouterArguments
  ): void;
  dispatchPlan(ids: Data, offsets: Data, source: Data, slot: Data, topK: number): void;
  permute(x: Data, source: Data, out: Data, width: number): void;
  unpermute(x: Data, slot: Data, weights: Optional, y: Data, width: number): void;
  unpermuteBackward(
    dy: Data,
    x: Data,
    slot: Data,
    weights: Data,
    dx: Data,
    dweights: Data,
    width: number,
  ): void;

  embedding(ids: Data, table: Data, y: Data, width: number): void;
  embeddingBackward(ids: Data, dy: Data, dtable: Data, width: number): void;
  crossEntropy(
    logits: Data,
    targets: Data,
    losses: Data,
    dlogits: Optional,
    vocabulary: number,
    scale: number,
  ): void;
  argmax(logits: Data, index: Data): void;
  softmaxWeights(logits: Data, temperature: number, weights: Data, sums: Data): void;
  sumOfSquares(x: Data, out: Data): void;
  adamw(
    parameter: Data,
    gradient: Data,
    m: Data,
    v: Data,
    learningRate: number,
    beta1: number,
    beta2: number,
    epsilon: number,
    weightDecay: number,
    gradientScale: number,
    biasCorrection1: number,
    biasCorrection2: number,
  ): void;

  /** Returns the first tile that holds NaN or infinity, or -1. */
  logfmtEncode(values: Data, cols: number, bits: number, linear: boolean, wire: Data): number;
  /** Returns the first tile whose header is damaged, or -1. */
  logfmtDecode(wire: Data, cols: number, bits: number, out: Data): number;

  encodeWeight(format: number, values: Data, k: number, codes: Data, scales: Data): void;
  readRows(weight: unknown, ids: Data, out: Data): void;

  /** Rows of x [T, D] that `source` names (all without) to the wire at `places`, in units of four bytes (native/wire_ops.cc). */
  wireEncode(
    x: Data,
    width: number,
    source: Optional,
    format: number,
    pow2: boolean,
    base: Data,
    places: Data,
  ): void;
  wireDecode(base: Data, places: Data, format: number, out: Data, width: number): void;
  /** out[p] = the rows on the wire that two lists name for p, summed. */
  wireSum(
    base: Data,
    format: number,
    bounds: Data,
    places: Data,
    otherBase: Optional,
    otherFormat: number,
    otherBounds: Optional,
    otherPlaces: Optional,
    out: Data,
    width: number,
  ): void;
  /** Sums as `wireSum` makes of one list, coded to `toPlaces` of `toBase`. */
  wireReturn(
    base: Data,
    format: number,
    bounds: Data,
    places: Data,
    toFormat: number,
    toBase: Data,
    toPlaces: Data,
    width: number,
  ): void;
  /** Sums of weighted rows, one for each pair of `bounds`, in the rows' own type to `places` of `base`. */
  wirePartial(
    rows: Data,
    width: number,
    members: Data,
    weights: Optional,
    bounds: Data,
    base: Data,
    places: Data,
  ): void;

  /** Weights are what storeWeight gave. `sizes`: heads, nope, rope, v, latent. */
  attentionBlock(
    x: Data,
    positions: Data,
    slots: Data,
    cache: Data,
    format: number,
    bounds: Data,
    lengths: Data,
    pages: Data,
    pageBounds: Data,
    inputNorm: Data,
    down: unknown,
    queryNorm: Optional,
    queryUp: unknown,
    latentNorm: Data,
    keyUp: unknown,
    valueUp: unknown,
    output: unknown,
    ropeTable: Data,
    sizes: readonly number[],
    eps: number,
    scale: number,
    interleaved: boolean,
  ): void;
  mlpBlock(x: Data, norm: Data, gateUp: unknown, down: unknown, eps: number): void;
  moeBlock(
    x: Data,
    norm: Data,
    gate: unknown,
    bias: Data,
    gateUp: unknown,
    down: unknown,
    sharedGateUp: unknown,
    sharedDown: unknown,
    eps: number,
    ...router: RouterArguments
  ): void;
  normProject(
    parts: readonly Data[],
    norms: readonly Data[],
    eps: number,
    weight: unknown,
    normed: Data,
    wanted: Data,
    y: Data,
  ): void;
  project(weight: unknown, x: Data, m: number, y: Data, offsets: Optional, accumulate: boolean): void;

  /**
   * Measured now, on all threads: operations per second of a unit (0 where the level lacks it), or bytes per second
   * of memory; a copy counts bytes read and bytes written.
   */
  peak(unit: 'fma32' | 'dotbf16' | 'amxbf16' | 'read' | 'copy'): number;
  /** Bytes a second of reading `bytes` of memory over and over: what a cache of that size gives. */
  readRate(bytes: number): number;
}

export type InstructionSet = 'portable' | 'avx2' | 'avx512' | 'amx';

export interface Addon extends Kernels {
  /** Level in use, best level of this CPU, threads of the pool, CPUs this process may use. */
  info(): { isa: InstructionSet; best: InstructionSet; threads: number; cpus: number };
  setThreads(count: number): void;
  /** The kernels of another level. @throws if this CPU lacks it */
  forIsa(isa: InstructionSet): Kernels;
  /** Uninitialised memory, aligned to 64 bytes, to 2 MB where larger. */
  alloc(bytes: number): ArrayBuffer;
  /** Private pages of a file, read when touched. */
  mapFile(path: string, position: number, bytes: number): ArrayBuffer;
  residentBytes(bytes: Uint8Array): number;
  forgetPages(bytes: Uint8Array): void;
  /** A handle that reads codes and scales where they are; the caller keeps them. Lists have one element for each piece. */
  storeWeight(
    format: number,
    n: number,
    k: number,
    starts: number[],
    rows: number[],
    firsts: number[],
    codes: Uint8Array[],
    scales: (Uint8Array | undefined)[],
  ): unknown;
}

/** build/Release/fathom.node of the package, seen from src/ and from dist/ alike. */
const ADDON_PATH = resolve(dirname(fileURLToPath(import.meta.url)), '../../../build/Release/fathom.node');

let result: { addon?: Addon; problem?: string } | undefined;

/** The addon, loaded once per process, or undefined where it is not built or does not load. */
export const loadAddon = (): Addon | undefined => attempt().addon;

/** Why `loadAddon` gives nothing: one line that names the file. */
export const addonProblem = (): string => attempt().problem ?? 'the addon is loaded';

function attempt(): { addon?: Addon; problem?: string } {
  result ??= tryToLoad();
  return result;
}

function tryToLoad(): { addon?: Addon; problem?: string } {
  if (!existsSync(ADDON_PATH)) return { problem: `${ADDON_PATH} does not exist` };
  try {
    return { addon: createRequire(import.meta.url)(ADDON_PATH) as Addon };
  } catch (error) {
    return { problem: `${ADDON_PATH} does not load: ${firstLine(error)}` };
  }
}

const firstLine = (error: unknown): string => String((error as Error).message ?? error).split('\n')[0]!;

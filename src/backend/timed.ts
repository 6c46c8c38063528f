import type { Backend, PackedWeight, QuantizedTensor } from '../tensor/backend.js';
import type { AttentionWeights, BlockRows, FeedForwardWeights } from '../tensor/blocks.js';
import type { StoredWeight } from '../tensor/inference.js';
import { type LatentPages, type LatentRows, PAGE_TOKENS, pageLayout } from '../tensor/latent-pages.js';
import { Tensor } from '../tensor/tensor.js';

/** Calls of one op on operands of one shape. */
export interface OpTime {
  /** Name of the op, e.g. `gemm`. */
  op: string;
  /** Format and shape where they tell calls apart, e.g. `e4m3 [4096, 256] x [768]`; else empty. */
  detail: string;
  calls: number;
  seconds: number;
  /** Floating-point operations, a multiply-add counting as two; 0 for ops that are not products. */
  flops: number;
  /** Bytes of all operands and results. */
  bytes: number;
  /** Floating-point operations outside of attention that is part of an op. */
  productFlops: number;
  /** Scores of attention that is part of an op, of the columns of tiles that kernels compute, filled or not. */
  pairs: number;
}

/** A backend that measures what each op takes. */
export interface TimedBackend {
  backend: Backend;
  /** What was spent since the last reset, most expensive first. */
  times(): OpTime[];
  reset(): void;
  /** While false, ops run as if the backend were not wrapped. */
  measuring: boolean;
}

/** Wraps a backend whose ops are done when they return. @param clock seconds since some moment */
export function timedBackend(
  inner: Backend,
  clock: () => number = () => performance.now() / 1000,
): TimedBackend {
  const times = new Map<string, OpTime>();
  const state = { measuring: true };
  const backend = new Proxy(inner, {
    get(target, property: keyof Backend) {
      const member = target[property];
      if (!state.measuring || typeof member !== 'function' || property === 'packedSizes') return member;
      return timed(property, member as (...values: unknown[]) => unknown, times, clock);
    },
  });
  return Object.assign(state, {
    backend,
    times: () => [...times.values()].sort((a, b) => b.seconds - a.seconds),
    reset: () => times.clear(),
  });
}

/** Sums of `times` by op, most expensive first. */
export function timesByOp(times: readonly OpTime[]): OpTime[] {
  const sums = new Map<string, OpTime>();
  for (const time of times) addTime(sums, time.op, { ...time, detail: '' });
  return [...sums.values()].sort((a, b) => b.seconds - a.seconds);
}

function addTime(sums: Map<string, OpTime>, key: string, time: OpTime): void {
  const sum = sums.get(key);
  if (!sum) {
    sums.set(key, { ...time });
    return;
  }
  for (const field of ['calls', 'seconds', 'flops', 'productFlops', 'bytes', 'pairs'] as const)
    sum[field] += time[field];
}

function timed(
  op: string,
  run: (...values: unknown[]) => unknown,
  times: Map<string, OpTime>,
  clock: () => number,
) {
  return (...values: unknown[]) => {
    const found = DETAILS[op]?.(values) ?? NO_DETAIL;
    const { detail, flops, productFlops = flops, bytes: read = 0, pairs = 0 } = found;
    const bytes = values.reduce<number>((sum, value) => sum + bytesIn(value), read);
    const started = clock();
    const result = run(...values);
    const seconds = clock() - started;
    addTime(times, `${op} ${detail}`, { op, detail, calls: 1, seconds, flops, productFlops, bytes, pairs });
    return result;
  };
}

/** Bytes of a tensor, or of the tensors that an operand such as a QuantizedTensor consists of; of a cache, which is only partly used, none. */
function bytesIn(value: unknown): number {
  if (value instanceof Tensor) return value.data.byteLength;
  if (typeof value !== 'object' || value === null || isPages(value)) return 0;
  return Object.values(value).reduce(
    (sum, part) => sum + (part instanceof Tensor ? part.data.byteLength : 0),
    0,
  );
}

const isPages = (value: object): value is LatentPages =>
  'latent' in value && 'rope' in value && 'data' in value;

interface Detail {
  detail: string;
  flops: number;
  /** Bytes that the operands do not tell. */
  bytes?: number;
  /** All of them where absent. */
  productFlops?: number;
  /** Of attention that is part of an op. */
  pairs?: number;
}

const NO_DETAIL: Detail = { detail: '', flops: 0 };

/** Heads of rows that attention over the cache computes at a time, whether there are as many or not. */
const TILE_COLUMNS = 16;

/** How calls of an op are told apart; ops without an entry are not. */
const DETAILS: Record<string, (values: unknown[]) => Detail> = {
  gemm: ([a, w, out]) => {
    const { codes } = a as QuantizedTensor;
    const { operand, transposed, shape } = w as PackedWeight;
    const columns = (out as Tensor).cols;
    const kind = transposed ? 'Dgrad' : 'Fprop';
    const groups = shape[0] > 1 ? ` of ${shape[0]} groups` : '';
    return {
      detail: `${kind} ${operand.format} [${codes.rows}, ${codes.cols}] x [${columns}]${groups}`,
      flops: 2 * codes.rows * codes.cols * columns,
    };
  },
  gemmWgrad: ([dy, x, dw, operands]) => {
    const [m, n, k] = [(dy as Tensor).rows, (dy as Tensor).cols, (x as QuantizedTensor).codes.cols];
    const { input } = operands as { input: { format: string } };
    const groups = (dw as Tensor).size / (n * k);
    return {
      detail: `${input.format} [${n}, ${m}] x [${k}]${groups > 1 ? ` in ${groups} groups` : ''}`,
      flops: 2 * m * n * k,
    };
  },
  latentAttention: ([, pages, rows, shape]) => {
    const { format, latent, rope } = pages as LatentPages;
    const { bounds, lengths } = rows as LatentRows;
    const { heads } = shape as { heads: number };
    let [seen, tokens, pairs] = [0, 0, 0];
    lengths.data.forEach((before, s) => {
      const own = bounds.data[s + 1]! - bounds.data[s]!;
      const keys = own * before + (own * (own + 1)) / 2;
      seen += keys;
      tokens += before + own;
      if (own > 0) pairs += (keys / own) * TILE_COLUMNS * Math.ceil((own * heads) / TILE_COLUMNS);
    });
    const bytes = (tokens * pageLayout({ format, latent, rope }).bytes) / PAGE_TOKENS;
    const flops = 2 * heads * seen * (2 * latent + rope);
    return { detail: format, flops, productFlops: 2 * pairs * (2 * latent + rope), bytes, pairs };
  },
  project: ([x, w]) => {
    const { format, groups, n, k, bytes } = w as StoredWeight;
    const { rows } = x as Tensor;
    const shared = groups > 1 ? ` of ${groups} groups` : '';
    return { detail: `${format} [${rows}, ${k}] x [${n}]${shared}`, flops: 2 * rows * n * k, bytes };
  },
  attentionBlock: ([x, w, pages, at]) => {
    const { down, query, keyUp, valueUp, output, heads } = w as AttentionWeights;
    const weights = [down, query?.up, keyUp, valueUp, output].filter((one) => one !== undefined);
    const seen = DETAILS.latentAttention!([x, pages, (at as BlockRows).rows, { heads }]);
    const work = productsOf((x as Tensor).rows, weights);
    return {
      detail: `${down.format}, cache ${seen.detail}`,
      flops: work.flops + seen.flops,
      productFlops: work.flops + seen.productFlops!,
      bytes: work.bytes + seen.bytes!,
      pairs: seen.pairs!,
    };
  },
  feedForwardBlock: ([x, w]) => {
    const { dense, experts } = w as FeedForwardWeights;
    const { rows } = x as Tensor;
    const always = [dense, experts?.shared].flatMap((mlp) => (mlp ? [mlp.gateUp, mlp.down] : []));
    const own = productsOf(rows, experts ? [...always, experts.gate] : always);
    if (!experts) return { detail: dense!.down.format, ...own };
    const { routed, shape } = experts;
    const chosen = productsOf((rows * shape.topK) / shape.experts, [routed.gateUp, routed.down]);
    // Experts that get rows from a router that is even.
    const share = 1 - (1 - shape.topK / shape.experts) ** rows;
    const bytes = own.bytes + chosen.bytes * share;
    return { detail: `${routed.down.format} experts`, flops: own.flops + chosen.flops, bytes };
  },
  normProject: ([, , , w, ids]) => {
    const { format, n, k, bytes } = w as StoredWeight;
    return { detail: format, flops: 2 * (ids as Tensor).size * n * k, bytes };
  },
  quantize: ([x, out]) => {
    const { rows, cols } = x as Tensor;
    return { detail: `${(out as QuantizedTensor).operand.format} [${rows}, ${cols}]`, flops: 0 };
  },
  packWeight: ([, out]) => {
    const { operand, shape, transposed } = out as PackedWeight;
    return {
      detail: `${operand.format} [${shape.join(', ')}]${transposed ? ' transposed' : ''}`,
      flops: 0,
    };
  },
};

/** Operations and bytes of weights of which every group meets `rows` rows. */
function productsOf(rows: number, weights: readonly StoredWeight[]): { flops: number; bytes: number } {
  return {
    flops: weights.reduce((sum, { n, k, groups }) => sum + 2 * rows * n * k * groups, 0),
    bytes: weights.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

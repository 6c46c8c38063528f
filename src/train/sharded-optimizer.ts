import type { Group } from '../expert/transport/transport.js';
import type { Backend } from '../tensor/backend.js';
import { allocate, type Parameter } from '../tensor/parameter.js';
import { Tensor } from '../tensor/tensor.js';
import type { TrainConfig } from './config.js';
import { type GradientNorm, type Segment, type StepOptimizer, stepOf } from './optimizer.js';

/** Elements at which shards are cut: whole cache lines. */
const ALIGNMENT = 16;

/**
 * ZeRO stage 1 [arXiv 1910.02054]: AdamW whose moments are spread over the ranks that hold the same parameters. Gradients are
 * summed to the rank that updates an element, which gives the new value to the others. Experts, which fewer ranks hold, have a
 * group of their own.
 */
export class ShardedOptimizer implements StepOptimizer {
  private readonly families: Family[];

  /** @param groups ranks that hold a parameter, by whether it is one of the routed experts' */
  constructor(
    private readonly backend: Backend,
    parameters: ReadonlyMap<string, Parameter>,
    private readonly config: TrainConfig,
    momentType: 'f32' | 'bf16',
    private readonly world: Group,
    replicas: Group,
  ) {
    const all = [...parameters.values()];
    this.families = [
      new Family(
        backend,
        all.filter((p) => !isExpert(p)),
        momentType,
        world,
      ),
      new Family(backend, all.filter(isExpert), momentType, replicas),
    ];
  }

  get segments(): Segment[] {
    return this.families.flatMap(({ segments }) => segments);
  }

  /** Sums gradients over the ranks; the norm is that of the whole. */
  gradientNorm(): GradientNorm {
    for (const family of this.families) family.reduce();
    const square = Tensor.zeros([1], 'f32');
    const totals = new Float64Array(2);
    const bad: string[] = [];
    for (const family of this.families) {
      for (const segment of family.segments) {
        this.backend.sumOfSquares(family.gradientOf(segment), square);
        const value = square.data[0]!;
        totals[0]! += value;
        if (!Number.isFinite(value)) bad.push(segment.parameter.name);
      }
    }
    totals[1] = bad.length;
    this.world.allReduce(totals, 'sum').wait();
    const [sum, count] = totals as unknown as [number, number];
    const nonFinite = count > 0 && bad.length === 0 ? ['parameters of another rank'] : bad;
    return { norm: Math.sqrt(sum), nonFinite };
  }

  step(count: number, learningRate: number, norm: number): void {
    for (const family of this.families) {
      for (const segment of family.segments) {
        const { parameter, from, to, m, v } = segment;
        const settings = stepOf(this.config, parameter, count, learningRate, norm);
        this.backend.adamw(slice(parameter.value, from, to), family.gradientOf(segment), m, v, settings);
      }
      family.spread();
    }
    this.clearGradients();
  }

  clearGradients(): void {
    for (const { parameters } of this.families) for (const p of parameters) p.clearGradient();
  }
}

/** Routed experts are the grouped weights [E, N, K]. */
export const isExpert = ({ value }: Parameter): boolean => value.shape.length === 3;

const slice = (t: Tensor, from: number, to: number): Tensor =>
  new Tensor([to - from], t.dtype, t.data.subarray(from, to) as Float32Array);

/** Parameters that the ranks of one group hold, cut into one shard for each as if they lay one after the other. */
class Family {
  readonly segments: Segment[];
  /** Elements of each rank's shard, and where this rank's begins. */
  private readonly counts: number[];
  private readonly begin: number;
  /** All elements, on their way to the others; this rank's shard of the sums. Neither is needed by a rank alone. */
  private readonly staging: Float32Array;
  private readonly shard: Float32Array;

  constructor(
    backend: Backend,
    readonly parameters: readonly Parameter[],
    momentType: 'f32' | 'bf16',
    private readonly group: Group,
  ) {
    const ranks = group.members.length;
    const total = parameters.reduce((n, p) => n + p.value.size, 0);
    const width = Math.ceil(total / ranks / ALIGNMENT) * ALIGNMENT;
    this.counts = group.members.map((_, i) => Math.max(0, Math.min(width, total - i * width)));
    this.begin = Math.min(group.index * width, total);
    const shared = ranks > 1;
    this.staging = new Float32Array(backend.allocate(shared ? 4 * total : 0));
    this.shard = new Float32Array(backend.allocate(shared ? 4 * this.counts[group.index]! : 0));
    this.segments = this.ownSegments(backend, momentType);
  }

  /** Sums of gradients to the ranks that update with them. */
  reduce(): void {
    if (this.group.members.length === 1) return;
    this.each((p, at) => this.staging.set(p.gradient().data as Float32Array, at));
    this.group.reduceScatter(this.staging, this.shard, this.counts).wait();
  }

  /** Summed gradient of a segment. */
  gradientOf({ parameter, from, to }: Segment): Tensor {
    if (this.group.members.length === 1) return slice(parameter.gradient(), from, to);
    const at = this.placeOf(parameter) + from - this.begin;
    return new Tensor([to - from], 'f32', this.shard.subarray(at, at + to - from));
  }

  /** New values to all ranks. */
  spread(): void {
    if (this.group.members.length > 1) {
      for (const { parameter, from, to } of this.segments) {
        const at = this.placeOf(parameter) + from - this.begin;
        this.shard.set(parameter.value.data.subarray(from, to) as Float32Array, at);
      }
      this.group.allGather(this.shard, this.staging, this.counts).wait();
      this.each((p, at) => (p.value.data as Float32Array).set(this.staging.subarray(at, at + p.value.size)));
    }
    for (const p of this.parameters) p.valueChanged();
  }

  private ownSegments(backend: Backend, momentType: 'f32' | 'bf16'): Segment[] {
    const end = this.begin + this.counts[this.group.index]!;
    const segments: Segment[] = [];
    this.each((parameter, at) => {
      const from = Math.max(0, this.begin - at);
      const to = Math.min(parameter.value.size, end - at);
      if (from >= to) return;
      const [m, v] = [0, 1].map(() => {
        const moment = allocate(backend, [to - from], momentType);
        backend.fill(moment, 0);
        return moment;
      }) as [Tensor, Tensor];
      segments.push({ parameter, from, to, m, v });
    });
    return segments;
  }

  private placeOf(parameter: Parameter): number {
    let at = 0;
    for (const p of this.parameters) {
      if (p === parameter) return at;
      at += p.value.size;
    }
    throw new Error(`${parameter.name} is not of this family`);
  }

  /** Calls `visit` with each parameter and its place among all elements. */
  private each(visit: (parameter: Parameter, at: number) => void): void {
    let at = 0;
    for (const p of this.parameters) {
      visit(p, at);
      at += p.value.size;
    }
  }
}

import type { Team } from '../expert/team.js';
import type { Group } from '../expert/transport/transport.js';
import type { Backend } from '../tensor/backend.js';
import { allocate, type Parameter } from '../tensor/parameter.js';
import { Tensor } from '../tensor/tensor.js';
import type { TrainConfig } from './config.js';
import { type GradientNorm, type Segment, type StepOptimizer, stepOf } from './optimizer.js';
import { aligned, neighboursOf, Shards } from './shards.js';

/**
 * ZeRO stage 1 [arXiv 1910.02054]: AdamW whose moments are spread over the ranks that hold the same parameters. Gradients are
 * summed to the rank that updates an element, which gives the new value to the others. Experts, which fewer ranks hold, have a
 * group of their own.
 */
export class ShardedOptimizer implements StepOptimizer {
  private readonly families: Family[];
  private readonly world: Group;

  constructor(
    private readonly backend: Backend,
    parameters: ReadonlyMap<string, Parameter>,
    private readonly config: TrainConfig,
    momentType: 'f32' | 'bf16',
    team: Team,
  ) {
    this.world = team.world;
    const all = [...parameters.values()];
    const [common, experts] = [all.filter((p) => !isExpert(p)), all.filter(isExpert)];
    this.families = [
      new Family(backend, common, momentType, shardsOfAll(backend, common, team)),
      new Family(backend, experts, momentType, shardsOf(backend, experts, team.replicas)),
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

/** Elements of parameters, each beginning a cache line. */
const sizeOf = (parameters: readonly Parameter[]): number =>
  parameters.reduce((n, { value }) => n + aligned(value.size), 0);

/** Shards of what all ranks hold; collective. */
function shardsOfAll(backend: Backend, parameters: readonly Parameter[], team: Team): Shards | undefined {
  if (team.size === 1) return undefined;
  const elements = sizeOf(parameters);
  const neighbours = neighboursOf(team, elements);
  const column = neighbours ? team.transport.split(neighbours.local) : team.world;
  return new Shards(elements, column, neighbours, (bytes) => backend.allocate(bytes));
}

/** Shards of what a group holds. */
function shardsOf(backend: Backend, parameters: readonly Parameter[], group: Group): Shards | undefined {
  if (group.members.length === 1) return undefined;
  return new Shards(sizeOf(parameters), group, undefined, (bytes) => backend.allocate(bytes));
}

/** Parameters that the same ranks hold, cut into one shard for each as if they lay one after the other; undefined for a rank alone. */
class Family {
  readonly segments: Segment[] = [];
  /** First element of each parameter. */
  private readonly starts: number[] = [];

  constructor(
    private readonly backend: Backend,
    readonly parameters: readonly Parameter[],
    momentType: 'f32' | 'bf16',
    private readonly shards: Shards | undefined,
  ) {
    let at = 0;
    for (const parameter of parameters) {
      this.starts.push(at);
      const { size } = parameter.value;
      const from = Math.max(0, (shards?.begin ?? 0) - at);
      const to = Math.min(size, (shards?.end ?? Number.POSITIVE_INFINITY) - at);
      if (from < to) this.segments.push({ parameter, from, to, ...moments(backend, to - from, momentType) });
      if (shards) parameter.keepGradientIn(shards.own.subarray(at, at + size));
      at += aligned(size);
    }
  }

  /** Sums of gradients to the ranks that update with them. */
  reduce(): void {
    for (const p of this.parameters) p.gradient();
    this.shards?.sum((sum, addend) => {
      const [to, from] = [flat(sum), flat(addend)];
      this.backend.add(to, from, to);
    });
  }

  /** Summed gradient of a segment. */
  gradientOf({ parameter, from, to }: Segment): Tensor {
    return slice(parameter.gradient(), from, to);
  }

  /** New values to all ranks. */
  spread(): void {
    const { shards } = this;
    if (shards) {
      for (const { parameter, from, to } of this.segments) {
        const values = parameter.value.data.subarray(from, to) as Float32Array;
        (parameter.gradient().data as Float32Array).set(values, from);
      }
      shards.spread((values, from) => this.take(values, from));
    }
    for (const p of this.parameters) p.valueChanged();
  }

  /** Values of the elements from `begin` on. */
  private take(values: Float32Array, begin: number): void {
    this.parameters.forEach(({ value }, i) => {
      const start = this.starts[i]!;
      const from = Math.max(begin, start);
      const to = Math.min(begin + values.length, start + value.size);
      if (from >= to) return;
      (value.data as Float32Array).set(values.subarray(from - begin, to - begin), from - start);
    });
  }
}

const flat = (values: Float32Array): Tensor => new Tensor([values.length], 'f32', values);

function moments(backend: Backend, size: number, type: 'f32' | 'bf16'): { m: Tensor; v: Tensor } {
  const [m, v] = [0, 1].map(() => {
    const moment = allocate(backend, [size], type);
    backend.fill(moment, 0);
    return moment;
  }) as [Tensor, Tensor];
  return { m, v };
}

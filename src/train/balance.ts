import type { RouterState } from '../model/context.js';

/** Load of the experts of one layer, over one step. */
export interface ExpertLoad {
  layer: number;
  /** Tokens per expert. */
  counts: Float64Array;
}

/** Collects expert loads over the micro-batches of a step and moves the biases [TR §2.1.2; arXiv 2408.15664]. */
export class LoadBalancer {
  private readonly counts = new Map<number, Float64Array>();

  constructor(private readonly routers: ReadonlyMap<number, RouterState>) {
    for (const [layer, router] of routers) this.counts.set(layer, new Float64Array(router.bias.size));
  }

  /** Adds what the last forward pass on a lane saw. */
  collect(lane: number): void {
    for (const [layer, { seen }] of this.routers) {
      const counts = this.counts.get(layer)!;
      const { load } = seen[lane]!;
      for (let e = 0; e < counts.length; e++) counts[e] = counts[e]! + load.data[e]!;
    }
  }

  /** Lets `sum` add up the loads of several processes, all layers in one array. */
  share(sum: (counts: Float64Array) => void): void {
    const every = Float64Array.from([...this.counts.values()].flatMap((counts) => [...counts]));
    sum(every);
    let at = 0;
    for (const counts of this.counts.values()) {
      counts.set(every.subarray(at, at + counts.length));
      at += counts.length;
    }
  }

  /** b_i += γ·sign(mean load − load_i); then forgets the loads. */
  update(gamma: number): ExpertLoad[] {
    const loads: ExpertLoad[] = [];
    for (const [layer, { bias }] of this.routers) {
      const counts = this.counts.get(layer)!;
      const mean = counts.reduce((a, b) => a + b, 0) / counts.length;
      for (let e = 0; e < counts.length; e++)
        bias.data[e] = bias.data[e]! + gamma * Math.sign(mean - counts[e]!);
      loads.push({ layer, counts: counts.slice() });
      counts.fill(0);
    }
    return loads;
  }

  /** Forgets the loads of a step that is given up. */
  discard(): void {
    for (const counts of this.counts.values()) counts.fill(0);
  }
}

/** Maximal load violation: (largest load − mean) / mean [arXiv 2408.15664 §4.1]. */
export function maximalViolation({ counts }: ExpertLoad): number {
  const mean = counts.reduce((a, b) => a + b, 0) / counts.length;
  return mean > 0 ? Math.max(...counts) / mean - 1 : 0;
}

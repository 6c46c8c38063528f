import type { Placement } from '../expert/balance.js';
import type { Channel } from '../expert/channel.js';
import { planSending } from '../expert/plan.js';
import { Replicas } from '../expert/replicas.js';
import { Trip } from '../expert/trip.js';
import type { ExpertWeights, FeedForwardWeights, SwigluWeights } from '../tensor/blocks.js';
import type { Tape } from '../tensor/tape.js';
import { Tensor } from '../tensor/tensor.js';
import { norm, project, swiglu } from './compose.js';

/** This rank's experts of one layer, and the way to the others'. All ranks of a group pass through their layers together. */
export class ShardedExperts {
  /** [E]: how often this rank's tokens chose each expert, since it was cleared. */
  readonly chosen: Float64Array;
  /** Rows that this rank's experts have computed, since it was cleared. */
  rows = 0;
  private replicas: Replicas;

  constructor(
    readonly layer: number,
    readonly channel: Channel,
    private readonly weights: { -readonly [field in keyof ExpertWeights]: ExpertWeights[field] },
    placement: Placement,
  ) {
    this.chosen = new Float64Array(weights.shape.experts);
    this.replicas = this.replicasOf(placement);
  }

  get placement(): Placement {
    return this.replicas.placement;
  }

  /** Experts that a placement gives to this rank, in their places. */
  ownOf(placement: Placement): Placement {
    const { index, perRank } = this.channel.layout;
    return placement.subarray(index * perRank, (index + 1) * perRank);
  }

  /** Weights of this rank's experts, a group for each place. */
  get routed(): SwigluWeights {
    return this.weights.routed;
  }

  /** Goes over to another placement, with the weights of this rank's places in it. */
  place(placement: Placement, routed: SwigluWeights): void {
    this.replicas = this.replicasOf(placement);
    this.weights.routed = routed;
  }

  /** Sends u [T, D] to the places of the experts `ids` i32 [T, K]. */
  send(u: Tensor, ids: Int32Array, weights: Float32Array): Trip {
    const { channel } = this;
    const { topK, maxTokens } = channel.shape;
    if (u.rows > maxTokens) throw new Error(`${u.rows} tokens at once, and there is room for ${maxTokens}`);
    const trip = new Trip(channel, planSending(channel.layout, topK, this.replicas.placesOf(ids), weights));
    trip.sendTokens(u);
    return trip;
  }

  private replicasOf(placement: Placement): Replicas {
    return new Replicas(placement, this.channel.layout, this.weights.shape.experts);
  }
}

/**
 * x [M, D] += MoE of its norm, with experts of other ranks; their tokens pass through this rank's experts meanwhile, so that all
 * ranks call it for a layer, with no rows where they have none. The shared experts are computed while tokens fly.
 */
export function shardedFeedForward(
  tape: Tape,
  x: Tensor,
  w: FeedForwardWeights,
  experts: ShardedExperts,
): void {
  const { shared } = w.experts!;
  const u = x.rows > 0 ? norm(tape, x, w.norm, w.eps) : x;
  const { ids, weights } = choose(tape, u, w.experts!, experts);
  const trip = experts.send(u, ids, weights);
  const own = shared && x.rows > 0 ? project(tape, swiglu(tape, u, shared), shared.down) : undefined;
  const rows = tape.alloc([trip.awaitRows(), u.cols], 'f32');
  trip.receiveRows(rows);
  experts.rows += rows.rows;
  trip.sendResults(throughExperts(tape, rows, experts.routed, trip.plan.offsets), true);
  const y = tape.alloc(x.shape, 'f32');
  trip.receiveResults(y);
  if (x.rows === 0) return;
  tape.backend.add(x, y, x);
  if (own) tape.backend.add(x, own, x);
}

/** Experts of the rows of u, i32 and f32 [T, K]; counts them. */
function choose(
  tape: Tape,
  u: Tensor,
  w: ExpertWeights,
  { chosen }: ShardedExperts,
): { ids: Int32Array; weights: Float32Array } {
  if (u.rows === 0) return { ids: new Int32Array(0), weights: new Float32Array(0) };
  const { experts, topK } = w.shape;
  const ids = tape.alloc([u.rows, topK], 'i32');
  const weights = tape.alloc([u.rows, topK], 'f32');
  const counts = tape.alloc([experts], 'i32');
  tape.backend.route(project(tape, u, w.gate), w.bias, w.shape, ids, weights, counts);
  (counts.data as Int32Array).forEach((count, expert) => {
    chosen[expert]! += count;
  });
  return { ids: ids.data as Int32Array, weights: weights.data as Float32Array };
}

/** rows [R, D] of this rank's places, sorted by them → [R, D]. */
function throughExperts(tape: Tape, rows: Tensor, w: SwigluWeights, offsets: Int32Array): Tensor {
  if (rows.rows === 0) return rows;
  const bounds = Tensor.i32(offsets);
  return project(tape, swiglu(tape, rows, w, bounds), w.down, bounds);
}

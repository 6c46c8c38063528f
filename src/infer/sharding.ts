import {
  imbalanceOf,
  inOrder,
  keepPlaces,
  loadsOfRanks,
  type Placement,
  placeExperts,
} from '../expert/balance.js';
import type { Channel } from '../expert/channel.js';
import type { Team } from '../expert/team.js';
import type { ModelConfig } from '../spec/model.js';
import type { ExpertWeights } from '../tensor/blocks.js';
import type { StoredWeight, WeightPiece } from '../tensor/inference.js';
import type { ExpertRows, PlacementByLoad } from './engine.js';
import { ShardedExperts } from './sharded-experts.js';
import type { ExpertSharding, WeightSource } from './stored-model.js';

/** Share of its busiest rank's rows that a layer must save for its experts to move: weights are read for it. Assumed. */
const LEAST_GAIN = 0.03;

/** All experts of a model over ranks: which lie where, and when measured loads decide anew. Legend: L layers with experts, E experts. */
export class Sharding implements ExpertSharding {
  private readonly placements: PlacementByLoad[] = [];
  private readonly layers: ShardedExperts[] = [];
  private readonly first: Placement;
  private readonly experts: number;
  private passes = 0;

  /** @param every passes between placements; undefined: experts stay where they are */
  constructor(
    private readonly team: Team,
    private readonly channel: Channel,
    private readonly source: WeightSource,
    private readonly every: number | undefined,
  ) {
    this.experts = source.config.n_routed_experts;
    this.first = inOrder(this.experts, channel.layout.experts);
  }

  get own(): Placement {
    const { index, perRank } = this.channel.layout;
    return this.first.subarray(index * perRank, (index + 1) * perRank);
  }

  shard(layer: number, weights: ExpertWeights): ShardedExperts {
    const experts = new ShardedExperts(layer, this.channel, weights, this.first);
    this.layers.push(experts);
    return experts;
  }

  /** Rows of this rank's experts since they were placed, [L]. */
  get computed(): ExpertRows {
    return { rows: this.layers.map(({ rows }) => rows), placements: this.placements };
  }

  /** Counts a pass of all ranks, and places experts anew when it is time; collective. */
  passed(): void {
    this.passes++;
    if (this.layers.length === 0) return;
    if (this.every !== undefined && this.passes % this.every === 0) this.placeByLoad();
  }

  private placeByLoad(): void {
    const started = performance.now();
    const { team, layers, experts } = this;
    const chosen = team.sum(Float64Array.from(layers.flatMap((layer) => [...layer.chosen])));
    const rows = team.gather(new Uint8Array(Float64Array.from(this.computed.rows).buffer));
    const before = measuredImbalance(rows.map((bytes) => [...new Float64Array(bytes.slice().buffer)]));
    const expected: Float64Array[] = [];
    let moved = 0;
    layers.forEach((layer, l) => {
      const loads = chosen.subarray(l * experts, (l + 1) * experts);
      const next = this.better(layer.placement, loads);
      if (next) moved += this.move(layer, next);
      expected.push(this.loadsOf(layer.placement, loads));
      layer.chosen.fill(0);
      layer.rows = 0;
    });
    const ranks = Array.from({ length: this.channel.layout.size }, (_, r) => expected.map((of) => of[r]!));
    const seconds = (performance.now() - started) / 1000;
    this.placements.push({ pass: this.passes, before, expected: measuredImbalance(ranks), moved, seconds });
  }

  private loadsOf(placement: Placement, loads: Float64Array): Float64Array {
    return loadsOfRanks(placement, loads, this.channel.layout.size);
  }

  /** A placement that is worth the move. */
  private better(now: Placement, loads: Float64Array): Placement | undefined {
    const { layout } = this.channel;
    const { size: ranks, experts: places } = layout;
    const groups = this.source.config.n_group;
    const parts = partsOf(this.source.config, layout.nodes);
    const next = placeExperts({ loads, places, ranks, parts, groups });
    const gain = 1 - imbalanceOf(this.loadsOf(next, loads)) / imbalanceOf(this.loadsOf(now, loads));
    return gain < LEAST_GAIN ? undefined : keepPlaces(next, now, ranks, parts);
  }

  /** @returns experts that ranks of a group have to load */
  private move(layer: ShardedExperts, next: Placement): number {
    const { size, perRank } = this.channel.layout;
    const prefix = `model.layers.${layer.layer}.mlp.experts.`;
    const own = layer.ownOf(next);
    const held = layer.ownOf(layer.placement);
    const take = (name: string, weight: StoredWeight) =>
      this.source.groups(`${prefix}${name}`, own, piecesOf(weight, held));
    let loaded = 0;
    for (let rank = 0; rank < size; rank++) {
      const [from, to] = [rank * perRank, (rank + 1) * perRank];
      const before = layer.placement.subarray(from, to);
      loaded += new Set(next.subarray(from, to).filter((expert) => !before.includes(expert))).size;
    }
    const { gateUp, down } = layer.routed;
    layer.place(next, { gateUp: take('gate_up_proj', gateUp), down: take('down_proj', down) });
    return loaded;
  }
}

/** Pieces of each expert that is held. */
const piecesOf = ({ pieces }: StoredWeight, held: Placement): Map<number, readonly WeightPiece[]> =>
  new Map(Array.from(held, (expert, place) => [expert, pieces[place]!]));

/** Parts that experts stay in: the nodes, where a token goes to some of them only. */
export const partsOf = ({ n_group: groups, topk_group: taken }: ModelConfig, nodes: number): number =>
  taken < groups && groups % nodes === 0 ? nodes : 1;

/** Rows of the busiest rank over those of a mean one, summed over layers, as they follow each other. @param rows [ranks][L] */
export function measuredImbalance(rows: readonly (readonly number[])[]): number {
  const layers = rows[0]?.map((_, l) => rows.map((of) => of[l]!)) ?? [];
  const most = layers.reduce((sum, of) => sum + Math.max(...of), 0);
  const all = layers.flat().reduce((a, b) => a + b, 0);
  return all > 0 ? (most * rows.length) / all : 1;
}

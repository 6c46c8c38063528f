import type { Placement } from './balance.js';
import { copiesOf } from './balance.js';
import type { ExpertLayout } from './layout.js';

/**
 * Which copy of an expert the tokens of one rank go to: one on its own node where there is one, and in turn where there are
 * several. The router's ids become numbers of places here, and dispatch and combine know nothing else.
 */
export class Replicas {
  /** Places of expert e that this rank uses: `places[starts[e]..starts[e + 1]]`. */
  private readonly starts: Int32Array;
  private readonly places: Int32Array;
  /** Whose turn it is, by expert. */
  private readonly turn: Uint32Array;

  constructor(
    readonly placement: Placement,
    layout: Pick<ExpertLayout, 'perRank' | 'perNode' | 'node' | 'index'>,
    experts: number,
  ) {
    const ofNode = layout.perRank * layout.perNode;
    const near = (place: number) => Math.floor(place / ofNode) === layout.node;
    const nearby = copiesOf(placement.subarray(layout.node * ofNode, (layout.node + 1) * ofNode), experts);
    const used: number[][] = Array.from({ length: experts }, () => []);
    placement.forEach((expert, place) => {
      if (nearby[expert] === 0 || near(place)) used[expert]!.push(place);
    });
    this.places = Int32Array.from(used.flat());
    this.starts = new Int32Array(experts + 1);
    used.forEach((list, expert) => {
      this.starts[expert + 1] = this.starts[expert]! + list.length;
    });
    // Ranks begin with different copies.
    this.turn = new Uint32Array(experts).fill(layout.index);
  }

  /** Places of the experts `ids` i32 [T, K]. */
  placesOf(ids: Int32Array): Int32Array {
    return ids.map((expert) => {
      const start = this.starts[expert]!;
      const count = this.starts[expert + 1]! - start;
      return this.places[start + (count === 1 ? 0 : this.turn[expert]!++ % count)]!;
    });
  }
}

import { UserError } from '../../errors.js';
import type {
  Counter,
  Elements,
  Group,
  Pending,
  Placement,
  SharedMemory,
  Transport,
  WatchedTransport,
} from '../transport/transport.js';
import { DONE, nodeOf, nodesOf } from '../transport/transport.js';
import { isWhole } from './conversation.js';
import { PlaneGroup } from './group.js';
import { Router } from './router.js';

/** How long a wait sleeps before it looks at links and acknowledgements; what arrives wakes it at once. */
const SLICE_MS = 2;
/** First tag of groups' messages; those of callers are below. */
const GROUP_TAGS = 20_000;
/** How long a rank stays at the end for acknowledgements. */
const LINGER_MS = 2000;

export interface PlaneOptions {
  /** Planes of the network: a rank is on the one that its place in the node says, modulo planes. */
  planes: number;
  /** Seconds of silence on all planes after which a node is given up. */
  lostAfterSeconds: number;
  /** Told of planes that fail and come back, in words. */
  onPlane?: ((text: string) => void) | undefined;
}

/**
 * Ranks on the planes of a network [ISCA §5.1]: messages between nodes go from place to place, each on its plane; where a
 * plane is down they go through a neighbour of another plane. Of `base` it uses no message that crosses planes.
 */
export class PlaneTransport implements Transport {
  readonly kind;
  readonly rank: number;
  readonly placement: Placement;
  readonly world: Group;
  readonly router: Router;
  /** The ranks of this node. */
  private readonly near: Group;
  private groups = 0;
  private readonly neighbours = new Map<number, Group>();

  /** Collective. @throws UserError where nodes and planes do not go together */
  constructor(
    private readonly base: WatchedTransport,
    options: PlaneOptions,
  ) {
    this.kind = base.kind;
    this.rank = base.rank;
    this.placement = base.placement;
    checkPlanes(base.placement, options.planes);
    const speaks = (node: number) => this.speaksFor(node, options.planes);
    this.router = new Router(base, {
      ...options,
      onWay: (node, own) => speaks(node) && options.onPlane?.(this.describe(node, own, options)),
    });
    this.near = this.watched(base.split(nodeOf(base.placement, base.rank)));
    this.world = new PlaneGroup(this, base.world.members, this.near, GROUP_TAGS + this.groups++);
  }

  split(colour: number): Group {
    const { size } = this.placement;
    const colours = new Int32Array(size);
    this.world.allGather(Int32Array.of(colour), colours, Array<number>(size).fill(1)).wait();
    const members = this.world.members.filter((rank) => colours[rank] === colour);
    // Parts of one colour on each node, numbered by their first member, which no other part has.
    const near = members.filter((rank) => nodeOf(this.placement, rank) === nodeOf(this.placement, this.rank));
    const inner = this.watched(this.base.split(near[0]!));
    const isNear = members.length === near.length;
    return isNear ? inner : new PlaneGroup(this, members, inner, GROUP_TAGS + this.groups++);
  }

  share(bytes: number, ranks: number): SharedMemory {
    // Nobody serves others within `base.share`: it is entered when all are there.
    this.sharing(ranks).barrier().wait();
    const memory = this.base.share(bytes, ranks);
    const counter = (index: number) => new PlaneCounter(memory.counter(index), this.router);
    return { bytes: memory.bytes, stride: memory.stride, counter };
  }

  send(data: Elements, to: number, tag: number): Pending {
    if (this.isNear(to)) return this.watch(this.base.send(data, to, tag));
    this.router.send(bytesOf(data), to, tag);
    return DONE;
  }

  receive(into: Elements, from: number, tag: number, arrived?: Counter): Pending {
    const counter = arrived instanceof PlaneCounter ? arrived.base : arrived;
    if (this.isNear(from)) return this.watch(this.base.receive(into, from, tag, counter));
    const incoming = this.router.ask(bytesOf(into), from, tag, counter);
    const { until } = this;
    return {
      get done() {
        return isWhole(incoming);
      },
      wait: () => {
        until(() => isWhole(incoming));
        return incoming.total;
      },
    };
  }

  close(): void {
    this.world.barrier().wait();
    const started = performance.now();
    // What has been sent is there, or was given up; then nobody of the node needs this rank on the way any more.
    this.until(() => {
      this.router.acknowledge(true);
      return this.router.settled || performance.now() - started > LINGER_MS;
    });
    this.near.barrier().wait();
    this.base.close();
  }

  lost(): number[] {
    return this.base.lost();
  }

  abort(code: number): void {
    this.base.abort(code);
  }

  /** Serves others until it is so. */
  private readonly until = (ready: () => boolean): void => {
    for (;;) {
      const seen = this.base.news();
      this.router.serve();
      if (ready()) return;
      const asleep = performance.now();
      this.base.awaitNews(seen, SLICE_MS);
      if (performance.now() - asleep >= SLICE_MS) this.router.acknowledge(true);
    }
  };

  private watch(pending: Pending): Pending {
    const { until } = this;
    return {
      get done() {
        return pending.done;
      },
      wait: () => {
        until(() => pending.done);
        return pending.wait();
      },
    };
  }

  /** So many neighbours; collective over all ranks the first time. */
  private sharing(ranks: number): Group {
    const group = this.neighbours.get(ranks) ?? this.watched(this.base.split(Math.floor(this.rank / ranks)));
    this.neighbours.set(ranks, group);
    return group;
  }

  private watched(inner: Group): Group {
    return new WatchedGroup(inner, (pending) => this.watch(pending));
  }

  private isNear(rank: number): boolean {
    return nodeOf(this.placement, rank) === nodeOf(this.placement, this.rank);
  }

  /** Of the ranks that see a plane of two nodes fail one tells it. */
  private speaksFor(node: number, planes: number): boolean {
    return this.rank % this.placement.perNode < planes && nodeOf(this.placement, this.rank) < node;
  }

  private describe(node: number, own: boolean, { planes }: PlaneOptions): string {
    const { hosts, perNode } = this.placement;
    const [here, there] = [hosts[this.rank], hosts[node * perNode]];
    const plane = `plane ${(this.rank % perNode) % planes} between ${here} and ${there}`;
    return own
      ? `${plane} works again`
      : `${plane} is silent: its messages go through neighbours on other planes`;
  }
}

const bytesOf = (data: Elements): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** @throws UserError */
export function checkPlanes(placement: Placement, planes: number): void {
  const { perNode } = placement;
  if (nodesOf(placement) > 1 && perNode % planes === 0) return;
  throw new UserError(
    nodesOf(placement) === 1
      ? `--planes names ${planes} planes of a network, but all ranks are on one node; leave it out`
      : `--planes names ${planes} planes, which do not divide the ${perNode} ranks of a node; start a multiple of ${planes} on every host`,
  );
}

/** Waits serve others. */
class PlaneCounter implements Counter {
  constructor(
    readonly base: Counter,
    private readonly router: Router,
  ) {}

  add(delta: number): void {
    this.base.add(delta);
  }

  wait(target: number): void {
    while (!this.reach(target, SLICE_MS)) this.router.acknowledge(true);
  }

  reach(target: number, milliseconds: number): boolean {
    this.router.serve();
    return this.base.reach(target, milliseconds);
  }
}

/** A group within a node, whose waits serve others. */
class WatchedGroup implements Group {
  constructor(
    private readonly inner: Group,
    private readonly watch: (pending: Pending) => Pending,
  ) {}

  get members(): readonly number[] {
    return this.inner.members;
  }

  get index(): number {
    return this.inner.index;
  }

  barrier(): Pending {
    return this.watch(this.inner.barrier());
  }

  broadcast(...args: Parameters<Group['broadcast']>): Pending {
    return this.watch(this.inner.broadcast(...args));
  }

  allReduce(...args: Parameters<Group['allReduce']>): Pending {
    return this.watch(this.inner.allReduce(...args));
  }

  reduceScatter(...args: Parameters<Group['reduceScatter']>): Pending {
    return this.watch(this.inner.reduceScatter(...args));
  }

  allGather(...args: Parameters<Group['allGather']>): Pending {
    return this.watch(this.inner.allGather(...args));
  }

  allToAll(...args: Parameters<Group['allToAll']>): Pending {
    return this.watch(this.inner.allToAll(...args));
  }
}

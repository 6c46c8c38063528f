import { UserError } from '../../errors.js';
import type { Counter, Pending, SharedMemory, WatchedTransport } from '../transport/transport.js';
import { nodeOf, nodesOf } from '../transport/transport.js';
import { Conversation, type Held, type Incoming } from './conversation.js';
import { FRAME_BYTES, readHeader } from './frame.js';

/**
 * The ways of frames between nodes [ISCA §5.1]. A rank sends on its own plane, to the rank with its place in another node,
 * which hands frames for neighbours on. Where a plane is down between two nodes, frames go to a neighbour on another plane,
 * through it to its counterpart in the other node, and there to their rank. All of that happens while ranks wait.
 */

/** Of all frames, within nodes and between them. */
const TAG = 30_000;
/** Frames that may come on a way while this rank computes: from another node, and from a neighbour. */
const [OPEN_ACROSS, OPEN_WITHIN] = [16, 4];
/** Silence after which a link is taken for cut, and below which it is taken for whole again; beats come every 0.25 s. */
const [DOWN_SECONDS, UP_SECONDS] = [1, 0.6];
const LOOK_MS = 20;

/** Open receives of one way in, in their order. */
interface Port {
  from: number;
  open: { frame: Uint8Array; pending: Pending }[];
}

export interface RouterOptions {
  planes: number;
  /** Seconds of silence on all planes after which a node is given up. */
  lostAfterSeconds: number;
  /** Called when the way to a node has changed: whether it is this rank's own plane again. */
  onWay?: ((node: number, own: boolean) => void) | undefined;
}

export class Router {
  /** Frames of others that this rank has sent on. */
  forwarded = 0;
  private readonly conversations = new Map<number, Conversation>();
  private readonly ports: Port[] = [];
  /** Sends under way. */
  private sends: { pending: Pending; held?: Held }[] = [];
  /** To each node: the neighbour's rank that carries frames there, or this rank. */
  private readonly ways: number[];
  /** Seconds for which links of every rank of this node have been silent: f32 [places, nodes], shared. */
  private readonly silences: SharedMemory;
  private readonly node: number;
  private readonly local: number;
  private lookedMs = 0;

  constructor(
    private readonly base: WatchedTransport,
    private readonly options: RouterOptions,
  ) {
    const { rank, placement } = base;
    const { perNode } = placement;
    this.node = nodeOf(placement, rank);
    this.local = rank % perNode;
    this.ways = Array<number>(nodesOf(placement)).fill(rank);
    this.silences = base.share(4 * this.ways.length, perNode);
    for (let place = 0; place < perNode; place++) {
      if (place !== this.local) this.openPort(this.node * perNode + place, OPEN_WITHIN);
    }
    for (const node of this.otherNodes) this.openPort(this.counterpart(node), OPEN_ACROSS);
  }

  get otherNodes(): number[] {
    return this.ways.flatMap((_, node) => (node === this.node ? [] : [node]));
  }

  /** The rank with this rank's place in a node. */
  counterpart(node: number): number {
    return node * this.base.placement.perNode + this.local;
  }

  send(data: Uint8Array, to: number, tag: number): void {
    const held = this.with(to).send(data, tag, unfilled);
    const way = this.wayTo(to);
    for (const one of held) this.pass(one.frame, way);
  }

  ask(into: Uint8Array, from: number, tag: number, arrived: Counter | undefined): Incoming {
    return this.with(from).ask(into, tag, arrived);
  }

  /** Takes what has come, hands on what is others', looks after the links. @throws UserError where a node is cut off */
  serve(): void {
    for (const port of this.ports) this.collect(port);
    this.sends = this.sends.filter(({ pending }) => !finished(pending));
    if (performance.now() - this.lookedMs > LOOK_MS) this.look();
    this.acknowledge(false);
  }

  /** Tells what has arrived. @param soon even of a few frames */
  acknowledge(soon: boolean): void {
    for (const conversation of this.conversations.values()) {
      const frame = conversation.untold > 0 && conversation.acknowledgement(soon);
      if (frame) this.pass(frame, this.wayTo(conversation.peer));
    }
  }

  /** Whether all that was sent has arrived. */
  get settled(): boolean {
    return [...this.conversations.values()].every(({ held }) => held.length === 0);
  }

  private with(peer: number): Conversation {
    let conversation = this.conversations.get(peer);
    if (!conversation) {
      conversation = new Conversation(this.base.rank, peer);
      this.conversations.set(peer, conversation);
    }
    return conversation;
  }

  private openPort(from: number, count: number): void {
    const open = Array.from({ length: count }, () => this.listen(new Uint8Array(FRAME_BYTES), from));
    this.ports.push({ from, open });
  }

  private listen(frame: Uint8Array, from: number): Port['open'][number] {
    return { frame, pending: this.base.listen(frame, from, TAG) };
  }

  private collect({ from, open }: Port): void {
    while (open[0]!.pending.done) {
      const { frame, pending } = open.shift()!;
      this.take(frame, pending.wait());
      open.push(this.listen(frame, from));
    }
  }

  /** @param length of the frame, whose memory is used again afterwards */
  private take(frame: Uint8Array, length: number): void {
    const header = readHeader(frame);
    if (header.target === this.base.rank) {
      this.with(header.source).take(frame, header);
      return;
    }
    this.forwarded++;
    const there = nodeOf(this.base.placement, header.target);
    const next = there === this.node ? header.target : this.counterpart(there);
    this.pass(frame.slice(0, length), next);
  }

  private pass(frame: Uint8Array, to: number): void {
    this.sends.push({ pending: this.base.send(frame, to, TAG) });
  }

  /** The next rank on the way to another node's rank. */
  private wayTo(rank: number): number {
    const node = nodeOf(this.base.placement, rank);
    const way = this.ways[node]!;
    return way === this.base.rank ? this.counterpart(node) : way;
  }

  /** Compares links; where the way to a node has failed, frames that may be lost with it are sent on another. */
  private look(): void {
    this.lookedMs = performance.now();
    for (const node of this.otherNodes) {
      this.silenceOf(this.local)[node] = this.base.silence(this.counterpart(node));
      const before = this.ways[node]!;
      const way = this.choose(node, before);
      if (way === before) continue;
      this.ways[node] = way;
      this.options.onWay?.(node, way === this.base.rank);
      if (way !== this.base.rank) this.sendAgain(node);
    }
  }

  private choose(node: number, before: number): number {
    const { rank, placement } = this.base;
    const { perNode } = placement;
    const silences = Array.from({ length: perNode }, (_, place) => this.silenceOf(place)[node]!);
    if (Math.min(...silences) > this.options.lostAfterSeconds) this.giveUp(node);
    if (silences[this.local]! < (before === rank ? DOWN_SECONDS : UP_SECONDS)) return rank;
    if (before !== rank && silences[before % perNode]! < DOWN_SECONDS) return before;
    for (let i = 1; i < perNode; i++) {
      const place = (this.local + i) % perNode;
      const sameplane = place % this.options.planes === this.local % this.options.planes;
      if (!sameplane && silences[place]! < UP_SECONDS) return rank - this.local + place;
    }
    return before;
  }

  private sendAgain(node: number): void {
    for (const conversation of this.conversations.values()) {
      if (nodeOf(this.base.placement, conversation.peer) !== node) continue;
      for (const { frame } of conversation.again()) this.pass(frame, this.wayTo(conversation.peer));
    }
  }

  private silenceOf(place: number): Float32Array {
    const { bytes, stride } = this.silences;
    return new Float32Array(bytes.buffer, bytes.byteOffset + place * stride, this.ways.length);
  }

  private giveUp(node: number): never {
    const { perNode, hosts } = this.base.placement;
    const ranks = Array.from({ length: perNode }, (_, place) => node * perNode + place);
    throw new UserError(
      `nothing was heard for ${this.options.lostAfterSeconds} s on any plane from ranks ${ranks.join(', ')} on ${hosts[node * perNode]}: ` +
        `look at the network between them, and resume from the last checkpoint`,
    );
  }
}

/** Memory whose content is void. */
const unfilled = (bytes: number): Uint8Array => new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer);

/** Whether it is done; its handle is given back then. */
function finished(pending: Pending): boolean {
  if (!pending.done) return false;
  pending.wait();
  return true;
}

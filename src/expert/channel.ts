import { UserError } from '../errors.js';
import { type Message, type MessageShape, messageBytes } from './inbox.js';
import { type ExpertLayout, rankOf } from './layout.js';
import { NodeMemory } from './memory.js';
import { Traffic } from './traffic.js';
import type { Pending, Transport } from './transport/transport.js';
import { rowBytes, type Wire, type WireFormat } from './wire/format.js';
import type { WireKernels } from './wire/kernels.js';

/** What travels on a channel. */
export interface ChannelShape {
  /** K. */
  topK: number;
  /** D. */
  hidden: number;
  /** Largest number of tokens T that a rank sends at once. */
  maxTokens: number;
  /** Type of activations between operations, and of partial sums within a node. */
  activation: 'f32' | 'bf16';
}

export interface ChannelOptions {
  wire: Wire;
  /** Whether messages between nodes carry checksums. */
  checksums?: boolean | undefined;
}

/**
 * Means of one batch at a time to go to the experts and back: memory, messages, counts. Two micro-batches that overlap have a
 * channel each. All ranks of a group use their channels in the same order.
 */
export class Channel {
  readonly traffic = new Traffic();
  readonly memory: NodeMemory;
  readonly wire: Wire;
  readonly checksums: boolean;
  /** Format of partial sums in the node's memory. */
  readonly partialFormat: WireFormat;
  /** Dispatches so far: numbers messages, and says what the counts are to reach. */
  serial = 0;
  private readonly buffers = new Map<string, Uint8Array>();

  /** @param id distinguishes the messages of channels; the same on every rank */
  constructor(
    readonly transport: Transport,
    readonly layout: ExpertLayout,
    readonly shape: ChannelShape,
    readonly kernels: WireKernels,
    private readonly id: number,
    options: ChannelOptions,
  ) {
    this.wire = options.wire;
    this.checksums = options.checksums ?? false;
    this.partialFormat = { kind: 'float', format: shape.activation === 'bf16' ? 'bf16' : 'fp32' };
    this.memory = new NodeMemory(transport, layout, messageBytes(this.dispatchShape(true), shape.maxTokens));
  }

  /** Messages to the experts. */
  dispatchShape(choices: boolean): MessageShape {
    const { topK, hidden } = this.shape;
    return { topK, rowBytes: rowBytes(this.wire.dispatch, hidden), choices, tail: false };
  }

  /** Messages back. */
  returnShape(gradients: boolean): MessageShape {
    const { topK, hidden } = this.shape;
    return { topK, rowBytes: rowBytes(this.wire.combine, hidden), choices: false, tail: gradients };
  }

  get partialBytes(): number {
    return rowBytes(this.partialFormat, this.shape.hidden);
  }

  /** The nodes of the group but this rank's. */
  get otherNodes(): number[] {
    const { nodes, node } = this.layout;
    return Array.from({ length: nodes }, (_, n) => n).filter((n) => n !== node);
  }

  /** Private memory that is kept under a name; its content is void. */
  buffer(name: string, bytes: number): Uint8Array {
    let held = this.buffers.get(name);
    if (!held || held.length < bytes) {
      held = new Uint8Array(Math.ceil(Math.max(bytes, 1.5 * (held?.length ?? 0)) / 4) * 4);
      this.buffers.set(name, held);
    }
    return held.subarray(0, bytes);
  }

  /** To the rank of `node` that has this rank's place there; it forwards. */
  send(message: Uint8Array, node: number, back: boolean): Pending {
    this.traffic.messages++;
    return this.transport.send(message, this.peer(node), this.tag(back));
  }

  /** A message of that rank; on the way to the experts the node's count of arrivals tells when it is there. */
  receive(into: Uint8Array, node: number, back: boolean): Pending {
    return this.transport.receive(
      into,
      this.peer(node),
      this.tag(back),
      back ? undefined : this.memory.arrived,
    );
  }

  /** @throws UserError where the message is not what was sent */
  check(message: Message, node: number): void {
    if (message.isSound(this.serial, this.checksums)) return;
    const { hosts } = this.transport.placement;
    const [from, to] = [this.peer(node), this.transport.rank];
    throw new UserError(
      `a message from rank ${from} on ${hosts[from]} to rank ${to} on ${hosts[to]} arrived damaged` +
        `${this.checksums ? ' (its checksum is wrong)' : ''}; look at the network between them, and resume from the last checkpoint`,
    );
  }

  private peer(node: number): number {
    const { layout } = this;
    return rankOf(layout, node * layout.perNode + layout.local);
  }

  private tag(back: boolean): number {
    return 2 * this.id + (back ? 1 : 0);
  }
}

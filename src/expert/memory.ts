import type { ExpertLayout } from './layout.js';
import type { Counter, SharedMemory, Transport } from './transport/transport.js';

/**
 * Memory that a node's ranks share, in two parts: inboxes, where each rank puts what its node's experts need of its own
 * tokens and receives what other nodes send, and partial sums, which grow with what the router chooses.
 */
export class NodeMemory {
  private readonly inboxes: SharedMemory;
  private partials: SharedMemory | undefined;
  /** Bytes of an inbox. */
  private readonly inboxStride: number;
  readonly arrived: Counter;
  readonly summed: Counter;

  /** @param inboxBytes of the largest message from one rank */
  constructor(
    private readonly transport: Transport,
    private readonly layout: ExpertLayout,
    inboxBytes: number,
  ) {
    this.inboxStride = Math.ceil(inboxBytes / 64) * 64;
    this.inboxes = transport.share(this.inboxStride * layout.nodes, layout.perNode);
    this.arrived = this.inboxes.counter(0);
    this.summed = this.inboxes.counter(1);
  }

  /** All bytes of the node's inboxes; offsets below count from here. */
  get inboxBase(): Uint8Array {
    return this.inboxes.bytes;
  }

  /** First byte of the inbox, at the node's `local`-th rank, of what comes from `node`. */
  inboxAt(local: number, node: number): number {
    return local * this.inboxes.stride + node * this.inboxStride;
  }

  inbox(local: number, node: number): Uint8Array {
    const at = this.inboxAt(local, node);
    return this.inboxes.bytes.subarray(at, at + this.inboxStride);
  }

  /**
   * Makes room for partial sums: every rank of the group's node asks for the same. What was there is not kept.
   * Memory of a former size stays with MPI until the end; it grows by half at least, so that this is at most twice the last.
   */
  reservePartials(bytes: number): void {
    if (this.partials && this.partials.stride >= bytes) return;
    this.partials = this.transport.share(
      Math.max(bytes, Math.ceil(1.5 * (this.partials?.stride ?? 0))),
      this.layout.perNode,
    );
  }

  get partialBase(): Uint8Array {
    return this.partials!.bytes;
  }

  /** First byte of the partial sums of the node's `local`-th rank. */
  partialsAt(local: number): number {
    return local * this.partials!.stride;
  }
}

import { createHash } from 'node:crypto';
import { ReportedError, UserError } from '../errors.js';
import type { ExpertExchange, ExpertRange } from '../model/exchange.js';
import type { ModelConfig } from '../spec/model.js';
import type { Backend } from '../tensor/backend.js';
import { agree } from './agreement.js';
import { Channel } from './channel.js';
import { exchangeOver } from './exchange.js';
import { type ExpertLayout, layOut } from './layout.js';
import type { Traffic } from './traffic.js';
import { type Group, nodesOf, type Transport } from './transport/transport.js';
import type { Wire } from './wire/format.js';
import { wireKernels } from './wire/native.js';

export interface TeamSettings {
  /** Ranks that the experts of a layer are spread over. */
  expertParallel: number;
  wire: Wire;
  /** Whether messages between nodes carry checksums. */
  checksums?: boolean | undefined;
  /** Whether two halves of a micro-batch overlap in training; by default where experts are on other nodes. */
  overlap?: boolean | undefined;
  /** Copies of experts beyond the first, in each layer; inference alone has them. */
  redundantExperts?: number | undefined;
}

/** The ranks that run one model together, as one of them sees them. */
export class Team {
  readonly layout: ExpertLayout;
  /** Ranks that hold the same experts. */
  readonly replicas: Group;
  private channels: Channel[] = [];

  /** Collective. @throws UserError where ranks, nodes and experts do not go together */
  constructor(
    readonly transport: Transport,
    readonly settings: TeamSettings,
    model: Pick<ModelConfig, 'n_routed_experts'>,
  ) {
    const { placement, rank } = transport;
    const { expertParallel, redundantExperts } = settings;
    this.layout = layOut(placement, rank, model.n_routed_experts, expertParallel, redundantExperts);
    this.replicas = transport.split(this.layout.index);
  }

  get rank(): number {
    return this.transport.rank;
  }

  get size(): number {
    return this.transport.placement.size;
  }

  /** Rank 0 speaks and writes for all. */
  get leads(): boolean {
    return this.rank === 0;
  }

  get world(): Group {
    return this.transport.world;
  }

  get nodes(): number {
    return nodesOf(this.transport.placement);
  }

  /** Routed experts of every layer that this rank holds. */
  get experts(): ExpertRange {
    const { index, perRank } = this.layout;
    return { from: index * perRank, to: (index + 1) * perRank };
  }

  /** Opens the way to the others' experts; collective. @param maxTokens of a rank at once */
  openExchange(
    model: ModelConfig,
    backend: Backend,
    maxTokens: number,
    activation: 'f32' | 'bf16',
  ): ExpertExchange {
    return exchangeOver(this.openChannel(model, backend, maxTokens, activation));
  }

  /** The means of one batch at a time to go there and back; collective, as above. */
  openChannel(model: ModelConfig, backend: Backend, maxTokens: number, activation: 'f32' | 'bf16'): Channel {
    const shape = { topK: model.num_experts_per_tok, hidden: model.hidden_size, maxTokens, activation };
    const kernels = wireKernels(backend);
    const channel = new Channel(
      this.transport,
      this.layout,
      shape,
      kernels,
      this.channels.length,
      this.settings,
    );
    this.channels.push(channel);
    return channel;
  }

  /** What all channels have moved since the last call. */
  takeTraffic(): Traffic[] {
    return this.channels.map(({ traffic }) => traffic.take());
  }

  /** Sums over all ranks, in place. */
  sum<T extends Float64Array | Float32Array>(values: T): T {
    this.world.allReduce(values, 'sum').wait();
    return values;
  }

  /** Whether it holds on any rank. */
  any(flag: boolean): boolean {
    const flags = Int32Array.of(flag ? 1 : 0);
    this.world.allReduce(flags, 'max').wait();
    return flags[0] === 1;
  }

  /**
   * Runs `work` on every rank; where it fails on one, it fails on all.
   * @throws on rank 0 the failure of the first rank that has one, naming it; on others `ReportedError`
   */
  async together<T>(work: () => T | Promise<T>): Promise<T> {
    let result: T | undefined;
    let failure: unknown;
    try {
      result = await work();
    } catch (error) {
      failure = error;
    }
    const first = Int32Array.of(failure === undefined ? this.size : this.rank);
    this.world.allReduce(first, 'min').wait();
    if (first[0] === this.size) return result as T;
    const text = this.tell(failure instanceof Error ? failure.message : String(failure), first[0]!);
    if (!this.leads) throw agree(new ReportedError(text));
    if (first[0] === 0) throw agree(failure as object);
    throw agree(new UserError(`rank ${first[0]} on ${this.transport.placement.hosts[first[0]!]}: ${text}`));
  }

  /** Runs `work` on rank 0, then on the others, which find what it left on the disk. */
  async leadFirst<T>(work: () => T | Promise<T>): Promise<T> {
    const led = await this.together(() => (this.leads ? work() : undefined));
    const followed = await this.together(() => (this.leads ? undefined : work()));
    return (this.leads ? led : followed) as T;
  }

  /** A text of one rank, on all. */
  tell(text: string, from: number): string {
    const bytes = new TextEncoder().encode(text);
    const length = Int32Array.of(bytes.length);
    this.world.broadcast(length, from).wait();
    const buffer = this.rank === from ? bytes : new Uint8Array(length[0]!);
    if (buffer.length > 0) this.world.broadcast(buffer, from).wait();
    return new TextDecoder().decode(buffer);
  }

  /** One fixed-length array of each rank, rank by rank. */
  gather(own: Uint8Array): Uint8Array[] {
    const every = new Uint8Array(own.length * this.size);
    this.world.allGather(own, every, Array<number>(this.size).fill(own.length)).wait();
    return Array.from({ length: this.size }, (_, rank) =>
      every.subarray(rank * own.length, (rank + 1) * own.length),
    );
  }

  /**
   * Checks that all ranks have the same of something.
   * @param what it is, for the message
   * @throws UserError on rank 0, naming the ranks that differ from it; `ReportedError` on others
   */
  async agreeOn(what: string, content: string | Uint8Array): Promise<void> {
    const digests = this.gather(createHash('sha256').update(content).digest());
    const others = digests.flatMap((digest, rank) =>
      Buffer.compare(digest, digests[0]!) === 0 ? [] : [rank],
    );
    await this.together(() => {
      if (others.length === 0 || !this.leads) return;
      const { hosts } = this.transport.placement;
      const names = others.map((rank) => `rank ${rank} on ${hosts[rank]}`);
      throw new UserError(
        `${what} of ${names.join(', ')} differs from that of rank 0 on ${hosts[0]}; start all with the same`,
      );
    });
  }
}

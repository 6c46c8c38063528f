import { selectBackend } from '../../backend/select.js';
import { Channel } from '../../expert/channel.js';
import { type ExpertLayout, layOut } from '../../expert/layout.js';
import { planSending, type SendPlan } from '../../expert/plan.js';
import type { LaunchedTransport } from '../../expert/planes/open.js';
import type { Traffic } from '../../expert/traffic.js';
import { MpiTransport } from '../../expert/transport/mpi.js';
import { Trip } from '../../expert/trip.js';
import { parseWire, rowBytes } from '../../expert/wire/format.js';
import { wireKernels } from '../../expert/wire/native.js';
import { Random } from '../../numerics/random.js';
import { Tensor } from '../../tensor/tensor.js';
import { median } from '../measure.js';

/** What is exchanged: T tokens of each rank to K of E experts, which lie in as many groups as the router distinguishes. */
export interface ExchangeCase {
  tokens: number;
  hidden: number;
  topK: number;
  experts: number;
  groups: number;
  /** Groups that a token goes to. */
  groupsPerToken: number;
  /** DISPATCH:COMBINE. */
  wire: string;
  rounds: number;
  /** Whether MPI_Alltoallv moves the same bytes for comparison. */
  bare: boolean;
}

/** Dispatch and combine, medians over rounds of the slowest rank; bytes are sums over ranks of one round. */
export interface ExchangeResult {
  seconds: number;
  /** Bytes of rows for the ranks of their experts, there and back, a rank's own included: what MPI_Alltoallv moves in `bareSeconds`. */
  bytesPerRank: number;
  acrossBytes: number;
  withinBytes: number;
  /** Copies of tokens that cross to another node, of each token. */
  copiesPerToken: number;
  /** Share of the time that the slowest rank spends coding. */
  codecShare: number;
  waitShare: number;
  /** Two calls of MPI_Alltoallv. */
  bareSeconds: number | null;
}

/** Random choices of K experts in so many groups. */
export function randomChoices(
  { tokens, topK, experts, groups, groupsPerToken }: ExchangeCase,
  seed: number,
): { ids: Int32Array; weights: Float32Array } {
  const random = new Random(seed);
  const perGroup = experts / groups;
  const ids = new Int32Array(tokens * topK);
  const order = Int32Array.from({ length: groups }, (_, g) => g);
  const pool = new Int32Array(perGroup * groupsPerToken);
  for (let t = 0; t < tokens; t++) {
    shuffleFirst(order, groupsPerToken, random);
    for (let i = 0; i < pool.length; i++)
      pool[i] = order[Math.floor(i / perGroup)]! * perGroup + (i % perGroup);
    shuffleFirst(pool, topK, random);
    ids.set(pool.subarray(0, topK), t * topK);
  }
  return { ids, weights: new Float32Array(ids.length).fill(1 / topK) };
}

/** The first `count` of a random order. */
function shuffleFirst(values: Int32Array, count: number, random: Random): void {
  for (let i = 0; i < count; i++) {
    const j = i + random.below(values.length - i);
    [values[i], values[j]] = [values[j]!, values[i]!];
  }
}

/** One rank's part of a measurement. */
export class ExchangeWork {
  readonly layout: ExpertLayout;
  readonly channel: Channel;
  readonly sent: SendPlan;
  /** bf16 [T, D]: tokens, and what comes back. */
  readonly x: Tensor;
  readonly y: Tensor;
  private rows = new Uint16Array(0);
  private readonly backend = selectBackend('native', 1);

  constructor(
    readonly transport: LaunchedTransport,
    readonly what: ExchangeCase,
    id: number,
  ) {
    const { tokens, hidden, topK, experts, wire } = what;
    this.layout = layOut(transport.placement, transport.rank, experts, transport.placement.size);
    const kernels = wireKernels(this.backend);
    const shape = { topK, hidden, maxTokens: tokens, activation: 'bf16' as const };
    this.channel = new Channel(transport, this.layout, shape, kernels, id, { wire: parseWire(wire) });
    const { ids, weights } = randomChoices(what, 1 + transport.rank);
    this.sent = planSending(this.layout, topK, ids, weights);
    const random = new Random(7);
    this.x = new Tensor([tokens, hidden], 'bf16', this.values(tokens * hidden));
    this.y = new Tensor([tokens, hidden], 'bf16', this.values(tokens * hidden));
    const codes = this.x.data as Uint16Array;
    for (let i = 0; i < codes.length; i++) codes[i] = 0x3f80 + random.below(128);
  }

  /** Memory for `count` values, as training has it. */
  private values(count: number): Uint16Array<ArrayBuffer> {
    return new Uint16Array(this.backend.allocate(2 * count), 0, count);
  }

  /** Memory for R rows, which is kept. */
  rowsOf(count: number): Tensor {
    const { hidden } = this.what;
    if (this.rows.length < count * hidden) this.rows = this.values(count * hidden);
    return new Tensor([count, hidden], 'bf16', this.rows.subarray(0, count * hidden));
  }

  /** There and back; experts leave their rows as they are. */
  round(): Trip {
    const trip = new Trip(this.channel, this.sent);
    trip.sendTokens(this.x);
    const rows = this.rowsOf(trip.awaitRows());
    trip.receiveRows(rows);
    trip.sendResults(rows, true);
    trip.receiveResults(this.y);
    return trip;
  }
}

/** Rounds before those that count, until JavaScript's compiler has seen all of it. */
const WARM_SECONDS = 0.3;
const MOST_WARM_ROUNDS = 500;

/** Measures; collective. */
export function measureExchange(
  transport: LaunchedTransport,
  what: ExchangeCase,
  id: number,
): ExchangeResult {
  const work = new ExchangeWork(transport, what, id);
  const trip = work.round();
  const once = slowest(transport, 1, () => work.round());
  const warm = Math.min(MOST_WARM_ROUNDS, Math.ceil(WARM_SECONDS / once));
  for (let i = 0; i < warm; i++) work.round();
  work.channel.traffic.take();
  const seconds = slowest(transport, what.rounds, () => work.round());
  const traffic = work.channel.traffic.take();
  const { dispatch, combine } = bytesBetween(work, trip);
  const { size } = transport.placement;
  const sum = dispatch.reduce((a, b) => a + b, 0) + combine.reduce((a, b) => a + b, 0);
  const bareSeconds =
    what.bare && transport instanceof MpiTransport
      ? bare(transport, dispatch, what) + bare(transport, combine, what)
      : null;
  return { seconds, bytesPerRank: sum / size, ...shares(transport, what, traffic), bareSeconds };
}

/** Median over rounds of the slowest rank's seconds; ranks begin each together, those of a node to the microsecond. */
export function slowest(transport: LaunchedTransport, rounds: number, round: () => void): number {
  const seconds = new Float64Array(rounds);
  const { perNode } = transport.placement;
  const ready = transport.share(64, perNode).counter(0);
  for (let i = 0; i < rounds; i++) {
    transport.world.barrier().wait();
    ready.add(1);
    ready.wait((i + 1) * perNode);
    const started = performance.now();
    round();
    seconds[i] = (performance.now() - started) / 1000;
  }
  transport.world.allReduce(seconds, 'max').wait();
  return median([...seconds]);
}

function shares(transport: LaunchedTransport, { rounds, tokens }: ExchangeCase, traffic: Traffic) {
  const { size } = transport.placement;
  const { acrossPayloadBytes, withinPayloadBytes, copiesAcross } = traffic;
  const sums = Float64Array.of(acrossPayloadBytes, withinPayloadBytes, copiesAcross);
  transport.world.allReduce(sums, 'sum').wait();
  const most = Float64Array.of(traffic.codecSeconds / traffic.seconds, traffic.waitSeconds / traffic.seconds);
  transport.world.allReduce(most, 'max').wait();
  const [across, within, copies] = sums as unknown as [number, number, number];
  return {
    acrossBytes: across / rounds,
    withinBytes: within / rounds,
    copiesPerToken: copies / rounds / (tokens * size),
    codecShare: most[0]!,
    waitShare: most[1]!,
  };
}

/** Bytes of rows from each rank to each, [from, to]: what other nodes are sent, and what neighbours read from shared memory. */
function bytesBetween({ transport, layout, channel, what, sent }: ExchangeWork, { plan }: Trip) {
  const { size, perNode, node, local, index } = layout;
  const counts = { across: new Float64Array(size * size), within: new Float64Array(size * size) };
  sent.tokens.forEach((tokens, to) => {
    if (to !== node) counts.across[index * size + to * perNode + local] = tokens.length;
  });
  for (let p = 0; p + 1 < plan.bounds.length; p++) {
    const owner = node * perNode + (plan.source[plan.members[plan.bounds[p]!]!]! % perNode);
    counts.within[owner * size + index]! += 1;
  }
  for (const matrix of [counts.across, counts.within]) transport.world.allReduce(matrix, 'sum').wait();
  const there = rowBytes(channel.wire.dispatch, what.hidden);
  const back = rowBytes(channel.wire.combine, what.hidden);
  const dispatch = counts.across.map((rows, at) => (rows + counts.within[at]!) * there);
  const combine = new Float64Array(size * size);
  for (let from = 0; from < size; from++) {
    for (let to = 0; to < size; to++) {
      const at = from * size + to;
      combine[to * size + from] = counts.across[at]! * back + counts.within[at]! * channel.partialBytes;
    }
  }
  return { dispatch, combine };
}

/** Seconds of MPI_Alltoallv with the given bytes between ranks, of the slowest rank. */
function bare(
  { addon, rank, placement, world }: MpiTransport,
  matrix: Float64Array,
  what: ExchangeCase,
): number {
  const { size } = placement;
  const out = Array.from({ length: size }, (_, to) => matrix[rank * size + to]!);
  const into = Array.from({ length: size }, (_, from) => matrix[from * size + rank]!);
  const backend = selectBackend('native', 1);
  const total = (counts: number[]) => {
    const bytes = counts.reduce((a, b) => a + b, 0);
    return new Uint8Array(backend.allocate(bytes), 0, bytes).fill(1);
  };
  const seconds = Float64Array.of(addon.allToAllSeconds(0, total(out), out, total(into), into, what.rounds));
  world.allReduce(seconds, 'max').wait();
  return seconds[0]!;
}

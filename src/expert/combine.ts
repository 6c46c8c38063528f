import type { Tensor } from '../tensor/tensor.js';
import type { Channel } from './channel.js';
import { Message, messageBytes } from './inbox.js';
import type { Contributions, ReceivePlan, SendPlan } from './plan.js';
import type { Pending } from './transport/transport.js';
import { placesFrom, type Summands } from './wire/kernels.js';

/** The way back [ISCA §4.3]: results are summed over a node's experts before they leave it. */

/** Makes room for the partial sums of every rank of the node, and for gradients of weights behind them. */
export function reservePartials(channel: Channel, { partials }: ReceivePlan): void {
  const most = partials.reduce((a, b) => Math.max(a, b), 1);
  channel.memory.reservePartials(most * (channel.partialBytes + 4 * channel.shape.topK));
}

/**
 * Sums of rows [R, D] to the node's memory, and tells the node.
 * @param weighted whether rows are multiplied with their weights first
 * @param gradients f32 [R] of the weights
 */
export function writePartials(
  channel: Channel,
  plan: ReceivePlan,
  rows: Tensor,
  weighted: boolean,
  gradients: Float32Array | undefined,
): void {
  const { memory, layout, partialBytes, traffic } = channel;
  const { bounds, members, memberWeights } = plan;
  const places = placesFrom(memory.partialsAt(layout.local), partialBytes, bounds.length - 1);
  traffic.timed('codecSeconds', () =>
    channel.kernels.partial(
      rows,
      members,
      weighted ? memberWeights : undefined,
      bounds,
      memory.partialBase,
      places,
    ),
  );
  if (gradients) writeGradients(channel, plan, gradients);
  memory.summed.add(1);
}

/** f32 [P, K] of a rank's partial sums: gradients of the weights of the choices that went into them, zero elsewhere. */
function gradientsOf(
  { memory, partialBytes, shape }: Channel,
  plan: ReceivePlan,
  local: number,
): Float32Array {
  const count = plan.partials[local]!;
  const base = memory.partialBase;
  const start = base.byteOffset + memory.partialsAt(local) + count * partialBytes;
  return new Float32Array(base.buffer, start, count * shape.topK);
}

function writeGradients(channel: Channel, plan: ReceivePlan, gradients: Float32Array): void {
  const { bounds, members, choices } = plan;
  const out = gradientsOf(channel, plan, channel.layout.local).fill(0);
  for (let p = 0; p + 1 < bounds.length; p++) {
    for (let j = bounds[p]!; j < bounds[p + 1]!; j++) {
      out[p * channel.shape.topK + choices[j]!] = gradients[members[j]!]!;
    }
  }
}

/** Waits for the partial sums of all ranks of the node. */
export function awaitPartials({ traffic, memory, layout, serial }: Channel): void {
  traffic.timed('waitSeconds', () => memory.summed.wait(serial * layout.perNode));
}

/** Where the partial sums are that `contributions` names. */
function summands(channel: Channel, { bounds, rank, partial }: Contributions): Summands {
  const { memory, layout, partialBytes, partialFormat, traffic } = channel;
  const starts = Int32Array.from({ length: layout.perNode }, (_, local) => memory.partialsAt(local));
  const places = new Int32Array(rank.length);
  let others = 0;
  for (let i = 0; i < places.length; i++) {
    const local = rank[i]!;
    places[i] = (starts[local]! + partial[i]! * partialBytes) / 4;
    if (local !== layout.local) others++;
  }
  traffic.withinPayloadBytes += others * partialBytes;
  return { base: memory.partialBase, format: partialFormat, bounds, places };
}

/** Sends each other node the sums for the rows that came from it, once the neighbours' partial sums are there. */
export function sendReturns(
  channel: Channel,
  plan: ReceivePlan,
  contributions: readonly Contributions[],
  gradients: boolean,
): Pending[] {
  const shape = channel.returnShape(gradients);
  const { hidden } = channel.shape;
  if (channel.otherNodes.length > 0) awaitPartials(channel);
  return channel.otherNodes.map((node) => {
    const wanted = contributions[node]!;
    const count = wanted.bounds.length - 1;
    const message = new Message(channel.buffer(`back to ${node}`, messageBytes(shape, count)), shape);
    message.begin(count, channel.serial);
    const places = placesFrom(message.rowAt(0), shape.rowBytes, count);
    channel.traffic.timed('codecSeconds', () => {
      channel.kernels.sumTo(summands(channel, wanted), hidden, channel.wire.combine, message.bytes, places);
    });
    if (gradients) addGradients(channel, plan, wanted, message.tail().fill(0));
    if (channel.checksums) message.seal();
    channel.traffic.acrossPayloadBytes += count * shape.rowBytes;
    channel.traffic.acrossOtherBytes += message.length - count * shape.rowBytes;
    return channel.send(message.bytes, node, true);
  });
}

/** Adds gradients of weights of the rows that `contributions` names, f32 [rows, K]. */
function addGradients(
  channel: Channel,
  plan: ReceivePlan,
  { bounds, rank, partial }: Contributions,
  out: Float32Array,
  rowOf: (row: number) => number = (row) => row,
): void {
  const { topK } = channel.shape;
  const areas = Array.from({ length: channel.layout.perNode }, (_, local) =>
    gradientsOf(channel, plan, local),
  );
  for (let row = 0; row + 1 < bounds.length; row++) {
    for (let j = bounds[row]!; j < bounds[row + 1]!; j++) {
      const from = partial[j]! * topK;
      for (let k = 0; k < topK; k++) out[rowOf(row) * topK + k]! += areas[rank[j]!]![from + k]!;
    }
  }
}

/** Messages that other nodes will send back, in one buffer, and the receives for them. */
export function expectReturns(
  channel: Channel,
  sent: SendPlan,
  gradients: boolean,
): { messages: Message[]; receives: Pending[] } {
  const shape = channel.returnShape(gradients);
  const nodes = channel.otherNodes;
  const sizes = nodes.map((node) => messageBytes(shape, sent.tokens[node]!.length));
  const buffer = channel.buffer(
    'returned',
    sizes.reduce((a, b) => a + b, 0),
  );
  let at = 0;
  const messages = sizes.map((size) => {
    at += size;
    return new Message(buffer.subarray(at - size, at), shape);
  });
  const receives = messages.map((message, i) => channel.receive(message.bytes, nodes[i]!, true));
  return { messages, receives };
}

/** Sums over all nodes → y [T, D]. */
export function sumResults(
  channel: Channel,
  sent: SendPlan,
  own: Contributions,
  messages: readonly Message[],
  y: Tensor,
): void {
  for (const [i, node] of channel.otherNodes.entries()) channel.check(messages[i]!, node);
  const first = spread(summands(channel, own), sent.tokens[channel.layout.node]!, y.rows);
  const second = messages.length > 0 ? returned(channel, sent, messages, y.rows) : undefined;
  channel.traffic.timed('codecSeconds', () => channel.kernels.sum(first, second, y));
}

/** Bounds over a list of tokens [n] as bounds over all T tokens. */
function spread(list: Summands, tokens: Int32Array, count: number): Summands {
  if (tokens.length === count) return list;
  const bounds = new Int32Array(count + 1);
  for (let r = 0; r < tokens.length; r++) bounds[tokens[r]! + 1] = list.bounds[r + 1]! - list.bounds[r]!;
  for (let t = 0; t < count; t++) bounds[t + 1]! += bounds[t]!;
  return { ...list, bounds };
}

/** What other nodes sent back, by token and within a token by node. */
function returned(channel: Channel, sent: SendPlan, messages: readonly Message[], count: number): Summands {
  const base = channel.buffer(
    'returned',
    messages.reduce((bytes, m) => bytes + m.bytes.length, 0),
  );
  const lists = channel.otherNodes.map((node) => sent.tokens[node]!);
  const bounds = new Int32Array(count + 1);
  for (const tokens of lists) for (const token of tokens) bounds[token + 1]!++;
  for (let t = 0; t < count; t++) bounds[t + 1]! += bounds[t]!;
  const next = bounds.slice();
  const places = new Int32Array(bounds[count]!);
  for (const [i, tokens] of lists.entries()) {
    const { bytes, shape } = messages[i]!;
    const start = bytes.byteOffset - base.byteOffset + messages[i]!.rowAt(0);
    for (let r = 0; r < tokens.length; r++) places[next[tokens[r]!]!++] = (start + r * shape.rowBytes) / 4;
  }
  return { base, format: channel.wire.combine, bounds, places };
}

/** Gradients of the weights of all choices of this rank's tokens → f32 [T, K]. */
export function collectGradients(
  channel: Channel,
  plan: ReceivePlan,
  sent: SendPlan,
  own: Contributions,
  messages: readonly Message[],
  out: Float32Array,
): void {
  const { topK } = channel.shape;
  const tokens = sent.tokens[channel.layout.node]!;
  addGradients(channel, plan, own, out.fill(0), (row) => tokens[row]!);
  channel.otherNodes.forEach((node, i) => {
    const tail = messages[i]!.tail();
    sent.tokens[node]!.forEach((token, r) => {
      for (let k = 0; k < topK; k++) out[token * topK + k]! += tail[r * topK + k]!;
    });
  });
}

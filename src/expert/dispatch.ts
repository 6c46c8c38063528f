import type { Tensor } from '../tensor/tensor.js';
import type { Channel } from './channel.js';
import { Message, messageBytes } from './inbox.js';
import type { Arrival, ReceivePlan, SendPlan } from './plan.js';
import type { Pending } from './transport/transport.js';
import { placesFrom } from './wire/kernels.js';

/** The way to the experts [ISCA §4.3]: once to each node, there through shared memory to each rank. */

/**
 * Sends x [T, D] and puts what this node needs into its memory. Other nodes' messages fly while the own is written.
 * @param choices whether the experts chosen go along; without, those of the last time hold
 */
export function dispatch(
  channel: Channel,
  sent: SendPlan,
  x: Tensor,
  choices: boolean,
): { receives: Pending[]; sends: Pending[] } {
  const { layout, memory, traffic } = channel;
  channel.serial++;
  const receives = channel.otherNodes.map((node) =>
    channel.receive(memory.inbox(layout.local, node), node, false),
  );
  const shape = channel.dispatchShape(choices);
  const sends = channel.otherNodes.map((node) => {
    const tokens = sent.tokens[node]!;
    const message = new Message(channel.buffer(`to ${node}`, messageBytes(shape, tokens.length)), shape);
    fill(channel, message, sent, tokens, x, choices);
    if (channel.checksums) message.seal();
    traffic.copiesAcross += tokens.length;
    traffic.acrossPayloadBytes += tokens.length * shape.rowBytes;
    traffic.acrossOtherBytes += message.length - tokens.length * shape.rowBytes;
    return channel.send(message.bytes, node, false);
  });
  const own = new Message(memory.inbox(layout.local, layout.node), shape);
  fill(channel, own, sent, sent.tokens[layout.node]!, x, choices);
  memory.arrived.add(1);
  return { receives, sends };
}

function fill(
  channel: Channel,
  message: Message,
  sent: SendPlan,
  tokens: Int32Array,
  x: Tensor,
  choices: boolean,
): void {
  message.begin(tokens.length, channel.serial);
  if (choices) message.putChoices(tokens, sent.ids, sent.weights);
  const places = placesFrom(message.rowAt(0), message.shape.rowBytes, tokens.length);
  channel.traffic.timed('codecSeconds', () =>
    channel.kernels.encode(x, tokens, channel.wire.dispatch, true, message.bytes, places),
  );
}

/** Waits until every rank of the node has its rows there, those that other nodes sent to them included. */
export function awaitArrivals(channel: Channel, receives: readonly Pending[], choices: boolean): void {
  const { layout, memory, traffic, serial } = channel;
  traffic.timed('waitSeconds', () => {
    for (const pending of receives) pending.wait();
    memory.arrived.wait(serial * layout.perNode * layout.nodes);
  });
  for (const node of channel.otherNodes) {
    channel.check(inboxOf(channel, layout.local, node, choices), node);
  }
}

/** The inbox of the node's `local`-th rank for what comes from `node`, as a message with or without choices. */
function inboxOf(channel: Channel, local: number, node: number, choices: boolean): Message {
  return new Message(channel.memory.inbox(local, node), channel.dispatchShape(choices));
}

/** The choices in all inboxes of the node, by source, where they are: until this rank's results are on their way. */
export function readArrivals(channel: Channel): Arrival[] {
  const { layout } = channel;
  return Array.from({ length: layout.size }, (_, source) => {
    const [node, local] = [Math.floor(source / layout.perNode), source % layout.perNode];
    return inboxOf(channel, local, node, true).choices();
  });
}

/** Rows of this rank's experts, from the node's inboxes → out [R, D]. @param choices as in `dispatch` */
export function readRows(channel: Channel, plan: ReceivePlan, choices: boolean, out: Tensor): void {
  const { layout, memory, traffic } = channel;
  const { rowBytes } = channel.dispatchShape(choices);
  const starts = Int32Array.from({ length: layout.size }, (_, source) => {
    const [node, local] = [Math.floor(source / layout.perNode), source % layout.perNode];
    return memory.inboxAt(local, node) + inboxOf(channel, local, node, choices).rowAt(0);
  });
  const { source, row, forwarded } = plan;
  const places = new Int32Array(source.length);
  for (let r = 0; r < places.length; r++) places[r] = (starts[source[r]!]! + row[r]! * rowBytes) / 4;
  traffic.withinPayloadBytes += forwarded * rowBytes;
  traffic.timed('codecSeconds', () =>
    channel.kernels.decode(memory.inboxBase, places, channel.wire.dispatch, out),
  );
}

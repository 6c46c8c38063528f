// What ranks do in tests; see rank.mjs.

const range = (n) => Array.from({ length: n }, (_, i) => i);

export const cases = {
  /** Every message function once, in ways that show whose data arrived. */
  messages(t) {
    const { size } = t.placement;
    const next = (t.rank + 1) % size;
    const before = (t.rank + size - 1) % size;
    const got = new Float32Array(4);
    const receive = t.receive(got, before, 7);
    const send = t.send(Float32Array.of(t.rank, t.rank + 0.5), next, 7);
    const received = receive.wait();
    send.wait();

    const sum = Float64Array.of(t.rank, 1);
    t.world.allReduce(sum, 'sum').wait();
    const most = Int32Array.of(t.rank, -t.rank);
    t.world.allReduce(most, 'max').wait();
    const counts = range(size).map((i) => i + 1);
    const all = new Int32Array(counts.reduce((a, b) => a + b));
    t.world.allGather(new Int32Array(t.rank + 1).fill(t.rank), all, counts).wait();
    const part = new Float32Array(t.rank + 1);
    t.world
      .reduceScatter(
        Float32Array.from(all, (_, i) => i + t.rank),
        part,
        counts,
      )
      .wait();
    const sent = Int32Array.from(range(size), (to) => 10 * t.rank + to);
    const exchanged = new Int32Array(size);
    const ones = range(size).map(() => 1);
    t.world.allToAll(sent, ones, exchanged, ones).wait();
    const word = new Uint8Array(3).fill(t.rank === 1 ? 9 : 0);
    t.world.broadcast(word, 1).wait();
    t.world.barrier().wait();

    const parity = t.split(t.rank % 2);
    const ofGroup = Float32Array.of(t.rank);
    parity.allReduce(ofGroup, 'sum').wait();
    return {
      got: [...got],
      received,
      sum: [...sum],
      most: [...most],
      all: [...all],
      part: [...part],
      exchanged: [...exchanged],
      word: [...word],
      members: parity.members,
      ofGroup: ofGroup[0],
    };
  },

  /** Every rank writes into its piece; the others of its node read it once the counter says so. */
  memory(t) {
    const { perNode } = t.placement;
    const index = t.rank % perNode;
    const memory = t.share(100);
    const ready = memory.counter(3);
    const seen = [];
    for (let round = 1; round <= 50; round++) {
      memory.bytes.fill(t.rank + round, index * memory.stride, index * memory.stride + 100);
      ready.add(1);
      ready.wait(2 * round * perNode - perNode);
      seen.push(
        range(perNode).every((i) => memory.bytes[i * memory.stride + 99] === t.rank - index + i + round),
      );
      ready.add(1);
      ready.wait(2 * round * perNode);
    }
    return { ok: seen.every(Boolean), stride: memory.stride, length: memory.bytes.length };
  },

  /** A message raises a counter of the node, which the other rank of the node waits for. */
  arrival(t) {
    const { perNode } = t.placement;
    const memory = t.share(64);
    const arrived = memory.counter(0);
    if (t.rank === 0) t.send(new Uint8Array(8).fill(5), perNode, 1).wait();
    if (t.rank === perNode) t.receive(memory.bytes.subarray(0, 8), 0, 1, arrived).wait();
    if (t.rank < perNode) return 0;
    arrived.wait(1);
    return memory.bytes[7];
  },
};

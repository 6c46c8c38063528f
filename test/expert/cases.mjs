// What ranks do in tests; see rank.mjs.
import { Random } from '../../dist/numerics/random.js';
import { Tensor } from '../../dist/tensor/tensor.js';

const dist = (file) => import(new URL(`../../dist/${file}`, import.meta.url));

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
    const memory = t.share(100, perNode);
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
    const memory = t.share(64, perNode);
    const arrived = memory.counter(0);
    if (t.rank === 0) t.send(new Uint8Array(8).fill(5), perNode, 1).wait();
    if (t.rank === perNode) t.receive(memory.bytes.subarray(0, 8), 0, 1, arrived).wait();
    if (t.rank < perNode) return 0;
    arrived.wait(1);
    return memory.bytes[7];
  },

  /**
   * Tokens to experts and back, twice, with a gradient on the same way. Expert e multiplies by e + 1. Gives the largest errors
   * against sums formed here, and what was moved against what the choices say.
   */
  async trip(t, options) {
    const { channel, layout } = await openChannel(t, options);
    const { Trip } = await dist('expert/trip.js');
    const { planSending } = await dist('expert/plan.js');
    const { tokens, topK, hidden, experts } = options;
    const errors = [];
    for (const round of [0, 1]) {
      const { ids, weights } = choose(
        t.rank * 2 + round,
        tokens,
        topK,
        experts,
        options.groups,
        options.groupsPerToken,
      );
      const x = randomTensor(t.rank + 10 * round, tokens, hidden, options.dtype);
      const dy = randomTensor(t.rank + 100 + round, tokens, hidden, options.dtype);
      const trip = new Trip(channel, planSending(layout, topK, ids, weights));
      const [y, dx] = [x, x].map(() => zeros(tokens, hidden, options.dtype));
      const dweights = new Float32Array(ids.length);
      const there = (input) => {
        trip.sendTokens(input);
        const rows = zeros(trip.awaitRows(), hidden, options.dtype);
        trip.receiveRows(rows);
        return rows;
      };
      const rows = there(x);
      const outs = scaled(rows, trip.plan.offsets, layout.index * layout.perRank);
      trip.sendResults(outs, true);
      trip.receiveResults(y);
      const gradients = there(dy);
      const ofWeights = dots(gradients, outs);
      for (let r = 0; r < gradients.rows; r++) {
        for (let i = 0; i < hidden; i++)
          set(gradients, r * hidden + i, get(gradients, r * hidden + i) * trip.plan.weights[r]);
      }
      trip.sendResults(scaled(gradients, trip.plan.offsets, layout.index * layout.perRank), false, ofWeights);
      trip.receiveResults(dx, dweights);
      errors.push(await errorsOf({ x, dy, ids, weights, y, dx, dweights, topK, hidden }, options));
    }
    return {
      errors,
      traffic: channel.traffic,
      expected: await expectedTraffic(layout, channel, t.rank, options),
    };
  },

  /**
   * The case `options.inner` on two planes, the first of which fails between all nodes as `options.down`
   * says (`failing`); what was sent on it arrives once it works again. Gives the result and what was seen.
   */
  async planes(t, options) {
    const { PlaneTransport } = await dist('expert/planes/transport.js');
    const { base, seen } = failing(t, options.down ?? [0, 0]);
    const told = [];
    const transport = new PlaneTransport(base, {
      planes: 2,
      lostAfterSeconds: 20,
      onPlane: (text) => told.push(text),
    });
    const result = await cases[options.inner](transport, options);
    transport.close();
    return { result, told, forwarded: transport.router.forwarded, ...seen };
  },

  /** One byte of rank 1's first message to another node changes on its way; what each rank says. */
  async corrupted(t, options) {
    let struck = false;
    const faulty = Object.create(t, {
      send: {
        value: (data, to, tag) => {
          const bytes = data.slice();
          if (t.rank === 1 && !struck) bytes[bytes.length - 1] ^= 1;
          struck = true;
          return t.send(bytes, to, tag);
        },
      },
    });
    const { channel, layout } = await openChannel(faulty, options);
    const { Trip } = await dist('expert/trip.js');
    const { planSending } = await dist('expert/plan.js');
    const { tokens, topK, hidden, experts } = options;
    const { ids, weights } = choose(t.rank, tokens, topK, experts, 1, 1);
    const trip = new Trip(channel, planSending(layout, topK, ids, weights));
    trip.sendTokens(randomTensor(t.rank, tokens, hidden, options.dtype));
    try {
      trip.awaitRows();
      return 'sound';
    } catch (error) {
      return error.message;
    }
  },

  /** Requests to an engine over ranks. */
  async serve(t, options) {
    const serving = await import('../infer/serving.mjs');
    return serving[options.what](t, options);
  },

  /** Hosts of two ranks, of which the second has a byte less than what it needs; what each rank says. */
  async hostMemory(t) {
    const { checkHostMemory, leastBytes } = await dist('train/host-memory.js');
    const { Team } = await dist('expert/team.js');
    const { parseWire } = await dist('expert/wire/format.js');
    const { MODEL_PRESETS } = await dist('spec/presets.js');
    const { parseModelConfig } = await dist('spec/model.js');
    const hosts = ['a', 'a', 'b', 'b'];
    const named = Object.create(t, { placement: { value: { ...t.placement, hosts } } });
    const model = parseModelConfig(MODEL_PRESETS.tiny);
    const team = new Team(named, { expertParallel: 4, wire: parseWire('fp32') }, model);
    const need = 2 * leastBytes(model, 4);
    await checkHostMemory(team, model, need);
    try {
      await checkHostMemory(team, model, t.rank === 3 ? need - 1 : need);
      return 'enough';
    } catch (error) {
      return `${error.name}: ${error.message}`;
    }
  },

  /** One bit of rank 1's copy of a parameter changes. */
  async flipped(t, options) {
    const { trainerOver } = await import('./training.mjs');
    const { checkReplicas } = await dist('train/replicas.js');
    const trainer = await trainerOver(t, options);
    const [name] = options.expert ? ['model.layers.1.mlp.experts.down_proj'] : ['model.norm.weight'];
    const { data } = trainer.model.parameters.get(name).value;
    await checkReplicas(trainer.team, trainer);
    if (t.rank === 1) new Int32Array(data.buffer, data.byteOffset, 1)[0] ^= 1;
    try {
      await checkReplicas(trainer.team, trainer);
      return 'same';
    } catch (error) {
      return `${error.name}: ${error.message}`;
    }
  },

  /** Trains on batches of random tokens that all ranks share out; losses of all steps. */
  async train(t, options) {
    const { trainerOver, randomBatches } = await import('./training.mjs');
    const trainer = await trainerOver(t, options);
    const part = { index: t.rank, of: t.placement.size };
    const batches = await randomBatches(trainer.model.config, options, part);
    const steps = range(options.steps).map((i) => trainer.trainStep(batches(i)));
    const { lanes } = trainer;
    const losses = steps.map((s) => s.loss);
    return { losses, norms: steps.map((s) => s.gradientNorm), last: steps.at(-1), lanes };
  },
};

/** A transport whose ranks with even places lose messages to other nodes after their `from`th, for `to - from` looks; they come late. */
function failing(t, [from, to]) {
  const { perNode } = t.placement;
  const concerned = (rank) => t.rank % 2 === 0 && Math.floor(rank / perNode) !== Math.floor(t.rank / perNode);
  const seen = { late: 0 };
  let sent = 0;
  const held = [];
  const down = () => sent >= from && sent < to;
  const release = () => {
    while (held.length > 0 && !down()) held.shift()().wait();
  };
  const base = Object.create(t, {
    send: {
      value: (data, rank, tag) => {
        if (!concerned(rank)) return t.send(data, rank, tag);
        if (!down()) {
          sent++;
          release();
          return t.send(data, rank, tag);
        }
        seen.late++;
        const copy = data.slice();
        held.push(() => t.send(copy, rank, tag));
        return { done: true, wait: () => 0 };
      },
    },
    // Every look at a link that is down brings its return nearer, as nothing is sent on it meanwhile.
    silence: {
      value: (rank) => {
        if (!concerned(rank)) return 0;
        // Nothing is told of a link before it has lost something.
        if (!down() || held.length === 0) return 0;
        sent++;
        release();
        return down() ? 2 : 0;
      },
    },
  });
  return { base, seen };
}

// ---- Means of the cases ---------------------------------------------------------------------------------------------

const zeros = (rows, cols, dtype) => Tensor.zeros([rows, cols], dtype);
const value = (bits) => new Float32Array(Int32Array.of(bits << 16).buffer)[0];
const get = (x, i) => (x.dtype === 'bf16' ? value(x.data[i]) : x.data[i]);
const set = (x, i, v) => {
  x.data[i] = x.dtype === 'bf16' ? new Int32Array(Float32Array.of(v).buffer)[0] >>> 16 : v;
};

function randomTensor(seed, rows, cols, dtype) {
  const random = new Random(seed + 1);
  const x = zeros(rows, cols, dtype);
  for (let i = 0; i < x.size; i++) set(x, i, random.normal());
  return x;
}

/** K distinct experts a token, of so many groups, with random weights. */
function choose(seed, tokens, topK, experts, groups, groupsPerToken) {
  const random = new Random(1000 + seed);
  const pick = (from, count) => {
    const rest = [...from];
    return range(count).map(() => rest.splice(Math.floor(random.uniform() * rest.length), 1)[0]);
  };
  const perGroup = experts / groups;
  const ids = Int32Array.from(
    range(tokens).flatMap(() =>
      pick(
        pick(range(groups), groupsPerToken).flatMap((g) => range(perGroup).map((e) => g * perGroup + e)),
        topK,
      ),
    ),
  );
  return { ids, weights: Float32Array.from(ids, () => random.uniform()) };
}

/** rows of expert e times e + 1, in FP32. */
function scaled(rows, offsets, firstExpert) {
  const out = zeros(rows.rows, rows.cols, rows.dtype);
  for (let e = 0; e + 1 < offsets.length; e++) {
    for (let i = offsets[e] * rows.cols; i < offsets[e + 1] * rows.cols; i++)
      set(out, i, get(rows, i) * (firstExpert + e + 1));
  }
  return out;
}

const dots = (a, b) =>
  Float32Array.from(range(a.rows), (r) =>
    range(a.cols).reduce((sum, i) => sum + get(a, r * a.cols + i) * get(b, r * a.cols + i), 0),
  );

async function openChannel(t, options) {
  const { layOut } = await dist('expert/layout.js');
  const { Channel } = await dist('expert/channel.js');
  const { referenceWire } = await dist('expert/wire/reference.js');
  const { nativeWire } = await dist('expert/wire/native.js');
  const { loadAddon } = await dist('backend/native/addon.js');
  const { parseWire } = await dist('expert/wire/format.js');
  const layout = layOut(t.placement, t.rank, options.experts, options.group ?? t.placement.size);
  const shape = {
    topK: options.topK,
    hidden: options.hidden,
    maxTokens: options.tokens,
    activation: options.dtype,
  };
  const addon = loadAddon();
  const kernels = addon ? nativeWire(addon) : referenceWire;
  const channel = new Channel(t, layout, shape, kernels, 0, {
    wire: parseWire(options.wire),
    checksums: true,
  });
  return { channel, layout };
}

/** Largest errors relative to the largest value, against what the rounded tokens give. */
async function errorsOf({ x, dy, ids, weights, y, dx, dweights, topK, hidden }, options) {
  const { parseWire, rowBytes } = await dist('expert/wire/format.js');
  const { referenceWire } = await dist('expert/wire/reference.js');
  const { dispatch } = parseWire(options.wire);
  const rounded = (input) => {
    const out = zeros(input.rows, hidden, options.dtype);
    const places = Int32Array.from(range(input.rows), (r) => (r * rowBytes(dispatch, hidden)) / 4);
    const base = new Uint8Array(input.rows * rowBytes(dispatch, hidden));
    referenceWire.encode(input, undefined, dispatch, true, base, places);
    referenceWire.decode(base, places, dispatch, out);
    return out;
  };
  const [xs, dys] = [rounded(x), rounded(dy)];
  const most = { y: 0, dx: 0, dweights: 0 };
  const size = { y: 0, dx: 0, dweights: 0 };
  const note = (what, got, wanted) => {
    most[what] = Math.max(most[what], Math.abs(got - wanted));
    size[what] = Math.max(size[what], Math.abs(wanted));
  };
  for (let token = 0; token < x.rows; token++) {
    const factor = range(topK).reduce(
      (sum, k) => sum + weights[token * topK + k] * (ids[token * topK + k] + 1),
      0,
    );
    let product = 0;
    for (let i = token * hidden; i < (token + 1) * hidden; i++) {
      note('y', get(y, i), factor * get(xs, i));
      note('dx', get(dx, i), factor * get(dys, i));
      product += get(xs, i) * get(dys, i);
    }
    for (let k = token * topK; k < (token + 1) * topK; k++)
      note('dweights', dweights[k], product * (ids[k] + 1));
  }
  return Object.fromEntries(Object.keys(most).map((what) => [what, most[what] / size[what]]));
}

/** Copies and bytes between nodes of both rounds, counted from the choices alone. */
async function expectedTraffic(
  layout,
  channel,
  rank,
  { tokens, topK, experts, hidden, groups, groupsPerToken },
) {
  const { rowBytes } = await dist('expert/wire/format.js');
  const nodeOf = (expert) => Math.floor(expert / (layout.perRank * layout.perNode));
  let copies = 0;
  for (const round of [0, 1]) {
    const { ids } = choose(rank * 2 + round, tokens, topK, experts, groups, groupsPerToken);
    for (let token = 0; token < tokens; token++) {
      const nodes = new Set(range(topK).map((k) => nodeOf(ids[token * topK + k])));
      nodes.delete(layout.node);
      copies += nodes.size;
    }
  }
  return { copiesAcross: 2 * copies, dispatchBytes: 2 * copies * rowBytes(channel.wire.dispatch, hidden) };
}

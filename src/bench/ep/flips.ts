import { crc32 } from 'node:zlib';
import { selectBackend } from '../../backend/select.js';
import { Message, type MessageShape, messageBytes } from '../../expert/inbox.js';
import { Random } from '../../numerics/random.js';
import { RECIPES } from '../../spec/precision.js';
import { linear } from '../../tensor/functions.js';
import { Parameter } from '../../tensor/parameter.js';
import { Pool } from '../../tensor/pool.js';
import { Tape } from '../../tensor/tape.js';
import { Tensor } from '../../tensor/tensor.js';
import { firstWrongRow, firstWrongRowOfGroups } from '../../train/verify.js';

/** Single bits flipped, and how many of them a check told. */
export interface FlipResult {
  where: string;
  check: string;
  flipped: number;
  told: number;
}

/** Flips of each kind. */
const FLIPS = 200;
const [ROWS, WIDTH, DEPTH, EXPERTS] = [64, 512, 512, 4];

/** Silent corruption [ISCA §6.1] of what goes over wires, of weights, and of activations, one bit at a time. */
export function measureFlips(): FlipResult[] {
  return [
    flipMessages(),
    flipParameters(),
    flipResults('a result in BF16, sign or exponent', 7, 15),
    flipResults('a result in BF16, mantissa', 0, 6),
    flipExperts(),
    flipWeights(),
  ];
}

/** How many of `FLIPS` trials tell. */
function count(where: string, check: string, trial: (random: Random) => boolean): FlipResult {
  const random = new Random(1);
  let told = 0;
  for (let i = 0; i < FLIPS; i++) if (trial(random)) told++;
  return { where, check, flipped: FLIPS, told };
}

function flipBit(bytes: Uint8Array, random: Random): void {
  bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
}

function flipMessages(): FlipResult {
  const shape: MessageShape = { topK: 8, rowBytes: 528, choices: true, tail: false };
  return count('a message', '--checksums', (random) => {
    const message = new Message(new Uint8Array(messageBytes(shape, ROWS)), shape);
    message.begin(ROWS, 1);
    for (let i = 16; i < message.length; i++) message.bytes[i] = random.below(256);
    message.seal();
    flipBit(message.bytes, random);
    return !message.isSound(1, true);
  });
}

function flipParameters(): FlipResult {
  return count('a parameter of one rank', '--digest-every', (random) => {
    const values = Float32Array.from({ length: DEPTH }, () => random.normal());
    const bytes = new Uint8Array(values.buffer);
    const before = crc32(bytes);
    flipBit(bytes, random);
    return crc32(bytes) !== before;
  });
}

/** y = x·Wᵀ in BF16. */
function product(random: Random): { w: Parameter; x: Tensor; y: Tensor } {
  const backend = selectBackend('auto');
  const normal = (rows: number, cols: number, deviation: number) =>
    Tensor.f32(
      [rows, cols],
      Float32Array.from({ length: rows * cols }, () => deviation * random.normal()),
    );
  const w = new Parameter('w', normal(WIDTH, DEPTH, 0.02), backend);
  const x = Tensor.zeros([ROWS, DEPTH], 'bf16');
  backend.cast(normal(ROWS, DEPTH, 1), x);
  return { w, x, y: linear(new Tape(backend, new Pool(backend), false), x, w, RECIPES.bf16.linear) };
}

/** Bits `low` to `high` of one result in a row that is checked. */
function flipResults(where: string, low: number, high: number): FlipResult {
  const { w, x, y } = product(new Random(2));
  const data = y.data as Uint16Array;
  return count(where, '--verify gemm', (random) => {
    const at = random.below(WIDTH);
    const bit = 1 << (low + random.below(high - low + 1));
    data[at] = data[at]! ^ bit;
    const told = firstWrongRow(w.value, x, y, 'bf16') !== undefined;
    data[at] = data[at]! ^ bit;
    return told;
  });
}

/** Sign or exponent of one result of an expert that has its turn, in a row that is checked. */
function flipExperts(): FlipResult {
  const backend = selectBackend('auto');
  const { w, x } = product(new Random(4));
  const experts = new Parameter('experts', w.value.reshape([EXPERTS, WIDTH / EXPERTS, DEPTH]), backend);
  const bounds = Int32Array.from({ length: EXPERTS + 1 }, (_, e) => (e * ROWS) / EXPERTS);
  const offsets = Tensor.i32(bounds);
  const tape = new Tape(backend, new Pool(backend), false);
  const y = linear(tape, x, experts, RECIPES.bf16.expertUp, { offsets });
  const data = y.data as Uint16Array;
  return count("an expert's result in BF16, sign or exponent", '--verify gemm', (random) => {
    const at = bounds[random.below(EXPERTS)]! * y.cols + random.below(y.cols);
    const bit = 1 << (7 + random.below(9));
    data[at] = data[at]! ^ bit;
    const told = firstWrongRowOfGroups(experts, x, y, 'bf16', offsets, 0) !== undefined;
    data[at] = data[at]! ^ bit;
    return told;
  });
}

/** Bits of a weight between the product and its check. */
function flipWeights(): FlipResult {
  const { w, x, y } = product(new Random(3));
  const bits = new Int32Array(w.value.data.buffer, w.value.data.byteOffset, w.value.size);
  return count('a weight in FP32, any bit, before its check', '--verify gemm', (random) => {
    const [at, bit] = [random.below(bits.length), 1 << random.below(32)];
    bits[at] = bits[at]! ^ bit;
    const told = firstWrongRow(w.value, x, y, 'bf16') !== undefined;
    bits[at] = bits[at]! ^ bit;
    return told;
  });
}

/**
 * Choosing the largest of many without sorting all of them. Ties go to the smaller index, so that results do not depend on
 * how the work is done. Legend: V values.
 */

/** Indices of the `count` largest values, largest first: a heap of the best so far, most values fail its first test. */
export function largest(values: Float32Array, count: number): Int32Array {
  const size = Math.min(count, values.length);
  const heap = new Int32Array(size);
  if (size === 0) return heap;
  for (let i = 0; i < size; i++) heap[i] = i;
  for (let i = (size >> 1) - 1; i >= 0; i--) sink(heap, values, i);
  let least = values[heap[0]!]!;
  for (let i = size; i < values.length; i++) {
    // Of equal values the earlier one stays.
    if (values[i]! > least) {
      heap[0] = i;
      sink(heap, values, 0);
      least = values[heap[0]!]!;
    }
  }
  return heap.sort((a, b) => values[b]! - values[a]! || a - b);
}

/** Whether a is to leave before b: smaller, or equal and later. */
const worse = (values: Float32Array, a: number, b: number): boolean =>
  values[a]! < values[b]! || (values[a]! === values[b]! && a > b);

function sink(heap: Int32Array, values: Float32Array, from: number): void {
  const moved = heap[from]!;
  let at = from;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && worse(values, heap[child + 1]!, heap[child]!)) child++;
    if (!worse(values, heap[child]!, moved)) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = moved;
}

/** A weight's bucket is its FP32 exponent and so many leading bits of its fraction: equal order, no arithmetic. */
const FRACTION_BITS = 4;
const SHIFT = 23 - FRACTION_BITS;
/** Weights are at most 1, the exponent of which is 127. */
const BUCKETS = (127 << FRACTION_BITS) + 1;

/**
 * The smallest set of the largest weights that sums to at least `share` of `total`: the nucleus [arXiv 1904.09751].
 * Weights are counted into a histogram by size, and only the bucket that the border falls into is sorted.
 * @param weights f32 [V] from 0 to 1, with sum `total`
 * @returns ascending indices, one at least
 */
export function nucleus(weights: Float32Array, total: number, share: number): Int32Array {
  // The same memory as integers: of floats that are not negative these have the same order.
  const bits = new Uint32Array(weights.buffer, weights.byteOffset, weights.length);
  const mass = new Float64Array(BUCKETS);
  for (let i = 0; i < bits.length; i++) mass[bits[i]! >>> SHIFT]! += weights[i]!;
  const { border, above } = borderOf(mass, share * total);
  const inside: number[] = [];
  const onBorder: number[] = [];
  for (let i = 0; i < bits.length; i++) {
    const bucket = bits[i]! >>> SHIFT;
    if (bucket < border) continue;
    if (bucket > border) inside.push(i);
    else onBorder.push(i);
  }
  onBorder.sort((a, b) => weights[b]! - weights[a]! || a - b);
  let sum = above;
  for (const i of onBorder) {
    if (sum >= share * total && inside.length > 0) break;
    inside.push(i);
    sum += weights[i]!;
  }
  return Int32Array.from(inside).sort();
}

/** The bucket in which the sum from the largest on reaches `enough`, and the sum of those above it. */
function borderOf(mass: Float64Array, enough: number): { border: number; above: number } {
  let above = 0;
  for (let border = BUCKETS - 1; border > 0; border--) {
    if (above + mass[border]! >= enough && mass[border]! > 0) return { border, above };
    above += mass[border]!;
  }
  return { border: 0, above };
}

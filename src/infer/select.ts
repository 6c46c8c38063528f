/**
 * Choosing the largest of many without sorting all of them. Ties go to the smaller index, so that results do not depend on
 * how the work is done. Legend: V values.
 */

/** Index of the largest value, the first of several. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  let largest = values[0]!;
  for (let i = 1; i < values.length; i++) {
    const value = values[i]!;
    if (value > largest) {
      largest = value;
      best = i;
    }
  }
  return best;
}

/** Indices of the `count` largest values, largest first: a heap of the best so far, most values fail its first test. */
export function largest(values: Float32Array, count: number): Int32Array {
  const size = Math.min(count, values.length);
  const heap = new Int32Array(size);
  if (size === 0) return heap;
  for (let i = 0; i < size; i++) heap[i] = i;
  for (let i = (size >> 1) - 1; i >= 0; i--) sink(heap, values, i);
  for (let i = size; i < values.length; i++) {
    // Of equal values the earlier one stays.
    if (values[i]! <= values[heap[0]!]!) continue;
    heap[0] = i;
    sink(heap, values, 0);
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

/** Steps of the histogram over log-weights; borders fall into one of them, whose members are sorted. */
const BUCKETS = 1024;

/**
 * Marks the smallest set of the largest weights that sums to at least `share` of `total`: the nucleus
 * [arXiv 1904.09751]. A weight below total·(1 − share)/V cannot be in it: all such weights together are less than
 * what may be left out. The rest is counted into a histogram of log-weights, and only the bucket with the border is sorted.
 * @param depths f32 [V]: −ln of the weights over the largest weight, ≥ 0
 * @param weights f32 [V] with sum `total`, the largest being 1
 * @returns ascending indices
 */
export function nucleus(
  depths: Float32Array,
  weights: Float32Array,
  total: number,
  share: number,
): Int32Array {
  const deepest = Math.log(weights.length / (total * Math.max(1 - share, Number.EPSILON)));
  // A hair more, for the rounding of the depths.
  const scale = BUCKETS / (Math.max(deepest, 0) * (1 + 1e-6) + 1e-6);
  const mass = new Float64Array(BUCKETS);
  for (let i = 0; i < weights.length; i++) {
    const bucket = depths[i]! * scale;
    if (bucket < BUCKETS) mass[bucket | 0]! += weights[i]!;
  }
  const { border, before } = borderOf(mass, share * total);
  const inside: number[] = [];
  const onBorder: number[] = [];
  for (let i = 0; i < weights.length; i++) {
    const bucket = depths[i]! * scale;
    if (bucket < border) inside.push(i);
    else if (bucket < border + 1) onBorder.push(i);
  }
  onBorder.sort((a, b) => depths[a]! - depths[b]! || a - b);
  let sum = before;
  for (const i of onBorder) {
    if (sum >= share * total && inside.length > 0) break;
    inside.push(i);
    sum += weights[i]!;
  }
  return Int32Array.from(inside).sort();
}

/** The bucket in which the sum from the first one on reaches `enough`, and the sum before it. */
function borderOf(mass: Float64Array, enough: number): { border: number; before: number } {
  let before = 0;
  for (let border = 0; border < mass.length; border++) {
    if (before + mass[border]! >= enough) return { border, before };
    before += mass[border]!;
  }
  return { border: mass.length - 1, before: before - mass[mass.length - 1]! };
}

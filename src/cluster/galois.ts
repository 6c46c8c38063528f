/** Finite fields of q elements, for Slim Fly. Elements are 0..q-1: digits in base p are coefficients of a polynomial. */

/** A finite field; its tables are [q, q]. */
export interface Field {
  readonly q: number;
  add(a: number, b: number): number;
  multiply(a: number, b: number): number;
  /** An element whose powers are all elements but 0. */
  readonly primitive: number;
}

/** The prime p and exponent n with p^n = q; undefined where q is no prime power. */
export function primePower(q: number): { p: number; n: number } | undefined {
  if (!Number.isInteger(q) || q < 2) return undefined;
  let p = 2;
  while (p * p <= q && q % p !== 0) p++;
  if (q % p !== 0) p = q;
  let [n, rest] = [0, q];
  while (rest % p === 0) [n, rest] = [n + 1, rest / p];
  return rest === 1 ? { p, n } : undefined;
}

/** GF(q). @throws RangeError where q is no prime power */
export function createField(q: number): Field {
  const base = primePower(q);
  if (!base) throw new RangeError(`${q} is no prime power`);
  const { p, n } = base;
  const digits = (a: number) => Array.from({ length: n }, (_, i) => Math.floor(a / p ** i) % p);
  const number = (polynomial: readonly number[]) =>
    polynomial.reduce((sum, digit, i) => sum + digit * p ** i, 0);
  const add = (a: number, b: number) => {
    const [x, y] = [digits(a), digits(b)];
    return number(x.map((digit, i) => (digit + y[i]!) % p));
  };
  // The first monic polynomial of degree n modulo which some element generates all others is irreducible.
  for (let low = 0; low < q; low++) {
    const multiply = (a: number, b: number) => number(productModulo(digits(a), digits(b), digits(low), p));
    const primitive = findPrimitive(q, multiply);
    if (primitive !== undefined) return { q, add, multiply, primitive };
  }
  throw new RangeError(`no polynomial found for GF(${q})`);
}

/** x·y modulo z^n + low(z) over GF(p); all of n coefficients, lowest first. */
function productModulo(
  x: readonly number[],
  y: readonly number[],
  low: readonly number[],
  p: number,
): number[] {
  const n = x.length;
  const product = new Array<number>(2 * n - 1).fill(0);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) product[i + j]! += x[i]! * y[j]!;
  for (let i = 2 * n - 2; i >= n; i--) {
    const top = product[i]! % p;
    for (let j = 0; j < n; j++) product[i - n + j]! += top * (p - low[j]!);
  }
  return product.slice(0, n).map((digit) => digit % p);
}

/** An element of order q - 1; undefined where there is none, as the polynomial is then not irreducible. */
function findPrimitive(q: number, multiply: (a: number, b: number) => number): number | undefined {
  for (let candidate = 1; candidate < q; candidate++) {
    let [power, order] = [candidate, 1];
    while (power > 1 && order < q) [power, order] = [multiply(power, candidate), order + 1];
    if (power === 1 && order === q - 1) return candidate;
  }
  return undefined;
}

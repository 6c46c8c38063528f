"""Goldens of LogFMT-n from a model of its own at 200 bits: test/goldens/numerics/logfmt.json.

    python scripts/goldens/logfmt.py        (needs mpmath)

The model follows the definition in the ISCA 2025 paper, section 3.2, and the choices written at the head of
src/numerics/logfmt.ts: min and step rounded to FP32, grid values e^(min + step (K - 1)) rounded to FP32, the nearer
neighbour in exact fractions with ties to the even K. Nothing of its arithmetic is shared with the TypeScript: logarithms
and exponentials come from mpmath, comparisons from fractions, packing from one large integer.

Per case: n, FP32 bits of the input, min and step, codes by linear and by logarithmic rounding, FP32 bits of the decoded
values (linear), the packed bytes in hex.
"""

import json
import pathlib
import random
import struct
from fractions import Fraction

import mpmath

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "goldens" / "numerics" / "logfmt.json"
mpmath.mp.prec = 200
RANDOM = random.Random(20250621)
MAX_FP32 = Fraction((2**24 - 1) * 2**104)


def to_fp32(x):
    """The nearest FP32 number, ties to even, as a fraction. x: mpf or Fraction."""
    if isinstance(x, Fraction):
        sign, magnitude = (-1 if x < 0 else 1), abs(x)
    else:
        sign, mantissa, exponent, _ = x._mpf_
        sign, magnitude = (-1 if sign else 1), Fraction(mantissa) * Fraction(2) ** exponent
    if magnitude == 0:
        return Fraction(0)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    quantum = Fraction(2) ** (max(exponent, -126) - 23)
    return sign * min(round(magnitude / quantum) * quantum, MAX_FP32)  # round() goes to even


def fp32(x):
    return Fraction(struct.unpack("<f", struct.pack("<f", x))[0])


def bits_of(x, negative=False):
    bits = struct.unpack("<I", struct.pack("<f", float(x)))[0]
    return bits | (0x80000000 if negative else 0)


def mpf(x):
    return mpmath.mpf(x.numerator) / mpmath.mpf(x.denominator)


def header(magnitudes, n):
    used = [x for x in magnitudes if x > 0]
    if not used:
        return Fraction(0), Fraction(0)
    top = mpmath.log(mpf(max(used)))
    low = max(mpmath.log(mpf(min(used))), top - 32 * mpmath.log(2))
    return to_fp32(low), to_fp32((top - low) / (2 ** (n - 1) - 2)) if len(set(used)) > 1 else Fraction(0)


class Grid:
    def __init__(self, n, low, step):
        self.low, self.step = low, step
        self.top = 1 if step == 0 else 2 ** (n - 1) - 1
        self.known = {0: Fraction(0)}

    def value(self, k):
        if k not in self.known:
            self.known[k] = to_fp32(mpmath.exp(mpf(self.low + self.step * (k - 1))))
        return self.known[k]

    def below(self, x):
        low, high = 0, self.top
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.value(middle) <= x else (low, middle - 1)
        return low

    def nearest(self, x, logarithmic):
        if x == 0:
            return 0
        k = self.below(x)
        if k == self.top:
            return k
        low, high = self.value(k), self.value(k + 1)
        if logarithmic:
            difference = 1 if k == 0 else x * x - low * high
        else:
            difference = (x - low) - (high - x)
        return k + 1 if difference > 0 or (difference == 0 and k % 2 == 1) else k


def pack(codes, n):
    whole = 0
    for i, code in enumerate(codes):
        whole |= code << (i * n)
    return whole.to_bytes((len(codes) * n + 7) // 8, "little").hex()


def case(name, n, values):
    """values: pairs of magnitude (a fraction that FP32 holds) and whether it is negative."""
    magnitudes = [x for x, _ in values]
    low, step = header(magnitudes, n)
    grid = Grid(n, low, step)
    sign = 2 ** (n - 1)
    coded = [[grid.nearest(x, logarithmic) | (sign if negative else 0) for x, negative in values]
             for logarithmic in (False, True)]
    decoded = [bits_of(grid.value(code % sign), code >= sign) for code in coded[0]]
    return {"name": name, "bits": n, "input": [bits_of(x, negative) for x, negative in values],
            "min": bits_of(low), "step": bits_of(step), "linear": coded[0], "log": coded[1],
            "decoded": decoded, "packed": pack(coded[0], n)}


def signed(magnitudes):
    return [(fp32(x), RANDOM.random() < 0.5) for x in magnitudes]


def ties(n):
    """A tile whose inner values lie exactly between two grid values, where FP32 holds such a point."""
    exact = []
    while len(exact) < 2:
        ends = [fp32(RANDOM.uniform(0.01, 0.02)), fp32(RANDOM.uniform(10, 20))]
        grid = Grid(n, *header(ends, n))
        points = [(grid.value(k) + grid.value(k + 1)) / 2 for k in range(1, grid.top)]
        exact = [x for x in points if to_fp32(x) == x]
    chosen = exact if len(exact) <= 40 else [exact[i * len(exact) // 40] for i in range(40)]
    beside = [to_fp32(x * (1 + Fraction(direction, 2**23))) for x in chosen for direction in (-1, 1)]
    return [(x, i % 2 == 1) for i, x in enumerate((ends + chosen + beside)[:128])]


def tiles(n):
    gauss = [RANDOM.gauss(0, 1) for _ in range(128)]
    wide = [RANDOM.gauss(0, 1) * 2 ** RANDOM.uniform(-45, 0) for _ in range(128)]
    half = [0.0 if RANDOM.random() < 0.5 else RANDOM.gauss(0, 3) for _ in range(128)]
    return {
        "gaussian": signed(map(abs, gauss)),
        "wider than 2^32": signed(map(abs, wide)),
        "half zeros": signed(map(abs, half)),
        "ties": ties(n),
        "all zero": [(Fraction(0), i % 3 == 0) for i in range(128)],
        "equal": signed([0.3] * 128),
        "one value": signed([0.0] * 60 + [7e-5] + [0.0] * 67),
        "neighbours": signed(1 + RANDOM.randrange(9) * 2.0**-23 for _ in range(128)),
        "largest": signed(RANDOM.uniform(0.2, 1) * 3.4028234e38 for _ in range(127)) + [(MAX_FP32, False)],
        "subnormal": signed(RANDOM.uniform(0, 1) * 1e-38 for _ in range(128)),
        "short": signed(abs(RANDOM.gauss(0, 2)) for _ in range(37)),
    }


if __name__ == "__main__":
    cases = [case(name, n, values) for n in (4, 5, 6, 8, 10, 11, 13, 16) for name, values in tiles(n).items()]
    OUT.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    print(OUT, OUT.stat().st_size, "bytes,", len(cases), "tiles")

"""Goldens of the number formats, from PyTorch and ml_dtypes: test/goldens/numerics/*.json.

    python scripts/goldens/float8.py        (needs numpy, torch, ml_dtypes)

formats.json  per format: `decode`, the FP32 bits of every code (E4M3, E5M2), and `encode`, pairs of FP32 bits and
              codes. Inputs: all midpoints between neighbours and their FP32 neighbours, subnormals, random bits.
              Values beyond the largest finite one are left out where PyTorch does not saturate.
              E5M6 exists in neither library: its codes come from exact fractions here.
tiles.json    DeepSeek's online quantisation: activations per 1x128 tile, weights per 128x128 block, as its
              published kernels compute them (scale = amax / 448, code = (x / scale) as E4M3), in PyTorch;
              and power-of-two scales, 2^ceil(log2(amax / 448)).
"""

import json
import pathlib
from fractions import Fraction

import ml_dtypes
import numpy as np
import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "goldens" / "numerics"
RANDOM = np.random.default_rng(20240607)


def bits_of(values):
    return np.asarray(values, dtype=np.float32).view(np.uint32)


def probes(values, largest):
    """FP32 inputs that tell rounding rules apart, for a format with these finite non-negative values."""
    values = np.unique(values.astype(np.float64))
    middle = ((values[:-1] + values[1:]) / 2).astype(np.float32)  # exact: one more bit than the format has
    near = [middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))]
    spread = np.exp2(RANDOM.uniform(-24, np.log2(largest), 400)).astype(np.float32)
    tiny = np.array([0, 1e-45, 1e-40, 1e-38, 1e-30], dtype=np.float32)
    if len(middle) > 600:
        chosen = RANDOM.choice(len(middle), 600, replace=False)
        near = [part[chosen] for part in near]
    positive = np.concatenate([*near, spread, tiny, values[-3:].astype(np.float32)])
    positive = positive[positive <= largest]
    return np.concatenate([positive, -positive]).astype(np.float32)


def torch_format(dtype, ml_dtype, container, codes):
    every = torch.arange(codes, dtype=torch.int64).to(container).view(dtype)
    decoded = every.float().numpy()
    finite = decoded[np.isfinite(decoded) & (decoded >= 0)]
    inputs = probes(finite, finite.max())
    encoded = torch.from_numpy(inputs).to(dtype).view(container).numpy()
    other = inputs.astype(ml_dtype).view(encoded.dtype)
    assert np.array_equal(encoded, other), "PyTorch and ml_dtypes disagree"
    return decoded, inputs, encoded


def e5m6_value(code):
    exponent, mantissa = code >> 6, code & 63
    if exponent == 0:
        return Fraction(mantissa, 64) * Fraction(1, 2**14)
    return (1 + Fraction(mantissa, 64)) * Fraction(2) ** (exponent - 15)


E5M6_VALUES = [e5m6_value(code) for code in range(31 * 64)]
E5M6_FLOATS = np.array([float(value) for value in E5M6_VALUES])


def e5m6_code(x):
    """Nearest code, the even one on a tie; found by comparing exact distances."""
    wanted = Fraction(abs(float(x)))
    below = min(max(int(np.searchsorted(E5M6_FLOATS, abs(float(x)), side="right")) - 1, 0), 31 * 64 - 1)
    candidates = [below] if below == 31 * 64 - 1 else [below, below + 1]
    nearest = min(candidates, key=lambda code: (abs(E5M6_VALUES[code] - wanted), code & 1))
    return nearest | (0x800 if np.signbit(x) else 0)


def formats():
    out = {}
    for name, dtype, ml_dtype in [
        ("e4m3", torch.float8_e4m3fn, ml_dtypes.float8_e4m3fn),
        ("e5m2", torch.float8_e5m2, ml_dtypes.float8_e5m2),
    ]:
        decoded, inputs, encoded = torch_format(dtype, ml_dtype, torch.uint8, 256)
        out[name] = {
            # NaN as null: its payload means nothing.
            "decode": [None if np.isnan(v) else int(b) for v, b in zip(decoded, bits_of(decoded))],
            "encode": [bits_of(inputs).tolist(), encoded.tolist()],
        }
    inputs = probes(E5M6_FLOATS, E5M6_FLOATS.max())
    out["e5m6"] = {"encode": [bits_of(inputs).tolist(), [e5m6_code(x) for x in inputs]]}
    out["bf16"] = {"encode": bf16_pairs()}
    return out


def bf16_pairs():
    raw = RANDOM.integers(0, 2**32, 1500, dtype=np.uint32)
    raw = raw[np.isfinite(raw.view(np.float32))]
    ties = (RANDOM.integers(0, 0x7F7F, 500, dtype=np.uint32) << 16) | 0x8000
    edges = np.array([0, 1, 0x8000, 0x18000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x80000000], dtype=np.uint32)
    bits = np.concatenate([raw, ties, ties - 1, ties + 1, edges])
    values = torch.from_numpy(bits.view(np.float32).copy())
    codes = values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    other = values.numpy().astype(ml_dtypes.bfloat16).view(np.uint16)
    assert np.array_equal(codes, other), "PyTorch and ml_dtypes disagree"
    return [bits.tolist(), codes.tolist()]


def rough(rows, cols, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, cols, generator=generator)
    x = x * torch.exp2(torch.randint(-20, 20, (rows, 1), generator=generator).float())
    x[torch.rand(rows, cols, generator=generator) < 0.02] *= 50
    x[torch.rand(rows, cols, generator=generator) < 0.05] = 0
    return x


def quantise(x, pow2):
    """x: one tile or block."""
    amax = x.abs().max()
    if amax == 0:
        scale = torch.tensor(1.0)
    else:
        scale = amax / 448.0
        if pow2:
            mantissa, exponent = torch.frexp(scale)  # scale = mantissa · 2^exponent, 0.5 <= mantissa < 1
            scale = torch.ldexp(torch.tensor(1.0), exponent - (mantissa == 0.5).int())
    return (x / scale).to(torch.float8_e4m3fn).view(torch.uint8), scale


def tiled(x, height, width, pow2):
    rows, cols = x.shape
    codes = torch.zeros(rows, cols, dtype=torch.uint8)
    scales = []
    for r in range(0, rows, height):
        for c in range(0, cols, width):
            part = (slice(r, r + height), slice(c, c + width))
            codes[part], scale = quantise(x[part], pow2)
            scales.append(int(bits_of(scale.item())))
    return {"codes": codes.flatten().tolist(), "scales": scales}


def tiles():
    activation, weight = rough(3, 200, 1), rough(130, 150, 2)
    activation[1, :128] = 0
    activation[2, :128] *= 448.0 / activation[2, :128].abs().max()  # a quotient of exactly one
    return {
        "activation": {"shape": list(activation.shape), "bits": bits_of(activation.flatten()).tolist(),
                       "fp32": tiled(activation, 1, 128, False), "pow2": tiled(activation, 1, 128, True)},
        "weight": {"shape": list(weight.shape), "bits": bits_of(weight.flatten()).tolist(),
                   "fp32": tiled(weight, 128, 128, False), "pow2": tiled(weight, 128, 128, True)},
    }


def write(name, value):
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / name
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    write("formats.json", formats())
    write("tiles.json", tiles())

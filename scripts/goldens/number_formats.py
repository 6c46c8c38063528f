"""Goldens of every number format, exhaustive, from ml_dtypes and PyTorch: test/goldens/numerics/exhaustive.json.

    python scripts/goldens/number_formats.py        (needs numpy, torch, ml_dtypes)

decode   FP32 bits of every code of formats with up to 8 bits, NaN as null; for wider ones SHA-256 of the FP32 bits of
         all codes (little-endian u32, every NaN as 0x7fc00000) and each 97th of them.
encode   Codes of every FP16 and every BF16 value, of all midpoints between FP16 neighbours and of the FP32 numbers
         beside these: SHA-256 of the codes (little-endian u16, NaN inputs as 0xffff) and each 97th of them. Formats
         that saturate here get their inputs clipped to their range first, as the libraries do not saturate all.
         E5M6 exists in neither library: its codes come from exact fractions.
blocks   MXFP8, MXFP6, MXFP4 as the OCP MX specification 1.0 (section 6.3) forms them, and NVFP4 as torchao's
         nvfp4_quantize does with a scale for the tensor: codes, scale codes and FP32 bits of the values.
"""

import hashlib
import json
import pathlib

import ml_dtypes
import numpy as np
import torch

from float8 import e5m6_code, e5m6_value

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "goldens" / "numerics" / "exhaustive.json"
STRIDE = 97
NAN = 0x7FC00000

TYPES = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
}
TORCH = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "e8m0": torch.float8_e8m0fnu,
         "fp16": torch.float16, "bf16": torch.bfloat16}
BITS = {"e4m3": 8, "e5m2": 8, "e3m2": 6, "e2m3": 6, "e2m1": 4, "e8m0": 8, "fp16": 16, "bf16": 16, "e5m6": 12}
SATURATES = {"e4m3": 448, "e5m2": 57344, "e3m2": 28, "e2m3": 7.5, "e2m1": 6, "e5m6": 65024}


def container(name):
    return np.uint16 if BITS[name] > 8 else np.uint8


def decode_all(name):
    count = 1 << BITS[name]
    if name == "e5m6":
        half = [float(e5m6_value(code)) for code in range(31 * 64)] + [np.inf] + [np.nan] * 63
        return np.array(half + [-x for x in half], dtype=np.float32)
    codes = np.arange(count, dtype=container(name))
    values = codes.view(TYPES[name]).astype(np.float32)
    if name in TORCH:
        kind = torch.int16 if BITS[name] == 16 else torch.uint8
        other = torch.from_numpy(codes.view(np.int16 if BITS[name] == 16 else np.uint8)).view(kind).view(TORCH[name])
        assert np.array_equal(values, other.float().numpy(), equal_nan=True), name
    return values


def decode_golden(name):
    values = decode_all(name)
    bits = values.view(np.uint32).copy()
    bits[np.isnan(values)] = NAN
    if BITS[name] <= 8:
        return [None if np.isnan(v) else int(b) for v, b in zip(values, bits)]
    return {"sha256": hashlib.sha256(bits.astype("<u4").tobytes()).hexdigest(), "samples": bits[::STRIDE].tolist()}


def inputs():
    every16 = np.arange(65536, dtype=np.uint16)
    half = every16.view(np.float16).astype(np.float32)
    brain = every16.view(ml_dtypes.bfloat16).astype(np.float32)
    finite = np.unique(half[np.isfinite(half)].astype(np.float64))
    middle = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
    beside = np.concatenate([np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf))])
    return {"fp16": half, "bf16": brain, "middles": np.concatenate([middle, beside])}


def encode(name, x):
    limit = SATURATES.get(name)
    clipped = np.clip(x, -limit, limit) if limit else x
    nan = np.isnan(x)
    if name == "e5m6":
        codes = np.array([0 if bad else e5m6_code(v) for v, bad in zip(clipped, nan)], dtype=np.uint16)
    else:
        codes = np.where(nan, np.float32(0), clipped).astype(TYPES[name]).view(container(name)).astype(np.uint16)
        if name in TORCH and name != "e8m0":
            kind = torch.int16 if BITS[name] == 16 else torch.uint8
            other = torch.from_numpy(np.where(nan, np.float32(0), clipped)).to(TORCH[name]).view(kind).numpy()
            assert np.array_equal(codes, other.view(container(name)).astype(np.uint16)), name
    codes[nan] = 0xFFFF
    return codes


def encode_golden(name):
    out = {}
    for source, x in inputs().items():
        if name == "e8m0":
            # Below 2^-126 the libraries do not round to nearest, and zero is NaN in one of them.
            x = np.where(x < 2.0**-126, np.float32(1), x)
            x = np.where(np.isnan(x), np.float32(1), x)
        codes = encode(name, x)
        out[source] = {"sha256": hashlib.sha256(codes.astype("<u2").tobytes()).hexdigest(),
                       "samples": codes[::STRIDE].tolist()}
    return out


def matrix():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((6, 96)).astype(np.float32) * np.exp2(rng.integers(-12, 12, (6, 1))).astype(np.float32)
    x[rng.random(x.shape) < 0.05] *= 40
    x[rng.random(x.shape) < 0.1] = 0
    x[1, 32:64] = 0
    x[2, 0] = 500 * 2.0**7  # its block's largest element saturates in MXFP8: 500 > 448
    x[2, 1:32] = rng.uniform(-100, 100, 31).astype(np.float32)
    x[4] *= np.float32(2.0**-60)
    return x.astype(np.float32)


def mx(x, name, emax):
    dtype, limit = TYPES[name], np.float32(SATURATES[name])
    blocks = x.reshape(x.shape[0], -1, 32)
    absmax = np.abs(blocks).max(axis=2)
    _, exponent = np.frexp(absmax)  # absmax = m · 2^exponent, m in [0.5, 1)
    shared = np.where(absmax == 0, -127, np.maximum(exponent - 1 - emax, -127))
    scales = np.exp2(shared.astype(np.float64)).astype(np.float32)
    scaled = np.clip((blocks / scales[..., None]).astype(np.float32), -limit, limit)
    codes = scaled.astype(dtype)
    values = (codes.astype(np.float32) * scales[..., None]).reshape(x.shape)
    return codes.view(np.uint8), (shared + 127).astype(np.uint8), values


def nvfp4(x):
    f4, f8 = TYPES["e2m1"], TYPES["e4m3"]
    tensor = (np.abs(x).max() / np.float32(448 * 6)).astype(np.float32)
    blocks = x.reshape(x.shape[0], -1, 16)
    block = (np.abs(blocks).max(axis=2) / np.float32(6)).astype(np.float32)
    scales = (block / tensor).astype(np.float32).clip(0, 448).astype(f8)
    total = (scales.astype(np.float32) * tensor).astype(np.float32)
    safe = np.where(total == 0, np.float32(np.inf), total)
    codes = np.clip((blocks / safe[..., None]).astype(np.float32), -6, 6).astype(f4)
    codes = np.where((total == 0)[..., None], np.zeros_like(codes), codes)
    values = (codes.astype(np.float32) * total[..., None]).reshape(x.shape)
    return codes.view(np.uint8), scales.view(np.uint8), values, tensor


def bits(values):
    return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).flatten().tolist()


def block_goldens():
    x = matrix()
    out = {"shape": list(x.shape), "input": bits(x)}
    for name, element, emax in [("mxfp8", "e4m3", 8), ("mxfp8-e5m2", "e5m2", 15), ("mxfp6-e3m2", "e3m2", 4),
                                ("mxfp6-e2m3", "e2m3", 2), ("mxfp4", "e2m1", 2)]:
        codes, scales, values = mx(x, element, emax)
        out[name] = {"codes": codes.flatten().tolist(), "scales": scales.flatten().tolist(), "values": bits(values)}
    codes, scales, values, tensor = nvfp4(x)
    out["nvfp4"] = {"codes": codes.flatten().tolist(), "scales": scales.flatten().tolist(), "values": bits(values),
                    "matrixScale": bits(tensor.reshape(1))[0]}
    return out


if __name__ == "__main__":
    names = [*TYPES, "e5m6"]
    golden = {"decode": {name: decode_golden(name) for name in names},
              "encode": {name: encode_golden(name) for name in names},
              "blocks": block_goldens()}
    OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(OUT, OUT.stat().st_size, "bytes")

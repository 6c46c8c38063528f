"""FP32 to FP8 E4M3 in PyTorch and in ml_dtypes, on one thread, timed.

    python cast_fp8.py VALUES ROWS COLS        VALUES: a file of little-endian FP32

Both only cast: unlike fathom's quantisation they look for no tile maxima and apply no scales; a second PyTorch variant
does both with 1x128 tiles, as a user of PyTorch would write it. Prints one JSON object: processor seconds per run,
medians of nine, or why a variant does not run.
"""

import json
import statistics
import sys
import time

REPEATS = 9
MIN_SECONDS = 0.005


def median_seconds(run):
    for _ in range(2):
        started = time.process_time()
        run()
        once = time.process_time() - started
    runs = max(1, int(MIN_SECONDS / once + 1))
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        for _ in range(runs):
            run()
        seconds.append((time.process_time() - started) / runs)
    return statistics.median(seconds)


def torch_cast(values):
    import torch

    torch.set_num_threads(1)
    x = torch.from_numpy(values)
    return median_seconds(lambda: x.to(torch.float8_e4m3fn))


def torch_tiles(values):
    import torch

    torch.set_num_threads(1)
    tiles = torch.from_numpy(values).view(-1, 128)

    def run():
        scales = tiles.abs().amax(dim=1, keepdim=True) / 448.0
        return (tiles / scales).to(torch.float8_e4m3fn), scales

    return median_seconds(run)


def ml_dtypes_cast(values):
    import ml_dtypes

    return median_seconds(lambda: values.astype(ml_dtypes.float8_e4m3fn))


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "ml_dtypes", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def main():
    import numpy

    rows, cols = int(sys.argv[2]), int(sys.argv[3])
    values = numpy.fromfile(sys.argv[1], dtype="<f4").reshape(rows, cols)
    out = {"versions": versions(), "seconds": {}, "failed": {}}
    for name, variant in (("torch", torch_cast), ("torch, with tiles", torch_tiles), ("ml_dtypes", ml_dtypes_cast)):
        try:
            out["seconds"][name] = variant(values)
        except Exception as problem:  # a variant that is missing must not hide the others
            out["failed"][name] = f"{type(problem).__name__}: {problem}".split("\n")[0]
    print(json.dumps(out))


main()

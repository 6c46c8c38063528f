"""Goldens of test/infer/gguf.test.ts from llama.cpp itself: the file that its converter makes of one of our golden
checkpoints, and the blocks that its quantisers make of some numbers.

    python scripts/goldens/gguf_goldens.py LLAMA_CPP_SOURCE      (v0.5.0; needs torch, transformers, numpy)

Writes test/goldens/gguf/. The converter knows tokenizers by a hash of what they do; ours is none of them, so that its
question for the name of the pre-tokenizer is answered here.
"""

import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path

source = Path(sys.argv[1])
sys.path[:0] = [str(source), str(source / "gguf-py")]

import gguf  # noqa: E402
import numpy as np  # noqa: E402
from conversion import get_model_class  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "test" / "goldens" / "gguf"
VARIANT = "v3-yarn"


def checkpoint(folder: Path) -> None:
    """The golden checkpoint with a tokenizer of as many tokens as it has embeddings."""
    for file in (ROOT / "test" / "goldens" / "transformers" / VARIANT).iterdir():
        shutil.copy(file, folder / file.name)
    for file in (OUT / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)


def convert(folder: Path, file: Path) -> None:
    model_class = get_model_class("DeepseekV3ForCausalLM")
    model_class.get_vocab_base_pre = lambda self, tokenizer: "dbrx"
    model = model_class(folder, gguf.LlamaFileType.ALL_F32, file)
    model.write()


def blocks() -> dict[str, object]:
    values = np.random.default_rng(1).standard_normal(32 * 64).astype(np.float32)
    values[:32] = 0  # a block without a scale
    values[32:64] = np.linspace(-1, 1, 32)  # ties between codes
    values[64:96] *= 1e-7  # a scale that FP16 rounds to a subnormal
    code = lambda data: base64.b64encode(np.ascontiguousarray(data).tobytes()).decode()
    quantised = {
        name: code(gguf.quantize(values.reshape(1, -1), kind))
        for name, kind in [
            ("q8_0", gguf.GGMLQuantizationType.Q8_0),
            ("q4_0", gguf.GGMLQuantizationType.Q4_0),
        ]
    }
    return {"values": code(values), **quantised}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        checkpoint(Path(name))
        convert(Path(name), OUT / f"{VARIANT}.gguf")
    (OUT / "blocks.json").write_text(json.dumps(blocks()) + "\n")


main()

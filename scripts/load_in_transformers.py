"""Loads a checkpoint folder in Hugging Face transformers and scores tokens, for comparison with `fathom score`.

    python scripts/load_in_transformers.py DIR --tokens 1,2,3

prints one JSON object: missing, unexpected and mismatched keys of loading (weights of MTP layers apart, which
transformers leaves to `generate(use_mtp=True)`), and the log-probability of every token but the first, in FP32.
Needs torch and transformers (4.5x or 5.x).
"""

import argparse
import json
import re

import torch
import transformers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--tokens", required=True, type=lambda text: [int(n) for n in text.split(",")])
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        options.folder, torch_dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    main_layers = model.config.num_hidden_layers

    def is_mtp(key):
        layer = re.match(r"model\.layers\.(\d+)\.", key)
        return layer is not None and int(layer.group(1)) >= main_layers

    ids = torch.tensor([options.tokens])
    with torch.no_grad():
        logprobs = model.eval()(input_ids=ids).logits[0].log_softmax(-1)
    scored = [logprobs[i, token].item() for i, token in enumerate(options.tokens[1:])]
    print(
        json.dumps(
            {
                "model": type(model).__name__,
                "transformers": transformers.__version__,
                "missing": sorted(info["missing_keys"]),
                "unexpected": sorted(key for key in info["unexpected_keys"] if not is_mtp(key)),
                "mismatched": sorted(str(key) for key in info["mismatched_keys"]),
                "tokens": options.tokens,
                "logprobs": scored,
            }
        )
    )


if __name__ == "__main__":
    main()

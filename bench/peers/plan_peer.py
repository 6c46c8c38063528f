"""Training estimates of llm-analysis (PyPI), timed.

    python plan_peer.py CONFIGS        CONFIGS: JSON, [{"tensor", "pipeline", "data", "microBatch", "globalBatch", "length"}, ...]

Llama-2-70B on H100, one analysis object per configuration, as its own examples make them; logging and output files are off.
Prints one JSON object: seconds per configuration, the median of rounds over all of them.
"""

import json
import logging
import statistics
import sys
import time
from importlib.metadata import version

from llm_analysis.analysis import ActivationRecomputation, LLMAnalysis
from llm_analysis.config import (
    ParallelismConfig,
    get_gpu_config_by_name,
    get_model_config_by_name,
)

SECONDS = 2.0


def main():
    logging.disable(logging.CRITICAL)
    with open(sys.argv[1]) as file:
        configs = json.load(file)
    model = get_model_config_by_name("upstage_Llama-2-70b-instruct-v2")
    gpu = get_gpu_config_by_name("h100-sxm-80gb")

    def estimate(config):
        parallelism = ParallelismConfig(
            tp_size=config["tensor"], pp_size=config["pipeline"], dp_size=config["data"]
        )
        analysis = LLMAnalysis(
            model, gpu, parallelism_config=parallelism, flops_efficiency=0.5
        )
        return analysis.training(
            batch_size_per_gpu=config["microBatch"],
            global_batch_size=config["globalBatch"],
            seq_len=config["length"],
            activation_recomputation=ActivationRecomputation.SELECTIVE,
            mlp_gated_linear_units=True,
        )

    for config in configs:
        estimate(config)
    rounds = []
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS or len(rounds) < 3:
        begun = time.perf_counter()
        for config in configs:
            estimate(config)
        rounds.append((time.perf_counter() - begun) / len(configs))
    print(
        json.dumps(
            {
                "version": version("llm-analysis"),
                "configurations": len(configs),
                "secondsEach": statistics.median(rounds),
            }
        )
    )


main()

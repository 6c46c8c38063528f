"""One estimate of Calculon, timed on the example of its README: megatron-1T on 3,072 A100.

    python calculon_peer.py CHECKOUT        CHECKOUT: git clone https://github.com/calculon-ai/calculon

Model, execution and system are read once; then what `calculon llm` does for one configuration is repeated. Prints one JSON
object: seconds per configuration, the median of all.
"""

import json
import logging
import statistics
import sys
import time

SECONDS = 3.0


def main():
    checkout = sys.argv[1]
    sys.path.insert(0, checkout)
    import calculon
    from calculon.llm.llm import Llm
    from calculon.system import System

    def read(name):
        with open(f"{checkout}/{name}") as file:
            return json.load(file)

    application = Llm.Application(read("models/megatron-1T.json"))
    # Older versions have the constructor only.
    make = getattr(Llm.Execution, "from_json", Llm.Execution)
    execution = make(read("examples/3072_t4_p64_d12_mbs4_full.json"))
    system = System(read("systems/a100_80g.json"))
    log = logging.getLogger()

    def estimate():
        model = Llm(application, log)
        model.compile(system, execution)
        model.run(system)

    estimate()
    seconds = []
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        begun = time.perf_counter()
        estimate()
        seconds.append(time.perf_counter() - begun)
    print(
        json.dumps(
            {
                "version": calculon.__version__,
                "configurations": 1,
                "secondsEach": statistics.median(seconds),
            }
        )
    )


main()

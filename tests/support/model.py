"""A real language model behind an OpenAI-compatible server, one for the whole run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.model import weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model_server() -> Iterator[str]:
    """The base URL, ending in /v1. The model is called "smollm2" and answers any name."""
    if weights() is None:
        reason = "the model is not installed (make model)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    server = subprocess.Popen(
        [sys.executable, "-m", "demo.model"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip() + "/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()

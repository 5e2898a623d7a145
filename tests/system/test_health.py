"""Health checks: they come by IP address, ask while others wait, and the image makes its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.process import RelayProcess, free_port, relay_process

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")

ONE_HOST = {"CORALMUX_ALLOWED_HOSTS": "relay.example.com"}


def check_health(address: str, **env: str) -> int:
    """The exit status of the image's own health check."""
    found = re.search(r"^HEALTHCHECK .*?CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    python, *arguments = json.loads(found[1])
    assert python == "python"
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "CORALMUX_ADDR": address, **env},
        stderr=subprocess.DEVNULL,
        timeout=30,
        check=False,
    ).returncode


@pytest.mark.slow
def test_health_checks_are_answered_whatever_hosts_are_allowed() -> None:
    with relay_process(env=ONE_HOST) as relay:
        for path in ("/health", "/ready"):
            assert relay.http("GET", path)[0] == 200
        assert relay.http("GET", "/")[0] == 400
        assert relay.http("GET", "/healthy")[0] == 400
        # A scanner must not be able to fill the log.
        assert "Invalid HTTP_HOST" not in relay.output
        assert relay.http("GET", "/", headers={"Host": "relay.example.com"})[0] == 200
        # As the image's default is written, with its host, and with a proxy for the rest.
        assert check_health(f":{relay.port}") == 0
        assert check_health(f"127.0.0.1:{relay.port}") == 0
        assert check_health(f":{relay.port}", http_proxy="http://127.0.0.1:9") == 0


def test_the_images_health_check_fails_where_nothing_listens() -> None:
    assert check_health(f":{free_port()}") == 1


def test_what_the_image_copies_is_there() -> None:
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    paths = [path for line in copies for path in line.split()]
    assert "requirements.txt" in paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.slow
def test_a_process_whose_other_requests_wait_for_the_database_is_ready(tmp_path: Path) -> None:
    """Each request has a thread of its own, so nobody's slow one is everybody's."""
    relay = RelayProcess(tmp_path).start()
    try:
        with contextlib.closing(
            sqlite3.connect(relay.state_dir / "coralmux.sqlite3", isolation_level=None)
        ) as database:
            database.execute("BEGIN IMMEDIATE")
            asyncio.run(_is_ready_meanwhile(relay, database))
    finally:
        relay.stop()


async def _is_ready_meanwhile(relay: RelayProcess, database: sqlite3.Connection) -> None:
    waiting = [
        asyncio.create_task(asyncio.to_thread(relay.http, "POST", "/api/v1/pair", admin=True))
        for _ in range(3)
    ]
    await asyncio.sleep(0.5)
    begun = time.monotonic()
    assert (await asyncio.to_thread(relay.http, "GET", "/ready"))[0] == 200
    assert time.monotonic() - begun < 1
    assert not any(task.done() for task in waiting)
    database.execute("COMMIT")
    assert {status for status, _ in await asyncio.gather(*waiting)} == {201}

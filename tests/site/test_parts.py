"""Parts that a machine lacks: installed by root, else skipped with the reason, in CI a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import parts
from tests.support.parts import Part

# It notes how it was called, and brings the program where it is asked for one.
APT_GET = """#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> calls
case "$*" in
    *" install "*broken) echo "E: Unable to locate package broken"; exit 100 ;;
    *" install "*) printf '#!/bin/sh\\n' > needle && /bin/chmod +x needle ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH: it holds an apt-get, and none of the parts."""
    (tmp_path / "apt-get").write_text(APT_GET)
    (tmp_path / "apt-get").chmod(0o755)
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        parts,
        "PARTS",
        {"broken": Part("broken", "broken"), "needle": Part("needle", "haystack")},
    )
    return tmp_path


def calls(machine: Path) -> list[str]:
    noted = machine / "calls"
    return noted.read_text().splitlines() if noted.exists() else []


def test_a_missing_part_skips_its_test_with_the_reason(machine: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"needle is not installed .*install haystack"):
        parts.need("needle")


def test_a_missing_part_fails_its_test_in_ci(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needle is not installed"):
        parts.need("needle")


def test_root_installs_what_is_missing_and_one_failure_stops_no_other(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts.install_missing()
    assert parts.need("needle") == str(machine / "needle")
    assert [call.split()[4:] for call in calls(machine)] == [
        ["update"],
        ["install", "--yes", "--no-install-recommends", "broken"],
        ["install", "--yes", "--no-install-recommends", "haystack"],
    ]
    assert "failed: E: Unable to locate package broken" in capsys.readouterr().err


def test_nothing_is_asked_of_apt_where_nothing_is_missing(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = machine / "lib" / "15" / "bin"
    folder.mkdir(parents=True)
    (folder / "needle").touch(mode=0o755)
    beside_path = Part("needle", "haystack", folders=str(machine / "lib" / "*" / "bin"))
    monkeypatch.setattr(parts, "PARTS", {"needle": beside_path})
    parts.install_missing()
    assert parts.need("needle") == str(folder / "needle")
    assert calls(machine) == []
    assert capsys.readouterr() == ("", "")


def test_nobody_but_root_installs(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    parts.install_missing()
    assert calls(machine) == []

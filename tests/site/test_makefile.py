"""`make` when run again: with nothing to install it asks no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHAT_IS_INSTALLED = (
    "requirements.txt",
    "requirements-agent.txt",
    "requirements-model.txt",
    "requirements-dev.txt",
    "pyproject.toml",
    "package.json",
    "package-lock.json",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What make looks at of a checkout where `make install` has run."""
    for name in ("Makefile", *WHAT_IS_INSTALLED):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".venv").mkdir()
    for age, stamp in ((20, ".relay"), (15, ".agent"), (10, ".model"), (10, ".dev")):
        touch(tmp_path / ".venv" / stamp, ago=age)
    (tmp_path / "node_modules").mkdir()
    for stamp in (".phone", ".dev"):
        touch(tmp_path / "node_modules" / stamp, ago=10)
    return tmp_path


def touch(path: Path, *, ago: float = 0) -> None:
    path.touch()
    os.utime(path, (time.time() - ago,) * 2)


def would_run(checkout: Path, *targets: str) -> str:
    """The commands of these targets, none of which is run."""
    return subprocess.run(
        ["make", "-n", *targets],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


@pytest.mark.parametrize("target", ["install", "run", "demo", "test", "test-quick"])
def test_again_with_nothing_to_install_nothing_is_installed(checkout: Path, target: str) -> None:
    commands = would_run(checkout, target)
    assert "pip" not in commands
    assert "npm ci" not in commands
    assert ("coralmux-relay -addr" in commands) is (target == "run")
    assert ("python -m demo" in commands) is (target == "demo")
    assert ("python -m pytest" in commands) is target.startswith("test")


@pytest.mark.parametrize(
    ("changed", "target", "installs"),
    [
        ("requirements.txt", "run", "-r requirements.txt"),
        ("requirements.txt", "test-quick", "-r requirements.txt"),
        ("pyproject.toml", "run", "--editable ."),
        ("requirements-agent.txt", "demo", "-r requirements-agent.txt"),
        ("requirements-dev.txt", "test-quick", "-r requirements-dev.txt"),
    ],
)
def test_what_changed_is_installed_again(
    checkout: Path, changed: str, target: str, installs: str
) -> None:
    touch(checkout / changed)
    assert any(
        "pip install" in line and line.endswith(installs)
        for line in would_run(checkout, target).splitlines()
    )


@pytest.mark.parametrize(
    ("target", "all_of_them"), [("run", False), ("demo", False), ("test", True)]
)
def test_who_only_serves_the_phone_does_not_install_what_checks_it(
    checkout: Path, target: str, all_of_them: bool
) -> None:
    touch(checkout / "package-lock.json")
    commands = would_run(checkout, target)
    assert commands.count("npm ci") == 1
    assert ("--omit=dev" not in commands) is all_of_them


@pytest.mark.parametrize("ci", ["true", ""])
def test_without_npm_only_ci_gives_up(checkout: Path, ci: str) -> None:
    touch(checkout / "package-lock.json")
    programs = checkout / "programs"
    programs.mkdir()
    for name in ("sh", "test", "touch"):
        (programs / name).symlink_to(str(shutil.which(name)))
    made = subprocess.run(
        [str(shutil.which("make")), "node_modules/.phone"],
        cwd=checkout,
        env={"PATH": str(programs), "CI": ci},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "install Node.js 20" in made.stdout
    assert (made.returncode != 0) is (ci == "true")


def test_running_the_relay_installs_nothing_for_the_tests(checkout: Path) -> None:
    touch(checkout / "requirements-agent.txt")
    touch(checkout / "requirements-dev.txt")
    assert "pip" not in would_run(checkout, "run")


def test_the_demo_installs_nothing_for_the_tests(checkout: Path) -> None:
    touch(checkout / "requirements-dev.txt")
    assert "pip" not in would_run(checkout, "demo")


def test_what_the_demo_is_told_reaches_it(checkout: Path) -> None:
    told = would_run(checkout, "demo", "LAN=192.168.1.20", "PORT=8443", "STATE=there")
    assert "--state there/demo --port 8443 --lan 192.168.1.20" in told


def test_nothing_is_pinned_twice() -> None:
    files = [ROOT / name for name in WHAT_IS_INSTALLED if name.endswith(".txt")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    pinned = [line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line]
    assert len(pinned) > 100
    assert len(pinned) == len(set(pinned))


def test_the_agent_needs_nothing_that_is_not_pinned() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for name in ("requirements.txt", "requirements-agent.txt")
        for line in (ROOT / name).read_text().splitlines()
        if "==" in line
    }
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = extras["dependencies"]
    for extra in ("bridge", "phone"):
        wanted = wanted + extras["optional-dependencies"][extra]
    assert {re.split(r"[<>=;\[ ]", line)[0] for line in wanted} <= pinned


def test_the_lock_file_has_every_package_for_every_machine() -> None:
    """Where one is missing, `npm ci` installs nothing; npm leaves out what its registry lacks."""
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    wanted = {
        name
        for package in locked.values()
        for kind in ("dependencies", "devDependencies", "optionalDependencies")
        for name in package.get(kind, {})
    }
    assert len(wanted) > 20
    assert {f"node_modules/{name}" for name in wanted} <= set(locked)

"""Real parts that a machine may lack: programs that tests start, by Debian's packages.

`make test` runs this module first: it installs what is missing where it is root
and there is apt-get. A test asks for its part by `need`, which skips the test
with the reason where there is still none. In CI a missing part is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from glob import glob
from typing import NoReturn

import pytest


@dataclass(frozen=True)
class Part:
    """A program and its Debian package; `folders` is a glob beside PATH to look in.

    Without a package it is not installed here, and `elsewhere` says where it comes from.
    """

    program: str
    package: str = ""
    folders: str = ""
    elsewhere: str = ""

    @property
    def advice(self) -> str:
        """How one gets it."""
        return self.elsewhere or f"Debian: apt-get install {self.package}"

    def find(self) -> str | None:
        """The program's path, or None."""
        folders = sorted(glob(self.folders), reverse=True)
        return shutil.which(self.program, path=os.pathsep.join([os.environ["PATH"], *folders]))


PARTS = {
    "chromium": Part("chromium", package="chromium"),
    # Debian 12 has version 18; and npm has come before, with `make install`.
    "node": Part("node", elsewhere="Node.js 20 or newer, with npm"),
}


def need(name: str) -> str:
    """The path of a part's program; without it the test is skipped, and fails in CI."""
    part = PARTS[name]
    path = part.find()
    if path is None:
        lacking(f"{part.program} is not installed ({part.advice})")
    return path


def lacking(reason: str, *, allow_module_level: bool = False) -> NoReturn:
    """Skip the test, or with `allow_module_level` all of a module, and fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=allow_module_level)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path."""
    return need("chromium")


def install_missing() -> None:
    """Install what is missing, if this user may; what fails is left to `need`."""
    missing = [part.package for part in PARTS.values() if part.package and not part.find()]
    apt = shutil.which("apt-get")
    if not missing or apt is None or os.geteuid() != 0:
        return
    # Without fresh lists a package may be unknown, or gone from the mirror.
    _run(apt, "update")
    # One by one: a package that this release does not have stops no other.
    for package in missing:
        sys.stderr.write(f"Installing Debian's {package} ...\n")
        _run(apt, "install", "--yes", "--no-install-recommends", package)


def _run(apt: str, *arguments: str) -> None:
    command = [apt, "-o", "Acquire::http::Timeout=20", "-o", "DPkg::Lock::Timeout=120", *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        why = (done.stdout.strip() or "no output").splitlines()[-1]
        sys.stderr.write(f"apt-get {' '.join(arguments)} failed: {why}\n")


if __name__ == "__main__":
    install_missing()

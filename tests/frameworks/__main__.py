"""Tests the bridge with each framework, in an environment of its own.

    python -m tests.frameworks            # all of them
    python -m tests.frameworks crewai -k phone

makes what is missing of `.venv-frameworks/<name>` (or FRAMEWORKS_DIR/<name>) from the
framework's lock file, and runs its tests there. The relay and the model run here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
HOME = Path(os.environ.get("FRAMEWORKS_DIR") or ROOT / ".venv-frameworks").absolute()
NAMES = sorted(path.stem for path in HERE.glob("*.txt"))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def python_of(name: str) -> Path:
    return HOME / name / ("Scripts" if os.name == "nt" else "bin") / "python"


def install(name: str) -> bool:
    """Make the environment where it is not of this lock file; whether it is there."""
    lock = HERE / f"{name}.txt"
    stamp = HOME / name / ".lock"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return True
    begun = time.monotonic()
    count = sum(not line.startswith("#") for line in lock.read_text().splitlines())
    say(f"{name}: installing {count} packages into {HOME / name} ...")
    shutil.rmtree(HOME / name, ignore_errors=True)
    venv.create(HOME / name, with_pip=True)
    pip = [str(python_of(name)), "-m", "pip", "--disable-pip-version-check"]
    for command in (["install", "--quiet", "--no-deps", "-r", str(lock)], ["check"]):
        if subprocess.run([*pip, *command], check=False).returncode:
            say(f"{name}: FAILED, cannot be installed from {lock.relative_to(ROOT)}.")
            return False
    stamp.write_text(wanted)
    say(f"{name}: installed in {time.monotonic() - begun:.0f} s.")
    return True


def test(name: str, model: str, options: list[str]) -> bool:
    say(f"{name}: testing ...")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"coralmux-{name}-") as home:
        done = subprocess.run(
            [
                str(python_of(name)),
                *("-m", "pytest", "-q"),
                *("-c", str(HERE / "pytest.ini"), "--rootdir", str(ROOT)),
                *("--confcutdir", str(HERE)),
                str(HERE / f"test_{name}.py"),
                *options,
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                # Frameworks keep files of their own there.
                "HOME": home,
                "XDG_DATA_HOME": home,
                "FRAMEWORK": name,
                "FRAMEWORK_MODEL": model,
                "FRAMEWORK_RELAY_PYTHON": sys.executable,
            },
            check=False,
        )
    # 5: nothing there is of the kind that was asked for.
    good = done.returncode in ((0, 5) if options else (0,))
    say(f"{name}: {'passed' if good else 'FAILED'} in {time.monotonic() - begun:.0f} s.")
    return good


@contextmanager
def model() -> Iterator[str]:
    """The base URL of the model's server."""
    server = subprocess.Popen(
        [sys.executable, "-m", "demo.model"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        if not address:
            sys.exit("The model does not run here. Type: make model")
        yield f"{address}/v1"
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def main(arguments: list[str]) -> int:
    names = []
    while arguments and not arguments[0].startswith("-"):
        names.append(arguments.pop(0))
    if unknown := set(names) - set(NAMES):
        say(f"There is no {', '.join(sorted(unknown))}. There are: {', '.join(NAMES)}.")
        return 2
    there = {name: install(name) for name in names or NAMES}
    with model() as address:
        passed = {name: good and test(name, address, arguments) for name, good in there.items()}
    for name, good in passed.items():
        say(f"{name:<12} {'passed' if good else 'FAILED'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

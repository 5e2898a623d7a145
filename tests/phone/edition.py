"""A relay that serves a phone of another edition, made of a copy of the files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.process import FAST, RelayProcess

ROOT = Path(__file__).parents[2]

_RUN = """\
import sys
sys.path.insert(0, {copy!r})
from coralmux_site.cli import main
main()
"""


class Editions:
    """One relay, one after the other with different files: start, `change`, `restart`."""

    def __init__(self, directory: Path) -> None:
        self._copy = directory / "copy"
        for name in ("coralmux_site", "static"):
            shutil.copytree(ROOT / name, self._copy / name)
        for name in ("templates", "node_modules"):
            (self._copy / name).symlink_to(ROOT / name)
        run = [sys.executable, "-c", _RUN.format(copy=str(self._copy)), "-addr", "127.0.0.1:{port}"]
        self.relay = RelayProcess(directory, env=FAST, command=run)

    def change(self, file: str, old: str, new: str) -> None:
        """In one of the phone's files; seen after the next start."""
        path = self._copy / "static" / "phone" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def restart(self) -> None:
        self.relay.stop()
        self.relay.start()

"""The command `coralmux-agent`: looks whether what it needs is installed, and starts it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

# The extra `bridge`. The library itself does without.
_NEEDED = ("click", "httpx", "psutil", "rich", "structlog", "tomlkit")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Exit status: see `commands`."""
    if any(find_spec(name) is None for name in _NEEDED):
        sys.stderr.write("coralmux-agent needs: pip install 'coralmux[bridge]'\n")
        sys.exit(1)
    from coralmux.bridge.commands import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    main()

"""Text for people: what of a stranger's words may reach a terminal or a log, and times.

Pure functions. Names, errors and answers come from the other end, and the relay's words
from anybody; a terminal obeys what it is sent, so none of it goes there unfiltered.
"""

from __future__ import annotations

import re

_LONGEST_LINE = 2000

# C0 without tab and line feed, DEL, and C1: a terminal in UTF-8 obeys those as well.
_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))

# A link's values, and a token as relays make them, wherever they stand in a text.
_CONFIDENTIAL = re.compile(r"((?:token|psk)=)[^&#\s'\")]{4,}|oc_pair_\w+", re.IGNORECASE)


def without_controls(text: str) -> str:
    """Text as a terminal may have it: no control character but line feed and tab."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """Text of others for the middle of a line of ours: printable, and no longer than fits."""
    kept = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_LINE])
    return " ".join(kept.split())


def discreet(text: str) -> str:
    """A text without whatever in it may be a token or a secret."""
    return _CONFIDENTIAL.sub(lambda found: f"{found[1] or ''}…", text)


def duration(seconds: float) -> str:
    """A time for people: "7 s", "5 min", "3 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"

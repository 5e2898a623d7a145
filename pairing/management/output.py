"""What the token commands print: aligned tables for people, JSON for programs."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, DjangoHelpFormatter
from django.core.serializers.json import DjangoJSONEncoder
from django.db import OperationalError
from django.template.defaultfilters import filesizeformat

_UNITS = {
    "": "seconds",
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
    "d": "days",
    "w": "weeks",
}


class HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples."""


class TokenCommand(BaseCommand):
    """A command with `--json` and examples below its help."""

    examples = ""
    # They still work; they would only hide the four options that matter.
    suppressed_base_arguments = {
        "--version",
        "--verbosity",
        "--settings",
        "--pythonpath",
        "--traceback",
        "--no-color",
        "--force-color",
        "--skip-checks",
    }

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        command = f"{Path(prog_name).name} {subcommand}".strip()
        kwargs.setdefault("formatter_class", HelpFormatter)
        kwargs.setdefault("epilog", "Examples:\n" + self.examples.format(command=command))
        return super().create_parser(prog_name, subcommand, **kwargs)

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute(*args, **options)
        except OperationalError as error:
            raise CommandError(
                f"The database does not answer: {error}. If it is new, start the relay once "
                "or run `manage.py migrate`."
            ) from None

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON, for programs.")

    def print_json(self, value: object) -> None:
        self.stdout.write(json.dumps(value, cls=DjangoJSONEncoder, indent=2, ensure_ascii=False))

    def print_table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        for line in table(head, rows):
            self.stdout.write(line)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of columns, two spaces apart; numbers and sizes to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    right = [
        bool(texts) and all(re.match(r"\d+$|[\d.]+ (bytes|[KMGTP]B)$", row[index]) for row in texts)
        for index in range(len(head))
    ]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [list(head), *texts]
    ]


def size(count: int) -> str:
    """Bytes for people: `1.5 MB`, in units of 1,024."""
    return filesizeformat(count).replace("\xa0", " ").replace("1 byte", "1 bytes")


def moment(when: datetime | None) -> str:
    """A UTC time to the minute, or a dash."""
    return "-" if when is None else when.strftime("%Y-%m-%d %H:%M")


def duration(text: str) -> timedelta:
    """A time like 90, 90s, 15m, 12h, 7d or 2w, for argparse."""
    found = re.fullmatch(r"(\d{1,9})([smhdw]?)", text.strip())
    if found is None or int(found[1]) == 0:
        raise ArgumentTypeError(
            f"{text!r} is no duration: give seconds, or a number with s, m, h, d or w (7d)"
        )
    try:
        span = timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        span = timedelta.max
    if span > timedelta(days=36_600):
        raise ArgumentTypeError(f"{text!r} is more than a century: leave it out instead")
    return span


def days(text: str) -> int:
    """A number of days from 1 to 36,600, for argparse."""
    if not re.fullmatch(r"\d{1,5}", text) or not 1 <= int(text) <= 36_600:
        raise ArgumentTypeError(f"{text!r} is no number of days from 1 to 36600")
    return int(text)

"""Delete what nobody needs any more."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.utils import timezone

from pairing import services
from pairing.management.output import TokenCommand, days


class Command(TokenCommand):
    help = (
        "Delete tokens that were revoked or expired some time ago, with their usage; usage older "
        "than 400 days; expired admin sessions and old log-in records. A running relay does this "
        "by itself."
    )
    examples = """\
  {command}                  revoked or expired more than 30 days ago
  {command} --days 365 --json
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--days", type=days, default=30, metavar="N", help="Keep them for N days (30)."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        pruned = services.prune(before=timezone.now() - timedelta(days=options["days"]))
        if options["json"]:
            self.print_json(asdict(pruned))
            return
        self.stdout.write(
            f"Deleted {pruned.tokens} tokens, {pruned.usage} days of usage, "
            f"{pruned.sessions} sessions, {pruned.logins} log-in records."
        )

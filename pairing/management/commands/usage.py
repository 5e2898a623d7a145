"""Show what tokens used, day by day."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from pairing import services
from pairing.management.output import TokenCommand, days, size


class Command(TokenCommand):
    help = "Show bytes and messages by token and UTC day. A running relay writes them every second."
    examples = """\
  {command}                  the last 30 days
  {command} --days 1         today
  {command} --token 12 --json
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--days", type=days, default=30, metavar="N", help="Today and the N-1 days before (30)."
        )
        parser.add_argument("--token", type=int, metavar="ID", help="Only this token's.")

    def handle(self, *_args: Any, **options: Any) -> None:
        rows = services.usage_report(days=options["days"], token_id=options["token"])
        if options["json"]:
            self.print_json(
                [
                    {
                        "day": row.day,
                        "token_id": row.token_id,
                        "prefix": row.token.prefix,
                        "label": row.token.label,
                        "bytes_from_phone": row.bytes_from_phone,
                        "bytes_from_agent": row.bytes_from_agent,
                        "messages_from_phone": row.messages_from_phone,
                        "messages_from_agent": row.messages_from_agent,
                    }
                    for row in rows
                ]
            )
            return
        if not rows:
            self.stderr.write("Nothing was used in that time.")
            return
        self.print_table(
            ("DAY (UTC)", "ID", "TOKEN", "FROM PHONE", "FROM AGENT", "MESSAGES", "LABEL"),
            [
                (
                    row.day,
                    row.token_id,
                    f"{row.token.prefix}…",
                    size(row.bytes_from_phone),
                    size(row.bytes_from_agent),
                    row.messages_from_phone + row.messages_from_agent,
                    row.token.label,
                )
                for row in rows
            ],
        )

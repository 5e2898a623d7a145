"""Issue a pairing token and print it, this once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from pairing import services
from pairing.management.output import TokenCommand, duration


class Command(TokenCommand):
    help = "Issue a pairing token for one phone and one agent. It is printed this once."
    examples = """\
  {command} --label "my phone"
  {command} --label visitor --expires-in 7d
  TOKEN=$({command})            only the token goes to standard output
  {command} --json | jq -r .token
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--label", default="", help="For you to recognise it.")
        parser.add_argument(
            "--expires-in",
            type=duration,
            metavar="TIME",
            help="Seconds, or a number with s, m, h, d or w: 7d. Left out: never.",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        span = options["expires_in"]
        try:
            issued = services.issue(
                label=options["label"], expires_at=timezone.now() + span if span else None
            )
        except services.InvalidValue as error:
            raise CommandError(str(error)) from None
        record = issued.record
        if options["json"]:
            self.print_json(
                {
                    "id": record.pk,
                    "token": issued.token,
                    "prefix": record.prefix,
                    "label": record.label,
                    "expires_at": record.expires_at,
                }
            )
            return
        self.stdout.write(issued.token)
        self.stderr.write(
            f"This is token {record.pk}, shown only now. Give it to the agent and to the phone.",
            self.style.NOTICE,
        )

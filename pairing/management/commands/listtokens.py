"""List pairing tokens and what they use."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from pairing import services
from pairing.management.output import TokenCommand, moment, size


class Command(TokenCommand):
    help = "List pairing tokens, newest first. The tokens themselves are stored nowhere."
    examples = """\
  {command}
  {command} --all --json
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--all", action="store_true", help="Revoked and expired ones too.")

    def handle(self, *_args: Any, **options: Any) -> None:
        tokens = services.list_tokens(include_inactive=options["all"])
        if options["json"]:
            self.print_json(
                [
                    {
                        "id": token.pk,
                        "prefix": token.prefix,
                        "label": token.label,
                        "state": token.state(),
                        "created_at": token.created_at,
                        "expires_at": token.expires_at,
                        "revoked_at": token.revoked_at,
                        "phone_seen_at": token.phone_seen_at,
                        "agent_seen_at": token.agent_seen_at,
                        "bytes_today": token.used_today,
                        "bytes_this_month": token.used_this_month,
                    }
                    for token in tokens
                ]
            )
            return
        if not tokens:
            self.stderr.write("No tokens yet. Issue one with: issuetoken --label NAME")
            return
        self.print_table(
            (
                "ID",
                "TOKEN",
                "STATE",
                "TODAY",
                "MONTH",
                "CREATED (UTC)",
                "PHONE SEEN",
                "AGENT SEEN",
                "LABEL",
            ),
            [
                (
                    token.pk,
                    f"{token.prefix}…",
                    token.state(),
                    size(token.used_today),
                    size(token.used_this_month),
                    moment(token.created_at),
                    moment(token.phone_seen_at),
                    moment(token.agent_seen_at),
                    token.label,
                )
                for token in tokens
            ],
        )

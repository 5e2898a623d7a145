"""Revoke a pairing token."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from pairing import services
from pairing.management.output import TokenCommand


class Command(TokenCommand):
    help = (
        "Revoke a pairing token: nobody gets in with it any more, and a running relay "
        "closes its connections within a second. There is no way back."
    )
    examples = """\
  {command} 12                        by its id, as listtokens shows it
  {command} oc_pair_a1b2              by its first characters
  {command} - < token.txt             the token itself, kept out of the shell's history
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "token",
            metavar="ID|PREFIX|TOKEN|-",
            help="Which one; - reads it from standard input.",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        name = options["token"]
        if name == "-":
            name = sys.stdin.readline()
        token_id = self._find(name.strip())
        try:
            revoked = services.revoke(token_id=token_id)
        except services.UnknownToken:
            raise CommandError(f"There is no token {token_id}. listtokens shows them.") from None
        if options["json"]:
            self.print_json({"id": token_id, "revoked": revoked})
        elif revoked:
            self.stdout.write(f"Revoked token {token_id}.")
        else:
            self.stdout.write(f"Token {token_id} was revoked already.")

    def _find(self, name: str) -> int:
        """The id that an id, the first characters or the whole token stand for."""
        if re.fullmatch(r"[0-9]{1,18}", name):
            return int(name)
        try:
            found = services.find(name)
        except services.InvalidValue as error:
            raise CommandError(str(error)) from None
        if len(found) == 1:
            return found[0]
        # What was typed is not repeated: it may be a token.
        if not found:
            raise CommandError("No token matches. listtokens --all shows them with their ids.")
        ids = ", ".join(map(str, found))
        raise CommandError(f"Several tokens begin like that; give one of these ids: {ids}.")
